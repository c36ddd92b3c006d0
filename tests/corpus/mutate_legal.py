"""Changes that the protocol allows: the analysis has to stay quiet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .edit import Edit, Expectation, NotHere, expect, mutator
from .lives import PAGE_READY, WAKE_ALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from .reader import Rec

IDS = (1 << 20) - 1
VMX = {0x400: 48, 0x7C: 32, 0x60: 1, 0x64: 7, 0x78: 12}
"""VMX exit reasons by SVM ones; the rest become CPUID exits."""
PID_FIELDS = {
    "sched_switch": ("prev_pid", "next_pid"),
    "sched_wakeup": ("pid",),
    "sched_waking": ("pid",),
}


@mutator
def unchanged(edit: Edit) -> list[Expectation]:
    return [expect((), None, "quiet")] if edit.lives.all else []


@mutator
def completed_after_ready(edit: Edit) -> list[Expectation]:
    """R4: the item joins the done list before the event is traced."""
    life = edit.pick(edit.whole())
    assert life.ready
    edit.change(life.completed, ts=life.ready.ts + edit.rng.randint(1, 100_000))
    return [expect((), life, "quiet")]


@mutator
def readies_reordered(edit: Edit) -> list[Expectation]:
    """R6: readies come in the order in which the work ended, not in that of the faults."""
    pairs = []
    for a in edit.whole():
        for b in edit.lives.of(a.tid):
            if not (
                b.whole
                and b is not a
                and b.pv == a.pv
                and a.ready
                and b.ready
                and a.completed
                and b.completed
            ):
                continue
            ends = max(a.completed.ts, b.completed.ts, a.not_present.ts, b.not_present.ts)
            if ends < a.ready.ts < b.ready.ts:
                pairs.append((a, b))
    a, b = edit.pick(pairs)
    assert a.ready
    assert b.ready
    edit.change(a.ready, token=b.token, gva=b.ready["gva"])
    edit.change(b.ready, token=a.token, gva=a.ready["gva"])
    return [expect((), a, "quiet"), expect((), b, "quiet")]


@mutator
def two_vms_with_equal_tokens(edit: Edit) -> list[Expectation]:
    """A second VM on further CPUs does the same a little later, token by token."""
    if len(edit.capture.records) > 60_000:
        raise NotHere
    cpus, shift = edit.capture.cpus, edit.rng.randint(1, 3_000_000)
    other = renumber(lambda pid: pid + 100_000 if pid else 0)
    for rec in edit.capture.records:
        copy = other(rec).but(ts=rec.ts + shift, cpu=rec.cpu + cpus)
        if rec.name == "kvm_async_pf_completed":
            copy = copy.but(address=rec["address"] + (1 << 38))
        edit.add(copy)
    names = edit.capture.cmdlines
    edit.capture.cmdlines = names | {tid + 100_000: comm for tid, comm in names.items()}
    return [expect((), None, "quiet")]


@mutator
def threads_renumbered(edit: Edit) -> list[Expectation]:
    old = sorted({r.tid for r in edit.capture.records} - {0})
    new = edit.rng.sample(range(1_000, 4_000_000), len(old))
    table = dict(zip(old, new, strict=True))
    edit.change_each(renumber(lambda pid: table.get(pid, pid)))
    edit.capture.cmdlines = {table.get(tid, tid): comm for tid, comm in edit.capture.cmdlines.items()}
    return [expect((), None, "quiet")]


@mutator
def ids_wrap(edit: Edit) -> list[Expectation]:
    """The id of a vCPU goes from 0xfffff to 1 in the middle of the trace."""
    life = edit.pick(edit.whole())
    pivot = life.token >> 12

    def change(rec: Rec) -> Rec:
        if rec.tid != life.tid or rec.name not in {"kvm_async_pf_not_present", "kvm_async_pf_ready"}:
            return rec
        token = rec["token"]
        if token == WAKE_ALL:
            return rec
        number = ((token >> 12) - pivot - 1) % IDS + 1
        return rec.but(token=number << 12 | token & 0xFFF)

    edit.change_each(change)
    return [expect((), None, "quiet")]


@mutator
def another_vector(edit: Edit) -> list[Expectation]:
    """Another guest system takes page-ready on a vector of its own, announced before the trace began."""
    fields = {"kvm_apic_accept_irq": "vec", "kvm_inj_virq": "vector"}

    def change(rec: Rec) -> Rec:
        name = fields.get(rec.name)
        return rec.but(**{name: 0xE1}) if name and rec[name] == PAGE_READY else rec

    edit.change_each(change)
    return [expect((), None, "quiet")]


def as_vmx(rec: Rec) -> Rec:
    """Return an SVM exit as VMX would have traced it."""
    if rec.name != "kvm_exit" or rec["isa"] != 2:
        return rec
    return rec.but(isa=1, exit_reason=VMX.get(rec["exit_reason"], 10))


@mutator
def on_intel(edit: Edit) -> list[Expectation]:
    edit.change_each(as_vmx)
    return [expect((), None, "quiet")]


@mutator
def lost_on_intel(edit: Edit) -> list[Expectation]:
    life = edit.pick_stuck()
    edit.drop(life.answer())
    edit.change_each(as_vmx)
    return [expect("lost-wakeup", life, "found")]


@mutator
def coarse_clock(edit: Edit) -> list[Expectation]:
    """Stamps in steps of up to 100 us: neighbours fall together, also across CPUs."""
    step = edit.rng.choice([1_000, 10_000, 100_000])
    edit.change_each(lambda r: r.but(ts=r.ts // step * step))
    return [expect((), None, "quiet")]


@mutator
def long_uptime(edit: Edit) -> list[Expectation]:
    """The host has been up for three years."""
    edit.change_each(lambda r: r.but(ts=r.ts + 10**17))
    return [expect((), None, "quiet")]


def renumber(table: Callable[[int], int]) -> Callable[[Rec], Rec]:
    """Return a function that gives other numbers to all threads that a record names."""

    def change(rec: Rec) -> Rec:
        named = {name: table(rec[name]) for name in PID_FIELDS.get(rec.name, ())}
        return rec.but(common_pid=table(rec.tid), **named)

    return change
