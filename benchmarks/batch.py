"""Measure a batch of small traces: two workers beside one, and whether memory grows.

    python benchmarks/batch.py --traces 1000 --runs 3

Copies of the small sample traces, each with bytes of its own, are packed into a zip, a tar.zst and a folder. One and
two workers take turns, so that a busy moment hits both. Memory is looked at while the batch runs: that of the parent
and of the largest worker, in the first and in the last quarter of the inputs.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import zstandard
from children import Failed, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = Path(__file__).parent.parent / "sample-traces"
SMALL = 500_000
STATUSES = (0, 1, 4)
KERNEL = b"x86_64"


@dataclass
class Memory:
    """Bytes seen per quarter of the inputs, the largest of each: of the parent, and of a worker."""

    parent: list[int]
    worker: list[int]


def traces(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield small traces, no two alike: what a machine calls its processor carries a number."""
    samples = [data for path in sorted(SAMPLES.glob("*.dat")) if len(data := path.read_bytes()) < SMALL]
    for number in range(count):
        data = samples[number % len(samples)]
        yield f"run-{number:05d}/trace.dat", data.replace(KERNEL, b"%06d" % number, 1)


def pack(folder: Path, count: int) -> int:
    """Write the traces into a folder, a third each loose, zipped, and in a tar.zst; return how many bytes."""
    tar = io.BytesIO()
    with (
        zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped,
        tarfile.open(fileobj=tar, mode="w") as tarred,
    ):
        for number, (name, data) in enumerate(traces(count)):
            if number % 3 == 0:
                (folder / name).parent.mkdir()
                (folder / name).write_bytes(data)
            elif number % 3 == 1:
                zipped.writestr(name, data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tarred.addfile(info, io.BytesIO(data))
    (folder / "b.tar.zst").write_bytes(zstandard.compress(tar.getvalue()))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run(source: Path, output: Path, jobs: int, count: int) -> tuple[Usage, Memory]:
    """Run one batch from nothing.

    Raises:
        Failed: it ended as it should not, or did not analyse every trace.
    """
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "apftrace", "batch", str(source), "-o", str(output), "--jobs", str(jobs)]
    seen = Memory([0] * 4, [0] * 4)
    start, done, next_look = time.perf_counter(), 0, 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for text in child.stdout:
            told = json.loads(text)
            done += told.get("status") == "analysed"
            if told["event"] == "input" and time.perf_counter() > next_look:
                next_look = time.perf_counter() + 0.2
                _look(child.pid, seen, min(3, done * 4 // count))
        status = child.wait()
    wall = time.perf_counter() - start
    if status not in STATUSES or done != count:
        raise Failed(f"{' '.join(command)}: status {status}, {done} of {count} traces analysed")
    return Usage(wall, 0.0, max(seen.parent)), seen


def _look(pid: int, seen: Memory, quarter: int) -> None:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    workers = [int(child) for task in tasks for child in task.read_text("ascii").split()]
    seen.parent[quarter] = max(seen.parent[quarter], _resident(pid))
    seen.worker[quarter] = max([seen.worker[quarter], *map(_resident, workers)])


def _resident(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("VmRSS:")), 0)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=int, default=300, help="how many (default: 300)")
    parser.add_argument("--runs", type=int, default=3, help="runs each (default: 3)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="apftrace-batch-") as work:
        source, output = Path(work) / "in", Path(work) / "out"
        source.mkdir()
        size = pack(source, given.traces)
        took: dict[int, list[float]] = {1: [], 2: []}
        for number in range(given.runs):
            for jobs, walls in took.items():
                usage, memory = run(source, output, jobs, given.traces)
                walls.append(usage.wall)
            print(f"run {number + 1} of {given.runs} done", file=sys.stderr)
        one, two = median(took[1]), median(took[2])
        worker, parent = ([each / 1e6 for each in seen] for seen in (memory.worker, memory.parent))
        rows = [
            ("what", "figure"),
            ("-", "-"),
            (
                f"{given.traces:,} traces, {size / 1e6:.0f} MB packed, one worker",
                f"{given.traces / one:.1f} traces/s",
            ),
            ("two workers", f"{given.traces / two:.1f} traces/s, {one / two:.2f} x one"),
            ("largest worker, first and last quarter", f"{worker[0]:.0f} and {worker[3]:.0f} MB"),
            ("parent, first and last quarter", f"{parent[0]:.0f} and {parent[3]:.0f} MB"),
        ]
        print("\n".join(f"| {' | '.join(row)} |" for row in rows))


if __name__ == "__main__":
    main()
