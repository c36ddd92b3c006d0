"""Other hosts, guests and recorders: what was sound stays quiet, and what was lost is found again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .edit import CLEAR_ENTRIES, Edit, Expectation, NotHere, anything, expect, mutator, over
from .lives import MSR_ACK, PAGE_READY
from .mutate_legal import as_vmx, renumber

if TYPE_CHECKING:
    from collections.abc import Callable

    from .reader import Rec

ASYNC_PF = (
    "kvm_try_async_get_page",
    "kvm_async_pf_repeated_fault",
    "kvm_async_pf_not_present",
    "kvm_async_pf_completed",
    "kvm_async_pf_ready",
)
PLACED = {"kvm_async_pf_ready", "kvm_async_pf_not_present", "kvm_try_async_get_page"}
LARGE = 60_000
"""Records above which a capture is not multiplied."""


def _span(edit: Edit) -> tuple[int, int]:
    return edit.capture.records[0].ts, edit.lives.end


def _quiet() -> list[Expectation]:
    return [expect((), None, "quiet")]


@mutator
def some_tracepoints_off(edit: Edit) -> list[Expectation]:
    """Any choice of the tracepoints that only help was recorded."""
    names = sorted({r.name for r in edit.capture.records} - set(ASYNC_PF))
    off = set(edit.rng.sample(names, edit.rng.randint(1, len(names))))
    edit.keep_only(lambda r: r.name not in off)
    return _quiet()


@mutator
def some_tracepoints_not_described(edit: Edit) -> list[Expectation]:
    """The same, where the file does not even describe what was off."""
    names = sorted({r.name for r in edit.capture.records} - {"kvm_async_pf_not_present"})
    off = set(edit.rng.sample(names, edit.rng.randint(1, len(names))))
    edit.keep_only(lambda r: r.name not in off)
    edit.capture.formats = tuple(f for f in edit.capture.formats if f.name not in off)
    return _quiet()


@mutator
def one_vcpu(edit: Edit) -> list[Expectation]:
    """A guest with one vCPU: the other threads were never there."""
    kept = edit.rng.choice(edit.lives.vcpus)
    others = set(edit.lives.vcpus) - {kept}
    done = {id(x.completed) for x in edit.lives.all if x.tid == kept}
    known = {id(x.completed) for x in edit.lives.all} - {id(None)}
    edit.keep_only(lambda r: not r.is_about(others) and (id(r) not in known or id(r) in done))
    return _quiet()


@mutator
def one_cpu(edit: Edit) -> list[Expectation]:
    """A host with one CPU."""
    _on_one_cpu(edit)
    return _quiet()


@mutator
def a_few_records(edit: Edit) -> list[Expectation]:
    """A tiny trace from anywhere."""
    records = edit.capture.records
    first = edit.rng.randrange(len(records))
    kept = {id(r) for r in records[first : first + edit.rng.choice([1, 2, 5, 20, 100, 1000])]}
    edit.keep_only(lambda r: id(r) in kept)
    return _quiet()


@mutator
def a_moment(edit: Edit) -> list[Expectation]:
    """A short window from anywhere."""
    start, end = _span(edit)
    length = (end - start) // edit.rng.choice([5, 20, 100, 500])
    begin = edit.rng.randint(start, end - length)
    edit.keep_only(lambda r: begin <= r.ts <= begin + length)
    if not any(begin <= r.ts <= begin + length for r in edit.capture.records):
        raise NotHere
    return _quiet()


@mutator
def many_vms(edit: Edit) -> list[Expectation]:
    """Further VMs do the same a little later on the same CPUs, each with its own vector or with Linux's."""
    if len(edit.capture.records) > LARGE // 2:
        raise NotHere
    names = edit.capture.cmdlines
    edit.capture.cmdlines = dict(names)
    for n in range(1, edit.rng.randint(3, 5)):
        base = 100_000 * n
        other = renumber(lambda pid, base=base: pid + base if pid else 0)
        vector = edit.rng.choice([PAGE_READY, 0x71 + 16 * n])
        shift = edit.rng.randint(1, 30_000_000)
        cpu = edit.capture.cpus * n
        for rec in edit.capture.records:
            copy = on_vector(other(rec), vector).but(ts=rec.ts + shift, cpu=rec.cpu + cpu)
            if rec.name == "kvm_async_pf_completed":
                copy = copy.but(address=rec["address"] + (n << 38))
            edit.add(copy)
        edit.capture.cmdlines |= {tid + base: comm for tid, comm in names.items()}
    return _quiet()


@mutator
def one_vm_on_its_own_vector(edit: Edit) -> list[Expectation]:
    """Two VMs, and only one of the guests takes page-ready on a vector of its own."""
    if len(edit.capture.records) > LARGE:
        raise NotHere
    other = renumber(lambda pid: pid + 100_000 if pid else 0)
    for rec in edit.capture.records:
        copy = on_vector(other(rec), 0xE1).but(ts=rec.ts + 1_234_567, cpu=rec.cpu + edit.capture.cpus)
        if rec.name == "kvm_async_pf_completed":
            copy = copy.but(address=rec["address"] + (1 << 38))
        edit.add(copy)
    before = edit.capture.cmdlines
    edit.capture.cmdlines = before | {tid + 100_000: comm for tid, comm in before.items()}
    return [expect(("wrong-vector", "missing-ack", "lost-interrupt"), None, "quiet")]


@mutator
def cpu_ends_early(edit: Edit) -> list[Expectation]:
    """One CPU's data simply end, and no statistics tell: whatever happened there later is unknown."""
    start, end = _span(edit)
    cpu = edit.rng.randrange(edit.capture.cpus)
    stop = start + (end - start) * edit.rng.randint(30, 85) // 100
    edit.keep_only(lambda r: r.cpu != cpu or r.ts <= stop)
    return _quiet()


@mutator
def cpu_starts_late(edit: Edit) -> list[Expectation]:
    """One CPU's data begin late, and no statistics tell."""
    start, end = _span(edit)
    cpu = edit.rng.randrange(edit.capture.cpus)
    first = start + (end - start) * edit.rng.randint(15, 70) // 100
    edit.keep_only(lambda r: r.cpu != cpu or r.ts >= first)
    return _quiet()


@mutator
def vcpu_plugged_late(edit: Edit) -> list[Expectation]:
    """A vCPU's thread leaves its first record in the middle of the trace."""
    tid = edit.rng.choice(edit.lives.vcpus)
    thread = edit.lives.threads[tid]
    first = thread[edit.rng.randrange(len(thread) // 4, len(thread))].ts
    edit.keep_only(lambda r: r.ts >= first or not r.is_about({tid}))
    return _quiet()


@mutator
def vcpu_unplugged(edit: Edit) -> list[Expectation]:
    """A vCPU's thread leaves its last record in the middle of the trace."""
    tid = edit.rng.choice(edit.lives.vcpus)
    thread = edit.lives.threads[tid]
    last = thread[edit.rng.randrange(1, len(thread) * 3 // 4)].ts
    edit.keep_only(lambda r: r.ts <= last or not r.is_about({tid}))
    return _quiet()


@mutator
def clocks_apart(edit: Edit) -> list[Expectation]:
    """The clocks of the CPUs disagree by microseconds."""
    _set_apart(edit, 20_000)
    return _quiet()


@mutator
def clocks_far_apart(edit: Edit) -> list[Expectation]:
    """The clocks of the CPUs disagree by milliseconds: threads that move between them go back in time."""
    _set_apart(edit, 3_000_000)
    return _quiet()


def _set_apart(edit: Edit, most_ns: int) -> None:
    if not edit.capture.ticks_per_ns:
        raise NotHere
    ahead = [edit.capture.ticks(edit.rng.randint(0, most_ns)) for _ in range(edit.capture.cpus)]
    edit.change_each(lambda r: r.but(ts=r.ts + ahead[r.cpu]))


@mutator
def lost_with_clocks_apart(edit: Edit) -> list[Expectation]:
    edit.need_no_loss()
    life = edit.pick_stuck()
    edit.drop(life.answer())
    clocks_far_apart(edit)
    return [expect("lost-wakeup", life, "found", "undecided", "in-flight", "repaired")]


@mutator
def another_clock(edit: Edit) -> list[Expectation]:
    """Another trace clock: its name, its origin."""
    if edit.capture.ticks_per_ns != 1.0:
        raise NotHere
    edit.capture.clock = edit.rng.choice(["mono", "boot", "global", "mono_raw", "tai", "x86-tsc"])
    away = edit.rng.randint(-edit.capture.records[0].ts, 1 << 58)
    edit.change_each(lambda r: r.but(ts=r.ts + away))
    return _quiet()


@mutator
def shadow_paging(edit: Edit) -> list[Expectation]:
    """Without EPT or NPT the field gva is a guest virtual address, and says nothing of gfn."""

    def change(rec: Rec) -> Rec:
        if rec.name in ASYNC_PF and rec["gva"]:
            return rec.but(gva=rec["gva"] ^ 0x7F53_2900_0000_0000 & (1 << 47) - 1)
        return rec

    edit.change_each(change)
    return _quiet()


@mutator
def no_kvmapf(edit: Edit) -> list[Expectation]:
    """The guest never asked for async page faults: its vCPUs only halt."""
    edit.keep_only(lambda r: not _of_pv(r))
    return _quiet()


@mutator
def posted_interrupts(edit: Edit) -> list[Expectation]:
    """VMX with APICv: interrupts are posted, nothing is injected, EOIs do not exit."""
    edit.keep_only(lambda r: r.name != "kvm_inj_virq")
    edit.change_each(as_vmx)
    return _quiet()


@mutator
def nameless(edit: Edit) -> list[Expectation]:
    """The recorder saved no name of any thread."""
    edit.capture.cmdlines = {}
    return _quiet()


@mutator
def lost_elsewhere(edit: Edit) -> list[Expectation]:
    """A lost wakeup on another host: one of several other sets of tracepoints, numbers or clocks."""
    edit.need_no_loss()
    life = edit.pick_stuck()
    edit.drop(life.answer())
    edit.rng.choice(_HOSTS)(edit)
    return [expect("lost-wakeup", life, "found")]


@mutator
def lost_in_no_kvmapf(edit: Edit) -> list[Expectation]:
    """A halt-form ready that never comes, in a guest without PV faults."""
    life = edit.pick(x for x in edit.whole(pv=False) if _goes_on(edit, x))
    edit.drop([life.ready])
    edit.keep_only(lambda r: not _of_pv(r))
    return [expect("lost-wakeup", life, "found", "in-flight", "undecided", *over(edit, life))]


@mutator
def lost_with_five_events(edit: Edit) -> list[Expectation]:
    """Only the async page fault tracepoints were on: the verdict may be weaker, it must not be wrong."""
    life = edit.pick_stuck()
    edit.drop(life.answer())
    edit.keep_only(lambda r: r.name in ASYNC_PF)
    return [expect("lost-wakeup", life, "found", "in-flight", "undecided", *over(edit, life))]


@mutator
def lost_while_cpu_ended_early(edit: Edit) -> list[Expectation]:
    """No answer, but a CPU's data end soon after completed: it may have come there."""
    life = edit.pick_stuck()
    assert life.completed
    start, end = _span(edit)
    # What came before has to show how busy the CPU was.
    if not 2 * (end - start) <= 10 * (life.completed.ts - start) <= 8 * (end - start):
        raise NotHere
    edit.drop(life.answer())
    stop = life.completed.ts + (end - start) // 50
    cpu = edit.rng.choice(sorted({r.cpu for r in edit.lives.threads[life.tid]}))
    edit.keep_only(lambda r: r.cpu != cpu or r.ts <= stop)
    return [expect("lost-wakeup", life, "found", "in-flight", "undecided", "repaired")]


def _goes_on(edit: Edit, life: object) -> bool:
    assert hasattr(life, "tid")
    assert hasattr(life, "ready")
    return edit.lives.entries_after(life.tid, life.ready.ts) >= CLEAR_ENTRIES


def _without(*names: str) -> Callable[[Edit], None]:
    def change(edit: Edit) -> None:
        edit.keep_only(lambda r: r.name not in names)

    return change


def _later(edit: Edit) -> None:
    edit.change_each(lambda r: r.but(ts=r.ts + 10**16))


def _on_one_cpu(edit: Edit) -> None:
    edit.capture.cpus = 1
    edit.change_each(lambda r: r.but(cpu=0))


def _own_vector(edit: Edit) -> None:
    edit.change_each(lambda r: on_vector(r, 0xE1))


_HOSTS = (
    _without("kvm_page_fault", "kvm_vcpu_wakeup"),
    _without("sched_switch", "sched_wakeup", "sched_waking"),
    _without("kvm_inj_exception"),
    _without("kvm_inj_virq"),
    _without("kvm_try_async_get_page", "kvm_async_pf_repeated_fault"),
    _later,
    _on_one_cpu,
    _own_vector,
)


def _of_pv(rec: Rec) -> bool:
    """Say whether a record only exists because a guest asked for async page faults."""
    match rec.name:
        case "kvm_inj_exception":
            return rec["exception"] == 14
        case "kvm_apic_accept_irq":
            return rec["vec"] == PAGE_READY
        case "kvm_inj_virq":
            return rec["vector"] == PAGE_READY
        case "kvm_msr":
            return rec["ecx"] == MSR_ACK
    return False


def on_vector(rec: Rec, vector: int) -> Rec:
    name = {"kvm_apic_accept_irq": "vec", "kvm_inj_virq": "vector"}.get(rec.name)
    return rec.but(**{name: vector}) if name and rec[name] == PAGE_READY else rec


@mutator
def none_answered(edit: Edit) -> list[Expectation]:
    """The host never told any vCPU of any page; the few faults that there were all hang."""
    edit.need_no_loss()
    if edit.capture.ticks_per_ns != 1.0:
        raise NotHere
    second = edit.capture.ticks(1e9)
    kept = []
    for tid in edit.lives.vcpus:
        pages = {x.gfn: x for x in edit.whole(pv=True) if x.tid == tid}
        kept += edit.rng.sample(sorted(pages.values(), key=lambda x: x.token), min(len(pages), 30))
    theirs = {id(r) for x in kept for r in (x.try_, x.not_present, x.exception, x.completed)}
    edit.keep_only(lambda r: id(r) in theirs or not (r.name in ASYNC_PF or _of_pv(r)))
    due = [
        x
        for x in kept
        if x.completed
        and edit.lives.last_entry(x.tid) - x.completed.ts > 1.2 * second
        and edit.lives.entries_after(x.tid, x.completed.ts) >= CLEAR_ENTRIES
        and any(y.tid == x.tid and y.not_present.ts > x.completed.ts for y in kept)
    ]
    if not due:
        raise NotHere
    return [expect("lost-wakeup", x, "found") if x in due else anything(x) for x in kept]
