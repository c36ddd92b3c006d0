"""Break the book-keeping of tokens, vectors and ACKs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .edit import CLEAR_AGE, CLEAR_ENTRIES, Edit, Expectation, NotHere, anything, expect, mutator, over

if TYPE_CHECKING:
    from .lives import Life

SPURIOUS = "spurious-ready"
OUTSTANDING = 60
"""Faults of a vCPU that can be open at one time; the kernel refuses a 65th."""


def _unused(edit: Edit, tid: int) -> int:
    """Return a token whose id is above all that the thread ever had."""
    top = max(edit.lives.of(tid), key=lambda x: x.token)
    return top.token + (edit.rng.randint(10, 500) << 12)


def last_told(edit: Edit) -> Life:
    """Return a PV life after which no other life of its vCPU is left, but much progress."""
    edit.need_no_loss()
    span = edit.lives.end - edit.capture.records[0].ts
    life = edit.pick(
        x
        for x in edit.whole(pv=True)
        if edit.lives.entries_after(x.tid, x.ack[0].ts) >= 2 * CLEAR_ENTRIES
        and edit.lives.last_entry(x.tid) - x.ack[0].ts >= max(CLEAR_AGE * edit.lives.totals[-1], span // 4)
    )
    assert life.ready
    told = life.ready.ts
    edit.erase(x for x in edit.lives.of(life.tid) if x is not life and (not x.ready or x.ready.ts > told))
    return life


@mutator
def duplicate_ready(edit: Edit) -> list[Expectation]:
    edit.need_no_loss()
    life = edit.pick(edit.whole())
    assert life.ready
    before, entry, _ = edit.entry_with_gap(
        life, (life.ack[-1] if life.ack else life.ready).ts + 1, edit.lives.end
    )
    edit.add(life.ready.but(ts=(before.ts + entry.ts) // 2, cpu=entry.cpu))
    return [expect("duplicate-ready", life, "found")]


@mutator
def spurious_ready(edit: Edit) -> list[Expectation]:
    """A ready more, for a token that was never issued."""
    edit.need_no_loss()
    life = edit.pick(edit.whole())
    assert life.ready
    token = _unused(edit, life.tid)
    edit.add(life.ready.but(ts=life.ready.ts - 1, token=token))
    return [expect(SPURIOUS, life, "found", token=token)]


@mutator
def ready_retagged(edit: Edit) -> list[Expectation]:
    """The ready of a life carries a token that was never issued; the life itself may then count as lost."""
    edit.need_no_loss()
    life = edit.pick(edit.whole())
    token = _unused(edit, life.tid)
    edit.change(life.ready, token=token)
    return [expect(SPURIOUS, life, "found", token=token), anything(life)]


@mutator
def not_present_dropped(edit: Edit) -> list[Expectation]:
    """Ids only grow: a ready between known ids has a not_present inside the trace, or none at all."""
    edit.need_no_loss()
    starts = [next(r.ts for r in edit.capture.records if r.cpu == c) for c in range(edit.capture.cpus)]
    first = {tid: edit.lives.of(tid)[0] for tid in edit.lives.vcpus}
    life = edit.pick(x for x in edit.whole() if x is not first[x.tid] and x.not_present.ts > max(starts))
    edit.drop([life.try_, life.not_present])
    return [expect(SPURIOUS, life, "found")]


@mutator
def first_not_present_dropped(edit: Edit) -> list[Expectation]:
    """A ready with an id below the first one seen was asked for before the trace began."""
    life = edit.lives.of(edit.pick(edit.lives.vcpus))[0]
    if not life.whole:
        raise NotHere
    edit.drop([life.try_, life.not_present])
    return [expect(SPURIOUS, life, "left-truncated")]


@mutator
def token_reuse(edit: Edit) -> list[Expectation]:
    """not_present with a token that is still outstanding on the same vCPU."""
    pairs = [
        (a, b)
        for a in edit.whole()
        for b in edit.lives.of(a.tid)
        if b.whole and a.ready and a.not_present.ts < b.not_present.ts < a.ready.ts and edit.seen_from(a)
    ]
    first, second = edit.pick(pairs)
    edit.change(second.not_present, token=first.token)
    edit.change(second.ready, token=first.token)
    return [expect("token-reuse", first, "found")]


@mutator
def token_zero(edit: Edit) -> list[Expectation]:
    life = edit.pick(x for x in edit.whole() if not x.token & 0xFFF)
    edit.change(life.not_present, token=0)
    edit.change(life.ready, token=0)
    return [expect("token-zero", life, "found", token=0)]


@mutator
def wrong_vector(edit: Edit) -> list[Expectation]:
    """The interrupt goes out with vector 0, as when the INT MSR was never restored."""
    life = last_told(edit)
    edit.change(life.accepted, vec=0)
    edit.drop([life.injected, *life.injected_again, *life.eoi, *life.ack])
    return [expect("wrong-vector", life, "found")]


@mutator
def ack_dropped(edit: Edit) -> list[Expectation]:
    """A later delivered ready proves that the slot was free again."""
    life = edit.pick(
        x
        for x in edit.whole(pv=True)
        if any(y.whole and y.pv and y.ready and y.ready.ts > x.ack[-1].ts for y in edit.lives.of(x.tid))
    )
    edit.drop(life.ack)
    return [expect(("missing-ack", "lost-interrupt", "lost-wakeup"), life, "quiet", "repaired")]


@mutator
def last_ack_dropped(edit: Edit) -> list[Expectation]:
    """The handler ran, the vCPU goes on for long, and no ACK comes."""
    life = last_told(edit)
    edit.drop(life.ack)
    return [expect("missing-ack", life, "found")]


@mutator
def interrupt_lost(edit: Edit) -> list[Expectation]:
    """The vector was accepted, other vectors were injected again and again, this one never."""
    life = last_told(edit)
    edit.drop([life.injected, *life.injected_again, *life.eoi, *life.ack])
    assert life.ready
    others = [r for r in edit.lives.after(life.ready) if r.name == "kvm_inj_virq" and r["vector"] != 0xF3]
    if len(others) < 20:
        raise NotHere
    return [expect(("lost-interrupt", "missing-ack"), life, "found")]


@mutator
def slot_blocked(edit: Edit) -> list[Expectation]:
    """No ACK, and all later faults of the vCPU are done but never ready: blocked, not lost."""
    life = edit.pick_stuck()
    edit.drop(life.ack)
    assert life.ready
    told = life.ready.ts
    later = [x for x in edit.lives.of(life.tid) if x is not life and (not x.ready or x.ready.ts > told)]
    behind = later[:OUTSTANDING]
    edit.erase(later[OUTSTANDING:])
    for other in behind:
        edit.drop(other.answer())
    gfns = [x.gfn for x in behind]
    if len(set(gfns)) < len(gfns) or not all(x.completed for x in behind):
        raise NotHere
    return [
        expect("missing-ack", life, "found"),
        *(expect("lost-wakeup", x, "in-flight", "undecided", *over(edit, x)) for x in behind),
    ]


@mutator
def setup_refused(edit: Edit) -> list[Expectation]:
    """Of a life only the try is left: the kernel had no room or no memory for it."""
    life = edit.pick(edit.whole())
    edit.drop(life.records())
    assert life.try_
    edit.add(life.try_)
    return [expect("setup-refused", life, "found")]


@mutator
def repeated_fault_storm(edit: Edit) -> list[Expectation]:
    """A thousand faults on a page that is on its way."""
    formats = {f.name: f for f in edit.capture.formats}
    if "kvm_async_pf_repeated_fault" not in formats:
        raise NotHere
    life = edit.pick(x for x in edit.whole() if x.completed and x.completed.ts - x.not_present.ts > 1_000_000)
    assert life.try_
    assert life.completed
    step = (life.completed.ts - life.not_present.ts) // 1001
    repeated = formats["kvm_async_pf_repeated_fault"]
    for n in range(1, 1001):
        again = life.try_.but(ts=life.not_present.ts + n * step, cpu=life.not_present.cpu)
        hit = again.but(ts=again.ts + 1, common_type=repeated.id)
        hit.format = repeated
        edit.add(again, hit)
    return [expect("repeated-fault-storm", life, "found")]
