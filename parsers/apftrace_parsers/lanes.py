# cython: annotation_typing=False, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The sub-buffers of several lanes, page by page: where each lane stands, what its pages miss, what is wrong with them.

One source, two engines, as `subbuf`, which finds the records in them. Layout after the kernel's
include/linux/ring_buffer.h and kernel/trace/ring_buffer.c:

    u64 time stamp | long commit | records
    commit: bits 0-26 bytes used, bit 31 events were missed before this page,
            bit 30 their number stands behind the records

A page is never trusted: every read is bounded by the commit, which is bounded by the page. At the first
contradiction the rest of that page is dropped, noted as damage, and counts as a gap.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

from apftrace_parsers import integers as _integers
from apftrace_parsers.clock import STAMP_LIMIT
from apftrace_parsers.stamps import Stamps

try:
    import cython
except ImportError:
    from apftrace_parsers import uncompiled as cython

if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

COMPILED: bool = cython.compiled

NO_STAMP = _integers.NO_NS
UNKNOWN = _integers.UNKNOWN
NOTHING, RECORD, GAP = _integers.NOTHING, _integers.RECORD, _integers.GAP
SINCE_EVER = _integers.SINCE_EVER
BAD_STAMP, BAD_COMMIT = _integers.BAD_STAMP, _integers.BAD_COMMIT
NO_HEADER, BAD_ORDER = _integers.NO_HEADER, _integers.BAD_ORDER

LOSS_ROOM = 256
LOSS_WIDTH = 4
DAMAGE_ROOM = 64
DAMAGE_WIDTH = 4

COMMIT_MASK = (1 << 27) - 1
MISSED_EVENTS = 1 << 31
MISSED_STORED = 1 << 30
LONG_SIGN = -(1 << 63)


def _quadruples(numbers: memoryview, n: int) -> list[tuple[int, int, int, int]]:
    flat = list(numbers[: 4 * n])
    return list(zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True))


class Lanes:
    """Positions in the sub-buffers of several lanes.

    A lane is the buffer of one CPU in one instance. Its pages come window by window: bytes of ``data``
    that the caller has filled, see ``feed``.

    Attributes:
        stamps: their clocks.
        n_losses: losses that wait to be taken; there is room for LOSS_ROOM.
    """

    def __init__(
        self, data: bytearray | mmap, page_sizes: Sequence[int], *, big: bool, long_size: int
    ) -> None:
        n = len(page_sizes)
        self.data = data
        self.words = memoryview(data).cast("I")
        self.big = big
        self.swap = big != (sys.byteorder == "big")
        self.long_size = long_size
        self.stamps = Stamps(n)
        self.page_size = memoryview(array("q", page_sizes))
        self.losses = _integers.zeros("q", LOSS_ROOM * LOSS_WIDTH)
        self.n_losses = 0
        self.damage = _integers.zeros("q", DAMAGE_ROOM * DAMAGE_WIDTH)
        self.n_damage = _integers.zeros("q", _integers.N_DAMAGE_KINDS)
        self.n_located = 0
        self.raw_from = _integers.zeros("q", n)
        self.raw_upto = _integers.filled(STAMP_LIMIT, n)
        self.raw_floor = _integers.zeros("q", n)
        self.raw_limit = _integers.filled(STAMP_LIMIT, n)
        self.page = _integers.zeros("q", n)
        self.stop = _integers.zeros("q", n)
        self.known = _integers.zeros("q", n)
        self.pos = _integers.zeros("q", n)
        self.end = _integers.zeros("q", n)
        self.raw = _integers.zeros("q", n)
        self.page_no = _integers.zeros("q", n)
        self.page_raw = _integers.filled(UNKNOWN, n)
        self.gap = _integers.zeros("q", n)
        self.first_raw = _integers.filled(UNKNOWN, n)
        self.last_raw = _integers.filled(UNKNOWN, n)
        self.past_end = _integers.zeros("q", n)
        self.head_kind = _integers.zeros("q", n)
        self.head_ns = _integers.zeros("q", n)
        self.head_at = _integers.zeros("q", n)
        self.head_len = _integers.zeros("q", n)

    def set_bounds(self, lane: int, first: int, last: int, floor: int, limit: int) -> None:
        """Take only records of a lane with raw stamps in [first, last]; outside [floor, limit] is damage."""
        self.raw_from[lane] = first
        self.raw_upto[lane] = last
        self.raw_floor[lane] = floor
        self.raw_limit[lane] = limit

    def take_losses(self) -> list[tuple[int, int, int, int]]:
        """Return and forget the losses so far: lane, count or -1, ns before and after (NO_NS: none)."""
        rows = _quadruples(self.losses, self.n_losses)
        self.n_losses = 0
        return rows

    def damage_places(self) -> list[tuple[int, int, int, int]]:
        """Return the first damaged places: kind, lane, page of the lane, offset in the page."""
        return _quadruples(self.damage, self.n_located)

    def damage_counts(self) -> list[int]:
        """Return the number of damaged pages per kind."""
        return [self.n_damage[kind] for kind in range(_integers.N_DAMAGE_KINDS)]

    def ends(self, lane: int) -> tuple[int, int] | None:
        """Return the ns of the first and the last record of a lane, if there was any."""
        if self.first_raw[lane] < 0:
            return None
        return self.stamps.ns(lane, self.first_raw[lane]), self.stamps.ns(lane, self.last_raw[lane])

    def ends_in_gap(self, lane: int) -> bool:
        """Say whether the last page of a lane was dropped, so that records are missing at its end."""
        return bool(self.gap[lane])

    def ends_disordered(self, lane: int) -> bool:
        """Say whether nobody knows since when records are missing at the end of a lane."""
        return bool(self.gap[lane] == SINCE_EVER)

    def is_past_end(self, lane: int) -> bool:
        """Say whether a lane has reached its upper bound."""
        return bool(self.past_end[lane])

    def break_off(self, lane: int) -> None:
        """Say that pages of a lane are missing before the next window."""
        self._mark_gap(lane)

    def skip_to(self, lane: int, page: int) -> None:
        """Say that the next window of a lane begins with this page of it, by number."""
        self.page_no[lane] = page

    def stamp_at(self, at: int) -> int:
        """Return the raw stamp of the page at ``data[at:]``."""
        return self._number(at, 8)

    def feed(self, lane: int, at: int, size: int, beyond: int = 0) -> None:
        """Give a lane its next window: whole pages at ``data[at:at + size]``.

        Args:
            lane: which lane.
            at: where in ``data``.
            size: bytes.
            beyond: bytes of the pages of its next window that stand behind them already.
        """
        self.page[lane] = at
        self.stop[lane] = at + size
        self.known[lane] = at + size + beyond
        self.pos[lane] = at
        self.end[lane] = at

    def _open_page(self, lane: int) -> int:
        # Returns NOTHING at the end of the window, GAP when records are missing before the page, else RECORD.
        page = self.page[lane]
        size = self.page_size[lane]
        if self.stop[lane] - page < size:
            self.pos[lane] = self.end[lane] = page
            return NOTHING
        self.page[lane] = page + size
        self.page_no[lane] += 1
        self.pos[lane] = self.end[lane] = page + size
        raw = self._number(page, 8)
        if raw < self.raw_floor[lane] or raw > self.raw_limit[lane]:
            self._drop_page(lane, BAD_STAMP, page)
            return RECORD
        commit = self._number(page + 8, self.long_size)
        # A hole in the file. The kernel hands out no page before something is in it.
        if raw == 0 and commit == 0:
            self._drop_page(lane, NO_HEADER, page)
            return RECORD
        if self._is_misplaced(lane, raw):
            self._drop_page(lane, BAD_ORDER, page)
            if raw <= self.page_raw[lane]:
                self.gap[lane] = SINCE_EVER
            return RECORD
        before = self.page_raw[lane]
        self.page_raw[lane] = raw
        if raw < self.last_raw[lane]:
            # The page before this one runs ahead of it: some delta in there is wrong.
            self._mark_gap(lane)
        used = commit & COMMIT_MASK
        data = page + 8 + self.long_size
        if used > page + size - data:
            self._drop_page(lane, BAD_COMMIT, page + 8)
            return RECORD
        self.raw[lane] = raw
        outside = raw < self.raw_from[lane] or (raw > self.raw_upto[lane] and self.past_end[lane])
        if raw > self.raw_upto[lane]:
            self.past_end[lane] = 1
        elif not outside or not self._next_is_early(lane, raw):
            self.pos[lane] = data
            self.end[lane] = data + used
        if outside:
            # What is missing before the page is missing before the bounds, or after them.
            self.gap[lane] = 0
            return RECORD
        if not commit & MISSED_EVENTS and self.gap[lane] == 0:
            return RECORD
        counted = (
            self.gap[lane] == 0 and commit & MISSED_STORED and data + used + self.long_size <= page + size
        )
        missed = self._number(data + used, self.long_size) if counted else UNKNOWN
        self._put_gap_at_head(lane, before, raw, missed)
        return GAP

    def _put_gap_at_head(self, lane: int, before: int, raw: int, missed: int) -> None:
        # Of a page that runs ahead of the next one only its own stamp, ``before``, is known to be right.
        after = self.last_raw[lane] if self.last_raw[lane] <= raw else before
        known = after >= 0 and self.gap[lane] != SINCE_EVER
        self.gap[lane] = 0
        self.head_ns[lane] = self.stamps.ns(lane, raw)
        self.head_len[lane] = missed if missed >= 0 else UNKNOWN
        self.head_at[lane] = self.stamps.ns(lane, after) if known else NO_STAMP

    def _next_is_early(self, lane: int, raw: int) -> bool:
        # Whether the page that follows starts before the bounds too: then the page at hand is all outside.
        after = self.page[lane]
        if self.known[lane] - after < self.page_size[lane]:
            return False
        later = self._number(after, 8)
        return raw <= later < self.raw_from[lane]

    def _is_misplaced(self, lane: int, raw: int) -> bool:
        # A page of another time, as copies of files that went wrong hold them: it starts before the page before
        # it, or is that one again, or starts after the page that follows, which fits.
        before = self.page_raw[lane]
        if raw < before or (raw == before and raw < self.last_raw[lane]):
            return True
        after = self.page[lane]
        if self.known[lane] - after < self.page_size[lane]:
            return False
        later = self._number(after, 8)
        return later > 0 and max(before, self.last_raw[lane]) <= later < raw

    def _mark_gap(self, lane: int) -> None:
        # A gap since ever stays one.
        self.gap[lane] = max(self.gap[lane], 1)

    def _drop_page(self, lane: int, kind: int, at: int) -> int:
        # Notes damage; returns the end of the page, so that nothing more is read of it.
        self._mark_gap(lane)
        self.n_damage[kind] += 1
        if self.n_located < DAMAGE_ROOM:
            slot = self.n_located * DAMAGE_WIDTH
            self.damage[slot] = kind
            self.damage[slot + 1] = lane
            self.damage[slot + 2] = self.page_no[lane] - 1
            self.damage[slot + 3] = at - (self.page[lane] - self.page_size[lane])
            self.n_located += 1
        return self.page[lane]

    def _log_loss(self, lane: int) -> None:
        slot = self.n_losses * LOSS_WIDTH
        self.losses[slot] = lane
        self.losses[slot + 1] = self.head_len[lane]
        self.losses[slot + 2] = self.head_at[lane]
        self.losses[slot + 3] = self.head_ns[lane]
        self.n_losses += 1

    def _number(self, at: int, width: int) -> int:
        # A number in the head of a page; one of 64 bits is signed.
        if width == 4:
            return self._head_word(at >> 2)
        first, second = self._head_word(at >> 2), self._head_word((at >> 2) + 1)
        value = first << 32 | second if self.big else second << 32 | first
        return (value ^ LONG_SIGN) - LONG_SIGN

    def _head_word(self, i: int) -> int:
        word = self.words[i]
        if self.swap:
            word = word >> 24 | word >> 8 & 0xFF00 | (word & 0xFF00) << 8 | (word & 0xFF) << 24
        return word
