"""Wakeups that never came, and lives that only look so: lost-wakeup, in-flight, left-truncated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.amounts import plural
from apftrace.model import tracepoints as tp
from apftrace.model.loss import overlaps_blind
from apftrace.model.outcome import MIN_ENTRIES
from apftrace.model.rules.base import (
    ERROR,
    INFO,
    LIKELY,
    POSSIBLE,
    PROVED,
    WARNING,
    Finding,
    Row,
    Rule,
    about,
    duration,
    hexed,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case

_CLEARERS = (tp.SMM, tp.CR)
MOST_NAMED = 3
"""Gaps in the record that one finding names."""


def _lost_wakeup(case: Case) -> Iterable[Finding]:
    stuck = case.lives.filter(pl.col("lost_rule") == "lost-wakeup")
    strong = case.rec.has(tp.ENTRY) and (case.rec.has(tp.ACCEPT, tp.MSR) or _halt_only(case))
    for life in rows(stuck):
        n, progress = life["entries_after"], life["progress"]
        told = (
            "its task sleeps on in the guest"
            if life["kind"] == "pv"
            else "its vCPU halts at each touch of the page"
        )
        decided = life["outcome"] == "lost"
        elsewhere = _lost_elsewhere(case, life)
        yield about(
            life,
            severity=ERROR if decided else WARNING,
            confidence=LIKELY if strong and decided and not elsewhere else POSSIBLE,
            cause=_why_lost(life),
            message=(
                f"no kvm_async_pf_ready for token {hexed(life['token'])}: completed, then "
                f"{duration(case, progress)} without it while the vCPU "
                + (
                    f"entered the guest {n} times"
                    if case.rec.has(tp.ENTRY)
                    else f"took {n} further async faults or readies"
                )
                + f"; {told}"
                + ("; no fault of this trace was ever answered" if tp.READY in case.rec.silent else "")
            ),
            ruled_out=_ruled_out(case, life),
            not_ruled_out=[
                *_why_undecided(case, life, decided=decided),
                *elsewhere,
                *_not_ruled_out(case, life),
            ],
        )


def _why_lost(life: Row) -> str:
    if life["swept_by"] is None:
        return "not handed over by KVM"
    return f"lost by clear: KVM dropped the queue on {life['swept_by']} (fixed by ab4e41eb9fab)"


def _why_undecided(case: Case, life: Row, *, decided: bool) -> list[str]:
    if decided:
        return []
    if life["swept_by"] is not None:
        return [
            f"a guest on its way through a reset: {life['swept_by']}, and no later fault of it was answered"
        ]
    if tp.READY in case.rec.silent:
        return ["kvm_async_pf_ready was off: it was never hit"]
    if case.rec.tells_deliveries or not (case.accounting["acks"] > 0).any():
        return ["a ready that was not traced, as other readies at that time, or the ACK of one, were not"]
    return ["an ACK that is for it: record kvm:kvm_apic_accept_irq or kvm:kvm_inj_exception"]


def _lost_elsewhere(case: Case, life: Row) -> list[str]:
    """Name the CPUs that lost records while a life was open, and on which its vCPU was never seen."""
    cpus = case.rec.cpus_of.get(life["tid"], frozenset())
    return [
        f"a visit to CPU {gap.cpu}, where records were lost: this vCPU was never seen there"
        for gap in case.rec.losses
        if gap.cpu not in cpus
        and (gap.after_ns is None or gap.after_ns <= life["end"])
        and (gap.before_ns is None or gap.before_ns >= life["not_present"])
    ][:MOST_NAMED]


def _halt_only(case: Case) -> bool:
    return not case.delivered.height and bool((case.lives["kind"] == "halt").all())


def _ruled_out(case: Case, life: Row) -> list[str]:
    out = [
        f"still in flight: {duration(case, life['progress'])} since completed, stuck from "
        f"{duration(case, case.stale.told)} ({plural(case.stale.n, 'closed life', 'closed lives')})",
    ]
    if life["outcome"] == "lost":
        out.append("record loss: none on this vCPU's CPUs while it was open")
    if case.rec.has(tp.ENTRY):
        out.append(
            f"vCPU not running: {life['entries_after']} entries after completed, {MIN_ENTRIES} asked for"
        )
    if case.rec.has(tp.MSR, tp.ACCEPT):
        out.append(f"page-ready slot taken: it was free for {duration(case, life['slot_free'])}")
        out.append("queue cleared by the guest: no write of MSR 4b564d02")
    if life["swept_by"] is not None and life["outcome"] == "lost":
        out.append("reset of the guest: later faults of this vCPU were answered")
    return out


def _not_ruled_out(case: Case, life: Row) -> list[str]:
    out = []
    if not case.rec.has(tp.MSR, tp.ACCEPT):
        out.append("page-ready slot taken: record kvm:kvm_msr and kvm:kvm_apic_accept_irq")
    if not case.rec.has(tp.ENTRY):
        out.append("vCPU not entering the guest: record kvm:kvm_entry")
    if not case.rec.has(tp.QUEUE_WORK, tp.EXECUTE_START) and case.threads["vm"].n_unique() > 1:
        out.append(
            "completed of another VM's fault on an equal page: record workqueue:* to prove whose it is"
        )
    if life["swept_by"] is not None:
        out.append("another reason than the clear: probe kvm_clear_async_pf_completion_queue")
    else:
        out.append("queue cleared by a reset of the VMM, which leaves no kvm_msr")
        missing = [tp.NAMES[k] for k in _CLEARERS if not case.rec.has(k)]
        also = f" and {' '.join(missing)}" if missing else ""
        out.append(f"queue cleared by KVM: probe kvm_clear_async_pf_completion_queue{also}")
    return out


def _in_flight(case: Case) -> Iterable[Finding]:
    stale = case.stale.age
    for life in rows(case.lives.filter(pl.col("outcome") == "in_flight")):
        age = case.rec.last_ns - int(life["not_present"])
        done = life["completed"] is not None or life["finished"] is not None
        stage = "completed, not ready" if done else "not completed"
        old = age > stale and (life["progress"] or 0) > stale and not done
        kept = done and _not_handed_over(case, life)
        yield about(
            life,
            severity=WARNING if old or kept else INFO,
            confidence=POSSIBLE if old or kept else PROVED,
            cause="the worker has not answered"
            if old
            else "not handed over"
            if kept
            else "the trace ends first",
            message=(
                f"token {hexed(life['token'])} is still open at the end of the trace: "
                f"{stage}, {duration(case, age)} old"
            ),
            not_ruled_out=[_why_not_lost(case, life), *_perhaps_swept(life)],
        )


def _not_handed_over(case: Case, life: Row) -> bool:
    """Say whether a completed life would be lost if only one thing were known that the trace does not tell.

    It is that the slot was free meanwhile, or how often the vCPU entered the guest after a work of which only the
    end was traced.
    """
    if not case.stale.proves or (life["progress"] or 0) <= case.stale.told:
        return False
    if life["completed"] is None:
        return True
    return not (case.slot_known and case.rec.has(tp.MSR)) and (life["entries_after"] or 0) >= MIN_ENTRIES


def _why_not_lost(case: Case, life: Row) -> str:
    if life["completed"] is None and life["finished"] is None:
        return "page still on its way: no kvm_async_pf_completed"
    if _not_handed_over(case, life):
        if life["completed"] is None:
            return "too few entries since the end of the work: record kvm:kvm_async_pf_completed, which counts them"
        return "page-ready slot taken: record kvm:kvm_msr, which shows the ACKs, and kvm:kvm_apic_accept_irq"
    if (life["slot_free"] or 0) <= case.stale.told < (life["progress"] or 0):
        return "page-ready slot taken by a delivery that was not ACKed"
    return "still on its way: the vCPU had too little time or too few entries after completed"


def _perhaps_swept(life: Row) -> list[str]:
    if life["swept_by"] is None:
        return []
    return [f"work cancelled with its queue on {life['swept_by']}, on hosts without ab4e41eb9fab"]


def _left_truncated(case: Case) -> Iterable[Finding]:
    older = case.readies.filter(pl.col("answer") == "truncated")
    older = older.with_columns(pl.lit(case.rec.first_ns).alias("first"))
    for ready in rows(overlaps_blind(case.rec, older, "first", "ready", "blind")):
        yield {
            "severity": INFO,
            "confidence": LIKELY if ready["blind"] else PROVED,
            "tid": ready["tid"],
            "token": ready["token"],
            "gva": ready["gva"],
            "ts": ready["ready"],
            "end": ready["ready"],
            "cause": "the trace begins later",
            "message": f"ready of token {hexed(ready['token'])}, whose not_present lies before the record",
            "seqs": [ready["seq"]],
            "ruled_out": [
                "spurious ready: its id is older than the first not_present seen, or the head was lost"
            ],
            "not_ruled_out": ["a not_present among the lost records"] if ready["blind"] else [],
        }


LOST_WAKEUP = Rule(
    id="lost-wakeup",
    severities=(ERROR, WARNING),
    title="Page ready, vCPU never told",
    means="PV form: the task sleeps in kvm_async_pf_task_wait_schedule for ever. Halt form: every touch of the "
    "page stops the whole vCPU until the next interrupt.",
    shown_by="kvm_async_pf_completed without kvm_async_pf_ready, while the vCPU enters the guest again and again "
    "for far longer than lives take, with the page-ready slot free and no record lost on its CPUs. Where SMM "
    "or a change of CR0.PG came in between, and later faults of the vCPU were answered, it is lost by that clear. A "
    "warning where none was answered after it, so that the guest may be on its way through a reset, and where not "
    "one ready was traced, so that the tracepoint may have been off.",
    look_alikes="A life that is simply younger than others; a slot that an earlier delivery keeps (missing-ack, "
    "lost-interrupt, guest interrupts off); a vCPU that does not run; a queue cleared by EN=0, by a reset "
    "(kvm_entry at rip 0xfff0, INIT) or the VM's end; a CR0 write that leaves PG alone; a ready whose record was "
    "lost, as a delivery without its ready or its ACK shows where nothing marks it. Repaired: an accept or ACK "
    "implies the ready; a new life of the gfn on the vCPU implies the end of the old one, undecided how where no "
    "record was lost.",
    needs=(tp.NOT_PRESENT, tp.READY, tp.COMPLETED),
    stand_ins={tp.COMPLETED: (tp.QUEUE_WORK, tp.EXECUTE_START, tp.EXECUTE_END)},
    helps=(tp.ENTRY, tp.EXIT, tp.MSR, tp.ACCEPT, tp.INJ_EXCEPTION, tp.SMM, tp.CR),
    remedy="Record a kprobe on kvm_clear_async_pf_completion_queue, kvm:kvm_smm_transition and kvm:kvm_cr; check "
    "that the host has the fixes below.",
    bugs=(
        "ab4e41eb9fab: done queue cleared when CR0.PG was disabled, for example on SMI",
        "68c35f89d016: race on pageready_pending in kvm_arch_async_page_present_queued: late until an unrelated exit",
        "a4fa16353108: completion did not wake a halted vCPU",
    ),
    find=_lost_wakeup,
)

IN_FLIGHT = Rule(
    id="in-flight",
    severities=(
        WARNING,
        INFO,
    ),
    title="Open at the end of the trace",
    nouns=("fault open for long", "faults open for long"),
    means="Nothing yet: the page was on its way when the record ended.",
    shown_by="not_present without an end, and no proof that the life is stuck. A warning where it is far older than "
    "usual and not completed; or completed, and the vCPU ran on for long, but nothing tells whether the slot was free.",
    look_alikes="lost-wakeup, which needs that proof.",
    needs=(tp.NOT_PRESENT, tp.READY),
    helps=(tp.COMPLETED, tp.ENTRY),
    remedy="Record for longer.",
    find=_in_flight,
)

LEFT_TRUNCATED = Rule(
    id="left-truncated",
    severities=(INFO,),
    title="Begun before the trace",
    means="Nothing: the record began while the fault was outstanding.",
    shown_by="kvm_async_pf_ready without not_present, its id older than the first not_present of the vCPU.",
    look_alikes="spurious-ready, whose id is newer.",
    needs=(tp.NOT_PRESENT, tp.READY),
    find=_left_truncated,
)

RULES = (LOST_WAKEUP, IN_FLIGHT, LEFT_TRUNCATED)
