"""``apftrace batch``: archives of traces, and what they say together."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apftrace.cli.analyze import nanoseconds
from apftrace.cli.screen import say

if TYPE_CHECKING:
    from apftrace.batch.run import Batch

_SEVERITIES = ("error", "warning", "info")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Size(click.ParamType[int]):
    """Bytes, as in 512M or 2G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return a number of bytes."""
        if isinstance(value, int):
            return value
        number = str(value).strip().lower().removesuffix("b").removesuffix("i")
        unit = number[-1:] if number[-1:].isalpha() else ""
        try:
            return int(float(number.removesuffix(unit)) * _UNITS[unit])
        except (KeyError, ValueError, OverflowError):
            self.fail(f"{value!r} is not a size such as 512M or 2G", param, ctx)


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results.",
)
@click.option("--jobs", type=click.IntRange(1), help="Worker processes. Default: one per CPU.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=300,
    show_default=True,
    help="Seconds that one trace may take.",
)
@click.option(
    "--memory",
    type=Size(),
    help="Memory that one trace may take, such as 2G. Default: 70 % of this machine's, over the workers.",
)
@click.option(
    "--max-size",
    type=Size(),
    default="2G",
    show_default=True,
    help="Bytes that a member of an archive may unpack to.",
)
@click.option(
    "--labels",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Where a path tells the {kernel}, {host} and {job}; may be repeated.",
)
@click.option("--late-after", metavar="TIME", help="As for analyze.")
@click.option(
    "--fail-on",
    type=click.Choice((*_SEVERITIES, "never")),
    default="error",
    show_default=True,
    help="Exit with 1 when there is a finding at least this severe.",
)
@click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever was found.")
def batch(
    sources: tuple[str, ...],
    output: Path,
    jobs: int | None,
    timeout: float,
    memory: int | None,
    max_size: int,
    patterns: tuple[str, ...],
    late_after: str | None,
    fail_on: str,
    exit_zero: bool,
) -> None:
    """Analyse every trace in files, folders, globs, archives and behind URLs.

    A SOURCE may be a zip, a tar or compressed, and - reads a list of sources from standard input. A second
    run with the same folder takes up what is there and leaves the same bytes as one that nobody stopped.

    \b
    Exit status: 0 no finding at --fail-on, 1 there is one, 2 usage, 3 nothing could be read,
    4 some inputs could not be read, or a verdict is unsafe.

    \b
    Example:
      apftrace batch nightly/ artifacts.zip -o results
      apftrace batch 's3://bucket/traces/**/*.dat' -o results --labels '{kernel}/{host}/*.dat'
    """
    threshold = nanoseconds(late_after)
    from apftrace.batch.children import Caps
    from apftrace.batch.limits import Limits
    from apftrace.batch.run import Settings, run_batch
    from apftrace.cli.progress import progress

    workers = jobs or len(os.sched_getaffinity(0))
    settings = Settings(
        sources=tuple(_listed(sources)),
        output=output,
        jobs=workers,
        caps=Caps(timeout, memory or _share(workers)),
        limits=Limits(size=max_size),
        late_after=threshold,
        patterns=patterns,
    )
    with progress() as shown:
        done = run_batch(settings, shown)
    sys.exit(0 if exit_zero else status(done, fail_on))


def _listed(sources: tuple[str, ...]) -> list[str]:
    out = []
    for source in sources:
        if source == "-":
            text = os.fsdecode(sys.stdin.buffer.read())
            out += [line for line in text.split("\0" if "\0" in text else "\n") if line.strip()]
        else:
            out.append(source)
    return out


def _share(workers: int) -> int:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(whole * 0.7 / workers)


def status(done: Batch, fail_on: str) -> int:
    """Return the exit status: 1 beats 3 and 4, because a finding stands whatever else failed."""
    if fail_on != "never":
        severe = _SEVERITIES[: _SEVERITIES.index(fail_on) + 1]
        if any(line["counts"]["findings"].get(one) for line in done.analysed for one in severe):
            return 1
    if not done.analysed:
        say("no trace could be analysed")
        return 3
    unsafe = any(line["unsafe"] or line["verdict"] == "unusable" for line in done.analysed)
    return 4 if done.failed or unsafe else 0
