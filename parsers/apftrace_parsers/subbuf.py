# cython: annotation_typing=False, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Walk ring-buffer sub-buffers: find the wanted records, merge CPUs in time order, copy out payloads.

One source, two engines: Cython compiles it with the types of ``subbuf.pxd``; without a compiler it runs
as plain Python. All times are below 2^62, so that no arithmetic here can leave 64 bits and both engines
agree on hostile pages too.

Layout after the kernel's include/linux/ring_buffer.h and kernel/trace/ring_buffer.c:

    u64 time stamp | long commit | records
    commit: bits 0-26 bytes used, bit 31 events were missed before this page,
            bit 30 their number stands behind the records
    record: one word, 5 bits type_len and 27 bits time delta, then
      1-28  payload of 4 * type_len bytes
      0     u32 length (itself included), payload
      29    discarded; with delta 0 the rest of the page is unused, else u32 length
      30    time extend: u32, upper bits of the delta
      31    time stamp: u32, upper bits; the top 5 of 64 bits come from the stamp before

The delta of a discarded record counts, as in libtraceevent (src/kbuffer-parse.c); the kernel's own
reader leaves it out (rb_update_read_stamp), but every user space reader so far has counted it.

A page is never trusted: every read is bounded by the commit, which is bounded by the page. At the first
contradiction the rest of that page is dropped, noted as damage, and counts as a gap.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

from apftrace_parsers.clock import STAMP_LIMIT

try:
    import cython
except ImportError:
    from apftrace_parsers import uncompiled as cython

if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

COMPILED: bool = cython.compiled
"""Whether this is the compiled engine."""

EVENT_IDS = 1 << 16
NO_NS = -(1 << 63)
"""Stands for an absent time in the stream and in the list of losses."""
NO_STAMP = NO_NS
UNKNOWN = -1

# What stands at the head of a lane.
NOTHING = 0
RECORD = 1
GAP = 2

# Kinds of damage.
BAD_STAMP = 0
BAD_COMMIT = 1
BAD_RECORD = 2
NO_HEADER = 3
BAD_ORDER = 4
N_DAMAGE_KINDS = 5

# A gap of which nobody knows where it begins: pages from later on stood before it.
SINCE_EVER = 2

LOSS_ROOM = 256
LOSS_WIDTH = 4
DAMAGE_ROOM = 64
DAMAGE_WIDTH = 4

COMMIT_MASK = (1 << 27) - 1
MISSED_EVENTS = 1 << 31
MISSED_STORED = 1 << 30
STAMP_MASK = (1 << 59) - 1
SIGN = 1 << 31
WORD = 1 << 32
LONG_MASK = (1 << 64) - 1
LONG_ONE = 1

FIELDS_PER_PICK = 3
PIECE_WIDTH = 7

# What is known of a field: where it ends, and that again unless records may end before it; its lower and its
# upper word, in words from the payload on; and how its bits are cut out of the two.
FIELD_WIDTH = 7
END, DUE, LOW, HIGH, SHIFT, MASK, SIGNED = range(FIELD_WIDTH)
# In place of the upper word of a field that crosses three words.
ODD = -1

PICK_WIDTH = FIELDS_PER_PICK * FIELD_WIDTH

FOREVER = (1 << 63) - 1


def zeros(code: str, n: int) -> memoryview:
    """Return n zeros of an array type code."""
    return memoryview(array(code, bytes(array(code).itemsize * max(n, 1))))


def _quadruples(numbers: memoryview, n: int) -> list[tuple[int, int, int, int]]:
    flat = list(numbers[: 4 * n])
    return list(zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True))


class Walker:
    """Positions in the sub-buffers of several lanes, and the merge of them.

    A lane is the buffer of one CPU in one instance. Its pages come window by window: bytes of ``data``
    that the caller has filled, see ``feed``.
    """

    def __init__(
        self,
        data: bytearray | mmap,
        cpus: Sequence[int],
        instances: Sequence[int],
        page_sizes: Sequence[int],
        *,
        big: bool,
        long_size: int,
    ) -> None:
        """Start with no window.

        Args:
            data: where windows lie; a multiple of 4 bytes, as are all offsets in it.
            cpus: per lane, its CPU.
            instances: per lane, number of its buffer instance.
            page_sizes: per lane, bytes of a sub-buffer.
            big: pages are big endian.
            long_size: bytes of the kernel's long, 4 or 8.
        """
        n = len(cpus)
        n_slots = EVENT_IDS * (max(instances, default=0) + 1)
        self.data = data
        self.words = memoryview(data).cast("I")
        self.big = big
        self.swap = big != (sys.byteorder == "big")
        self.long_size = long_size
        self.head_size = 8 + long_size
        self.cpu = memoryview(array("i", cpus))
        self.page_size = memoryview(array("q", page_sizes))
        self.want_base = memoryview(array("q", [EVENT_IDS * i for i in instances]))
        self.want = memoryview(array("h", [-1] * n_slots))
        self.counts = zeros("q", n_slots)
        self.heap = zeros("i", n)
        self.live = 0
        self.hungry = -1
        self.losses = zeros("q", LOSS_ROOM * LOSS_WIDTH)
        self.n_losses = 0
        self.damage = zeros("q", DAMAGE_ROOM * DAMAGE_WIDTH)
        self.n_damage = zeros("q", N_DAMAGE_KINDS)
        self.n_located = 0
        self.short_records = 0
        self.backwards = 0
        self._place_lanes(n)
        self.set_clock(0, 0, 0)
        self.set_picks([], [], 4)

    def _place_lanes(self, n: int) -> None:
        self.report_gaps = memoryview(array("q", [1] * n))
        self.raw_from = zeros("q", n)
        self.raw_upto = memoryview(array("q", [STAMP_LIMIT] * n))
        self.raw_floor = zeros("q", n)
        self.raw_limit = memoryview(array("q", [STAMP_LIMIT] * n))
        self.pieces = zeros("q", PIECE_WIDTH)
        self.piece_from = zeros("q", n)
        self.piece_upto = zeros("q", n)
        self.page = zeros("q", n)
        self.stop = zeros("q", n)
        self.pos = zeros("q", n)
        self.end = zeros("q", n)
        self.raw = zeros("q", n)
        self.page_no = zeros("q", n)
        self.page_raw = memoryview(array("q", [UNKNOWN] * n))
        self.gap = zeros("q", n)
        self.first_raw = memoryview(array("q", [UNKNOWN] * n))
        self.last_raw = memoryview(array("q", [UNKNOWN] * n))
        self.past_end = zeros("q", n)
        self.head_kind = zeros("q", n)
        self.head_ns = zeros("q", n)
        self.head_at = zeros("q", n)
        self.head_len = zeros("q", n)
        self.head_pick = zeros("i", n)

    def set_clock(self, mult: int, shift: int, offset: int) -> None:
        """Make ns of raw stamps: ``(raw * mult >> shift) + offset``; mult 0 leaves them as they are."""
        self.mult = mult
        self.shift = shift
        self.offset = offset
        self.counts_ns = mult == 0 and not max(self.piece_upto, default=0)

    def set_bounds(self, lane: int, first: int, last: int, floor: int, limit: int) -> None:
        """Take only records of a lane with raw stamps in [first, last]; outside [floor, limit] is damage."""
        self.raw_from[lane] = first
        self.raw_upto[lane] = last
        self.raw_floor[lane] = floor
        self.raw_limit[lane] = limit

    def set_pieces(self, pieces: Sequence[tuple[int, ...]], spans: Sequence[tuple[int, int]]) -> None:
        """Bring raw stamps of guests to the host's clock, before anything else is done to them.

        Args:
            pieces: the numbers of ``clock.Piece`` in its order.
            spans: per lane, the slice of ``pieces`` that is its own; ascending.
        """
        self.pieces = memoryview(array("q", [n for piece in pieces for n in piece]))
        for lane, (first, last) in enumerate(spans):
            self.piece_from[lane] = first
            self.piece_upto[lane] = last
        self.counts_ns = self.counts_ns and not pieces

    def set_picks(
        self,
        wanted: Sequence[tuple[int, int, int]],
        fields: Sequence[Sequence[tuple[int, int]]],
        tid_at: int,
        tails: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Say which records to find.

        Args:
            wanted: (instance, event id, pick); an event may have several picks.
            fields: per pick up to three (offset, width) into the payload; width is negative for signed
                integers, 0 for an absent field.
            tid_at: offset of common_pid.
            tails: pick and number of each field that records may end before.
        """
        n = len(fields)
        self.tid_at = tid_at
        self.chain = memoryview(array("i", [-1] * max(n, 1)))
        self.fields = zeros("q", n * PICK_WIDTH)
        for pick, triple in enumerate(fields):
            for i, (at, width) in enumerate(triple):
                self._set_field(pick * PICK_WIDTH + i * FIELD_WIDTH, at, width)
        for pick, i in tails:
            self.fields[pick * PICK_WIDTH + i * FIELD_WIDTH + DUE] = 0
        self.longest_chain = max(n, 1)
        for instance, event, pick in reversed(wanted):
            slot = instance * EVENT_IDS + event
            self.chain[pick] = self.want[slot]
            self.want[slot] = pick

    def _set_field(self, field: int, at: int, width: int) -> None:
        if width == 0:
            return
        bits = 8 * abs(width)
        within = 8 * (at % 4)
        span = 32 if within + bits <= 32 else 64
        words = at // 4, at // 4 + span // 32 - 1
        self.fields[field + END] = self.fields[field + DUE] = at + abs(width)
        self.fields[field + LOW], self.fields[field + HIGH] = reversed(words) if self.big else words
        self.fields[field + SHIFT] = span - within - bits if self.big else within
        self.fields[field + MASK] = -1 if bits == 64 else (1 << bits) - 1
        self.fields[field + SIGNED] = -(1 << 63) if bits == 64 else 1 << (bits - 1) if width < 0 else 0
        if within + bits > 64:
            self.fields[field + LOW], self.fields[field + HIGH] = at, ODD

    def mute_gaps(self, lane: int) -> None:
        """Keep the gaps of a lane out of the merged rows; they are still counted as losses."""
        self.report_gaps[lane] = 0

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
        return [self.n_damage[kind] for kind in range(N_DAMAGE_KINDS)]

    def hits(self, instance: int) -> dict[int, int]:
        """Return the number of records per event id, within the bounds, of one instance."""
        base = instance * EVENT_IDS
        return {i: self.counts[base + i] for i in range(EVENT_IDS) if self.counts[base + i]}

    def ends(self, lane: int) -> tuple[int, int] | None:
        """Return the ns of the first and the last record of a lane, if there was any."""
        if self.first_raw[lane] < 0:
            return None
        return self._ns(lane, self.first_raw[lane]), self._ns(lane, self.last_raw[lane])

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

    def feed(self, lane: int, at: int, size: int) -> None:
        """Give a lane its next window: whole pages at ``data[at:at + size]``."""
        self.page[lane] = at
        self.stop[lane] = at + size
        self.pos[lane] = at
        self.end[lane] = at

    def join(self, lane: int) -> bool:
        """Let a lane that was just fed take part in the merge; say whether its window holds anything."""
        if self._advance(lane) == NOTHING:
            return False
        i = self.live
        self.live = i + 1
        while i > 0 and self._before(lane, self.heap[(i - 1) >> 1]):
            self.heap[i] = self.heap[(i - 1) >> 1]
            i = (i - 1) >> 1
        self.heap[i] = lane
        return True

    def set_output(self, columns: Sequence[memoryview]) -> None:
        """Take the columns that ``merge`` writes: ts, cpu, tid, pick, a, b, c."""
        self.ts = columns[0]
        self.cpus = columns[1]
        self.tid = columns[2]
        self.pick = columns[3]
        self.a = columns[4]
        self.b = columns[5]
        self.c = columns[6]

    def merge(self, n: int) -> int:
        """Write merged rows behind the first n until the columns are full or a lane has used up its window.

        Returns:
            Rows now in use. ``hungry`` is then the lane that left the merge for want of data, or -1.
            ``n_losses`` losses wait to be taken: when there are LOSS_ROOM of them the merge stops too.
        """
        with cython.nogil:
            return self._merge(n)

    def _merge(self, n: int) -> int:
        room = len(self.ts) - self.longest_chain
        self.hungry = -1
        while self.live > 0 and n <= room and self.n_losses < LOSS_ROOM:
            lane = self.heap[0]
            rival = self._second()
            until = FOREVER
            if rival >= 0:
                until = self.head_ns[rival] - (lane > rival)
            if self.head_kind[lane] == RECORD:
                at = self.head_at[lane]
                n = self._put(lane, n, self.head_ns[lane], at, self.head_len[lane], self.head_pick[lane])
            else:
                n = self._put_gap(lane, n)
            n = self._run(lane, n, room, until)
            if self.head_kind[lane] == NOTHING:
                self._leave()
                self.hungry = lane
                return n
            if self.head_ns[lane] > until:
                self._sink(lane)
        return n

    def _put(self, lane: int, n: int, ns: int, at: int, size: int, pick: int) -> int:
        # Writes a record for each pick that wants it; returns the rows then in use.
        task = self._task(at, size)
        while pick >= 0:
            self.ts[n] = ns
            self.cpus[n] = self.cpu[lane]
            self.tid[n] = task
            self.pick[n] = pick
            field = pick * PICK_WIDTH
            self.a[n] = self._integer(at, size, field)
            self.b[n] = self._integer(at, size, field + FIELD_WIDTH)
            self.c[n] = self._integer(at, size, field + 2 * FIELD_WIDTH)
            n += 1
            pick = self.chain[pick]
        return n

    def _put_gap(self, lane: int, n: int) -> int:
        # Notes the gap at the head of a lane, and writes it where rows of gaps are wanted.
        self._log_loss(lane)
        if not self.report_gaps[lane] or self.raw[lane] > self.raw_upto[lane]:
            return n
        self.ts[n] = self.head_ns[lane]
        self.cpus[n] = self.cpu[lane]
        self.tid[n] = 0
        self.pick[n] = -1
        self.a[n] = self.head_len[lane]
        self.b[n] = self.head_at[lane]
        self.c[n] = 0
        return n + 1

    def set_heap(self, payloads: memoryview, columns: Sequence[memoryview]) -> None:
        """Take what ``collect`` writes: bytes for payloads, and the columns ts, lane, pick, start, length."""
        self.payloads = payloads
        self.ts = columns[0]
        self.lanes = columns[1]
        self.pick = columns[2]
        self.starts = columns[3]
        self.lengths = columns[4]

    def collect(self, lane: int, row: int, used: int) -> int:
        """Copy payloads of a lane's wanted records until its window is used up or there is no room.

        Args:
            lane: which lane; it takes no part in the merge.
            row: rows in use.
            used: bytes of payloads in use; payloads lie one behind the other.

        Returns:
            Rows now in use. ``hungry`` is then the lane when its window is used up, -1 when room is short.
        """
        with cython.nogil:
            return self._collect(lane, row, used)

    def _collect(self, lane: int, row: int, used: int) -> int:
        self.hungry = -1
        while True:
            if self.head_kind[lane] == NOTHING and self._advance(lane) == NOTHING:
                self.hungry = lane
                return row
            if self.head_kind[lane] == GAP:
                if self.n_losses >= LOSS_ROOM:
                    return row
                self._log_loss(lane)
                self.head_kind[lane] = NOTHING
                continue
            n = self.head_len[lane]
            start = self.head_at[lane]
            if row >= len(self.ts) or len(self.payloads) - used < n:
                return row
            self.ts[row] = self.head_ns[lane]
            self.lanes[row] = lane
            self.pick[row] = self.head_pick[lane]
            self.starts[row] = used
            self.lengths[row] = n
            for i in range(n):
                self.payloads[used + i] = self.data[start + i]
            used += n
            row += 1
            self.head_kind[lane] = NOTHING

    def _advance(self, lane: int) -> int:
        # Moves the head of a lane to its next wanted record or gap, within the window.
        self._run(lane, 0, -1, NO_STAMP)
        return self.head_kind[lane]

    def _run(self, lane: int, n: int, room: int, until: int) -> int:  # noqa: C901, PLR0912, PLR0915 (one loop: it runs for every record)
        # Writes the wanted records of a lane up to the time ``until``, or up to a gap, behind the first n rows, as
        # long as n is within the room; the next one is its head then. Returns the rows then in use.
        base = self.want_base[lane]
        first = self.raw_from[lane]
        last = self.raw_upto[lane]
        limit = self.raw_limit[lane]
        pos = self.pos[lane]
        end = self.end[lane]
        raw = self.raw[lane]
        seen = self.last_raw[lane]
        kind = NOTHING
        while True:
            if end - pos < 4:
                self.last_raw[lane] = seen
                opened = self._open_page(lane)
                pos = self.pos[lane]
                end = self.end[lane]
                raw = self.raw[lane]
                if opened == NOTHING:
                    break
                if opened == GAP:
                    kind = GAP
                    break
                continue
            word = self._u32(pos)
            if self.big:
                code = word >> 27
                delta = word & 0x7FFFFFF
            else:
                code = word & 31
                delta = word >> 5
            if 0 < code < 29:
                body = pos + 4
                size = code * 4
                after = body + size
            elif code == 29 and delta == 0:
                pos = end
                continue
            elif end - pos < 8:
                pos = self._drop_page(lane, BAD_RECORD, pos)
                end = pos
                continue
            else:
                body = pos + 8
                size = self._u32(pos + 4)
                if code >= 30:
                    if code == 30:
                        raw += delta + (size << 27)
                    else:
                        raw = self._absolute(raw, delta + (size << 27))
                    if raw > limit:
                        pos = self._drop_page(lane, BAD_STAMP, pos)
                        end = pos
                    else:
                        pos += 8
                    continue
                if size < 4:
                    pos = self._drop_page(lane, BAD_RECORD, pos)
                    end = pos
                    continue
                after = pos + 4 + ((size + 3) & ~3)
                size -= 4
            if after > end:
                pos = self._drop_page(lane, BAD_RECORD, pos)
                end = pos
                continue
            pos = after
            raw += delta
            if code == 29:
                continue
            if size < 2:
                self.short_records += 1
                continue
            if raw < first or raw > last:
                continue
            slot = base + self._u16(body)
            self.counts[slot] += 1
            if raw < seen:
                self.backwards += 1
            elif seen < 0:
                self.first_raw[lane] = raw
            seen = raw
            pick = self.want[slot]
            if pick >= 0:
                ns = self._ns(lane, raw)
                if ns <= until and n <= room:
                    n = self._put(lane, n, ns, body, size, pick)
                    continue
                self.head_pick[lane] = pick
                self.head_at[lane] = body
                self.head_len[lane] = size
                self.head_ns[lane] = ns
                kind = RECORD
                break
        self.pos[lane] = pos
        self.end[lane] = end
        self.raw[lane] = raw
        self.last_raw[lane] = seen
        self.head_kind[lane] = kind
        return n

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
        raw = self._i64(page)
        if raw < self.raw_floor[lane] or raw > self.raw_limit[lane]:
            self._drop_page(lane, BAD_STAMP, page)
            return RECORD
        commit = self._long(page + 8)
        # A hole in the file. The kernel hands out no page before something is in it.
        if raw == 0 and commit == 0:
            self._drop_page(lane, NO_HEADER, page)
            return RECORD
        if self._is_misplaced(lane, raw):
            self._drop_page(lane, BAD_ORDER, page)
            if raw <= self.page_raw[lane]:
                self.gap[lane] = SINCE_EVER
            return RECORD
        self.page_raw[lane] = raw
        if raw < self.last_raw[lane]:
            # The page before this one runs ahead of it: some delta in there is wrong.
            self._mark_gap(lane)
        used = commit & COMMIT_MASK
        data = page + self.head_size
        if used > page + size - data:
            self._drop_page(lane, BAD_COMMIT, page + 8)
            return RECORD
        self.raw[lane] = raw
        if raw > self.raw_upto[lane]:
            self.past_end[lane] = 1
        elif raw < self.raw_from[lane] and self._next_is_early(lane, raw):
            self.gap[lane] = 0
            return RECORD
        else:
            self.pos[lane] = data
            self.end[lane] = data + used
        if not commit & MISSED_EVENTS and self.gap[lane] == 0:
            return RECORD
        missed = UNKNOWN
        disordered = self.gap[lane] == SINCE_EVER
        if self.gap[lane] == 0 and commit & MISSED_STORED and data + used + self.long_size <= page + size:
            missed = self._long(data + used)
        self.gap[lane] = 0
        self.head_ns[lane] = self._ns(lane, raw)
        self.head_len[lane] = missed if missed >= 0 else UNKNOWN
        known = self.last_raw[lane] >= 0 and not disordered
        self.head_at[lane] = self._ns(lane, self.last_raw[lane]) if known else NO_STAMP
        return GAP

    def _next_is_early(self, lane: int, raw: int) -> bool:
        # Whether the page that follows starts before the bounds too: then the page at hand is all outside.
        after = self.page[lane]
        if self.stop[lane] - after < self.page_size[lane]:
            return False
        later = self._i64(after)
        return raw <= later < self.raw_from[lane]

    def _is_misplaced(self, lane: int, raw: int) -> bool:
        # A page of another time, as copies of files that went wrong hold them: it starts before the page before
        # it, or is that one again, or starts after the page that follows, which fits.
        before = self.page_raw[lane]
        if raw < before or (raw == before and raw < self.last_raw[lane]):
            return True
        after = self.page[lane]
        if self.stop[lane] - after < self.page_size[lane]:
            return False
        later = self._i64(after)
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

    def _absolute(self, raw: int, stamp: int) -> int:
        # As rb_fix_abs_ts of kernel/trace/ring_buffer.c.
        high = raw & ~STAMP_MASK
        if high:
            stamp |= high
            if stamp < raw:
                stamp += STAMP_MASK + 1
        return stamp

    def _ns(self, lane: int, raw: int) -> int:
        return raw + self.offset if self.counts_ns else self._converted(lane, raw)

    def _converted(self, lane: int, raw: int) -> int:
        if self.piece_upto[lane] > self.piece_from[lane]:
            raw = self._shifted(lane, raw)
        if self.mult == 0:
            return raw + self.offset
        # 62 by 32 bits in two halves: neither product leaves 64 bits.
        high = (raw >> 32) * self.mult
        low = (raw & (WORD - 1)) * self.mult
        if self.shift <= 32:
            scaled = (high << (32 - self.shift)) + (low >> self.shift)
        else:
            scaled = (high + (low >> 32)) >> (self.shift - 32)
        return scaled + self.offset

    def _shifted(self, lane: int, raw: int) -> int:
        piece = self.piece_from[lane]
        while piece + 1 < self.piece_upto[lane] and raw >= self.pieces[(piece + 1) * PIECE_WIDTH]:
            piece += 1
        slot = piece * PIECE_WIDTH
        run = self.pieces[slot + 4]
        lift = (raw - self.pieces[slot + 1]) * self.pieces[slot + 3] + (run >> 1)
        # Towards zero, as the C of libtracecmd (timestamp_correction_calc) divides.
        lift = -(-lift // run) if lift < 0 else lift // run
        return self._scaled(raw, self.pieces[slot + 5], self.pieces[slot + 6]) + self.pieces[slot + 2] + lift

    def _scaled(self, raw: int, scaling: int, fraction: int) -> int:
        # 62 by 62 bits, word by word; the caller has seen to it that the result stays below 2^62.
        if scaling == 1 and fraction == 0:
            return raw
        low = (raw & (WORD - 1)) * (scaling & (WORD - 1))
        middle = (raw >> 32) * (scaling & (WORD - 1)) + (low >> 32)
        other = (raw & (WORD - 1)) * (scaling >> 32) + (middle & (WORD - 1))
        high = (raw >> 32) * (scaling >> 32) + (middle >> 32) + (other >> 32)
        low = (other << 32 | low & (WORD - 1)) & LONG_MASK
        if fraction == 0:
            return low
        return (high << (64 - fraction) | low >> fraction) & (STAMP_MASK << 3 | 7)

    def _task(self, at: int, size: int) -> int:
        # common_pid; 0 where the record is too short for it.
        if self.tid_at + 4 > size:
            self.short_records += 1
            return 0
        return (self._u32(at + self.tid_at) ^ SIGN) - SIGN

    def _integer(self, at: int, size: int, field: int) -> int:
        # A field as 64 bits; 0 where the record is too short for it.
        if self.fields[field + END] > size:
            self.short_records += self.fields[field + DUE] > size
            return 0
        high = self.fields[field + HIGH]
        if high == ODD:
            return self._odd_integer(at, field)
        value = self._word((at >> 2) + self.fields[field + LOW]) | self._word((at >> 2) + high) << 32
        value = value >> self.fields[field + SHIFT] & self.fields[field + MASK]
        return (value ^ self.fields[field + SIGNED]) - self.fields[field + SIGNED]

    def _odd_integer(self, at: int, field: int) -> int:
        # A field of a packed structure that crosses three words, byte by byte.
        at += self.fields[field + LOW]
        value = 0
        for i in range(8):
            value = value << 8 | self.data[at + (i if self.big else 7 - i)]
        return (value ^ self.fields[field + SIGNED]) - self.fields[field + SIGNED]

    def _u16(self, at: int) -> int:
        # The first half of a word.
        return self._u32(at) >> 16 if self.big else self._u32(at) & 0xFFFF

    def _u32(self, at: int) -> int:
        return self._word(at >> 2)

    def _word(self, i: int) -> int:
        word = self.words[i]
        if self.swap:
            word = word >> 24 | word >> 8 & 0xFF00 | (word & 0xFF00) << 8 | (word & 0xFF) << 24
        return word

    def _i64(self, at: int) -> int:
        if self.big:
            high = self._u32(at)
            low = self._u32(at + 4)
        else:
            high = self._u32(at + 4)
            low = self._u32(at)
        return ((high ^ SIGN) - SIGN) * WORD + low

    def _long(self, at: int) -> int:
        # The kernel's long; only its low bits matter here, a negative one comes out as such.
        return self._i64(at) if self.long_size == 8 else self._u32(at)

    def _before(self, lane: int, other: int) -> bool:
        if self.head_ns[lane] != self.head_ns[other]:
            return self.head_ns[lane] < self.head_ns[other]
        return lane < other

    def _second(self) -> int:
        # The lane that comes after the top of the heap; -1 when the top is alone.
        if self.live < 2:
            return -1
        if self.live > 2 and self._before(self.heap[2], self.heap[1]):
            return self.heap[2]
        return self.heap[1]

    def _leave(self) -> None:
        # Takes the top off the heap.
        self.live -= 1
        if self.live > 0:
            self._sink(self.heap[self.live])

    def _sink(self, lane: int) -> None:
        # Puts a lane where it belongs, starting from the top, whose lane is taken to be gone.
        i = 0
        while True:
            child = 2 * i + 1
            if child >= self.live:
                break
            if child + 1 < self.live and self._before(self.heap[child + 1], self.heap[child]):
                child += 1
            if not self._before(self.heap[child], lane):
                break
            self.heap[i] = self.heap[child]
            i = child
        self.heap[i] = lane
