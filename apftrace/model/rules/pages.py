"""Pages that do not stay, or cannot be had: refault-loop, page-malfunction, fatal-fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.loss import overlaps_blind
from apftrace.model.rules.base import (
    ERROR,
    LIKELY,
    POSSIBLE,
    PROVED,
    WARNING,
    Finding,
    Row,
    Rule,
    about,
    hexed,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case

LOOP_LIVES = 3
AT_ONCE_NS = 10_000_000

_SIGBUS = 7
_BUS_MCEERR_AR = 4
_EFAULT = -14
_MEMORY_FAULT = 39
"""KVM_EXIT_MEMORY_FAULT comes with -EFAULT too, and asks the VMM to convert a page: include/uapi/linux/kvm.h."""


def _refault_loop(case: Case) -> Iterable[Finding]:
    quick = min(AT_ONCE_NS, case.late_after["p12"]) if case.clock_is_ns else case.late_after["p12"]
    followed_by = pl.col("not_present").shift(-1).over("tid", "gfn")
    followed = (
        case.lives.select("tid", "gfn", "p12", (followed_by - pl.col("ready")).alias("pause"))
        .filter((pl.col("pause") <= quick) & (pl.col("p12") <= quick))
        .select("tid", "gfn")
    )
    steps = (
        case.lives.select("life", "tid", "gfn", "not_present", "ready", "p12", "end")
        .join(followed.unique(), on=["tid", "gfn"], how="semi")
        .sort("tid", "gfn", "life")
    )
    same = (pl.col("tid") == pl.col("tid").shift(1)) & (pl.col("gfn") == pl.col("gfn").shift(1))
    at_once = (pl.col("not_present") - pl.col("ready").shift(1) <= quick) & (pl.col("p12").shift(1) <= quick)
    steps = steps.with_columns((same & at_once).fill_null(value=False).alias("again"))
    runs = (
        steps.with_columns((~pl.col("again")).cum_sum().alias("run"))
        .filter(pl.col("again") | pl.col("again").shift(-1, fill_value=False))
        .group_by("run", maintain_order=True)
        .agg(pl.len().alias("n"), pl.first("life"), pl.last("end").alias("run_end"))
    )
    loops = (
        runs.filter(pl.col("n") >= LOOP_LIVES)
        .join(case.lives, on="life", how="left", maintain_order="left")
        .with_columns(pl.col("run_end").alias("end"))
    )
    for loop in rows(overlaps_blind(case.rec, loops.sort("life"), "not_present", "end", "blind")):
        yield about(
            loop,
            severity=WARNING,
            confidence=POSSIBLE if loop["blind"] else LIKELY,
            cause="the page cannot be had, or is taken away again at once",
            message=f"{loop['n']} async page faults in a row on gfn {hexed(loop['gfn'])}, each right after the "
            "ready of the one before",
            not_ruled_out=[
                *(["slower lives than they seem: records were lost among them"] * bool(loop["blind"])),
                "memory thrash: record kvm:kvm_unmap_hva_range",
                "get_user_pages_remote failing: record a kretprobe on it",
            ],
        )


def _page_malfunction(case: Case) -> Iterable[Finding]:
    # A poisoned page is no async page fault: its vCPU may never have had one.
    entered = case.rec.threads.filter(pl.col("entries") > 0)["tid"].to_list()
    vcpu_tids = {*case.threads["tid"].to_list(), *entered}
    for row in rows(
        case.rec.kind(tp.SIGNAL).filter((pl.col("a") == _SIGBUS) & (pl.col("b") == _BUS_MCEERR_AR))
    ):
        if row["c"] in vcpu_tids:
            yield {
                "severity": ERROR,
                "confidence": PROVED,
                "tid": int(row["c"]),
                "ts": row["ts"],
                "end": row["ts"],
                "cause": "the vCPU touched a poisoned page",
                "message": "SIGBUS with BUS_MCEERR_AR to the vCPU thread",
                "seqs": [row["seq"]],
                "ruled_out": ["an action-optional signal (code 5), which goes to the VMM"],
            }
    for row in rows(case.rec.kind(tp.MEMORY_FAILURE)):
        yield {
            "severity": WARNING,
            "confidence": PROVED,
            "ts": row["ts"],
            "end": row["ts"],
            "cause": "hardware memory error, or one injected for a test",
            "message": f"memory failure on host pfn {hexed(row['a'])}",
            "seqs": [row["seq"]],
            "not_ruled_out": ["a page of no guest"],
        }
    for row in rows(_machine_checks(case)):
        yield {
            "severity": WARNING,
            "confidence": PROVED,
            "tid": row["tid"],
            "ts": row["ts"],
            "end": row["ts"],
            "cause": "the VMM reports a memory error to its guest",
            "message": "machine check injected into the guest",
            "seqs": [row["seq"]],
        }


def _machine_checks(case: Case) -> pl.DataFrame:
    """Return the injections of #MC, each once: one whose delivery faulted is traced again, as reinjected."""
    found = case.rec.kind(tp.INJ_EXCEPTION).filter(pl.col("a") == tp.MC_VECTOR)
    return found.filter((pl.col("c") == 0) | pl.col("tid").is_first_distinct())


def _fatal_fault(case: Case) -> Iterable[Finding]:
    out = case.rec.kind(tp.PAGE_FAULT, tp.USERSPACE_EXIT).with_columns(
        pl.col("kind").shift(1).over("tid").alias("before"),
        pl.col("seq").shift(1).over("tid").alias("fault_seq"),
        pl.col("ts").shift(1).over("tid").alias("fault_ts"),
        pl.col("a").shift(1).over("tid").alias("address"),
    )
    fatal = (pl.col("kind") == tp.USERSPACE_EXIT) & (pl.col("b") == _EFAULT) & (pl.col("a") != _MEMORY_FAULT)
    # A fault of an earlier kvm_exit was served: the vCPU was in the guest since.
    refault = (pl.col("before") == tp.PAGE_FAULT) & (pl.col("fault_ts") >= pl.col("exit_ts"))
    found = out.filter(fatal).with_columns(
        refault.fill_null(value=False).alias("refault"), pl.coalesce("fault_ts", "ts").alias("fault_ts")
    )
    for row in rows(overlaps_blind(case.rec, found, "fault_ts", "ts", "blind")):
        refault, doubts = row["refault"], _why_not_the_page(case, row)
        yield {
            "severity": ERROR,
            "confidence": LIKELY if doubts else PROVED,
            "tid": row["tid"],
            "gva": row["address"] if refault else None,
            "ts": row["ts"],
            "end": row["ts"],
            "cause": "KVM cannot map the page (-EFAULT)",
            "message": "KVM_RUN ends with errno -14"
            + (" right after a fault on a page whose ready came before" if refault else ""),
            "seqs": [row["fault_seq"] if refault else None, row["seq"]],
            "ruled_out": []
            if doubts
            else [
                "an MMIO or read-only memslot exit: a page reported ready was touched",
                "another fault meanwhile: no kvm_exit and no lost record between",
            ],
            "not_ruled_out": doubts,
        }


def _why_not_the_page(case: Case, row: Row) -> list[str]:
    """Return what else than the page that was ready may have ended a run."""
    if not row["refault"]:
        return ["an MMIO or read-only memslot exit"]
    if not case.rec.has(tp.EXIT):
        return ["a fault on another page since: record kvm:kvm_exit"]
    return ["a fault on another page since, among the lost records"] if row["blind"] else []


REFAULT_LOOP = Rule(
    id="refault-loop",
    severities=(WARNING,),
    title="Faults on one page in a loop",
    means="The task makes no progress: each retry faults again.",
    shown_by=f"{LOOP_LIVES} or more lives of one gfn in a row on a vCPU, fast ones, each begun at once after the "
    "ready of the one before.",
    look_alikes="Memory thrash, where the page is reclaimed between the lives; that takes longer. Endless "
    "kvm_page_fault on one gfn without any try is no async page fault at all: a host without ba6e3fe25543.",
    needs=(tp.NOT_PRESENT, tp.READY, tp.COMPLETED),
    helps=(tp.PAGE_FAULT, tp.TRY),
    remedy="Look at what backs the page: a truncated file, a failing device. A return probe on "
    "get_user_pages_remote shows the error that KVM ignores; kvm_unmap_hva_range between the lives shows reclaim.",
    bugs=(
        "GUP errors are ignored: a truncated file behind the page faults for ever (KVM_FEATURE_ASYNC_PF_ERROR, 2020)",
    ),
    find=_refault_loop,
    times=True,
)
PAGE_MALFUNCTION = Rule(
    id="page-malfunction",
    severities=(
        ERROR,
        WARNING,
    ),
    title="Page malfunction",
    means="The page is poisoned: the guest gets a machine check instead of its data.",
    shown_by="signal_generate sig 7 code 4 to a vCPU thread, memory_failure_event, or an injected #MC.",
    look_alikes="SIGBUS inside the guest; code 5, which is advisory; a machine check that is injected again, because "
    "its delivery faulted.",
    needs=(),
    helps=(tp.SIGNAL, tp.MEMORY_FAILURE, tp.INJ_EXCEPTION),
    remedy="The host's memory: mce:mce_record, edac.",
    find=_page_malfunction,
)
FATAL_FAULT = Rule(
    id="fatal-fault",
    severities=(ERROR,),
    title="Fault that ends the VM",
    means="The VMM sees KVM_RUN fail and stops the guest.",
    shown_by="kvm_userspace_exit with errno -14; proved where it comes right after a fault, in the same kvm_exit, on "
    "a page that was reported ready.",
    look_alikes="MMIO and read-only memslot exits; a fault on another page, whose record is missing.",
    needs=(tp.USERSPACE_EXIT,),
    helps=(tp.PAGE_FAULT, tp.EXIT),
    remedy="The VMM's log, and what backs the page: a hole in the memslot, a file that shrank, memory that failed.",
    find=_fatal_fault,
)

RULES = (REFAULT_LOOP, PAGE_MALFUNCTION, FATAL_FAULT)
