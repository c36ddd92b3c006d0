# cython: annotation_typing=False, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Find the wanted records in ring-buffer sub-buffers, merge CPUs in time order, copy out payloads.

One source, two engines: Cython compiles it with the types of ``subbuf.pxd``; without a compiler it runs
as plain Python. All times are below 2^62, so that no arithmetic here can leave 64 bits and both engines
agree on hostile pages too.

Records in a page (see `lanes`), after the kernel's include/linux/ring_buffer.h and kernel/trace/ring_buffer.c:

    one word, 5 bits type_len and 27 bits time delta, then
      1-28  payload of 4 * type_len bytes
      0     u32 length (itself included), payload
      29    discarded; with delta 0 the rest of the page is unused, else u32 length
      30    time extend: u32, upper bits of the delta
      31    time stamp: u32, upper bits; the top 5 of 64 bits come from the stamp before

The delta of a discarded record counts, as in libtraceevent (src/kbuffer-parse.c); the kernel's own
reader leaves it out (rb_update_read_stamp), but every user space reader so far has counted it.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from apftrace_parsers import integers as _integers
from apftrace_parsers import lanes as _lanes
from apftrace_parsers.lanes import Lanes
from apftrace_parsers.rowwriter import RowWriter

try:
    import cython
except ImportError:
    from apftrace_parsers import uncompiled as cython

if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

COMPILED: bool = cython.compiled
"""Whether this is the compiled engine."""

EVENT_IDS = _integers.EVENT_IDS
NO_STAMP = _integers.NO_NS
NOTHING, RECORD, GAP = _integers.NOTHING, _integers.RECORD, _integers.GAP
BAD_STAMP, BAD_RECORD = _integers.BAD_STAMP, _integers.BAD_RECORD
LOSS_ROOM = _lanes.LOSS_ROOM

STAMP_MASK = (1 << 59) - 1
FOREVER = (1 << 63) - 1


class Walker(Lanes):
    """The records of several lanes, merged.

    Attributes:
        rows: writes them.
        live: lanes in the merge.
        hungry: the lane that left it for want of data, or -1.
        backwards: records older than the one before them on their lane.
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
        Lanes.__init__(self, data, page_sizes, big=big, long_size=long_size)
        n = len(cpus)
        n_slots = EVENT_IDS * (max(instances, default=0) + 1)
        self.rows = RowWriter(data, big=big)
        self.cpu = memoryview(array("i", cpus))
        self.want_base = memoryview(array("q", [EVENT_IDS * i for i in instances]))
        self.want = memoryview(array("h", [-1]) * n_slots)
        self.counts = _integers.zeros("q", n_slots)
        self.report_gaps = _integers.filled(1, n)
        self.head_pick = _integers.zeros("i", n)
        self.heap = _integers.zeros("i", n)
        self.live = 0
        self.hungry = -1
        self.n_short = 0
        self.backwards = 0

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
            fields: per pick what to cut out of them; this and the others as ``RowWriter.set_picks`` has them.
            tid_at: offset of common_pid.
            tails: fields that records may end before.
        """
        self.rows.set_picks(fields, tid_at, tails)
        for instance, event, pick in reversed(wanted):
            slot = instance * EVENT_IDS + event
            self.rows.put_before(pick, self.want[slot])
            self.want[slot] = pick

    def mute_gaps(self, lane: int) -> None:
        """Keep the gaps of a lane out of the merged rows; they are still counted as losses."""
        self.report_gaps[lane] = 0

    def hits(self, instance: int) -> dict[int, int]:
        """Return the number of records per event id, within the bounds, of one instance."""
        base = instance * EVENT_IDS
        found = {}
        # No comprehension: Cython would type nothing in it, and most ids have no hits.
        for i in range(EVENT_IDS):
            if self.counts[base + i]:
                found[i] = self.counts[base + i]
        return found

    @property
    def short_records(self) -> int:
        """Fields and records that were shorter than their format says."""
        return int(self.n_short + self.rows.short_records)

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

    def merge(self, n: int) -> int:
        """Write merged rows behind the first n until the output of ``rows`` is full or a lane has used up its window.

        Returns:
            Rows now in use. ``hungry`` is then the lane that left the merge for want of data, or -1.
            ``n_losses`` losses wait to be taken: when there are LOSS_ROOM of them the merge stops too.
        """
        with cython.nogil:
            return self._merge(n)

    def _merge(self, n: int) -> int:
        room = self.rows.room
        self.hungry = -1
        while self.live > 0 and n <= room and self.n_losses < LOSS_ROOM:
            lane = self.heap[0]
            rival = self._second()
            until = FOREVER
            if rival >= 0:
                until = self.head_ns[rival] - (lane > rival)
            if self.head_kind[lane] == RECORD:
                n = self.rows.put(
                    n,
                    self.head_ns[lane],
                    self.cpu[lane],
                    self.head_at[lane],
                    self.head_len[lane],
                    self.head_pick[lane],
                )
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

    def _put_gap(self, lane: int, n: int) -> int:
        # Notes the gap at the head of a lane, and writes it where rows of gaps are wanted.
        self._log_loss(lane)
        if not self.report_gaps[lane] or self.raw[lane] > self.raw_upto[lane]:
            return n
        return self.rows.put_gap(
            n, self.head_ns[lane], self.cpu[lane], self.head_len[lane], self.head_at[lane]
        )

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
        cpu = self.cpu[lane]
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
            word = self._word(pos >> 2)
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
                size = self._word((pos + 4) >> 2)
                if code >= 30:
                    if code == 30:
                        raw += delta + (size << 27)
                    else:
                        stamp = self._absolute(raw, delta + (size << 27))
                        if stamp < raw:
                            # It is wrong, or what came before it was: the next page begins at a known time.
                            self._mark_gap(lane)
                        raw = stamp
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
                self.n_short += 1
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
                ns = self.stamps.ns(lane, raw)
                if ns <= until and n <= room:
                    n = self.rows.put(n, ns, cpu, body, size, pick)
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

    def _absolute(self, raw: int, stamp: int) -> int:
        # As rb_fix_abs_ts of kernel/trace/ring_buffer.c.
        high = raw & ~STAMP_MASK
        if high:
            stamp |= high
            if stamp < raw:
                stamp += STAMP_MASK + 1
        return stamp

    def _u16(self, at: int) -> int:
        # The first half of a word.
        return self._word(at >> 2) >> 16 if self.big else self._word(at >> 2) & 0xFFFF

    def _word(self, i: int) -> int:
        # As that of the lanes: what every record needs is compiled into its own module.
        word = self.words[i]
        if self.swap:
            word = word >> 24 | word >> 8 & 0xFF00 | (word & 0xFF00) << 8 | (word & 0xFF) << 24
        return word

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
