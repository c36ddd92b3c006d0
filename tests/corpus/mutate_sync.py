"""Faults that the vCPU thread sleeps through itself, and sleeps that are none of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .edit import Edit, Expectation, NotHere, expect, mutator
from .mutate_legal import renumber

if TYPE_CHECKING:
    from .lives import Life
    from .reader import Rec

SYNC = "sync-faults"
NEEDED = ("kvm_page_fault", "kvm_try_async_get_page", "kvm_entry", "sched_switch")
ASLEEP = 2
AWAY = 100_000
"""Added to all thread ids, so that what was found in the capture as it was recorded is not taken for this."""
TICKS = 8
"""Room between two records into which a sleep fits."""


def _wakeful(edit: Edit) -> None:
    """Let no vCPU thread sleep uninterruptibly, and give all threads other numbers."""
    other = renumber(lambda pid: pid + AWAY if pid else 0)
    vcpus = {rec.tid for rec in edit.capture.records if rec.name == "kvm_entry"}
    for rec in edit.capture.records:
        if rec.name == "sched_switch" and rec["prev_state"] & ASLEEP and rec["prev_pid"] in vcpus:
            edit.change(rec, prev_state=1)
    edit.change_each(other)
    edit.capture.cmdlines = {tid + AWAY if tid else 0: comm for tid, comm in edit.capture.cmdlines.items()}


def _sleep(edit: Edit, after: Rec, before: Rec, *, state: int = ASLEEP, missed: int | None = None) -> None:
    """Let the thread of two neighbouring records sleep between them."""
    step = (before.ts - after.ts) // 4
    known = next(r for r in edit.capture.records if r.name == "sched_switch")
    away = known.but(
        ts=after.ts + step,
        cpu=after.cpu,
        common_pid=after.tid,
        prev_pid=after.tid,
        prev_state=state,
        next_pid=0,
    )
    back = known.but(
        ts=after.ts + 2 * step,
        cpu=after.cpu,
        common_pid=0,
        prev_pid=0,
        prev_state=0,
        next_pid=after.tid,
        missed=missed,
    )
    edit.add(away, back)


def _plain_fault(edit: Edit) -> tuple[Rec, Rec]:
    """Return a page fault that KVM served at once, and the entry into the guest that follows.

    Raises:
        NotHere: there is none with room for a sleep.
    """
    edit.need_no_loss()
    if not edit.capture.ticks_per_ns or not all(
        any(r.name == n for r in edit.capture.records) for n in NEEDED
    ):
        raise NotHere
    found = [
        (fault, entry)
        for tid in edit.lives.vcpus
        for fault, entry in zip(edit.lives.threads[tid], edit.lives.threads[tid][1:], strict=False)
        if (fault.name, entry.name) == ("kvm_page_fault", "kvm_entry")
        and fault.cpu == entry.cpu
        and entry.ts - fault.ts >= TICKS
    ]
    return edit.pick(found)


def _only_fault(edit: Edit) -> tuple[Rec, Rec]:
    """Return a plain fault and its entry, with no other sleep in the way."""
    found = _plain_fault(edit)
    _wakeful(edit)
    return found


def _expected(fault: Rec, *verdicts: str) -> Expectation:
    return Expectation((SYNC,), fault.tid + AWAY, None, frozenset(verdicts))


def _everywhere() -> Expectation:
    return expect(SYNC, None, "quiet")


@mutator
def sync_fault(edit: Edit) -> list[Expectation]:
    fault, entry = _only_fault(edit)
    _sleep(edit, fault, entry)
    others = [tid for tid in edit.lives.vcpus if tid != fault.tid]
    quiet = [Expectation((SYNC,), tid + AWAY, None, frozenset({"quiet", "left-truncated"})) for tid in others]
    return [_expected(fault, "found"), *quiet]


@mutator
def sync_fault_of_an_older_kernel(edit: Edit) -> list[Expectation]:
    """Without guest_rip, as before 6.1: it reads 0."""
    fault, entry = _only_fault(edit)
    _sleep(edit, fault, entry)
    edit.change_each(lambda r: r.but(guest_rip=0) if r.name == "kvm_page_fault" else r)
    return [_expected(fault, "found")]


@mutator
def sync_fault_under_loss(edit: Edit) -> list[Expectation]:
    """A record was lost while it slept: it may have been the try."""
    fault, entry = _only_fault(edit)
    _sleep(edit, fault, entry, missed=edit.rng.choice([-1, 1]))
    return [_everywhere()]


@mutator
def sync_fault_cut_off(edit: Edit) -> list[Expectation]:
    """The trace ends while it sleeps."""
    fault, entry = _only_fault(edit)
    _sleep(edit, fault, entry)
    edit.keep_only(lambda r: r.ts < entry.ts)
    return [_everywhere()]


@mutator
def sync_fault_not_traced(edit: Edit) -> list[Expectation]:
    """One of the tracepoints that show it was off."""
    fault, entry = _only_fault(edit)
    _sleep(edit, fault, entry)
    off = edit.rng.choice(NEEDED)
    edit.keep_only(lambda r: r.name != off)
    return [_everywhere()]


@mutator
def sleep_is_interruptible(edit: Edit) -> list[Expectation]:
    fault, entry = _only_fault(edit)
    _sleep(edit, fault, entry, state=edit.rng.choice([0, 1, 0x80]))
    return [_everywhere()]


@mutator
def sleep_before_try(edit: Edit) -> list[Expectation]:
    """The attempt waited for a lock first, then KVM tried an async page fault."""
    _plain_fault(edit)
    life = edit.pick(x for x in edit.whole() if _fault_of(edit, x))
    fault = _fault_of(edit, life)
    assert fault
    assert life.try_
    _wakeful(edit)
    _sleep(edit, fault, life.try_)
    return [_everywhere()]


def _fault_of(edit: Edit, life: Life) -> Rec | None:
    """Return the page fault right before a try, where a sleep fits between them."""
    assert life.try_
    before = edit.lives.before(life.try_)
    if before is None or before.name != "kvm_page_fault" or before.cpu != life.try_.cpu:
        return None
    return before if life.try_.ts - before.ts >= TICKS else None


@mutator
def sleep_of_the_vmm(edit: Edit) -> list[Expectation]:
    """MMIO: KVM_RUN returned to the VMM, whose device sleeps."""
    fault, entry = _only_fault(edit)
    gone = edit.make("kvm_userspace_exit", fault.ts + 1, fault.cpu, fault.tid, reason=6, errno=0)
    edit.add(gone)
    _sleep(edit, gone, entry)
    return [_everywhere()]


@mutator
def sleep_after_entry(edit: Edit) -> list[Expectation]:
    """The fault is over when the thread sleeps."""
    _, entry = _plain_fault(edit)
    after = edit.lives.after(entry, 2)
    if len(after) < 2 or after[0].name != "kvm_exit" or after[0].cpu != after[1].cpu:
        raise NotHere
    if after[1].name == "kvm_page_fault" or after[1].ts - after[0].ts < TICKS:
        raise NotHere
    _wakeful(edit)
    _sleep(edit, after[0], after[1])
    return [_everywhere()]
