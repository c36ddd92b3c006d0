"""What the guest set up: async page faults disabled, asked for in kernel mode, spoken the old way; spinning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.frames import by_thread
from apftrace.model.loss import overlaps_blind
from apftrace.model.rules.base import (
    INFO,
    LIKELY,
    POSSIBLE,
    PROVED,
    WARNING,
    Finding,
    Row,
    Rule,
    duration,
    finding,
    hexed,
    rows,
)
from apftrace.model.rules.spent import with_spent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case

SPIN_PER_S = 100_000
SPIN_EXITS = 1000


def _enables(case: Case) -> pl.DataFrame:
    return case.rec.kind(tp.MSR).filter((pl.col("a") == 1) & (pl.col("b") == tp.MSR_EN))


def _of_write(row: Row, **stated: Any) -> Finding:
    return finding(tid=row["tid"], ts=row["ts"], end=row["ts"], seqs=[row["seq"]], **stated)


def _apf_disabled(case: Case) -> Iterable[Finding]:
    for row in rows(_enables(case).filter(pl.col("c") & tp.EN_ENABLED == 0)):
        dropped = case.lives.filter(
            (pl.col("tid") == row["tid"])
            & (pl.col("cleared") == row["ts"])
            & (pl.col("outcome") == "cancelled")
        )
        yield _of_write(
            row,
            severity=INFO,
            confidence=PROVED,
            message="the guest disabled async page faults on this vCPU"
            + (f"; {dropped.height} open lives were cancelled" if dropped.height else ""),
            cause="CPU offline, suspend, kexec or reboot",
        )


def _send_always(case: Case) -> Iterable[Finding]:
    for row in rows(
        _enables(case).filter((pl.col("c") & tp.EN_ENABLED != 0) & (pl.col("c") & tp.EN_SEND_ALWAYS != 0))
    ):
        yield _of_write(
            row,
            severity=WARNING,
            confidence=PROVED,
            message=f"the guest asked for async page faults in kernel mode too: EN = {hexed(row['c'])}",
            cause="bit 1 (SEND_ALWAYS); Linux guests since 5.8 never set it",
        )


def _legacy_protocol(case: Case) -> Iterable[Finding]:
    old = _enables(case).filter(
        (pl.col("c") & tp.EN_ENABLED != 0) & (pl.col("c") & tp.EN_DELIVERY_AS_INT == 0)
    )
    for row in rows(old):
        yield _of_write(
            row,
            severity=INFO,
            confidence=PROVED,
            message=f"the guest enabled async page faults without interrupt delivery: EN = {hexed(row['c'])}",
            cause="guest before 5.9, or host before 5.8",
        )
    if (
        old.height
        or _enables(case).height
        or case.delivered.height
        or not case.rec.has(tp.ACCEPT, tp.INJ_EXCEPTION)
    ):
        return
    # The accept comes right after the ready, which may be the last record that there is.
    lives = by_thread(case.lives, case.threads.select("tid", "last"))
    told = lives.filter((pl.col("kind") == "pv") & (pl.col("ready") < pl.col("last")))
    told = overlaps_blind(case.rec, told, "not_present", "ready", "blind").filter(~pl.col("blind"))
    if told.height:
        yield {
            "severity": INFO,
            "confidence": LIKELY,
            "ts": told["not_present"][0],
            "end": told["not_present"][-1],
            "message": f"{told.height} not_present were injected and no page-ready interrupt was ever accepted",
            "cause": "page-ready comes as #PF: host before 5.8",
            "seqs": [told["life"][0], told["ready_seq"][0]],
        }


def _vcpu_spin(case: Case) -> Iterable[Finding]:
    # Few lives have anything to do with so many halts, and only theirs are worth looking up.
    spun = case.rec.kind(tp.SPENT).filter(pl.col("hlts") >= SPIN_EXITS)["seq"] + 1
    lives = case.lives.filter(pl.col("comp_hlts").is_not_null() | pl.col("ready_seq").is_in(spun.implode()))
    lives = with_spent(case.rec, lives.with_columns(pl.lit("p3").alias("phase")))
    waits = (
        by_thread(lives, case.threads.select("tid", "entry_ts", pl.col("hlts").alias("hlts_end")))
        .with_columns(
            pl.coalesce("spent_hlts", pl.col("hlts_end") - pl.col("comp_hlts")).alias("halts"),
            pl.coalesce("ready", "last_run").alias("until"),
        )
        .with_columns((pl.col("until") - pl.col("completed")).alias("span"))
        .filter(
            (pl.col("halts") >= SPIN_EXITS) & (pl.col("halts") * 1_000_000_000 > pl.col("span") * SPIN_PER_S)
        )
    )
    # Of a life without a ready the halts are counted up to the vCPU's last: it must have waited as long.
    over = pl.min_horizontal("ended", "cleared", "woken_all") < pl.col("entry_ts")
    waits = waits.filter(pl.col("ready").is_not_null() | ~over.fill_null(value=False))
    waits = overlaps_blind(case.rec, waits, "completed", "until", "blind")
    for life in rows(waits.sort("halts", descending=True).unique("tid", keep="first", maintain_order=True)):
        unseen = life["ready"] is None and (life["blind"] or tp.READY in case.rec.silent)
        yield {
            "severity": WARNING,
            "confidence": POSSIBLE if unseen else LIKELY,
            "tid": life["tid"],
            "token": life["token"],
            "gva": life["gva"],
            "ts": life["completed"],
            "end": life["ready"] if life["ready"] is not None else life["end"],
            "message": f"vCPU spins: {life['halts']} hlt exits in {duration(case, life['span'])} while token "
            f"{hexed(life['token'])} is completed and not handed over",
            "cause": "a completed life makes HLT return at once",
            "seqs": [life["life"], life["completed_seq"], life["ready_seq"]],
            "not_ruled_out": [
                *(["handed over by a ready that was not traced: a guest with work after each HLT"] * unseen),
                "HLT passed through to the guest",
                "halt polling: see kvm:kvm_vcpu_wakeup",
            ],
        }


APF_DISABLED = Rule(
    id="apf-disabled",
    severities=(INFO,),
    title="Async page faults disabled",
    means="From here on the vCPU itself waits for pages; faults that were open get no ready.",
    shown_by="kvm_msr write 4b564d02 with bit 0 clear.",
    look_alikes="CPU hotplug, suspend, kexec, reboot: all legal.",
    needs=(tp.MSR,),
    find=_apf_disabled,
)
SEND_ALWAYS = Rule(
    id="send-always",
    severities=(WARNING,),
    title="Kernel-mode faults asked for",
    nouns=("request for kernel-mode faults", "requests for kernel-mode faults"),
    means="An async #PF may hit the guest where it cannot sleep; guests since 5.8 panic on it.",
    shown_by="kvm_msr write 4b564d02 with bits 0 and 1 set.",
    look_alikes="-",
    needs=(tp.MSR,),
    bugs=("3a7c8fafd1b4: x86/kvm: Restrict ASYNC_PF to user space",),
    find=_send_always,
)
LEGACY = Rule(
    id="legacy-protocol",
    severities=(INFO,),
    title="Legacy protocol",
    means="Page-ready comes as #PF with a reason word; a host since 5.8 delivers nothing to such a guest.",
    shown_by="EN written with bit 0 and without bit 3; or not_present injected, and no vector accepted after ready.",
    look_alikes="A trace without kvm_apic_accept_irq, or that ends with the ready; an accept whose record was lost.",
    needs=(tp.MSR,),
    helps=(tp.INJ_EXCEPTION, tp.ACCEPT),
    remedy="Host 5.8 and guest 5.9 or later, or no-kvmapf in the guest.",
    bugs=(
        "2a18b7e7cd88: older hosts inject ready for a not_present that was never injected; the guest leaks a node "
        "(bugzilla 208081)",
        "9a6e7c39810e: ready and not_present injected together made a double fault",
    ),
    find=_legacy_protocol,
)
VCPU_SPIN = Rule(
    id="vcpu-spin",
    severities=(WARNING,),
    title="vCPU spins on HLT",
    nouns=("spinning vCPU", "spinning vCPUs"),
    means="The vCPU burns a whole host CPU while it has nothing to run.",
    shown_by=f"More than {SPIN_PER_S} hlt exits a second while a completed life waits.",
    look_alikes="Halt polling, which kvm_vcpu_wakeup and kvm_halt_poll_ns tell; HLT exits disabled; a guest that "
    "really has work after each HLT, while the life was answered or cleared unseen: with a ready implied, or the queue "
    "cleared, nothing is reported, and with records lost meanwhile it is only possible.",
    needs=(tp.EXIT, tp.COMPLETED, tp.NOT_PRESENT),
    remedy="Look whether the guest's local APIC is enabled, and whether the delivery before was ACKed.",
    bugs=(
        "2f15d027c05f: KVM: x86: Properly handle APF vs disabled LAPIC situation",
        "cloud-hypervisor issue 2277, firecracker issue 3043: a vCPU at 100 %, a million exits a second",
    ),
    find=_vcpu_spin,
    times=True,
)

RULES = (APF_DISABLED, SEND_ALWAYS, LEGACY, VCPU_SPIN)
