"""On the way in: setups refused, faults without any setup, and pages that fault again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.amounts import plural
from apftrace.model import tracepoints as tp
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
    about,
    duration,
    finding,
    hexed,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case

STORM = 100
"""repeated_fault hits within one life above which they count as a storm; 71 were seen on a sound host."""

SYNC_SHARE = 0.25
"""Share of its time that a vCPU thread sleeps in synchronous faults above which they are worth a warning."""
SYNC_LEAST = 10
"""Fewer than this many do not make a habit."""


def _setup_refused(case: Case) -> Iterable[Finding]:
    refused = case.tries.filter(pl.col("became") == "refused")
    for row in rows(refused):
        lost = bool(row["blind"])
        yield {
            "severity": INFO,
            "confidence": POSSIBLE if lost else PROVED,
            "tid": row["tid"],
            "gva": row["gva"],
            "ts": row["ts"],
            "end": row["ts"],
            "cause": "records lost around it" if lost else _why_refused(row),
            "message": f"no async page fault for gfn {hexed(row['gfn'])}: try without not_present, so the "
            "vCPU waited for the page itself",
            "seqs": [row["seq"]],
            "not_ruled_out": ["lost not_present record"]
            if lost
            else ["kmem_cache_zalloc failed: record vmscan:*"],
        }


def _why_refused(row: Row) -> str:
    if (row["outstanding"] or 0) >= tp.PER_VCPU:
        return f"{tp.PER_VCPU} faults of this vCPU were outstanding"
    return "no memory for the work item, or no valid address"


def _repeated_fault_storm(case: Case) -> Iterable[Finding]:
    storms = case.lives.filter(pl.col("repeated") > STORM)
    for life in rows(overlaps_blind(case.rec, storms, "not_present", "end", "blind")):
        span = int(life["end"]) - int(life["not_present"])
        yield about(
            life,
            severity=WARNING,
            confidence=POSSIBLE,
            message=f"{life['repeated']} repeated faults on gfn {hexed(life['gfn'])} within one life of "
            f"{duration(case, span)}",
            cause="the halted vCPU is woken by interrupts and faults again",
            not_ruled_out=[
                *(
                    ["several lives: the ready of one and not_present of the next are lost"]
                    * bool(life["blind"])
                ),
                "a guest that polls the page",
                "a slow worker: see its phases",
            ],
        )


def _sync_faults(case: Case) -> Iterable[Finding]:
    seen = case.rec.threads.select(
        pl.col("tid").cast(pl.Int64), (pl.col("last") - pl.col("first")).alias("there")
    )
    tried = case.lives.group_by(pl.col("tid").cast(pl.Int64)).agg(pl.len().alias("tried"))
    asleep = case.rec.asleep.filter(pl.col("count") > 0).join(
        seen, on="tid", how="left", maintain_order="left"
    )
    for row in rows(asleep.join(tried, on="tid", how="left", maintain_order="left")):
        share = row["slept"] / max(1, row["there"])
        often = share >= SYNC_SHARE and row["count"] >= SYNC_LEAST
        yield finding(
            severity=WARNING if often else INFO,
            confidence=_sure_of_sync(case),
            tid=row["tid"],
            gva=row["address"],
            ts=row["at"],
            end=row["end"],
            cause=_why_sync(row),
            message=f"{plural(row['count'], 'page fault')} of this vCPU put its thread to "
            f"sleep, without a try, for {duration(case, row['slept'])} in all ({share:.1%} of its time), the longest "
            f"for {duration(case, row['most'])}; async page faults: {row['tried'] or 0}",
            seqs=[],
            seen=_longest_sync(row),
            ruled_out=[
                "async page fault: no kvm_try_async_get_page before the next entry",
                "halt form, which sleeps interruptibly",
                "record loss: faults with a gap in the record are not counted",
            ],
            not_ruled_out=_not_ruled_out_of_sync(case, row),
        )


def _sure_of_sync(case: Case) -> str:
    if _lost_anywhere(case):
        return POSSIBLE
    return PROVED if case.rec.has(tp.USERSPACE_EXIT) else LIKELY


def _lost_anywhere(case: Case) -> bool:
    return any(loss.after_ns is None and loss.before_ns is None for loss in case.rec.losses)


def _why_sync(row: Row) -> str:
    if 2 * row["in_kernel"] > row["count"]:
        return "the guest's kernel faulted, likely with interrupts off or an exception pending: KVM may not try then"
    if 2 * row["in_user"] > row["count"]:
        return "user code faulted, with interrupts on: the host read the page, or took a lock, at once"
    return "unknown"


def _longest_sync(row: Row) -> list[dict[str, object]]:
    """Return the three records of the longest fault."""
    steps = (
        ("at", "cpu", tp.PAGE_FAULT, f"rip {hexed(row['rip'])} address {hexed(row['address'])}"),
        ("out", "out_cpu", tp.SWITCH, f"prev_pid={row['tid']} prev_state=D"),
        ("end", "end_cpu", tp.ENTRY, f"vcpu {row['vcpu']}"),
    )
    return [
        {"ts": row[ts], "cpu": row[cpu], "tid": row["tid"], "event": tp.NAMES[kind], "text": text}
        for ts, cpu, kind, text in steps
    ]


def _not_ruled_out_of_sync(case: Case, row: Row) -> list[str]:
    out = [
        "gate closed or not, fault by fault: probe the return value of kvm_can_do_async_pf",
        "what it slept for: record block:block_rq_issue and mmap_lock:*",
    ]
    if not case.rec.has(tp.USERSPACE_EXIT):
        out.append("MMIO, whose device made the VMM sleep: record kvm:kvm_userspace_exit")
    if row["doubtful"]:
        out.append(f"{row['doubtful']} more, of which records were lost meanwhile")
    if _lost_anywhere(case):
        out.append("a try among the lost records")
    return out


SETUP_REFUSED = Rule(
    id="setup-refused",
    severities=(INFO,),
    title="Async page fault refused",
    means="The vCPU itself waits for the page, as without async page faults.",
    shown_by="kvm_try_async_get_page with neither not_present nor repeated_fault after it on its thread.",
    look_alikes="A lost record.",
    needs=(tp.TRY, tp.NOT_PRESENT, tp.REPEATED),
    remedy="Count the outstanding faults (64 a vCPU at most); record vmscan:* for allocation failures.",
    find=_setup_refused,
)
SYNC_FAULTS = Rule(
    id="sync-faults",
    severities=(WARNING, INFO),
    title="Faults without async page fault",
    nouns=("vCPU that slept through faults", "vCPUs that slept through faults"),
    means="The whole vCPU stands still until the page is there: no other task of the guest runs on it, and no "
    "interrupt is taken.",
    shown_by="kvm_page_fault, then the vCPU thread switched out with prev_state D, and no kvm_try_async_get_page "
    "until its next kvm_entry: KVM did not try, or its attempt without waiting waited. One finding a vCPU, with the "
    f"longest; a warning from {SYNC_LEAST} faults and {SYNC_SHARE:.0%} of the thread's time.",
    look_alikes="A try that was made: setup-refused, or the halt form, which sleeps in S. MMIO and memslot exits, "
    "where the VMM sleeps after kvm_userspace_exit. A life of the page that is under way already: its fault is "
    "tried too, and becomes a repeated fault.",
    needs=(tp.PAGE_FAULT, tp.TRY, tp.ENTRY, tp.SWITCH),
    helps=(tp.USERSPACE_EXIT,),
    remedy="Legal: KVM tries only with guest interrupts on, no exception pending, and the LAPIC in the kernel. "
    "For faults of user code look at the host: on 6.1 a swap-in with a readahead window of one page is read at "
    "once (vm.page-cluster, sequential access), and mmap_lock is waited for. Keep out of swap what a guest's "
    "kernel touches with interrupts off.",
    find=_sync_faults,
    times=True,
)
STORM_RULE = Rule(
    id="repeated-fault-storm",
    severities=(WARNING,),
    title="Repeated-fault storm",
    nouns=("storm of repeated faults", "storms of repeated faults"),
    means="The vCPU burns time going in and out on a page that is still on its way.",
    shown_by=f"More than {STORM} kvm_async_pf_repeated_fault on one gfn within one life.",
    look_alikes="The normal halt form: one repeated fault for each interrupt that wakes the vCPU.",
    needs=(tp.REPEATED, tp.NOT_PRESENT),
    remedy="Look at the life's phases for why the page takes so long, and at what interrupts the halted vCPU gets.",
    find=_repeated_fault_storm,
)

RULES = (SETUP_REFUSED, SYNC_FAULTS, STORM_RULE)
