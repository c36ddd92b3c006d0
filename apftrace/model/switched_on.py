"""Which tracepoints were on, where hits alone do not tell: one that is described and never hit may be either.

What the other events show decides. A guest that was told by #PF injects exceptions; a vCPU that takes
page-ready interrupts had readies. Where nothing shows that kvm_async_pf_ready was off, its silence is
no gap in the record but what the record says: no fault was answered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

_SELDOM = frozenset(
    {
        tp.USERSPACE_EXIT,
        tp.PROCESS_EXIT,
        tp.SIGNAL,
        tp.MEMORY_FAILURE,
        tp.SMM,
        tp.CR,
        tp.APICV_ACCEPT,
    }
)
"""Tracepoints without a hit in a sound trace: of these the description alone says that they were on."""


_ASYNC_PF = frozenset({tp.TRY, tp.REPEATED, tp.NOT_PRESENT, tp.READY, tp.COMPLETED})
"""Described with all others, and none ever hit: nothing shows that anyone turned them on."""


def settle(rec: Recording) -> Recording:
    """Return the recording with ``recorded`` put right by what its events show, and with ``silent``."""
    recorded = set(rec.recorded)
    if rec.describes_all:
        recorded -= {kind for kind in _SELDOM if not hits(rec, kind)}
        if not any(hits(rec, kind) for kind in _ASYNC_PF):
            recorded -= _ASYNC_PF
    if not hits(rec, tp.INJ_EXCEPTION) and not _nobody_told(rec):
        recorded.discard(tp.INJ_EXCEPTION)
    silent = frozenset({tp.READY}) if _never_ready(rec) else frozenset()
    return replace(rec, recorded=frozenset(recorded | silent), silent=silent)


def hits(rec: Recording, kind: int) -> int:
    """Return how often a tracepoint was hit, under whichever name."""
    names = (n for event in tp.TRACEPOINTS[kind].pick.events for n in (event, event.split(":")[-1]))
    return max(rec.counts.get(name, 0) for name in names)


def deliveries_seen(rec: Recording) -> int:
    """Return how many page-ready interrupts show, by what any of their traces counts, broadcasts apart."""
    writes = rec.kind(tp.MSR).filter(pl.col("a") == 1)
    vectors = sorted(rec.vectors)
    acks = writes.filter(pl.col("b") == tp.MSR_ACK).height
    accepts = rec.kind(tp.ACCEPT).filter(pl.col("a").is_in(vectors)).height
    virqs = rec.kind(tp.INJ_VIRQ).filter(pl.col("a").is_in(vectors)).height
    enables = writes.filter((pl.col("b") == tp.MSR_EN) & (pl.col("c") & tp.EN_ENABLED != 0)).height
    broadcasts = rec.kind(tp.READY).filter(pl.col("a") == tp.BROADCAST).height
    return max(0, max(acks, accepts, virqs) - max(enables, broadcasts))


def _nobody_told(rec: Recording) -> bool:
    """Say whether events that every delivery leaves were on, and none was left: no exception was due."""
    return bool(hits(rec, tp.ACCEPT) or hits(rec, tp.MSR)) and not deliveries_seen(rec)


def shows_untold(rec: Recording) -> bool:
    """Say whether what a delivered ready leaves was on beside it: its absence is proof of its own."""
    return all(hits(rec, kind) for kind in (tp.INJ_EXCEPTION, tp.ACCEPT, tp.MSR))


def _never_ready(rec: Recording) -> bool:
    """Say whether no fault was answered in the whole trace, for all that its events show."""
    if hits(rec, tp.READY) or not hits(rec, tp.NOT_PRESENT) or rec.losses or rec.uncovered:
        return False
    if deliveries_seen(rec) or _forgotten(rec):
        return False
    # Without a description of the tracepoint only the missing interrupts of told guests speak.
    return tp.READY in rec.fields or shows_untold(rec)


def _forgotten(rec: Recording) -> bool:
    """Say whether the kernel forgot faults on its way: they were answered unseen, or cleared.

    It keeps a page once per vCPU (R14) and no more than 64 of them, and it tells of every enabling by a ready.
    """
    begun = rec.kind(tp.NOT_PRESENT).select("tid", (pl.col("b") & ~0xFFF).alias("page"))
    twice = begun.is_duplicated().any()
    crowded = (begun.group_by("tid").len()["len"] > tp.PER_VCPU).any()
    writes = rec.kind(tp.MSR).filter((pl.col("a") == 1) & (pl.col("b") == tp.MSR_EN))
    return bool(twice or crowded or writes.height)
