"""Move the records of a life so that one phase becomes long; the order on each thread stays possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .edit import Edit, Expectation, NotHere, expect, median, mutator

if TYPE_CHECKING:
    from .lives import Life
    from .reader import Rec

LATE = "late-wakeup"
MARGIN = (1.5, 5.0)
"""Delay in multiples of the threshold, the larger of 10 ms and 10 x median."""


def _delay(edit: Edit, phase: list[int]) -> int:
    if not edit.capture.ticks_per_ns:
        raise NotHere
    return int(edit.rng.uniform(*MARGIN) * max(edit.capture.ticks(10e6), 10 * median(phase)))


def _candidates(edit: Edit, delay: int) -> list[Life]:
    """Return lives of which no phase took as long as the delay by itself."""
    return [
        x
        for x in edit.whole(pv=True)
        if x.ack[0].ts - x.not_present.ts < delay and not any(y.gfn == x.gfn for y in edit.lives.later(x))
    ]


def _tell_at(edit: Edit, life: Life, before: Rec, entry: Rec) -> int:
    """Move ready, accept and injection right before an entry; return the step between them."""
    step = max(1, min(1000, (entry.ts - before.ts) // 6))
    edit.drop(life.injected_again)
    for back, rec in ((3, life.ready), (2, life.accepted), (1, life.injected)):
        edit.change(rec, ts=entry.ts - back * step, cpu=entry.cpu)
    return step


def _ack_after(edit: Edit, life: Life, entry: Rec, leave: Rec) -> None:
    """Move the ACK between an entry and the exit after it."""
    gap = (leave.ts - entry.ts) // 5
    edit.drop(life.eoi)
    for n, rec in enumerate(life.ack, 1):
        edit.change(rec, ts=entry.ts + n * gap, cpu=entry.cpu)


def _make_room(edit: Edit, life: Life, start: int, end: int) -> None:
    """Erase lives of the vCPU that were told while this one holds the slot."""
    others = [x for x in edit.lives.of(life.tid) if x is not life and x.pv]
    edit.erase(x for x in others if x.ready and x.ready.ts <= end and (not x.ack or x.ack[0].ts >= start))


@mutator
def late_delivery(edit: Edit) -> list[Expectation]:
    """Completed, then nothing for long: P3."""
    delay = _delay(edit, [x.ready.ts - x.completed.ts for x in edit.lives.all if x.ready and x.completed])
    life = edit.pick(_candidates(edit, delay))
    assert life.completed
    before, entry, leave = edit.entry_with_gap(life, life.completed.ts + delay, edit.lives.end)
    _tell_at(edit, life, before, entry)
    _ack_after(edit, life, entry, leave)
    return [expect(LATE, life, "found", phase=("p3",))]


@mutator
def late_page(edit: Edit) -> list[Expectation]:
    """The work takes long: P1 and P2, which only workqueue events tell apart."""
    delay = _delay(edit, [x.completed.ts - x.not_present.ts for x in edit.lives.all if x.completed])
    life = edit.pick(_candidates(edit, delay))
    before, entry, leave = edit.entry_with_gap(life, life.not_present.ts + delay, edit.lives.end)
    step = _tell_at(edit, life, before, entry)
    _ack_after(edit, life, entry, leave)
    edit.change(life.completed, ts=entry.ts - 4 * step, cpu=(entry.cpu + 1) % edit.capture.cpus)
    return [expect(LATE, life, "found", phase=("p1", "p2", "p12"))]


@mutator
def late_interrupt(edit: Edit) -> list[Expectation]:
    """The vector is accepted, the guest takes it late: P4."""
    told = [x for x in edit.lives.all if x.accepted and x.injected]
    delay = _delay(edit, [x.injected.ts - x.accepted.ts for x in told if x.injected and x.accepted])
    life = edit.pick(_candidates(edit, delay))
    assert life.accepted
    _, entry, leave = edit.entry_with_gap(life, life.accepted.ts + delay, edit.lives.end)
    _make_room(edit, life, life.accepted.ts, leave.ts)
    edit.drop(life.injected_again)
    edit.change(life.injected, ts=entry.ts - 1, cpu=entry.cpu)
    _ack_after(edit, life, entry, leave)
    return [expect(LATE, life, "found", phase=("p4",))]


@mutator
def late_ack(edit: Edit) -> list[Expectation]:
    """The guest took the interrupt and ACKs late: P5."""
    told = [x for x in edit.lives.all if x.injected and x.ack]
    delay = _delay(edit, [x.ack[0].ts - x.injected.ts for x in told if x.injected])
    life = edit.pick(_candidates(edit, delay))
    assert life.injected
    _, entry, leave = edit.entry_with_gap(life, life.injected.ts + delay, edit.lives.end)
    _make_room(edit, life, life.injected.ts, leave.ts)
    _ack_after(edit, life, entry, leave)
    return [expect(LATE, life, "found", phase=("p5",))]
