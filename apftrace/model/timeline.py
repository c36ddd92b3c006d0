"""A second, close look at a few spans of the trace: what two threads did, who had their CPUs, what the disk did.

The fold keeps sums over all lives. For the few that a report tells in full, the records themselves are
read again, only at their time: every switch of the CPUs, wakeups, block requests, reclaim, lock waits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace_parsers.base import PassResult, Pick

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence, Set

    from apftrace_parsers.base import Source

MOST_ROWS = 400_000
"""Records of one close look; a span that holds more is left out."""


def _pick(event: str, *fields: str) -> Pick:
    return Pick((event,), tuple((f,) for f in fields))


PICKS = (
    _pick("sched:sched_switch", "prev_pid", "prev_state", "next_pid"),
    _pick("sched:sched_waking", "pid", "target_cpu"),
    _pick("sched:sched_wakeup", "pid", "target_cpu"),
    _pick("kvm:kvm_exit", "exit_reason", "isa"),
    _pick("block:block_rq_issue", "dev", "sector", "nr_sector"),
    _pick("block:block_rq_complete", "dev", "sector", "nr_sector"),
    _pick("vmscan:mm_vmscan_direct_reclaim_begin"),
    _pick("vmscan:mm_vmscan_direct_reclaim_end"),
    _pick("mmap_lock:mmap_lock_start_locking"),
    _pick("mmap_lock:mmap_lock_acquire_returned"),
)
SWITCH, WAKING, WAKEUP, EXIT, ISSUE, COMPLETE, RECLAIM, RECLAIMED, LOCK, LOCKED = range(len(PICKS))
_WINDOW_EXITS = {(1, 7), (2, 0x64)}
"""isa and exit_reason of an exit because guest interrupts are on again: INTERRUPT_WINDOW, vintr."""

RAN, WAITED, SLEPT, BLOCKED = "ran", "waited", "slept", "blocked"

Record = tuple[int, int, int, int, int, int, int]
"""ts, cpu, tid, pick, a, b, c."""

Spell = tuple[int, int, str, int]
"""Begin, end, state and CPU of a stretch of a thread's time."""


@dataclass
class Spent:
    """What a thread did in a span.

    Attributes:
        ns: how long it ran, waited for a CPU, slept, slept uninterruptibly.
        others: who ran while it waited, ns by thread id.
        device: ns during which a block request of its was under way; null when none was traced.
        requests: device, sector, and ns of each such request.
        reclaim: ns in direct reclaim.
        lock: ns waiting for mmap_lock.
        exits: of the guest.
        window_exits: those because guest interrupts were on again.
    """

    ns: Counter[str] = field(default_factory=Counter)
    others: Counter[int] = field(default_factory=Counter)
    device: int | None = None
    requests: list[tuple[int, int, int]] = field(default_factory=list)
    reclaim: int = 0
    lock: int = 0
    exits: int = 0
    window_exits: int = 0

    @property
    def most(self) -> str | None:
        """What it did for the longest time."""
        return max(self.ns, key=lambda did: self.ns[did]) if any(self.ns.values()) else None


def device_name(dev: int) -> str:
    """Return a dev_t as major:minor, the way the kernel's MKDEV packs it."""
    return f"{dev >> 20 & 0xFFF}:{dev & 0xFFFFF}"


def look(source: Source, spans: Iterable[tuple[int, int]], tids: Set[int]) -> list[Record]:
    """Return the records of these spans that concern the threads, and every switch and block request, in order."""
    found: list[Record] = []
    wakes = pl.col("pick").is_in([WAKING, WAKEUP])
    shared = pl.col("pick").is_in([SWITCH, ISSUE, COMPLETE])
    own, woken = (pl.col(who).is_in(sorted(tids)) for who in ("tid", "a"))
    lost = pl.col("pick") < 0
    for start, stop in _joined(spans):
        taken: list[Record] = []
        for batch in source.stream(PICKS, PassResult(), start_ns=start, end_ns=stop):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            kept = frame.filter(shared | (wakes & woken) | (own & ~wakes & ~lost))
            if len(taken) + kept.height > MOST_ROWS:
                taken = []
                break
            taken += kept.select("ts", "cpu", "tid", "pick", "a", "b", "c").iter_rows()
        found += taken
    return found


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], stop))
        else:
            out.append((start, stop))
    return out


class Close:
    """The records of a close look, ordered by what is asked of them."""

    def __init__(self, records: Sequence[Record]) -> None:
        """Sort the records of ``look`` by thread and by CPU, once."""
        self.requests = [r for r in records if r[3] in (ISSUE, COMPLETE)]
        self._own: dict[int, list[Record]] = {}
        self._moves: dict[int, list[Record]] = {}
        self._switches: dict[int, list[Record]] = {}
        self._spells: dict[int, list[Spell]] = {}
        for record in records:
            _, cpu, tid, pick, a, _, c = record
            if pick == SWITCH:
                self._switches.setdefault(cpu, []).append(record)
                for thread in {a, c} - {0}:
                    self._moves.setdefault(thread, []).append(record)
            elif pick in (WAKING, WAKEUP):
                self._moves.setdefault(a, []).append(record)
            elif pick not in (ISSUE, COMPLETE):
                self._own.setdefault(tid, []).append(record)

    def spent(self, tid: int, start: int, stop: int, *, also: Set[int] = frozenset()) -> Spent:
        """Return what a thread did between two instants.

        Args:
            tid: the thread.
            start: first instant.
            stop: last instant.
            also: threads whose block requests count as this one's.
        """
        if tid not in self._spells:
            self._spells[tid] = list(_spells(self._moves.get(tid, ()), tid))
        out = Spent()
        for begin, end, state, cpu in self._spells[tid]:
            lasted = min(end, stop) - max(begin, start)
            if lasted <= 0:
                continue
            out.ns[state] += lasted
            if state == WAITED:
                out.others.update(self._who_ran(cpu, max(begin, start), min(end, stop), tid))
        _add_requests(out, self.requests, {tid, *also}, start, stop)
        own = self._own.get(tid, [])
        out.reclaim = _between(own, RECLAIM, RECLAIMED, start, stop)
        out.lock = _between(own, LOCK, LOCKED, start, stop)
        for ts, _, _, pick, a, b, _ in own:
            if pick == EXIT and start <= ts <= stop:
                out.exits += 1
                out.window_exits += (b, a) in _WINDOW_EXITS
        return out

    def _who_ran(self, cpu: int, start: int, stop: int, tid: int) -> Counter[int]:
        """Return how long each other thread ran on a CPU; 0 is the idle task."""
        out: Counter[int] = Counter()
        switches = self._switches.get(cpu, [])
        first = bisect_right(switches, start, key=_instant)
        since, current = start, switches[first - 1][6] if first else -1
        for ts, _, _, _, prev, _, following in switches[first : bisect_right(switches, stop, key=_instant)]:
            out[prev if current < 0 else current] += ts - since
            since, current = ts, following
        if current >= 0:
            out[current] += stop - since
        del out[tid]
        return +out


def _instant(record: Record) -> int:
    return record[0]


def _spells(moves: Iterable[Record], tid: int) -> Iterator[Spell]:
    """Yield what the switches and wakeups of a thread tell of it, in order."""
    since, state, at = 0, "", -1
    for ts, cpu, _, pick, a, b, _ in moves:
        if pick == SWITCH and a == tid:
            # Whoever is switched out ran until now, whatever was known before.
            yield since, ts, RAN, cpu
            since, state, at = ts, _state_after(b), cpu
        elif pick == SWITCH:
            if state:
                yield since, ts, state, cpu if at < 0 else at
            since, state, at = ts, RAN, cpu
        elif state not in {WAITED, RAN}:
            yield since, ts, state or SLEPT, at
            since, state, at = ts, WAITED, b
    if state:
        yield since, 1 << 62, state, at


def _state_after(prev_state: int) -> str:
    if prev_state & tp.TASK_STATE_MASK == 0:
        return WAITED
    return BLOCKED if prev_state & tp.TASK_UNINTERRUPTIBLE else SLEPT


def _add_requests(out: Spent, records: Iterable[Record], tids: Set[int], start: int, stop: int) -> None:
    waiting: dict[tuple[int, int], int] = {}
    busy: list[tuple[int, int]] = []
    for ts, _, tid, pick, dev, sector, _ in records:
        if pick == ISSUE and tid in tids:
            waiting[dev, sector] = ts
        issued = waiting.pop((dev, sector), None) if pick == COMPLETE else None
        # Completed before the span, or asked for after it: it is of another fault.
        if issued is not None and ts >= start and issued <= stop:
            out.requests.append((dev, sector, ts - issued))
            busy.append((max(issued, start), min(ts, stop)))
    if busy:
        out.device = sum(b - a for a, b in _joined(busy))


def _between(own: Iterable[Record], begin: int, end: int, start: int, stop: int) -> int:
    total, since = 0, None
    for ts, _, _, pick, *_ in own:
        if pick == begin:
            since = ts
        elif pick == end and since is not None:
            total += max(0, min(ts, stop) - max(since, start))
            since = None
    return total
