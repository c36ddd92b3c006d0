# cython: annotation_typing=False, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Rows of the narrow stream, cut out of the payloads of records.

One source, two engines, as `subbuf`. A field that its record is too short for reads as 0; nothing outside the
record is looked at but the rest of a word.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

from apftrace_parsers import integers as _integers

try:
    import cython
except ImportError:
    from apftrace_parsers import uncompiled as cython

if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

COMPILED: bool = cython.compiled

SIGN = _integers.SIGN
FIELDS_PER_PICK = 3

# In place of the upper word of a field that crosses three words.
ODD = -1
# Longer than any record: of a pick whose records need a look at each field.
NEVER_PLAIN = 1 << 62


class RowWriter:
    """Writes the rows of picked records.

    Attributes:
        room: rows from which on there may be none left for one more record.
        short_records: fields and records that were shorter than their format says.
    """

    def __init__(self, data: bytearray | mmap, *, big: bool) -> None:
        """Start with no pick.

        Args:
            data: where records lie; a multiple of 4 bytes, as are all offsets of records in it.
            big: they are big endian.
        """
        self.data = data
        self.words = memoryview(data).cast("I")
        self.big = big
        self.swap = big != (sys.byteorder == "big")
        self.short_records = 0
        self.set_picks([], 4)

    def set_picks(
        self,
        fields: Sequence[Sequence[tuple[int, int]]],
        tid_at: int,
        tails: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Say which fields to cut out.

        Args:
            fields: per pick up to three (offset, width) into the payload; width is negative for signed
                integers, 0 for an absent field.
            tid_at: offset of common_pid.
            tails: pick and number of each field that records may end before.
        """
        n = max(len(fields), 1)
        self.tid_at = tid_at
        self.chain = memoryview(array("i", [-1] * n))
        # Per field where it ends, and that again unless records may end before it; its lower and its upper word,
        # in words from the payload on; and how its bits are cut out of the two.
        self.end, self.due, self.low, self.high, self.shift, self.mask, self.signed = (
            _integers.zeros("q", n * FIELDS_PER_PICK) for _ in range(7)
        )
        for pick, triple in enumerate(fields):
            for i, (at, width) in enumerate(triple):
                self._set_field(pick * FIELDS_PER_PICK + i, at, width)
        for pick, i in tails:
            self.due[pick * FIELDS_PER_PICK + i] = 0
        self.plain = memoryview(array("q", [self._plain(pick) for pick in range(n)]))

    def _plain(self, pick: int) -> int:
        # From how many bytes on a record of this pick has all its fields, in two native words each.
        own = range(pick * FIELDS_PER_PICK, (pick + 1) * FIELDS_PER_PICK)
        if self.swap or any(self.high[field] == ODD for field in own):
            return NEVER_PLAIN
        return max(self.end[field] for field in own)

    def put_before(self, pick: int, other: int) -> None:
        """Let the records of a pick be those of another one too, whose row comes next; -1 is none."""
        self.chain[pick] = other

    def _set_field(self, field: int, at: int, width: int) -> None:
        if width == 0:
            return
        bits = 8 * abs(width)
        within = 8 * (at % 4)
        span = 32 if within + bits <= 32 else 64
        words = at // 4, at // 4 + span // 32 - 1
        self.end[field] = self.due[field] = at + abs(width)
        self.low[field], self.high[field] = reversed(words) if self.big else words
        self.shift[field] = span - within - bits if self.big else within
        self.mask[field] = -1 if bits == 64 else (1 << bits) - 1
        self.signed[field] = -(1 << 63) if bits == 64 else 1 << (bits - 1) if width < 0 else 0
        if within + bits > 64:
            self.low[field], self.high[field] = at, ODD

    def set_output(self, columns: Sequence[memoryview]) -> None:
        """Take the columns to be written: ts, cpu, tid, pick, a, b, c."""
        self.ts = columns[0]
        self.cpus = columns[1]
        self.tid = columns[2]
        self.pick = columns[3]
        self.a = columns[4]
        self.b = columns[5]
        self.c = columns[6]
        self.room = len(self.ts) - len(self.chain)

    def put(self, n: int, ns: int, cpu: int, at: int, size: int, pick: int) -> int:
        """Write a record behind the first n rows, once for each pick that wants it; return the rows then in use."""
        word = at >> 2
        task = self._task(at, size)
        while pick >= 0:
            field = pick * FIELDS_PER_PICK
            self.ts[n] = ns
            self.cpus[n] = cpu
            self.tid[n] = task
            self.pick[n] = pick
            if size >= self.plain[pick]:
                self.a[n] = self._cut(word, field)
                self.b[n] = self._cut(word, field + 1)
                self.c[n] = self._cut(word, field + 2)
            else:
                self.a[n] = self._integer(at, size, field)
                self.b[n] = self._integer(at, size, field + 1)
                self.c[n] = self._integer(at, size, field + 2)
            n += 1
            pick = self.chain[pick]
        return n

    def put_gap(self, n: int, ns: int, cpu: int, missed: int, since: int) -> int:
        """Write a gap behind the first n rows; return the rows then in use."""
        self.ts[n] = ns
        self.cpus[n] = cpu
        self.tid[n] = 0
        self.pick[n] = -1
        self.a[n] = missed
        self.b[n] = since
        self.c[n] = 0
        return n + 1

    def _task(self, at: int, size: int) -> int:
        # common_pid; 0 where the record is too short for it.
        if self.tid_at + 4 > size:
            self.short_records += 1
            return 0
        return (self._word((at + self.tid_at) >> 2) ^ SIGN) - SIGN

    def _cut(self, word: int, field: int) -> int:
        # A field of a record that is there, in native words.
        value = self.words[word + self.high[field]]
        value = value << 32 | self.words[word + self.low[field]]
        value = value >> self.shift[field] & self.mask[field]
        return (value ^ self.signed[field]) - self.signed[field]

    def _integer(self, at: int, size: int, field: int) -> int:
        # A field as 64 bits; 0 where the record is too short for it.
        if self.end[field] > size:
            self.short_records += self.due[field] > size
            return 0
        high = self.high[field]
        if high == ODD:
            return self._odd_integer(at, field)
        value = self._word((at >> 2) + self.low[field]) | self._word((at >> 2) + high) << 32
        value = value >> self.shift[field] & self.mask[field]
        return (value ^ self.signed[field]) - self.signed[field]

    def _odd_integer(self, at: int, field: int) -> int:
        # A field of a packed structure that crosses three words, byte by byte.
        at += self.low[field]
        value = 0
        for i in range(8):
            value = value << 8 | self.data[at + (i if self.big else 7 - i)]
        return (value ^ self.signed[field]) - self.signed[field]

    def _word(self, i: int) -> int:
        word = self.words[i]
        if self.swap:
            word = word >> 24 | word >> 8 & 0xFF00 | (word & 0xFF00) << 8 | (word & 0xFF) << 24
        return word
