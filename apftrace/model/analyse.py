"""Recording in, Analysis out: the model's one door."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from apftrace.analysis import Analysis, Input, LossSpan
from apftrace.model.correlate import Case, correlate
from apftrace.model.excerpts import excerpts
from apftrace.model.judge import judge
from apftrace.model.phases import latency
from apftrace.model.protocol import protocol
from apftrace.model.recording import Recording, record
from apftrace.model.vcpus import vcpus
from apftrace.schema import FAULTS

if TYPE_CHECKING:
    from apftrace_parsers.base import PassResult, Source

_UNSIGNED = ("token", "gva", "gfn", "hva", "blocker")


def analyse_source(source: Source, *, late_after: int | None = None) -> Analysis:
    """Analyse one host source.

    Args:
        source: an opened trace.
        late_after: threshold in ns above which a phase is late; null to learn it from the trace.
    """
    rec, result = record(source)
    case = correlate(rec, late_after=late_after, clock_is_ns=source.info.clock_unit == "ns")
    analysis = conclude(case, (describe(source, rec, result),))
    return replace(analysis, excerpts=excerpts(source, case, analysis.findings))


def conclude(case: Case, inputs: tuple[Input, ...]) -> Analysis:
    """Run the rules over a case and put the tables together."""
    judgement = judge(case)
    faults = faults_table(case)
    return Analysis(
        inputs=inputs,
        verdict=judgement.verdict,
        headline=judgement.headline,
        unsafe=judgement.unsafe,
        protocol=protocol(case.rec, case.lives, case.delivered, case.vectors.all),
        faults=faults,
        findings=judgement.findings,
        vcpus=vcpus(case.rec, case.threads, case.lives, case.accounting, case.spans),
        accounting=case.accounting,
        latency=latency(faults),
        not_run=judgement.not_run,
        late_after=case.late_after,
        losses=tuple(
            LossSpan(case.rec.machine, x.cpu, x.count, x.after_ns, x.before_ns) for x in case.rec.losses
        ),
    )


def faults_table(case: Case) -> pl.DataFrame:
    """Return the table ``faults``, in order of not_present."""
    lives = case.lives.with_columns(
        pl.lit(case.rec.machine).alias("machine"), *(pl.col(c).reinterpret(signed=False) for c in _UNSIGNED)
    )
    return FAULTS.conform(lives)


def describe(source: Source, rec: Recording, result: PassResult) -> Input:
    """Return what reports say of an input."""
    info = source.info
    counts = [loss.count for loss in rec.losses]
    return Input(
        path=info.path,
        format=info.format,
        machine=rec.machine,
        kernel=info.kernel,
        clock=info.clock,
        clock_unit=info.clock_unit,
        cpus=info.cpus,
        events=dict(sorted(rec.counts.items())),
        lost_events=None if None in counts else sum(c for c in counts if c is not None),
        lost_cpus=tuple(sorted({loss.cpu for loss in rec.losses})),
        first_ns=result.first_ns,
        last_ns=result.last_ns,
        notes=tuple(result.notes),
    )
