"""Opened traces in, Analysis out: the model's one door."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import polars as pl

from apftrace.ahead import beside
from apftrace.analysis import Analysis, ClockFit, GuestLink, Input, LossSpan
from apftrace.model import tracepoints as tp
from apftrace.model.correlate import Case, correlate
from apftrace.model.excerpts import excerpts
from apftrace.model.judge import judge
from apftrace.model.phases import lasting, latency
from apftrace.model.protocol import protocol
from apftrace.model.recording import Recording, record
from apftrace.model.stories import look_closely, stories
from apftrace.model.vcpus import vcpus
from apftrace.schema import FAULTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apftrace.model.guest.join import GuestSide
    from apftrace.model.guest.pair import GuestInput
    from apftrace.model.guest.recording import GuestRecording
    from apftrace_parsers.base import Loss, PassResult, Source

_UNSIGNED = ("token", "gva", "gfn", "hva", "blocker")


def analyse_source(source: Source, *, late_after: int | None = None) -> Analysis:
    """Analyse one source: a host's, or a guest's without its host.

    Args:
        source: an opened trace.
        late_after: threshold in ns above which a phase is late; null to learn it from the trace.
    """
    if source.info.peer is not None:
        return _guest_alone(source)
    rec, result = _recorded(source, late_after)
    if not _serves_pages(rec) and _is_guest(source):
        return _guest_alone(source)
    case = _correlated(source, rec, late_after)
    return _concluded(source, case, (describe(source, rec, result),), late_after)


def _serves_pages(rec: Recording) -> bool:
    return any(rec.counts.get(tp.NAMES[kind]) for kind in (tp.TRY, tp.NOT_PRESENT, tp.READY, tp.COMPLETED))


def _is_guest(source: Source) -> bool:
    from apftrace.model.guest.identity import is_guest

    return is_guest(source)


def _guest_alone(source: Source) -> Analysis:
    from apftrace.model.guest.identity import guest_name

    return analyse_guest(source, guest_name(source.info))


def analyse_pair(source: Source, guests: Sequence[GuestInput], *, late_after: int | None = None) -> Analysis:
    """Analyse a host together with guests of it.

    Args:
        source: the host's trace.
        guests: the guests' traces.
        late_after: threshold in ns above which a phase is late; null to learn it from the trace.
    """
    from apftrace.model.guest.pair import with_guests

    rec, result = _recorded(source, late_after)
    case = _correlated(source, rec, late_after)
    case, recorded = with_guests(case, source, guests, _threshold(source, late_after))
    inputs = [describe(source, rec, result)]
    inputs += [describe(g.source, r, res) for g, (r, res) in zip(guests, recorded, strict=True)]
    return _concluded(source, case, tuple(inputs), late_after)


def _recorded(source: Source, late_after: int | None) -> tuple[Recording, PassResult]:
    return record(source, lasting=lasting(_threshold(source, late_after), clock_is_ns=_is_in_ns(source)))


def _correlated(source: Source, rec: Recording, late_after: int | None = None) -> Case:
    return correlate(rec, late_after=_threshold(source, late_after), clock_is_ns=_is_in_ns(source))


def _threshold(source: Source, late_after: int | None) -> int | None:
    # A time says nothing to a clock that counts ticks.
    return late_after if _is_in_ns(source) else None


def _is_in_ns(source: Source) -> bool:
    return source.info.clock_unit == "ns"


def _concluded(source: Source, case: Case, inputs: tuple[Input, ...], late_after: int | None) -> Analysis:
    """Conclude a host's case, with a second look at its source: close at the lives told in full, and for excerpts."""
    sums = _Sums(case)
    case = replace(case, close=look_closely(source, case))
    analysis = conclude(case, inputs, sums)
    unsafe = analysis.unsafe
    if _threshold(source, late_after) != late_after:
        clock = source.info.clock
        unsafe += (f"--late-after is a time, and clock {clock} counts ticks: thresholds are learned",)
    return replace(analysis, unsafe=unsafe, excerpts=excerpts(source, case, analysis.findings))


class _Sums:
    """The tables of a case that no judgement goes into; those that take long are made beside what comes next.

    Attributes:
        faults: the table ``faults``.
        latency: the table ``latency``, to be waited for.
        vcpus: the table ``vcpus``, to be waited for.
    """

    def __init__(self, case: Case) -> None:
        self.faults = faults_table(case)
        self.latency = beside(latency, self.faults)
        frames = case.threads, case.lives, case.accounting, case.spans
        self.vcpus = beside(vcpus, case.rec, *frames, clock_is_ns=case.clock_is_ns)


def analyse_guest(source: Source, machine: str) -> Analysis:
    """Analyse a guest's trace without its host: its waits, as far as they tell."""
    from apftrace.model.guest.pair import alone, no_host
    from apftrace.model.guest.recording import record_guest

    rec, result = record_guest(source, machine)
    case = _correlated(source, no_host(source.info))
    case = replace(case, guests=(alone(rec),))
    return conclude(case, (describe(source, rec, result),), _Sums(case))


def conclude(case: Case, inputs: tuple[Input, ...], sums: _Sums) -> Analysis:
    """Run the rules over a case and put the tables together."""
    told = beside(stories, case)
    judgement = judge(case)
    return Analysis(
        inputs=inputs,
        verdict=judgement.verdict,
        headline=judgement.headline,
        unsafe=judgement.unsafe,
        protocol=protocol(case.rec, case.lives, case.delivered, case.vectors.all),
        faults=sums.faults,
        findings=judgement.findings,
        vcpus=sums.vcpus.result(),
        accounting=case.accounting,
        latency=sums.latency.result(),
        not_run=judgement.not_run,
        late_after=case.late_after,
        losses=tuple(
            LossSpan(case.rec.machine, x.cpu, x.count, x.after_ns, x.before_ns) for x in case.rec.losses
        )
        + tuple(_loss_of(side, loss) for side in case.guests for loss in side.rec.losses),
        guests=tuple(_link(case, side) for side in case.guests),
        stories=told.result(),
    )


def _loss_of(side: GuestSide, loss: Loss) -> LossSpan:
    after, before = (None if ts is None else side.at(ts) for ts in (loss.after_ns, loss.before_ns))
    return LossSpan(side.rec.machine, loss.cpu, loss.count, after, before)


def _link(case: Case, side: GuestSide) -> GuestLink:
    from apftrace.model.guest.clock import METHODS

    a = side.alignment
    told = joined = 0
    if side.is_joined and a.vm is not None:
        of_vm = case.lives.filter(pl.col("vm") == a.vm)
        since = pl.coalesce("pf_injected", "not_present")
        inside = (pl.col("kind") == "pv") & since.is_between(side.first, side.last)
        told = of_vm.filter(inside | pl.col("guest").is_not_null()).height
        joined = of_vm["guest"].count()
    fit = {field.name: getattr(a, field.name) for field in fields(ClockFit)}
    how = METHODS[a.method] if case.rec.counts else "no host trace: times are the guest's own"
    return GuestLink(**fit, how=how, lives=told, joined=joined)


def faults_table(case: Case) -> pl.DataFrame:
    """Return the table ``faults``, in order of not_present."""
    lives = case.lives.with_columns(
        pl.lit(case.rec.machine).alias("machine"), *(pl.col(c).reinterpret(signed=False) for c in _UNSIGNED)
    )
    return FAULTS.conform(lives)


def describe(source: Source, rec: Recording | GuestRecording, result: PassResult) -> Input:
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
