# cython: annotation_typing=False, language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, infer_types=True
"""The rows that the odometer keeps of a trace, by kind: an event, and the part of its thread's reading that its kind needs.

One source, two engines, as the odometer. Each kind has a few thousand rows of room, a column after the other;
what is full is moved out whole.
"""

from __future__ import annotations

from array import array
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

COMPILED: bool = not __file__.endswith(".py")

EVENT = ("seq", "ts", "cpu", "tid", "a", "b", "c")
"""Columns of every row: ``seq`` is its number among all rows, which is the order of time."""

NARROW = frozenset({"cpu", "tid", "entries", "virqs", "hlts", "hog", "first", "vcpu_tid"})
"""Columns that are kept as int32; all others are int64."""

_SEQ, _TS, _CPU, _TID, _A, _B, _C, _READ = range(8)
# No power of two: one row of all columns of all kinds would share a few lines of the cache.
_ROOM = 4096 + 8
_MOST = 16


def anonymous(size: int) -> mmap:
    """Return pages of this process alone."""
    # What is shared cannot grow in place: the pages behind it would be nobody's.
    return mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)


class Column:
    """Bytes of one column, which grow without being copied where the system can move pages."""

    def __init__(self) -> None:
        self._size = 0
        self._room = anonymous(PAGESIZE)

    def add(self, piece: memoryview) -> None:
        """Put bytes behind those that are there."""
        end = self._size + len(piece)
        if end > len(self._room):
            self._grow(end + end // 2)
        self._room[self._size : end] = piece
        self._size = end

    def _grow(self, room: int) -> None:
        try:
            self._room.resize(room)
        except SystemError:  # a system without mremap
            larger = anonymous(room)
            larger[: self._size] = self._room[: self._size]
            self._room = larger

    def view(self) -> memoryview:
        """Return all of them, in place."""
        return memoryview(self._room)[: self._size]


class Ledger:
    """Rows by kind.

    Args:
        reads: per kind the columns beside the event, each with the field of a thread's record that it is.

    Attributes:
        n: rows of all kinds.
        state: the records of all threads.
    """

    def __init__(self, reads: Mapping[int, Mapping[str, int]]) -> None:
        kinds = max(reads) + 1
        self.n = 0
        self.state = memoryview(array("q"))
        self.start = memoryview(array("q", bytes(8 * kinds)))
        self.count = memoryview(array("i", bytes(4 * kinds)))
        self.reads = memoryview(array("i", bytes(4 * kinds)))
        self.read = memoryview(array("i", bytes(4 * kinds * _MOST)))
        room = 0
        for kind, fields in reads.items():
            self.start[kind] = room
            self.reads[kind] = len(fields)
            for at, field in enumerate(fields.values()):
                self.read[kind * _MOST + at] = field
            room += (_READ + len(fields)) * _ROOM
        self.rows = memoryview(array("q", bytes(8 * room)))
        self.narrow = memoryview(array("i", bytes(4 * _ROOM)))
        self._moved: dict[int, dict[str, Column]] = {
            kind: {name: Column() for name in (*EVENT, *fields)} for kind, fields in reads.items()
        }

    def put(self, kind: int, ts: int, cpu: int, base: int, a: int, b: int, c: int) -> int:
        """Add a row of the thread whose record begins at ``base``; return its ``seq``."""
        if self.count[kind] == _ROOM:
            self._move_out(kind)
        n = self.count[kind]
        at = self.start[kind] + n
        seq = self.n
        self.rows[at] = seq
        self.rows[at + _TS * _ROOM] = ts
        self.rows[at + _CPU * _ROOM] = cpu
        self.rows[at + _TID * _ROOM] = self.state[base]
        self.rows[at + _A * _ROOM] = a
        self.rows[at + _B * _ROOM] = b
        self.rows[at + _C * _ROOM] = c
        at += _READ * _ROOM
        first = kind * _MOST
        for i in range(first, first + self.reads[kind]):
            self.rows[at] = self.state[base + self.read[i]]
            at += _ROOM
        self.count[kind] = n + 1
        self.n = seq + 1
        return seq

    def _move_out(self, kind: int) -> None:
        columns = self._moved[kind]
        n = self.count[kind]
        at = self.start[kind]
        for name in columns:
            if name in NARROW:
                self._narrow(at, n)
                columns[name].add(memoryview(self.narrow)[:n].cast("B"))
            else:
                columns[name].add(memoryview(self.rows)[at : at + n].cast("B"))
            at += _ROOM
        self.count[kind] = 0

    def _narrow(self, at: int, n: int) -> None:
        for i in range(n):
            self.narrow[i] = self.rows[at + i]

    def take(self, kind: int) -> dict[str, memoryview]:
        """Return the columns of a kind, EVENT and then its reading, in the form of this machine, and forget them."""
        self._move_out(kind)
        return {name: column.view() for name, column in self._moved.pop(kind).items()}

    def kinds(self) -> list[int]:
        """Return every kind."""
        return list(self._moved)
