"""What a rule rests on, planted in full, and again with a record missing that would explain it away."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from .edit import Edit, Expectation, NotHere, anything, expect, mutator
from .mutate_lost import LOST
from .mutate_token import last_told
from .mutate_vary import on_vector

if TYPE_CHECKING:
    from .lives import Life
    from .reader import Rec

STRANGE = 0xE1
"""A vector that no capture uses."""
SURE, UNSURE = ("proved", "likely"), ("possible",)
AT_ONCE_NS, LONG_NS = 8_000_000, 20_000_000
HALTS, EVERY_NS = 3000, 5_000
HLT = 0x78
SIGBUS, ACTION_REQUIRED, ACTION_OPTIONAL = 7, 4, 5
EFAULT = -14


def _marked(edit: Edit, record: Rec | None) -> None:
    """Say that records were lost right before this one."""
    assert record
    edit.change(record, missed=edit.rng.choice([-1, 3]))


@mutator
def strange_accept_under_loss(edit: Edit) -> list[Expectation]:
    """Between the ready and an accept of another vector records were lost, its own accept perhaps among them."""
    life = last_told(edit)
    edit.change(life.accepted, vec=STRANGE, missed=edit.rng.choice([-1, 3]))
    edit.drop([life.injected, *life.injected_again, *life.eoi, *life.ack])
    return [expect(("wrong-vector", "missing-ack", "lost-interrupt"), life, "quiet")]


@mutator
def strange_accept(edit: Edit) -> list[Expectation]:
    """The same without a loss: the guest is told on another vector than before, and no handler runs."""
    life = last_told(edit)
    if not any(
        x.accepted for x in edit.lives.of(life.tid) if x.not_present.ts < life.not_present.ts and x.ack
    ):
        raise NotHere
    edit.change(life.accepted, vec=STRANGE)
    edit.drop([life.injected, *life.injected_again, *life.eoi, *life.ack])
    return [expect("wrong-vector", life, "found")]


@mutator
def another_vector_after_loss(edit: Edit) -> list[Expectation]:
    """From a loss on a vCPU uses another vector: the write that says so is among what was lost."""
    life = edit.pick(x for x in edit.whole(pv=True) if len(x.ack) > 2)
    first = edit.lives.after(life.ack[-1], 1)
    if not first:
        raise NotHere
    since, tid = first[0].ts, life.tid
    edit.change_each(lambda r: on_vector(r, STRANGE) if r.tid == tid and r.ts >= since else r)
    _marked(edit, first[0])
    return [expect("wrong-vector", None, "quiet")]


@mutator
def token_zero_under_loss(edit: Edit) -> list[Expectation]:
    """Token 0 is a fact, that its wakeup was lost is none where records were."""
    life = edit.pick(x for x in edit.whole(pv=True) if edit.stuck_clearly(x) and not x.token & 0xFFF)
    edit.drop(life.answer())
    edit.change(life.not_present, token=0)
    _marked(edit, next(r for r in edit.lives.after(life.ack[-1]) if r.name != "kvm_async_pf_ready"))
    return [expect("token-zero", life, "found", token=0), expect(LOST, life, "undecided", token=0)]


def _loop(edit: Edit, gap: tuple[int, int], missed: int | None = None) -> Life:
    """Make three lives of a vCPU that follow each other within ``gap`` ns lives of one page; return the first."""
    if not edit.capture.ticks_per_ns:
        raise NotHere
    least, most = (edit.capture.ticks(ns) for ns in gap)
    found = []
    for tid in edit.lives.vcpus:
        lives = [x for x in edit.lives.of(tid) if x.whole]
        found += [
            three
            for three in zip(lives, lives[1:], lives[2:], strict=False)
            if all(
                x.completed and x.completed.ts - x.not_present.ts <= edit.capture.ticks(AT_ONCE_NS)
                for x in three
            )
            and all(a.ready and least <= b.not_present.ts - a.ready.ts <= most for a, b in pairwise(three))
        ]
    three = list(edit.pick(found))
    first = three[0]
    assert first.completed
    for x in three[1:]:
        page = {"gva": first.not_present["gva"]}
        edit.change(x.try_, gfn=first.gfn, **page)
        edit.drop([x.not_present])
        edit.add(x.not_present.but(missed=missed, **page))
        edit.change(x.completed, address=first.completed["address"], **page)
        edit.change(x.ready, **page)
    return first


@mutator
def refault_loop(edit: Edit) -> list[Expectation]:
    edit.need_no_loss()
    first = _loop(edit, (0, AT_ONCE_NS))
    return [expect("refault-loop", first, "found", confidence=SURE)]


@mutator
def refault_loop_under_loss(edit: Edit) -> list[Expectation]:
    """Records are missing among its lives."""
    edit.need_no_loss()
    first = _loop(edit, (0, AT_ONCE_NS), missed=edit.rng.choice([-1, 3]))
    return [expect("refault-loop", first, "found", confidence=UNSURE)]


@mutator
def page_faults_now_and_then(edit: Edit) -> list[Expectation]:
    """A page that is reclaimed between its lives."""
    first = _loop(edit, (LONG_NS, 1000 * LONG_NS))
    return [expect("refault-loop", first, "quiet")]


def _signal(edit: Edit, *, code: int, stranger: bool) -> int:
    near = edit.pick(x.ready for x in edit.whole() if x.ready)
    tid = 4_000_000 if stranger else near.tid
    edit.add(edit.make("signal_generate", near.ts + 1, near.cpu, tid, sig=SIGBUS, code=code, pid=tid))
    return near.tid


@mutator
def page_malfunction(edit: Edit) -> list[Expectation]:
    tid = _signal(edit, code=ACTION_REQUIRED, stranger=False)
    return [Expectation(("page-malfunction",), tid, None, frozenset({"found"}), confidence=SURE)]


@mutator
def signal_of_another_kind(edit: Edit) -> list[Expectation]:
    code, stranger = edit.rng.choice([(ACTION_OPTIONAL, False), (ACTION_REQUIRED, True)])
    _signal(edit, code=code, stranger=stranger)
    return [expect("page-malfunction", None, "quiet")]


def _refault(edit: Edit) -> tuple[Rec, Rec]:
    """Let a page fault again whose ready came last on its thread; return that fault and the next record."""
    places = []
    for life in edit.whole():
        for fault, after in zip(
            edit.lives.after(life.ready, 60), edit.lives.after(life.ready, 61)[1:], strict=False
        ):  # type: ignore[arg-type]
            if fault.name == "kvm_async_pf_ready":
                break
            if fault.name == "kvm_page_fault" and after.ts - fault.ts > 4:
                places.append((life, fault, after))
    life, fault, after = edit.pick(places)
    return edit.change(fault, fault_address=life.gfn << 12), after


@mutator
def fatal_fault(edit: Edit) -> list[Expectation]:
    edit.need_no_loss()
    fault, _ = _refault(edit)
    edit.add(edit.make("kvm_userspace_exit", fault.ts + 2, fault.cpu, fault.tid, reason=0, errno=EFAULT))
    return [_fatal(fault.tid, "proved")]


@mutator
def fatal_fault_under_loss(edit: Edit) -> list[Expectation]:
    """Between the fault and the end of the run records were lost: the fault may have been served."""
    edit.need_no_loss()
    fault, _ = _refault(edit)
    out = edit.make("kvm_userspace_exit", fault.ts + 2, fault.cpu, fault.tid, reason=0, errno=EFAULT)
    out.missed = edit.rng.choice([-1, 3])
    edit.add(out)
    return [_fatal(fault.tid, "likely")]


@mutator
def run_ends_long_after_fault(edit: Edit) -> list[Expectation]:
    """The vCPU was in the guest since its fault on a page that was ready: something else ended the run."""
    edit.need_no_loss()
    fault, _ = _refault(edit)
    later = [r for r in edit.lives.threads[fault.tid] if r.ts > fault.ts and r.name == "kvm_exit"]
    near = edit.pick(later[1:])
    edit.add(edit.make("kvm_userspace_exit", near.ts + 1, near.cpu, near.tid, reason=0, errno=EFAULT))
    return [_fatal(fault.tid, "likely")]


def _fatal(tid: int, confidence: str) -> Expectation:
    return Expectation(("fatal-fault",), tid, None, frozenset({"found"}), confidence=(confidence,))


def _spin(edit: Edit) -> tuple[Life, list[Rec], list[Expectation]]:
    """Let a vCPU spin on HLT at the end of the trace, while a life of it is completed and gets no ready.

    All of its lives that are open by then get none, and may have waited for long enough to be called lost, too.
    """
    edit.need_no_loss()
    known = next((r for r in edit.capture.records if r.name == "kvm_exit"), None)
    if known is None or not edit.capture.ticks_per_ns or known["isa"] != 2:
        raise NotHere
    life = edit.pick(x for x in edit.whole() if x.completed and x.ready and x.ready.ts > x.completed.ts)
    assert life.completed
    start, cpu = life.completed.ts + 1, life.not_present.cpu
    edit.drop(life.answer())
    edit.keep_only(lambda r: r.ts < start or id(r) in spun)
    halts = []
    entry = next(r for r in edit.capture.records if r.name == "kvm_entry" and r.tid == life.tid)
    for n in range(HALTS):
        at = start + n * edit.capture.ticks(EVERY_NS)
        halts.append(known.but(ts=at, cpu=cpu, common_pid=life.tid, exit_reason=HLT))
        halts.append(entry.but(ts=at + edit.capture.ticks(EVERY_NS // 2), cpu=cpu))
    spun = {id(r) for r in halts}
    edit.add(*halts)
    unanswered = [anything(x) for x in edit.lives.of(life.tid) if not (x.ready and x.ready.ts < start)]
    return life, halts, unanswered


@mutator
def vcpu_spin(edit: Edit) -> list[Expectation]:
    life, _, others = _spin(edit)
    spin = Expectation(
        ("vcpu-spin",), life.tid, None, frozenset({"found"}), confidence=("likely", "possible")
    )
    return [spin, *others]


@mutator
def vcpu_spin_under_loss(edit: Edit) -> list[Expectation]:
    """Its ready may be among the records that were lost: a guest that has work after each HLT."""
    life, halts, others = _spin(edit)
    halts[edit.rng.randrange(len(halts))].missed = edit.rng.choice([-1, 3])
    spin = Expectation(("vcpu-spin",), life.tid, None, frozenset({"found", "undecided"}), confidence=UNSURE)
    return [spin, *others]
