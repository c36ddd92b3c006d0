"""On the way in: setups refused, and pages that fault again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.rules.base import (
    INFO,
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

STORM = 100
"""repeated_fault hits within one life above which they count as a storm; 71 were seen on a sound host."""


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
    for life in rows(case.lives.filter(pl.col("repeated") > STORM)):
        span = int(life["end"]) - int(life["not_present"])
        yield about(
            life,
            severity=WARNING,
            confidence=POSSIBLE,
            message=f"{life['repeated']} repeated faults on gfn {hexed(life['gfn'])} within one life of "
            f"{duration(case, span)}",
            cause="the halted vCPU is woken by interrupts and faults again",
            not_ruled_out=["a guest that polls the page", "a slow worker: see its phases"],
        )


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
STORM_RULE = Rule(
    id="repeated-fault-storm",
    severities=(WARNING,),
    title="Repeated-fault storm",
    means="The vCPU burns time going in and out on a page that is still on its way.",
    shown_by=f"More than {STORM} kvm_async_pf_repeated_fault on one gfn within one life.",
    look_alikes="The normal halt form: one repeated fault for each interrupt that wakes the vCPU.",
    needs=(tp.REPEATED, tp.NOT_PRESENT),
    find=_repeated_fault_storm,
)

RULES = (SETUP_REFUSED, STORM_RULE)
