"""Files of version 7 that were cut off: the option that tells where the pages are comes behind them.

trace-cmd writes the facts, then a buffer section per instance, each followed by the options that describe
it. When the end of the file is missing, the pages can still be found: the buffer section starts where the
last options end, and within it each CPU starts on a page boundary (trace-cmd.dat.v7(5): BUFFER SECTION).
Which CPUs they are is not said there; they are numbered in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.errors import TraceFormatError
from apftrace_parsers.tracedat.options import Buffer, CpuData, OptionId
from apftrace_parsers.tracedat.section import SectionHeader, read_section_header

if TYPE_CHECKING:
    from apftrace_parsers.cursor import FileCursor


def find_buffers(cursor: FileCursor, at: int, page_size: int) -> list[Buffer]:
    """Return the buffers in the sections from an offset on, the top instance first.

    Args:
        cursor: the file.
        at: end of the last options that could be read.
        page_size: bytes of a sub-buffer.
    """
    buffers: list[Buffer] = []
    try:
        while True:
            section = read_section_header(cursor, at)
            if section.id > max(OptionId):
                return buffers
            if section.id == OptionId.BUFFER:
                name = f"unknown {len(buffers)}" if buffers else ""
                cpus = _chunked(cursor, section, page_size) if section.compressed else ()
                cpus = cpus or _plain(cursor, section, page_size)
                buffers.append(Buffer(at, name, page_size=page_size, cpus=cpus))
            at = section.offset + section.size
    except TraceFormatError:
        # The end of the file, which is why we are here.
        return buffers


def _chunked(cursor: FileCursor, section: SectionHeader, page_size: int) -> tuple[CpuData, ...]:
    cpus: list[CpuData] = []
    at = _aligned(section.offset, page_size)
    end = section.offset + section.size
    while at + 4 <= end and _is_inside(cursor, at, 4):
        cursor.seek(at)
        stop = at + 4
        for _ in range(cursor.u32("a number of chunks")):
            if stop >= end or not _is_inside(cursor, stop, 8):
                break
            cursor.seek(stop)
            stop += 8 + cursor.u32("the compressed size of a chunk")
        cpus.append(CpuData(len(cpus), at, stop - at))
        at = _aligned(stop, page_size)
    return tuple(cpus)


def _plain(cursor: FileCursor, section: SectionHeader, page_size: int) -> tuple[CpuData, ...]:
    # Stamps rise within a CPU; where they fall, the next CPU starts.
    starts: list[int] = []
    last = 0
    at = _aligned(section.offset, page_size)
    end = section.offset + section.size
    while at + page_size <= end and _is_inside(cursor, at, page_size):
        cursor.seek(at)
        stamp = cursor.u64("a time stamp")
        if not starts or stamp < last:
            starts.append(at)
        last = stamp
        at += page_size
    stops = [*starts[1:], at]
    return tuple(CpuData(cpu, a, b - a) for cpu, (a, b) in enumerate(zip(starts, stops, strict=False)))


def _aligned(at: int, page_size: int) -> int:
    return at + -at % page_size


def _is_inside(cursor: FileCursor, at: int, size: int) -> bool:
    cursor.seek(at)
    return cursor.remaining >= size
