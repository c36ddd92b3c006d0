# cython: annotation_typing=False, language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, infer_types=True
"""The rows that the odometer keeps of a trace, by kind: an event, and the part of its thread's reading that its kind needs.

One source, two engines, as the odometer. Each kind has a column for each of its numbers, written where it stays;
the GIL is needed only to make room.
"""

from __future__ import annotations

from array import array
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, mmap
from typing import TYPE_CHECKING

try:
    import cython
except ImportError:
    from apftrace_parsers import uncompiled as cython

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

COMPILED: bool = cython.compiled

EVENT = ("seq", "ts", "cpu", "tid", "a", "b", "c")
"""Columns of every row: ``seq`` is its number among all rows, which is the order of time."""

NARROW = frozenset({"cpu", "tid", "entries", "virqs", "hlts", "hog", "first", "vcpu_tid"})
"""Columns that are kept as int32; all others are int64."""

KINDS = 80
MOST = 16
"""Kinds, and columns of a kind, that there is room for; ledger.pxd says the same."""

# Where the columns of a kind begin: wide ones of the event, narrow ones of it, then those of the reading.
_SEQ, _TS, _A, _B, _C, _CPU, _TID, _READ = range(8)
_ORDER = ("seq", "ts", "a", "b", "c", "cpu", "tid")
_ROOM = 1024
# Columns that begin at the same place of their pages would share a few lines of the cache.
_LINE = 64
_NOWHERE = memoryview(b"")


def anonymous(size: int) -> mmap:
    """Return pages of this process alone."""
    # What is shared cannot grow in place: the pages behind it would be nobody's.
    return mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)


class Column:
    """Integers of one column, which grow without being copied where the system can move pages.

    Args:
        code: ``q`` or ``i``.
        skew: bytes that are left free in front.
    """

    def __init__(self, code: Literal["q", "i"], skew: int = 0) -> None:
        self._code = code
        self._skew = skew
        self._pages = anonymous(PAGESIZE)

    def view(self, rows: int) -> memoryview:
        """Return room for so many integers, those that are there first; all former views must be gone."""
        end = self._skew + rows * (8 if self._code == "q" else 4)
        if end > len(self._pages):
            self._grow(end)
        return memoryview(self._pages)[self._skew : end].cast("B").cast(self._code)

    def _grow(self, size: int) -> None:
        try:
            self._pages.resize(size)
        except (SystemError, AttributeError):  # a system without mremap
            larger = anonymous(size)
            larger[: len(self._pages)] = self._pages[:]
            self._pages = larger


class Ledger:
    """Rows by kind.

    Args:
        reads: per kind the columns beside the event, each with the field of a thread's record that it is.

    Attributes:
        n: rows of all kinds.
        state: the records of all threads.
    """

    def __init__(self, reads: Mapping[int, Mapping[str, int]]) -> None:
        if max(reads) >= KINDS or max(map(len, reads.values())) > MOST - len(EVENT):
            raise ValueError(f"there is room for {KINDS} kinds with {MOST} columns each")
        self.n = 0
        self.state = memoryview(array("q"))
        self.count = memoryview(array("q", bytes(8 * KINDS)))
        self.room = memoryview(array("q", bytes(8 * KINDS)))
        # Per kind the fields that its reading has: first those of wide columns, from ``narrow`` on the narrow ones.
        self.narrow = memoryview(array("i", bytes(4 * KINDS)))
        self.reads = memoryview(array("i", bytes(4 * KINDS)))
        self.read = memoryview(array("i", bytes(4 * KINDS * MOST)))
        if not cython.compiled:
            self.wide_at, self.narrow_at = [_NOWHERE] * (KINDS * MOST), [_NOWHERE] * (KINDS * MOST)
        self._names = {kind: (*EVENT, *fields) for kind, fields in reads.items()}
        self._columns: dict[int, dict[str, Column]] = {}
        for kind, fields in reads.items():
            own = sorted(fields, key=lambda name: name in NARROW)
            self.reads[kind] = len(own)
            self.narrow[kind] = sum(name not in NARROW for name in own)
            for at, name in enumerate(own):
                self.read[kind * MOST + at] = fields[name]
            self._columns[kind] = {
                name: Column("i" if name in NARROW else "q", at * _LINE)
                for at, name in enumerate((*_ORDER, *own))
            }
            self._reserve(kind, _ROOM)

    def _reserve(self, kind: int, room: int) -> None:
        # Make room for so many rows of a kind.
        self._forget(kind)
        for at, (name, column) in enumerate(self._columns[kind].items(), kind * MOST):
            if name in NARROW:
                self.narrow_at[at] = self._narrow_place(column.view(room))
            else:
                self.wide_at[at] = self._wide_place(column.view(room))
        self.room[kind] = room

    def _forget(self, kind: int) -> None:
        # A mapping can grow only while there is no view of it; an address is none.
        if not cython.compiled:
            for at in range(kind * MOST, (kind + 1) * MOST):
                self.wide_at[at] = self.narrow_at[at] = _NOWHERE

    def _wide_place(self, view: memoryview) -> Any:
        return cython.address(view[0]) if cython.compiled else view

    def _narrow_place(self, view: memoryview) -> Any:
        return cython.address(view[0]) if cython.compiled else view

    def put(self, kind: int, ts: int, cpu: int, base: int, a: int, b: int, c: int) -> int:
        """Add a row of the thread whose record begins at ``base``; return its ``seq``."""
        n = self.count[kind]
        if n == self.room[kind]:
            self._reserve(kind, 2 * n)
        at = kind * MOST
        seq = self.n
        self.wide_at[at + _SEQ][n] = seq
        self.wide_at[at + _TS][n] = ts
        self.wide_at[at + _A][n] = a
        self.wide_at[at + _B][n] = b
        self.wide_at[at + _C][n] = c
        self.narrow_at[at + _CPU][n] = cpu
        self.narrow_at[at + _TID][n] = self.state[base]
        for i in range(self.narrow[kind]):
            self.wide_at[at + _READ + i][n] = self.state[base + self.read[at + i]]
        for i in range(self.narrow[kind], self.reads[kind]):
            self.narrow_at[at + _READ + i][n] = self.state[base + self.read[at + i]]
        self.count[kind] = n + 1
        self.n = seq + 1
        return seq

    def take(self, kind: int) -> dict[str, memoryview]:
        """Return the columns of a kind, EVENT and then its reading, in the form of this machine, and forget them."""
        n = self.count[kind]
        self.count[kind] = self.room[kind] = 0
        self._forget(kind)
        columns = self._columns.pop(kind)
        return {name: columns[name].view(n) for name in self._names[kind]}

    def kinds(self) -> list[int]:
        """Return every kind."""
        return list(self._columns)
