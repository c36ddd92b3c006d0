"""What one core needs for a file: memcpy of its size, reading it, walking its sub-buffers.

    python benchmarks/walk.py trace.dat

Prints JSON: what each took for the same number of bytes, in seconds. The file is read from the page cache.
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


def memcpy(path: Path) -> None:
    """Copy as many bytes as the file has, from memory to memory."""
    size = path.stat().st_size
    source, target = (mmap.mmap(-1, size) for _ in range(2))
    held = [(ctypes.c_char * size).from_buffer(area) for area in (source, target)]
    to, start_of = (ctypes.addressof(area) for area in reversed(held))
    for area in (to, start_of):
        ctypes.memset(area, 1, size)  # page faults are no part of a copy
    start = time.perf_counter()
    ctypes.memmove(to, start_of, size)
    _TOOK["memcpy"] = time.perf_counter() - start


def read(path: Path) -> None:
    """Read the file into one window over and over, as large as the walker's."""
    window = bytearray(LARGEST_WINDOW)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(window):
            pass
    _TOOK["read"] = time.perf_counter() - start


def walk(path: Path) -> None:
    """Read the file and walk every record, counting events and looking for losses."""
    source = open_source(path)
    result = PassResult()
    start = time.perf_counter()
    for _ in source.stream((), result):
        pass
    _TOOK["walk"] = time.perf_counter() - start
    _TOOK["records"] = sum(result.counts.values())


_TOOK: dict[str, float] = {}
_STEPS: tuple[Callable[[Path], None], ...] = (memcpy, read, walk)


def main() -> None:
    """Run from the command line."""
    path = Path(sys.argv[1])
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for step in _STEPS:
        step(path)
    json.dump({"bytes": path.stat().st_size, "compiled": subbuf.COMPILED, **_TOOK}, sys.stdout)


if __name__ == "__main__":
    main()
