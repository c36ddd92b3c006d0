"""``apftrace batch``: archives of traces, and what they say together."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apftrace.cli.analyze import nanoseconds
from apftrace.cli.screen import say
from apftrace.grades import NEVER, SEVERITIES

if TYPE_CHECKING:
    from apftrace.batch.overview import Batch

_LABELS = ("kernel", "host", "job")
_STEP_SUMMARY = 1 << 20
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
    "--cluster", metavar="ADDRESS", help="Have the work done by the Dask cluster of this scheduler."
)
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
    "--reports",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Traces that get a page of their own at most: those with errors, then those with the longest lives.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, exists=True),
    help="Folder of an earlier batch, or its runs.jsonl: say what changed since.",
)
@click.option(
    "--group-by",
    metavar="LABELS",
    default="kernel",
    show_default=True,
    help="Labels by which the baseline is compared: kernel, host, job, several with commas, or none.",
)
@click.option(
    "--min-effect",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    help="Percent by which a phase must have become slower to matter.",
)
@click.option(
    "--allow",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML file of what is known: rule, scope, reason, and when that expires.",
)
@click.option(
    "--fail-on",
    type=click.Choice((*SEVERITIES, NEVER)),
    default="error",
    show_default=True,
    help="Exit with 1 when there is a finding at least this severe.",
)
@click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever was found.")
def batch(
    sources: tuple[str, ...],
    output: Path,
    jobs: int | None,
    cluster: str | None,
    timeout: float,
    memory: int | None,
    max_size: int,
    patterns: tuple[str, ...],
    late_after: str | None,
    reports: int,
    baseline: Path | None,
    group_by: str,
    min_effect: float,
    allow: Path | None,
    fail_on: str,
    exit_zero: bool,
) -> None:
    """Analyse every trace in files, folders, globs, archives and behind URLs.

    A SOURCE may be a zip, a tar or compressed, and - reads a list of sources from standard input. A second
    run with the same folder takes up what is there and leaves the same bytes as one that nobody stopped.

    \b
    Exit status: 0 no finding at --fail-on, 1 there is one that is not allowed, or a regression, 2 usage,
    3 nothing could be read or the results not be written, 4 some inputs could not be read, or a verdict is
    unsafe. 1 beats 3 and 4.

    \b
    Example:
      apftrace batch nightly/ artifacts.zip -o results
      apftrace batch 's3://bucket/traces/**/*.dat' -o results --labels '{kernel}/{host}/*.dat'
      apftrace batch nightly/ -o results --baseline last-week/ --allow known.toml
    """
    threshold = nanoseconds(late_after)
    groups = _groups(group_by)
    from apftrace.batch.allow import BadAllowList
    from apftrace.batch.baseline import BadBaseline
    from apftrace.batch.children import Caps
    from apftrace.batch.labels import BadPattern
    from apftrace.batch.limits import Limits
    from apftrace.batch.run import Settings, run_batch
    from apftrace.batch.store import Taken
    from apftrace.cli.progress import progress

    workers = jobs or _cpus()
    settings = Settings(
        sources=tuple(_listed(sources)),
        output=output,
        jobs=workers,
        caps=Caps(timeout, memory or _share(workers)),
        limits=Limits(size=max_size),
        late_after=threshold,
        patterns=patterns,
        cluster=cluster,
        reports=reports,
        baseline=baseline,
        group_by=groups,
        min_effect=min_effect / 100,
        allow=allow,
        fail_on=fail_on,
    )
    try:
        with progress() as shown:
            done = run_batch(settings, shown)
            shown.finished(done)
    except (BadPattern, BadBaseline, BadAllowList, Taken) as error:
        raise click.UsageError(str(error)) from None
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it was")
        raise
    if sys.stderr.isatty():
        say(f"report written to {output / 'index.html'}")
    _tell_github(output)
    sys.exit(0 if exit_zero else status(done))


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(part.strip() for part in text.split(",") if part.strip() not in {"", "none"})
    if not set(groups) <= set(_LABELS) or len(set(groups)) != len(groups):
        raise click.BadParameter(
            f"{text!r} is none of {', '.join(_LABELS)}, each once", param_hint="--group-by"
        )
    return groups


def _tell_github(output: Path) -> None:
    """Append the summary to that of the job; where the runner wants it, and only whole."""
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    summary = (output / "summary.md").read_bytes()
    if target and len(summary) < _STEP_SUMMARY:
        with Path(target).open("ab") as file:
            file.write(summary)


def _listed(sources: tuple[str, ...]) -> list[str]:
    out = []
    for source in sources:
        if source == "-":
            text = os.fsdecode(sys.stdin.buffer.read())
            out += [line for line in text.split("\0" if "\0" in text else "\n") if line.strip()]
        else:
            out.append(source)
    return out


def _cpus() -> int:
    # Those that a container or a batch system left us.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share(workers: int) -> int:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(whole * 0.7 / workers)


def status(done: Batch) -> int:
    """Return the exit status: 1 beats 3 and 4, because a finding stands whatever else failed."""
    if done.is_failing:
        return 1
    if not done.analysed:
        say("no trace could be analysed")
        return 3
    return 4 if done.is_unsafe else 0
