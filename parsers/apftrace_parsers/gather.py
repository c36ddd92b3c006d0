# cython: annotation_typing=False, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Copy fields out of collected payloads, column by column.

Compiled like `subbuf`, with the types of ``gather.pxd``; also runs as plain Python.
"""

from __future__ import annotations

import sys

try:
    import cython
except ImportError:
    from apftrace_parsers import uncompiled as cython

COMPILED: bool = cython.compiled
"""Whether this is the compiled engine."""


class Gatherer:
    """Copies from the payloads of the rows of one event, see ``select``.

    Args:
        heap: payloads, one behind the other.
        starts: where in ``heap`` a row's payload starts.
        lengths: its bytes.
        rows: room for row numbers.
        big: payloads are big endian.
    """

    def __init__(
        self, heap: memoryview, starts: memoryview, lengths: memoryview, rows: memoryview, *, big: bool
    ) -> None:
        self.heap = heap
        self.starts = starts
        self.lengths = lengths
        self.rows = rows
        self.big = big
        self.swap = big != (sys.byteorder == "big")
        self.n = 0

    def select(self, pick: memoryview, n: int, wanted: int, least: int) -> int:
        """Turn to the rows of one event with at least ``least`` bytes, so that its fixed fields are there.

        Args:
            pick: event per row.
            n: rows to look at.
            wanted: the event.
            least: bytes that its fields of fixed place need.

        Returns:
            How many rows there are.
        """
        self.n = 0
        for row in range(n):
            if pick[row] == wanted and self.lengths[row] >= least:
                self.rows[self.n] = row
                self.n += 1
        return self.n

    def longs(self, source: memoryview, out: memoryview) -> None:
        """Copy 64-bit values of the rows."""
        for i in range(self.n):
            out[i] = source[self.rows[i]]

    def mapped(self, source: memoryview, values: memoryview, out: memoryview) -> None:
        """Copy ``values[source[row]]`` of the rows."""
        for i in range(self.n):
            out[i] = values[source[self.rows[i]]]

    def values(self, offset: int, length: int, width: int, out: memoryview) -> None:
        """Copy the bytes at a fixed place, elements of ``width`` bytes in the order of this machine."""
        for i in range(self.n):
            self._copy(self.starts[self.rows[i]] + offset, length, width, out, i * length)

    def texts(self, offset: int, length: int, ends: memoryview, out: memoryview) -> None:
        """Copy char[N] up to NUL.

        Args:
            offset: of the field.
            length: N.
            ends: receives the offsets of an Arrow string array, one more than rows.
            out: receives the bytes.
        """
        put = 0
        ends[0] = 0
        for i in range(self.n):
            start = self.starts[self.rows[i]] + offset
            span = self._up_to_nul(start, length)
            self._copy(start, span, 1, out, put)
            put += span
            ends[i + 1] = put

    def located(self, offset: int, base: int, width: int, ends: memoryview, out: memoryview) -> int:
        """Copy what a location points at: u32 of length << 16 | offset (``__data_loc``, ``__rel_loc``).

        Args:
            offset: of the location in the record.
            base: what the location counts from.
            width: bytes of an element; 0 for text, which ends at NUL.
            ends: receives list offsets, one more than rows, in elements.
            out: receives the elements.

        Returns:
            Rows whose location leads out of their record; theirs are empty.
        """
        astray = 0
        put = 0
        ends[0] = 0
        for i in range(self.n):
            start = self.starts[self.rows[i]]
            word = self._location(start + offset)
            begin = base + (word & 0xFFFF)
            span = word >> 16
            if begin + span > self.lengths[self.rows[i]]:
                astray += 1
                span = 0
            if width == 0:
                span = self._up_to_nul(start + begin, span)
                ends[i + 1] = put + span
            else:
                span -= span % width
                ends[i + 1] = (put + span) // width
            self._copy(start + begin, span, width, out, put)
            put += span
        return astray

    def tails(self, offset: int, width: int, ends: memoryview, out: memoryview) -> None:
        """Copy what follows a fixed place up to the end of the record.

        Args:
            offset: of the place.
            width: bytes of an element; 0 for text, which ends at NUL.
            ends: receives list offsets, one more than rows, in elements.
            out: receives the elements.
        """
        put = 0
        ends[0] = 0
        for i in range(self.n):
            start = self.starts[self.rows[i]] + offset
            span = self.lengths[self.rows[i]] - offset
            if width == 0:
                span = self._up_to_nul(start, span)
                ends[i + 1] = put + span
            else:
                span -= span % width
                ends[i + 1] = (put + span) // width
            self._copy(start, span, width, out, put)
            put += span

    def _copy(self, start: int, length: int, width: int, out: memoryview, put: int) -> None:
        if self.swap and width > 1:
            for k in range(length):
                out[put + k] = self.heap[start + k - k % width + width - 1 - k % width]
        else:
            for k in range(length):
                out[put + k] = self.heap[start + k]

    def _location(self, start: int) -> int:
        b0 = self.heap[start]
        b1 = self.heap[start + 1]
        b2 = self.heap[start + 2]
        b3 = self.heap[start + 3]
        if self.big:
            return b0 << 24 | b1 << 16 | b2 << 8 | b3
        return b3 << 24 | b2 << 16 | b1 << 8 | b0

    def _up_to_nul(self, start: int, length: int) -> int:
        for k in range(length):
            if self.heap[start + k] == 0:
                return k
        return length
