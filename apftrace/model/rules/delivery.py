"""Deliveries that the guest never finished: lost-interrupt and missing-ack; and work that never began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.rules.base import (
    ERROR,
    LIKELY,
    PROVED,
    Finding,
    Row,
    Rule,
    about,
    duration,
    finding,
    hexed,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case


def _lost_interrupt(case: Case) -> Iterable[Finding]:
    apicv = case.rec.has(tp.APICV_ACCEPT) and case.rec.kind(tp.APICV_ACCEPT).height > 0
    for row in _stuck(case, "lost-interrupt"):
        yield _of_delivery(
            case,
            row,
            confidence=LIKELY if apicv else PROVED,
            cause="accepted by the APIC, never injected",
            message=f"token {hexed(row['token'])}: vector {row['vec']} was accepted, but not injected in "
            f"{row['entries_after']} entries over {duration(case, row['progress'])}, "
            f"while {row['virqs_after']} other interrupts were",
            not_ruled_out=["posted interrupts, which need no injection"] if apicv else [],
        )


def _missing_ack(case: Case) -> Iterable[Finding]:
    for row in _stuck(case, "missing-ack"):
        injected = row["injected"] is not None
        behind = case.lives.filter(
            (pl.col("tid") == row["tid"]) & pl.col("ready").is_null() & (pl.col("not_present") > row["start"])
        ).height
        yield _of_delivery(
            case,
            row,
            confidence=PROVED if injected else LIKELY,
            cause="the guest's handler did not finish" if injected else None,
            message=f"token {hexed(row['token'])} was handed over, but no ACK came in {row['entries_after']} "
            f"entries over {duration(case, row['progress'])}"
            + (f"; {behind} later faults of this vCPU wait behind it" if behind else ""),
            not_ruled_out=[] if injected else ["an interrupt lost before the guest: record kvm:kvm_inj_virq"],
        )


def _stuck(case: Case, verdict: str) -> Iterable[Row]:
    return rows(case.unacked.filter(pl.col("verdict") == verdict))


def _of_delivery(case: Case, row: Row, **stated: Any) -> Finding:
    # A broadcast, or a delivery whose ready was not traced, answers no life that is known.
    life = case.lives.filter(pl.col("life") == (-1 if row["life"] is None else row["life"]))
    return finding(
        severity=ERROR,
        tid=row["tid"],
        token=row["token"],
        gva=life["gva"][0] if life.height else None,
        ts=row["start"],
        end=row["last_run"],
        seqs=[
            row["life"],
            life["completed_seq"][0] if life.height else None,
            row["seq"],
            row["acc_seq"],
            row["inj_seq"],
        ],
        ruled_out=[
            "a later delivery, which would prove the ACK: there is none on this vCPU",
            f"vCPU not running: {row['entries_after']} entries since",
            f"guest interrupts off: {row['virqs_after']} interrupts and {row['faults_after']} async faults since",
            "record loss: none on this vCPU's CPUs since",
            "queue cleared by the guest: no write of MSR 4b564d02 since",
            "reset of the vCPU: no entry at the reset vector and no INIT since",
        ],
        **stated,
    )


def _lost_work(case: Case) -> Iterable[Finding]:
    for life in rows(case.lives.filter(pl.col("lost_rule") == "lost-work")):
        yield about(
            life,
            severity=ERROR,
            confidence=LIKELY,
            cause="the work item was queued and never started",
            message=f"token {hexed(life['token'])}: async_pf_execute was queued on CPU {life['cpu']} and did not "
            f"start in {duration(case, case.rec.last_ns - int(life['not_present']))}, while later items did",
            ruled_out=[
                "a starved pool: items queued later on this CPU started",
                "record loss: none meanwhile",
            ],
            not_ruled_out=["work cancelled with its queue: probe kvm_clear_async_pf_completion_queue"],
        )


LOST_INTERRUPT = Rule(
    id="lost-interrupt",
    severities=(ERROR,),
    title="Page-ready interrupt lost",
    means="The task sleeps on, and every later fault of the vCPU waits behind it.",
    shown_by="ready and kvm_apic_accept_irq of the vector, then entry after entry without kvm_inj_virq of it and "
    "without an ACK, while other interrupts are injected.",
    look_alikes="APICv or AVIC, where no injection is traced; guest interrupts off, where nothing else is injected; a "
    "vCPU that was reset, or whose guest disabled async page faults, before it took the interrupt.",
    needs=(tp.READY, tp.ACCEPT, tp.INJ_VIRQ, tp.MSR, tp.ENTRY),
    helps=(tp.EXIT, tp.APICV_ACCEPT),
    remedy="Look whether the guest's local APIC is enabled: kvm_apic_accept_irq is traced even where it is not.",
    bugs=("2f15d027c05f: KVM: x86: Properly handle APF vs disabled LAPIC situation",),
    find=_lost_interrupt,
)
MISSING_ACK = Rule(
    id="missing-ack",
    severities=(ERROR,),
    title="No ACK",
    nouns=("missing ACK", "missing ACKs"),
    means="KVM hands nothing more to this vCPU: all its later faults pile up, completed but not ready.",
    shown_by="A delivered ready, its interrupt injected, no write of MSR 4b564d07 and no later delivery, while the "
    "vCPU enters the guest again and again and takes other interrupts or faults, which it could not with interrupts "
    "off. Where interrupts are posted (APICv, AVIC) the accept has to do, which is weaker.",
    look_alikes="An ACK that is late (interrupts off, vCPU not scheduled); kvm_msr filtered while recording; a vCPU "
    "that was reset, or whose guest disabled async page faults, before its ACK.",
    needs=(tp.READY, tp.MSR, tp.ENTRY),
    helps=(tp.ACCEPT, tp.INJ_VIRQ, tp.EXIT),
    remedy="Look at the guest's console, and trace __sysvec_kvm_asyncpf_interrupt there: did its handler begin?",
    bugs=(
        "firecracker issue 5322: guest stops in its handler after a list was poisoned",
        "95cc9e7cf03d: a guest without it frees a stack node, after which its handler may stop",
        "x86/kvm: Alloc dummy async #PF token outside of raw spinlock (5.19): on PREEMPT_RT the handler spun for ever",
        "nested, open: an L1 panics with Host injected async #PF in kernel mode, before its ACK",
    ),
    find=_missing_ack,
)
LOST_WORK = Rule(
    id="lost-work",
    severities=(ERROR,),
    title="Work item never started",
    nouns=("work item never started", "work items never started"),
    means="The page is not even asked for.",
    shown_by="workqueue_queue_work of async_pf_execute without workqueue_execute_start, while at least three items "
    "queued later on that CPU started.",
    look_alikes="A starved pool, which starts nothing else either; work that was cancelled with its queue (EN=0, "
    "reset), which never starts and never completes.",
    needs=(tp.NOT_PRESENT, tp.QUEUE_WORK, tp.EXECUTE_START),
    helps=(tp.SWITCH,),
    remedy="Record workqueue:* and sched:* on all CPUs; sysrq-t shows what the workers of the pool events do.",
    find=_lost_work,
)

RULES = (LOST_INTERRUPT, MISSING_ACK, LOST_WORK)
