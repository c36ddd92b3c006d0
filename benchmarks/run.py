"""Measure apftrace beside its peers in one run, and print a table in Markdown.

    python benchmarks/run.py --size 256M --runs 5

The peers are trace-cmd report with a filter (-F) for the same events of the same file, and memcpy. Runs
take turns, so that a busy moment of the machine hits all alike; figures are medians.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from children import Failed, Usage, middle, run
from grow import UNITS

from apftrace.api import ASYNC_PF_EVENTS
from apftrace.model import tracepoints as tp
from apftrace_parsers.base import PassResult
from apftrace_parsers.registry import open_source

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
SAMPLE = HERE.parent / "sample-traces" / "host-v6-none.dat"
APFTRACE = (sys.executable, "-P", "-m", "apftrace")
"""What is installed: without -P it would be the sources of a checkout that this runs in, which nobody compiled."""
ANALYZED = (0, 1, 4)
"""Statuses of an analyze that came to its end."""

SHORT = 15
"""Seconds from which on a start from a cold page cache makes little of a command's time."""

_FIGURES = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end -->)", re.S)


@dataclass(frozen=True)
class Job:
    """One command to be measured."""

    name: str
    command: tuple[str, ...]
    statuses: tuple[int, ...] = (0,)


def report(trace: Path, events: Sequence[str]) -> tuple[str, ...]:
    """Return the command that prints some events of a trace; -F counts only when it stands before -i."""
    return ("trace-cmd", "report", "-F", ",".join(events), "-i", str(trace))


def jobs(small: Path, tenth: Path, large: Path, quiet: Path | None, folder: Path) -> list[Job]:
    """Return everything that is measured as a whole process; ``quiet`` is a large trace with few faults."""
    five = [f"kvm/{name}" for name in ASYNC_PF_EVENTS]
    out = []
    for name, trace in (("tenth", tenth), ("large", large)):
        out += [
            Job(f"events {name}", (*APFTRACE, "events", str(trace), "-o", str(folder / "out.parquet"))),
            Job(f"analyze {name}", analyze(trace, folder / "out.txt"), ANALYZED),
        ]
    if quiet:
        out += [
            Job("analyze quiet", analyze(quiet, folder / "out.txt"), ANALYZED),
            Job("report quiet", report(quiet, used(quiet))),
        ]
    return [
        *out,
        Job("report five", report(large, five)),
        Job("report all", report(large, used(large))),
        Job("text", analyze(small, folder / "out.txt"), ANALYZED),
        Job("html", analyze(small, folder / "out.html"), ANALYZED),
        Job("help", (*APFTRACE, "--help")),
    ]


def analyze(trace: Path, output: Path) -> tuple[str, ...]:
    """Return the command that writes a report."""
    return (*APFTRACE, "analyze", str(trace), "-o", str(output))


def used(trace: Path) -> list[str]:
    """Return the events of a trace that an analysis reads, the way trace-cmd names them."""
    source = open_source(trace)
    resolved = (found for found in source.resolve(tp.PICKS) if found)
    return [found.event.replace(":", "/") for found in resolved]


def make(trace: Path, size: int, then: Path | None) -> None:
    """Grow the sample in a process of its own: the peak memory of a child is never less than its parent's was."""
    also = ("--then", str(then)) if then else ()
    command = (sys.executable, str(HERE / "grow.py"), str(SAMPLE), str(trace), "--size", str(size), *also)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def counted(trace: Path) -> dict[str, int]:
    """Return how many hits of each tracepoint a trace holds."""
    result = PassResult()
    for _ in open_source(trace).stream((), result):
        pass
    return result.counts


def check_filter(trace: Path) -> None:
    """Make sure that the peer really filters: it must print one line per event, and nothing else.

    Raises:
        Failed: it does not.
    """
    counts = counted(trace)
    wanted = "kvm_async_pf_ready"
    printed = subprocess.run(report(trace, [f"kvm/{wanted}"]), capture_output=True, text=True, check=False)
    lines = [line for line in printed.stdout.splitlines() if ": " in line]
    if len(lines) != counts[wanted] or any(wanted not in line for line in lines):
        raise Failed(f"trace-cmd report -F printed {len(lines)} lines for {counts[wanted]} {wanted}")


def measure(every: Sequence[Job], runs: int) -> dict[str, Usage]:
    """Run all jobs in turn, ``runs`` times after one that only warms up; return medians by name.

    While a long one runs, a system short of memory may drop what the others start from, and a short one would be
    measured by how quickly that comes back: so each short one is run once more right before.
    """
    taken: dict[str, list[Usage]] = {job.name: [] for job in every}
    short: set[str] = set()
    for number in range(runs + 1):
        for job in every:
            if job.name in short:
                run(job.command, job.statuses)
            usage = run(job.command, job.statuses)
            if number:
                taken[job.name].append(usage)
            elif usage.wall < SHORT:
                short.add(job.name)
        print(f"run {number} of {runs} done", file=sys.stderr)
    return {name: middle(usages) for name, usages in taken.items()}


def walks(trace: Path, runs: int) -> dict[str, float]:
    """Return the medians of what walk.py prints, which are the least of several rounds each."""
    command = (sys.executable, str(HERE / "walk.py"), str(trace))
    found = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(runs)]
    return {key: median(one[key] for one in found) for key in found[0]}


def table(
    took: dict[str, Usage], walked: dict[str, float], sizes: tuple[int, int], quiet: str | None
) -> list[str]:
    """Return the rows of the table; ``quiet`` says what the large trace with few faults is."""
    tenth, large = sizes
    rate = {key: walked["bytes"] / walked[key] for key in ("memcpy", "read", "walk")}
    # On one core the reading and the walk of what was read add up.
    rate["decode"] = walked["bytes"] / (walked["walk"] - walked["read"])
    engine = "compiled" if walked["compiled"] else "not compiled"
    rows = [
        ("what", "apftrace", "peer", "apftrace is"),
        ("-", "-", "-", "-"),
        (
            f"walk every record, one core, {engine}, reading included",
            f"{rate['walk'] / 1e9:.2f} GB/s, {walked['walk'] / walked['records'] * 1e9:.1f} ns a record",
            f"memcpy {rate['memcpy'] / 1e9:.2f} GB/s, read {rate['read'] / 1e9:.2f} GB/s",
            f"{rate['walk'] / rate['memcpy']:.2f} of memcpy",
        ),
        (
            "of which the decoding alone, without the reading",
            f"{rate['decode'] / 1e9:.2f} GB/s",
            f"memcpy {rate['memcpy'] / 1e9:.2f} GB/s",
            f"{rate['decode'] / rate['memcpy']:.2f} of memcpy",
        ),
        _against(
            f"`events` of {_mb(large)}, five async-PF events to Parquet", took, "events large", "report five"
        ),
        _against(f"`analyze` of {_mb(large)}, all events that it uses", took, "analyze large", "report all"),
        _peak(f"peak memory, `events` of {_mb(large)}", took, "events large", "report five"),
        _peak(f"peak memory, `analyze` of {_mb(large)}", took, "analyze large", "report all"),
    ]
    if quiet:
        rows += [
            _against(f"`analyze` of {quiet}", took, "analyze quiet", "report quiet"),
            _peak(f"peak memory, `analyze` of {quiet}", took, "analyze quiet", "report quiet"),
        ]
    rows += [
        (
            f"`{verb}`, {_mb(large)} against {_mb(tenth)}",
            f"{took[f'{verb} large'].wall:.2f} s against {took[f'{verb} tenth'].wall:.2f} s",
            f"{large / tenth:.1f} x the bytes",
            f"{took[f'{verb} large'].wall / took[f'{verb} tenth'].wall:.1f} x the time",
        )
        for verb in ("events", "analyze")
    ]
    small = (("text", "small trace, text report"), ("html", "small trace, HTML report"), ("help", "`--help`"))
    rows += [(name, f"{took[job].wall:.2f} s", "-", "-") for job, name in small]
    return [f"| {' | '.join(row)} |" for row in rows]


def _against(what: str, took: dict[str, Usage], own: str, peer: str) -> tuple[str, str, str, str]:
    mine, theirs = took[own].wall, took[peer].wall
    factor = f"{theirs / mine:.1f} x as fast" if theirs >= mine else f"{mine / theirs:.1f} x as slow"
    return (what, f"{mine:.2f} s", f"trace-cmd report -F {theirs:.2f} s", factor)


def _peak(what: str, took: dict[str, Usage], own: str, peer: str) -> tuple[str, str, str, str]:
    mine, theirs = took[own].peak, took[peer].peak
    return (what, _mb(mine), f"trace-cmd report -F {_mb(theirs)}", f"{mine / theirs:.1f} x")


def _mb(size: int) -> str:
    return f"{size / 1e6:.3g} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def machine() -> str:
    """Say on what kind of machine this runs, and with which versions; no names."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*:\s*(.*)$", info.read_text() if info.exists() else "", re.M)
    said = subprocess.run(("trace-cmd", "--version"), capture_output=True, text=True, check=False).stdout
    peer = re.search(r"\d+\.\d+(\.\d+)?", said)
    parts = (
        f"{len(os.sched_getaffinity(0))} CPUs, {models[0] if models else platform.machine()}",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("polars", "pyarrow")),
        f"trace-cmd {peer[0] if peer else 'of unknown version'}",
    )
    return ", ".join(parts)


def figures(size: int, runs: int, folder: Path, then: Path | None) -> str:
    """Measure everything and return it as Markdown.

    Args:
        size: bytes of the large trace.
        runs: of each command.
        folder: where the traces are made.
        then: a trace that follows the sample in each round of one more large trace; null for no such.
    """
    tenth, large = folder / "tenth.dat", folder / "large.dat"
    make(large, size, None)
    make(tenth, size // 10, None)
    quiet = folder / "quiet.dat" if then else None
    if quiet:
        make(quiet, size, then)
    check_filter(SAMPLE)
    took = measure(jobs(SAMPLE, tenth, large, quiet, folder), runs)
    few = f"{_mb(quiet.stat().st_size)} with {_share(quiet):.1%} async page fault events" if quiet else None
    rows = table(took, walks(large, runs), (tenth.stat().st_size, large.stat().st_size), few)
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    head = f"{day}, medians of {runs} runs. {machine()}. Small trace: {_mb(SAMPLE.stat().st_size)}. "
    head += f"Async page fault events in the large one: {_share(large):.1%}."
    return "\n".join([head, "", *rows]) + "\n"


def _share(trace: Path) -> float:
    counts = counted(trace)
    return sum(counts.get(name, 0) for name in ASYNC_PF_EVENTS) / sum(counts.values())


def _size(text: str) -> int:
    unit = UNITS.get(text[-1].upper())
    return int(text[:-1]) * unit if unit else int(text)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Measure apftrace beside trace-cmd report and memcpy.")
    parser.add_argument("--size", type=_size, default=256 << 20, help="of the large trace (default: 256M)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each command (default: 5)")
    parser.add_argument(
        "--then", type=Path, help="a trace of the same host, for one more large trace with fewer faults"
    )
    parser.add_argument("--folder", type=Path, help="where the traces are made; default: a temporary one")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="also replace the figures in this page")
    args = parser.parse_args()
    if shutil.which("trace-cmd") is None:
        sys.exit("benchmarks: trace-cmd is not installed: it is the peer that apftrace is measured against")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        try:
            text = figures(args.size, args.runs, Path(folder), args.then)
        except Failed as error:
            sys.exit(f"benchmarks: {error}")
    print(text, end="")
    if args.into:
        page = args.into.read_text("utf-8")
        args.into.write_text(_FIGURES.sub(lambda _: f"\n{text}\n", page), "utf-8")


if __name__ == "__main__":
    main()
