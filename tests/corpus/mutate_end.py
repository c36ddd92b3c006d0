"""Ends: of the trace, of async page faults in a guest, of a VM."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from .edit import Edit, Expectation, NotHere, expect, mutator
from .lives import MSR_EN

if TYPE_CHECKING:
    from .lives import Life
    from .reader import Rec

LOST = ("lost-wakeup", "lost-interrupt", "lost-work", "missing-ack", "spurious-ready")


def _open_at(life: Life, ts: int) -> bool:
    return life.not_present.ts < ts and (life.ready is None or life.ready.ts > ts)


@mutator
def cut(edit: Edit) -> list[Expectation]:
    """Both ends fall into faults under way."""
    first, last = sorted(edit.rng.sample(edit.whole(), 2), key=lambda x: x.not_present.ts)
    start, end = first.not_present.ts + 1, last.not_present.ts + 1
    if end - start < (edit.lives.end - edit.capture.records[0].ts) // 20:
        raise NotHere
    edit.keep_only(lambda r: start <= r.ts <= end)
    inside = [x for x in edit.lives.all if start <= x.not_present.ts]
    return [
        expect((), None, "quiet"),
        *(expect(LOST, x, "in-flight", "undecided") for x in inside if _open_at(x, end) and x.whole),
        *(expect(LOST, x, "left-truncated") for x in edit.lives.all if _ready_only(x, start, end)),
    ]


def _ready_only(life: Life, start: int, end: int) -> bool:
    return bool(life.not_present.ts < start and life.ready and start <= life.ready.ts <= end)


@mutator
def disabled(edit: Edit) -> list[Expectation]:
    """The guest turns async page faults off with faults outstanding: the kernel forgets them."""
    template = edit.pick(edit.whole(pv=True)).ack
    victim = edit.pick(x for x in edit.whole(pv=True) if x.ready and x.ready.ts - x.not_present.ts > 100_000)
    assert victim.ready
    _, entry, leave = edit.entry_with_gap(victim, victim.not_present.ts, victim.ready.ts - 1)
    gap = (leave.ts - entry.ts) // 5
    steps = [
        r.but(ts=entry.ts + n * gap, cpu=entry.cpu, common_pid=victim.tid) for n, r in enumerate(template, 1)
    ]
    off = steps[1].ts
    vcpu = victim.token & 0xFFF
    leaving = steps[0].but(vcpu_id=vcpu)
    edit.add(leaving, steps[1].but(ecx=MSR_EN, data=0), steps[2].but(vcpu_id=vcpu))
    mine = edit.lives.of(victim.tid)
    cleared = [x for x in mine if _open_at(x, off)]
    for life in cleared:
        edit.drop(life.answer())
    edit.erase(x for x in mine if x.not_present.ts >= off)
    return [expect(LOST, x, "cancelled") for x in cleared if x.whole]


@mutator
def vm_killed(edit: Edit) -> list[Expectation]:
    """All vCPU threads of a VM vanish with faults outstanding; the host goes on."""
    victim = edit.pick(x for x in edit.whole() if x.completed)
    tids = _vm_of(edit, victim)
    others = [r for r in edit.capture.records if r.tid not in tids]
    end = victim.not_present.ts + edit.rng.randint(1, 100_000)
    if len([r for r in others if r.ts > end]) < 1000:
        raise NotHere
    edit.keep_only(lambda r: r.ts <= end or not _names(r, tids))
    open_ = [x for x in edit.lives.all if x.tid in tids and _open_at(x, end)]
    return [expect(LOST, x, "cancelled", "in-flight", "undecided") for x in open_ if x.whole]


def _vm_of(edit: Edit, life: Life) -> set[int]:
    """Return the vCPU threads that share this one's memory: equal distance of host and guest addresses."""
    places: dict[int, set[int]] = defaultdict(set)
    for x in edit.lives.all:
        if x.completed:
            places[x.tid].add(x.completed["address"] - (x.not_present["gva"] & ~0xFFF))
    return {tid for tid, seen in places.items() if seen & places[life.tid]}


def _names(rec: Rec, tids: set[int]) -> bool:
    if rec.tid in tids:
        return True
    match rec.name:
        case "sched_switch":
            return bool({rec["prev_pid"], rec["next_pid"]} & tids)
        case "sched_wakeup" | "sched_waking":
            return rec["pid"] in tids
    return False
