"""What one core needs for a file: memcpy of its size, reading it, walking its sub-buffers.

    python benchmarks/walk.py trace.dat

Prints JSON: what each took for the same number of bytes, in seconds, the least of ROUNDS in turn. What the reading
takes is subtracted from what the walk takes: of a single run of each the difference would mostly be the machine's
mood. The file is read from the page cache.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from apftrace_parsers import subbuf
from apftrace_parsers.base import PassResult
from apftrace_parsers.registry import open_source
from apftrace_parsers.walk import LARGEST_WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5


def memcpy(path: Path) -> float:
    """Copy as many bytes as the file has, from memory to memory; return seconds."""
    size = path.stat().st_size
    source, target = (mmap.mmap(-1, size) for _ in range(2))
    held = [(ctypes.c_char * size).from_buffer(area) for area in (source, target)]
    to, start_of = (ctypes.addressof(area) for area in reversed(held))
    for area in (to, start_of):
        ctypes.memset(area, 1, size)  # page faults are no part of a copy
    start = time.perf_counter()
    ctypes.memmove(to, start_of, size)
    return time.perf_counter() - start


def read(path: Path) -> float:
    """Read the file into one window over and over, as large as the walker's; return seconds."""
    window = bytearray(LARGEST_WINDOW)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(window):
            pass
    return time.perf_counter() - start


def walk(path: Path) -> float:
    """Read the file and walk every record, counting events and looking for losses; return seconds."""
    source, result = open_source(path), PassResult()
    start = time.perf_counter()
    for _ in source.stream((), result):
        pass
    return time.perf_counter() - start


def records(path: Path) -> int:
    """Return how many records a file holds."""
    result = PassResult()
    for _ in open_source(path).stream((), result):
        pass
    return sum(result.counts.values())


STEPS: tuple[Callable[[Path], float], ...] = (memcpy, read, walk)


def main() -> None:
    """Run from the command line."""
    path = Path(sys.argv[1])
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rounds = [[step(path) for step in STEPS] for _ in range(ROUNDS)]
    took = {step.__name__: min(times) for step, times in zip(STEPS, zip(*rounds, strict=True), strict=True)}
    known = {"bytes": path.stat().st_size, "records": records(path), "compiled": subbuf.COMPILED}
    json.dump(known | took, sys.stdout)


if __name__ == "__main__":
    main()
