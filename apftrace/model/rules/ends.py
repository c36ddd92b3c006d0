"""What ends faults without an answer: vCPUs that begin anew, VMs that end, VMs that fall silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.loss import blind_within, overlaps_blind
from apftrace.model.outcome import resets
from apftrace.model.rules.base import (
    INFO,
    LIKELY,
    POSSIBLE,
    PROVED,
    Finding,
    Row,
    Rule,
    duration,
    finding,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case

SILENT_NS = 1_000_000_000
"""Silence of a whole VM that is worth a word; an idle guest's timers run more often."""
_SILENT_SHARE = 0.05
_SHOWN = 8
"""Lives that one finding names as evidence."""


def _vcpu_reset(case: Case) -> Iterable[Finding]:
    shown = _course(case)
    again = shown.filter((pl.col("reset") | pl.col("on")) & pl.col("was_on")).select("seq")
    writes = shown.filter(pl.col("write")).join(again, on="seq", how="semi", maintain_order="left")
    for row in rows(overlaps_blind(case.rec, writes, "was_ts", "ts", "blind")):
        dropped = _dropped(case, row)
        yield finding(
            severity=INFO,
            confidence=POSSIBLE if row["blind"] else LIKELY,
            tid=row["tid"],
            ts=row["ts"],
            end=row["ts"],
            cause="reset, INIT, resume or restore",
            message="async page faults were enabled on this vCPU although they were on" + _told(dropped),
            seqs=[*dropped["life"].head(_SHOWN).to_list(), row["seq"]],
            ruled_out=[] if row["blind"] else ["CPU offline and online again: EN was not cleared before"],
            not_ruled_out=[
                *(
                    ["CPU offline and online again: EN was cleared in a record that is lost"]
                    * bool(row["blind"])
                ),
                "a guest that writes EN twice",
            ],
        )
    were_on = set(again["seq"].to_list())
    for row in rows(shown.filter("reset")):
        dropped = _dropped(case, row)
        if row["seq"] in were_on or dropped.height:
            yield _of_reset(row, dropped)


def _of_reset(row: Row, dropped: pl.DataFrame) -> Finding:
    sent = row["by"] is not None
    return finding(
        severity=INFO,
        confidence=PROVED,
        tid=row["tid"],
        ts=row["ts"],
        end=row["enabled_ts"] if row["enabled_ts"] is not None else row["ts"],
        cause=f"INIT, sent by vCPU {row['by']}" if sent else "reset of the VM, or INIT",
        message=("this vCPU was sent an INIT" if sent else "this vCPU entered the guest at the reset vector")
        + " with async page faults on" * bool(row["was_on"])
        + _told(dropped)
        + ("; they were enabled anew later" if row["enabled"] is not None else ""),
        seqs=[*dropped["life"].head(_SHOWN).to_list(), row["seq"], row["enabled"]],
        ruled_out=["CPU offline and online again: EN was not cleared before"] if row["was_on"] else [],
        not_ruled_out=[],
    )


def _course(case: Case) -> pl.DataFrame:
    """Return the writes of EN and the resets in order, with whether async page faults ``was_on`` before on the vCPU.

    Deliveries show too that they are on. ``was_ts`` is when the one before came, ``enabled`` the next
    write that enables.
    """
    writes = case.rec.kind(tp.MSR).filter((pl.col("a") == 1) & (pl.col("b") == tp.MSR_EN))
    reset = resets(case.rec, case.threads)
    changed = pl.concat([writes["tid"], reset["tid"]]).unique()
    told = case.delivered.select("tid", "seq", pl.col("accepted").alias("ts")).filter(
        pl.col("ts").is_not_null() & pl.col("tid").is_in(changed.implode())
    )
    enables = writes.filter((pl.col("c") & tp.EN_ENABLED) != 0)
    course = pl.concat(
        [
            writes.select(
                "tid", "seq", "ts", on=(pl.col("c") & tp.EN_ENABLED) != 0, write=pl.lit(value=True)
            ),
            told.select("tid", "seq", "ts", on=pl.lit(value=True)),
            reset.select("tid", "seq", "ts", "by", on=pl.lit(value=False), reset=pl.lit(value=True)),
        ],
        how="diagonal_relaxed",
    ).sort("seq")
    return (
        course.with_columns(
            pl.col("on").shift(1).over("tid").fill_null(value=False).alias("was_on"),
            pl.coalesce(pl.col("ts").shift(1).over("tid"), "ts").alias("was_ts"),
            pl.col("write", "reset").fill_null(value=False),
        )
        .filter(pl.col("write") | pl.col("reset"))
        .join_asof(
            enables.select("seq", "tid", pl.col("seq").alias("enabled"), pl.col("ts").alias("enabled_ts")),
            on="seq",
            by="tid",
            strategy="forward",
            check_sortedness=False,
        )
    )


def _dropped(case: Case, row: Row) -> pl.DataFrame:
    return case.lives.filter(
        (pl.col("tid") == row["tid"])
        & (pl.col("cleared") == row["ts"])
        & pl.col("outcome").is_in(["cancelled", "woken_by_all"])
    )


def _told(dropped: pl.DataFrame) -> str:
    return f"; lives that were open and got no ready: {_many(dropped)}" if dropped.height else ""


def _many(lives: pl.DataFrame) -> str:
    """Return how many lives a finding is about, and how many of them its evidence shows where that is not all."""
    return f"{lives.height}" + (f" (evidence: {_SHOWN} of {lives.height})" if lives.height > _SHOWN else "")


def _vm_ended(case: Case) -> Iterable[Finding]:
    for (vm,), threads in case.threads.group_by("vm", maintain_order=True):
        gone = threads.filter(pl.col("gone") > 0)
        if not gone.height:
            continue
        dropped = case.lives.filter(
            pl.col("tid").is_in(gone["tid"].implode()) & (pl.col("outcome") == "cancelled")
        )
        whole = gone.height == threads.height
        # Of the others the end may be cut off, or lost.
        last, end = (threads["last"].max(), gone["gone"].max())
        assert isinstance(last, int)
        assert isinstance(end, int)
        goes_on = not whole and last > end
        yield finding(
            severity=INFO,
            confidence=PROVED,
            tid=gone["tid"][0],
            ts=gone["gone"].min(),
            end=gone["gone"].max(),
            cause="the VM ended" if whole else "vCPUs were removed" if goes_on else "the VM is about to end",
            message=f"{gone.height} of {threads.height} vCPU threads of {vm} exited"
            + (f"; lives that ended with them: {_many(dropped)}" if dropped.height else ""),
            seqs=dropped["life"].head(_SHOWN).to_list(),
            ruled_out=["lost: a VM that ends gets no ready"] if dropped.height else [],
            not_ruled_out=[]
            if whole or goes_on
            else ["vCPUs that were removed: no other thread left a record since"],
        )


def _vm_stopped(case: Case) -> Iterable[Finding]:
    least = max(SILENT_NS, int(_SILENT_SHARE * (case.rec.last_ns - case.rec.first_ns)), case.stale.age)
    for (vm,), threads in case.threads.group_by("vm", maintain_order=True):
        last = threads["last"].max()
        assert isinstance(last, int)
        open_lives = case.lives.filter(
            pl.col("tid").is_in(threads["tid"].implode())
            & pl.col("outcome").is_in(["in_flight", "undecided"])
        )
        if (threads["gone"] > 0).any() or not open_lives.height or case.rec.last_ns - last < least:
            continue
        missing = any(blind_within(case.rec, tid, last, case.rec.last_ns) for tid in threads["tid"])
        silent = duration(case, case.rec.last_ns - last)
        yield finding(
            severity=INFO,
            confidence=POSSIBLE,
            tid=threads["tid"][0],
            ts=last,
            end=case.rec.last_ns,
            cause="paused, stopped or migrated away",
            message=f"no vCPU of {vm} left a record in the last {silent}; "
            f"lives of it that are open: {_many(open_lives)}",
            seqs=open_lives["life"].head(_SHOWN).to_list(),
            not_ruled_out=[
                *(["a guest that goes on where records were lost or no CPU was recorded"] * missing),
                "a guest that idles",
                "live migration: record kvm:kvm_dirty_ring_push and kvm:kvm_userspace_exit",
                "the VM's end: record sched:sched_process_exit",
            ],
        )


VCPU_RESET = Rule(
    id="vcpu-reset",
    severities=(INFO,),
    title="vCPU began anew",
    means="Its queue of async page faults was cleared; those that were open get no ready, ever.",
    shown_by="A vCPU that had async page faults on (enabled before, or told of a page, and not disabled since), or "
    "had some open, enters the guest at the reset vector (kvm_entry with rip 0xfff0), or is sent an INIT "
    "(kvm_apic_accept_irq on the sender's thread). Where neither was seen: EN is written with bit 0 set.",
    look_alikes="CPU hotplug and boot, where EN is cleared first (apf-disabled), in a record that may be lost, or was "
    "never set; a SIPI alone, which a running vCPU ignores.",
    needs=(tp.MSR,),
    helps=(tp.ENTRY, tp.ACCEPT, tp.READY),
    remedy="Where guests hang after a restore: the VMM must restore MSR_KVM_ASYNC_PF_INT before MSR_KVM_ASYNC_PF_EN.",
    bugs=("firecracker issue 3020: tasks stay in D after a snapshot is restored",),
    find=_vcpu_reset,
)
VM_ENDED = Rule(
    id="vm-ended",
    severities=(INFO,),
    title="vCPU threads exited",
    means="Nothing: there is no guest any more that could wait.",
    shown_by="sched_process_exit of vCPU threads, or their last sched_switch with a dead state.",
    look_alikes="A paused VM, whose threads live on; a VM whose end the trace cuts off, which has lost only some of "
    "its vCPUs by then.",
    needs=(tp.SWITCH,),
    helps=(tp.PROCESS_EXIT,),
    bugs=(
        "3d75b8aa5c29: KVM: Always flush async #PF workqueue when vCPU is being destroyed",
        "778c350eb580: the flush of 22583f0d9c85 recursed and was reverted",
    ),
    find=_vm_ended,
)
VM_STOPPED = Rule(
    id="vm-stopped",
    severities=(INFO,),
    title="VM fell silent with faults open",
    means="Its vCPUs do not run here: a page may be ready and nobody there to be told.",
    shown_by="No record of any vCPU thread of a VM for the last second or more, with lives open, while the host "
    "goes on.",
    look_alikes="A guest that idles; a VM that ended; data of its CPUs that end early.",
    needs=(tp.NOT_PRESENT, tp.READY),
    helps=(tp.ENTRY, tp.SWITCH, tp.USERSPACE_EXIT),
    remedy="After a migration look on the destination: outstanding faults do not travel, a wake-all there ends them. "
    "Only halt-form faults there mean that EN was not restored.",
    bugs=(
        "QEMU d831de177218: failed to set MSR 0x4b564d02 on restore, so that async page faults stayed off",
    ),
    find=_vm_stopped,
    times=True,
)

RULES = (VCPU_RESET, VM_ENDED, VM_STOPPED)
