"""Ends: of the trace, of async page faults in a guest, of a VM."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from .edit import Edit, Expectation, NotHere, expect, mutator
from .lives import MSR_EN, WAKE_ALL

if TYPE_CHECKING:
    from .lives import Life
    from .reader import Rec

LOST = ("lost-wakeup", "lost-interrupt", "lost-work", "missing-ack", "spurious-ready")


def open_at(life: Life, ts: int) -> bool:
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
        *(expect(LOST, x, "in-flight", "undecided") for x in inside if open_at(x, end) and x.whole),
        *(expect(LOST, x, "left-truncated") for x in edit.lives.all if _ready_only(x, start, end)),
    ]


def _ready_only(life: Life, start: int, end: int) -> bool:
    return bool(life.not_present.ts < start and life.ready and start <= life.ready.ts <= end)


def _write_enable(edit: Edit, victim: Life, start: int, end: int, value: int) -> int:
    """Let the vCPU write the EN MSR between two instants; return when."""
    template = edit.pick(edit.whole(pv=True)).ack
    _, entry, leave = edit.entry_with_gap(victim, start, end)
    gap = (leave.ts - entry.ts) // 8
    vcpu = victim.token & 0xFFF
    steps = [
        r.but(ts=entry.ts + n * gap, cpu=entry.cpu, common_pid=victim.tid) for n, r in enumerate(template, 1)
    ]
    msr = steps[1].but(ecx=MSR_EN, data=value)
    edit.add(steps[0].but(vcpu_id=vcpu), msr, steps[2].but(ts=entry.ts + 4 * gap, vcpu_id=vcpu))
    if value & 1:
        _wake_all(edit, victim, template, msr.ts, entry, gap)
    return msr.ts


def _wake_all(edit: Edit, victim: Life, template: list[Rec], at: int, entry: Rec, gap: int) -> None:
    """Add the broadcast that follows, its interrupt and the guest's ACK."""
    assert victim.ready
    assert victim.accepted
    assert victim.injected
    told = ((victim.ready, 1), (victim.accepted, 2), (victim.injected, 3))
    ready, accepted, injected = (r.but(ts=at + n * gap // 4, cpu=entry.cpu) for r, n in told)
    edit.add(ready.but(token=WAKE_ALL, gva=0), accepted, injected)
    for n, rec in enumerate(template, 5):
        copy = rec.but(ts=entry.ts + n * gap, cpu=entry.cpu, common_pid=victim.tid)
        edit.add(copy if rec.name == "kvm_msr" else copy.but(vcpu_id=victim.token & 0xFFF))


def _disable(edit: Edit) -> tuple[Life, int, list[Life]]:
    """Turn async page faults off with faults outstanding; return one of them, when, and all."""
    victim = edit.pick(x for x in edit.whole(pv=True) if x.ready and x.ready.ts - x.not_present.ts > 100_000)
    assert victim.ready
    off = _write_enable(edit, victim, victim.not_present.ts, victim.ready.ts - 1, 0)
    cleared = [x for x in edit.lives.of(victim.tid) if open_at(x, off)]
    for life in cleared:
        edit.drop(life.answer())
    return victim, off, cleared


@mutator
def disabled(edit: Edit) -> list[Expectation]:
    """The guest turns async page faults off with faults outstanding: the kernel forgets them."""
    victim, off, cleared = _disable(edit)
    edit.erase(x for x in edit.lives.of(victim.tid) if x.not_present.ts >= off)
    return [expect(LOST, x, "cancelled") for x in cleared if x.whole]


@mutator
def disabled_and_enabled(edit: Edit) -> list[Expectation]:
    """The guest's CPU goes off and comes back: the broadcast on enabling wakes who still waits."""
    victim, off, cleared = _disable(edit)
    on = _write_enable(edit, victim, off + 1_000_000, edit.lives.end, 0xD938009)
    busy = [x for x in edit.lives.of(victim.tid) if x not in cleared and x.ready]
    edit.erase(x for x in busy if off <= x.not_present.ts <= on or x.not_present.ts < on < x.records()[-1].ts)
    return [expect(LOST, x, "cancelled") for x in cleared if x.whole]


@mutator
def vm_killed(edit: Edit) -> list[Expectation]:
    """All vCPU threads of a VM vanish with faults outstanding; the host goes on."""
    victim = edit.pick(x for x in edit.whole() if x.completed)
    tids = vm_of(edit, victim)
    others = [r for r in edit.capture.records if r.tid not in tids]
    end = victim.not_present.ts + edit.rng.randint(1, 100_000)
    if len([r for r in others if r.ts > end]) < 1000:
        raise NotHere
    edit.keep_only(lambda r: r.ts <= end or not r.is_about(tids))
    open_ = [x for x in edit.lives.all if x.tid in tids and open_at(x, end)]
    return [expect(LOST, x, "cancelled", "in-flight", "undecided") for x in open_ if x.whole]


def vm_of(edit: Edit, life: Life) -> set[int]:
    """Return the vCPU threads that share this one's memory: equal distance of host and guest addresses."""
    places: dict[int, set[int]] = defaultdict(set)
    for x in edit.lives.all:
        if x.completed:
            places[x.tid].add(x.completed["address"] - (x.not_present["gva"] & ~0xFFF))
    return {tid for tid, seen in places.items() if seen & places[life.tid]}
