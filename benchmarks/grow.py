"""Grow a trace.dat to any size: its sub-buffers over and over, each round later than the one before.

    python benchmarks/grow.py small.dat large.dat --size 1G
    python benchmarks/grow.py small.dat large.dat --size 1G --then quiet.dat

Takes version 6 files, whose CPU table can be rewritten in place of the old one: the result is a version 6
file too, with one contiguous run of sub-buffers per CPU, and trace-cmd reads it. Only the time stamps of
pages and the absolute ones inside them change; everything else is relative to those. With ``--then`` each
round goes on with the sub-buffers of a second trace of the same host (the same event ids), so that the share
of async page faults falls to that of a host which does other things too.
"""

from __future__ import annotations

import argparse
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apftrace_parsers.cursor import FileCursor
from apftrace_parsers.importlog import ImportLog
from apftrace_parsers.tracedat.header import read_header
from apftrace_parsers.tracedat.v6 import FLYRECORD, read_v6

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT_MASK = (1 << 27) - 1
LENGTH_APART, DISCARDED, EXTEND, ABSOLUTE = 0, 29, 30, 31
DELTA_BITS = 27
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def grow(source: Path, target: Path, size: int, then: Path | None = None, copies_per_write: int = 64) -> int:
    """Write a file of about ``size`` bytes; return the rounds it took.

    Args:
        source: a version 6 trace.dat without further instances.
        target: file to write.
        size: bytes wanted.
        then: a second one, of the same host, whose sub-buffers follow in each round.
        copies_per_write: rounds that are made in memory before they are written.
    """
    data = source.read_bytes()
    pages, first = _cpus(source)
    if then is not None:
        pages = _followed(pages, _cpus(then)[0])
    order = pages[0].order
    rounds = max(1, -(-size // sum(len(p.data) for p in pages)))
    table = data.index(FLYRECORD) + len(FLYRECORD)
    start, end = _ends(pages)
    span = end - start
    with target.open("wb") as out:
        out.write(data[:table] + _table(pages, rounds, first, order))
        out.write(data[out.tell() : first])
        for cpu_pages in pages:
            for start in range(0, rounds, copies_per_write):
                some = range(start, min(start + copies_per_write, rounds))
                out.write(b"".join(cpu_pages.shifted(i * span) for i in some))
    return rounds


def _cpus(source: Path) -> tuple[list[Pages], int]:
    """Return the sub-buffers of each CPU, and where the first begin in the file."""
    data = source.read_bytes()
    with source.open("rb") as file:
        cursor = FileCursor(file.fileno(), len(data), path=str(source))
        header = read_header(cursor)
        meta = read_v6(cursor, header, ImportLog())
    cpus = meta.options.buffers[0].cpus
    order = ">" if header.big else "<"
    pages = [
        _pages(data[c.offset : c.offset + c.size], order, meta.kernel_long, header.page_size) for c in cpus
    ]
    return pages, min(c.offset for c in cpus if c.size)


def _ends(pages: list[Pages]) -> tuple[int, int]:
    """Return the first page stamp of all CPUs, and an instant after all their records."""
    ends = [p.first_and_last() for p in pages if p.data]
    first, last = min(first for first, _ in ends), max(last for _, last in ends)
    # A tenth more than the span of the page stamps: the records of the last page reach beyond its stamp.
    return first, last + (last - first) // 10


def _followed(pages: list[Pages], then: list[Pages]) -> list[Pages]:
    """Return per CPU the sub-buffers of one trace and, as if recorded right after, those of another."""
    by = _ends(pages)[1] - _ends(then)[0]
    return [
        Pages(
            one.data + other.shifted(by),
            one.order,
            range(0, len(one.data) + len(other.data), one.page_stamps.step),
            (*one.stamps, *(len(one.data) + at for at in other.stamps)),
        )
        for one, other in zip(pages, then, strict=True)
    ]


@dataclass(frozen=True)
class Pages:
    """The sub-buffers of a CPU, and where absolute time stamps stand in them."""

    data: bytes
    order: str
    page_stamps: range
    stamps: tuple[int, ...]

    def first_and_last(self) -> tuple[int, int]:
        """Return the stamps of the first and the last page."""
        found = [struct.unpack_from(f"{self.order}Q", self.data, at)[0] for at in self.page_stamps]
        return min(found), max(found)

    def shifted(self, by: int) -> bytes:
        """Return the pages as if all had happened later."""
        copy = bytearray(self.data)
        for at in self.page_stamps:
            (stamp,) = struct.unpack_from(f"{self.order}Q", copy, at)
            struct.pack_into(f"{self.order}Q", copy, at, stamp + by)
        for at in self.stamps:
            word, high = struct.unpack_from(f"{self.order}II", copy, at)
            stamp = (word >> 5 if self.order == "<" else word & COMMIT_MASK) + (high << DELTA_BITS) + by
            low = stamp & COMMIT_MASK
            word = low << 5 | ABSOLUTE if self.order == "<" else ABSOLUTE << DELTA_BITS | low
            struct.pack_into(f"{self.order}II", copy, at, word, stamp >> DELTA_BITS & 0xFFFFFFFF)
        return bytes(copy)


def _pages(data: bytes, order: str, long_size: int, page_size: int) -> Pages:
    starts = range(0, len(data), page_size)
    stamps = [at for page in starts for at in _absolute_stamps(data, page, order, long_size)]
    return Pages(data, order, starts, tuple(stamps))


def _absolute_stamps(data: bytes, page: int, order: str, long_size: int) -> Iterator[int]:
    (commit,) = struct.unpack_from(f"{order}{'Q' if long_size == 8 else 'I'}", data, page + 8)
    at = page + 8 + long_size
    end = at + (commit & COMMIT_MASK)
    while at < end:
        (word,) = struct.unpack_from(f"{order}I", data, at)
        kind, delta = (word & 31, word >> 5) if order == "<" else (word >> DELTA_BITS, word & COMMIT_MASK)
        if kind == DISCARDED and delta == 0:
            return
        if kind in (LENGTH_APART, DISCARDED):
            (length,) = struct.unpack_from(f"{order}I", data, at + 4)
            at += 4 + length + -length % 4
        elif kind in (EXTEND, ABSOLUTE):
            if kind == ABSOLUTE:
                yield at
            at += 8
        else:
            at += 4 + 4 * kind


def _table(pages: list[Pages], rounds: int, first: int, order: str) -> bytes:
    entries = b""
    for cpu_pages in pages:
        size = len(cpu_pages.data) * rounds
        entries += struct.pack(f"{order}QQ", first, size)
        first += size
    return entries


def _bytes(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1].upper()] if text[-1].upper() in UNITS else int(text)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Grow a version 6 trace.dat to a given size.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--size", type=_bytes, default=1 << 30, help="such as 300M or 1G (default: 1G)")
    parser.add_argument("--then", type=Path, help="a trace of the same host that follows in each round")
    args = parser.parse_args()
    rounds = grow(args.source, args.target, args.size, args.then)
    print(f"{args.target}: {args.target.stat().st_size} bytes, {rounds} rounds")


if __name__ == "__main__":
    main()
