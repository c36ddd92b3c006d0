"""vCPUs that are reset, and queues that are cleared, with faults outstanding; and what only looks so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .edit import Edit, Expectation, NotHere, expect, mutator
from .mutate_end import LOST, open_at, vm_of
from .mutate_lost import lose

if TYPE_CHECKING:
    from .lives import Life
    from .reader import Rec

RESET_RIP = 0xFFF0
INIT, SIPI = 0x500, 0x600


def _entry_within(edit: Edit, life: Life) -> Rec:
    """Return an entry of the life's thread soon after its not_present, before its ready."""
    assert life.ready
    until = life.ready.ts
    found = [r for r in edit.lives.after(life.not_present, 200) if r.name == "kvm_entry" and r.ts < until]
    return edit.pick(found)


def _forget(edit: Edit, life: Life, at: int) -> list[Life]:
    """Take the answers of all lives away that are open on the thread at an instant; return them."""
    cleared = [x for x in edit.lives.of(life.tid) if open_at(x, at)]
    for x in cleared:
        edit.drop(x.answer())
    return cleared


def _reset_found(life: Life) -> Expectation:
    return Expectation(("vcpu-reset",), life.tid, None, frozenset({"found"}))


@mutator
def reset(edit: Edit) -> list[Expectation]:
    """The vCPU enters at the reset vector while faults are open: the kernel has forgotten them."""
    edit.need_no_loss()
    life = edit.pick(edit.whole(pv=True))
    entry = _entry_within(edit, life)
    edit.change(entry, rip=RESET_RIP)
    cleared = _forget(edit, life, entry.ts)
    return [*(expect(LOST, x, "cancelled") for x in cleared if x.whole), _reset_found(life)]


@mutator
def reset_by_init(edit: Edit) -> list[Expectation]:
    """Another vCPU of the VM sends an INIT while faults are open."""
    edit.need_no_loss()
    life, sender, entry = _init_place(edit)
    _send(edit, sender, entry, life.token & 0xFFF, INIT)
    cleared = _forget(edit, life, entry.ts)
    return [*(expect(LOST, x, "cancelled") for x in cleared if x.whole), _reset_found(life)]


def _init_place(edit: Edit) -> tuple[Life, Life, Rec]:
    """Return a life, one of another vCPU of its VM, and a record of that thread while the first is open."""
    places = []
    for life in edit.rng.sample(edit.whole(pv=True), min(20, len(edit.whole(pv=True)))):
        others = vm_of(edit, life) - {life.tid}
        for tid in sorted(others):
            entry = next(
                (r for r in edit.lives.threads[tid] if open_at(life, r.ts) and r.name == "kvm_exit"), None
            )
            if entry and edit.lives.of(tid)[0].token & 0xFFF != life.token & 0xFFF:
                places.append((life, edit.lives.of(tid)[0], entry))
    return edit.pick(places)


def _send(edit: Edit, sender: Life, near: Rec, vcpu: int, mode: int) -> None:
    known = next((r for r in edit.capture.records if r.name == "kvm_apic_accept_irq"), None)
    if known is None:
        raise NotHere
    edit.add(known.but(ts=near.ts + 1, cpu=near.cpu, common_pid=sender.tid, apicid=vcpu, dm=mode, vec=0))


@mutator
def lost_long_before_reset(edit: Edit) -> list[Expectation]:
    """The wakeup was lost for all to see before the vCPU was reset, at the end of the trace."""
    edit.need_no_loss()
    life = lose(edit)
    last = [r for r in edit.lives.threads[life.tid] if r.name == "kvm_entry"][-1]
    edit.change(last, rip=RESET_RIP)
    return [expect("lost-wakeup", life, "found")]


@mutator
def lost_beside_sipi(edit: Edit) -> list[Expectation]:
    """A SIPI to a vCPU that runs is ignored, an INIT to another is not its own."""
    edit.need_no_loss()
    life = lose(edit)
    vcpu = life.token & 0xFFF
    assert life.completed
    near = next(
        (r for r in edit.lives.threads[life.tid] if r.ts > life.completed.ts and r.name == "kvm_exit"), None
    )
    if near is None:
        raise NotHere
    vcpu, mode = edit.rng.choice([(vcpu, SIPI), (vcpu + 7, INIT)])
    _send(edit, life, near, vcpu, mode)
    return [expect("lost-wakeup", life, "found"), expect("vcpu-reset", None, "quiet")]


def _sweep(edit: Edit, life: Life) -> None:
    assert life.completed
    at = life.completed.ts + edit.rng.randint(-5, 5)
    cpu = life.not_present.cpu
    if edit.rng.random() < 0.5:
        for n, entering in enumerate((1, 0)):
            edit.add(edit.make("kvm_smm_transition", at + n, cpu, life.tid, entering=entering))
    else:
        edit.add(edit.make("kvm_cr", at, cpu, life.tid, rw=1, cr=0, val=0x10))


@mutator
def lost_by_clear(edit: Edit) -> list[Expectation]:
    """The queue is cleared on SMM or CR0.PG; later faults of the vCPU are answered."""
    edit.need_no_loss()
    life = lose(edit)
    _sweep(edit, life)
    return [expect("lost-wakeup", life, "found")]


@mutator
def cleared_and_nothing_after(edit: Edit) -> list[Expectation]:
    """The same, and no later fault of the vCPU is answered: the guest may be on its way through a reset."""
    edit.need_no_loss()
    life = lose(edit)
    _sweep(edit, life)
    edit.erase(edit.lives.later(life))
    return [expect("lost-wakeup", life, "undecided", "in-flight")]
