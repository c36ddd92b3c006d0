"""A host's case and its guests' traces brought together: one clock, lives that cross the border."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model.anchors import Anchors
from apftrace.model.guest.align import GuestClock, HostClock, align
from apftrace.model.guest.candidates import host_lives
from apftrace.model.guest.join import guest_side, with_border
from apftrace.model.guest.recording import record_guest
from apftrace.model.guest.steal import with_steal
from apftrace.model.guest.tsc import TscOffset, offsets_of
from apftrace.model.guest.waits import waits, wakes
from apftrace.model.odometer import Odometer
from apftrace.model.phases import thresholds
from apftrace.model.recording import Recording, threads_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apftrace.model.correlate import Case
    from apftrace.model.guest.clock import Alignment
    from apftrace.model.guest.join import GuestSide
    from apftrace.model.guest.recording import GuestRecording
    from apftrace_parsers.base import PassResult, Source, SourceInfo


@dataclass(frozen=True)
class GuestInput:
    """A guest's trace as it was given.

    Attributes:
        source: the opened trace.
        name: what the guest is called.
        tsc: how its TSC relates to the host's, where the user says so.
    """

    source: Source
    name: str
    tsc: TscOffset | None = None


def with_guests(
    case: Case, host: Source, guests: Sequence[GuestInput], late_after: int | None
) -> tuple[Case, list[tuple[GuestRecording, PassResult]]]:
    """Return the case with its guests: VM names, instants and phases of the guest, and what the rules look at.

    Args:
        case: of the host's trace.
        host: that trace, for a second look at its switches.
        guests: their traces.
        late_after: the user's threshold for late phases.
    """
    recorded = [record_guest(guest.source, guest.name) for guest in guests]
    clocks = tuple(
        GuestClock(rec, guest.source.info, guest.tsc)
        for guest, (rec, _) in zip(guests, recorded, strict=True)
    )
    offsets = offsets_of(host) if case.rec.counts.get("kvm_write_tsc_offset") else {}
    alignments = align(HostClock(case, host.info, offsets), clocks)
    case, alignments = _renamed(case, alignments)
    sides = tuple(_side(case, rec, a) for (rec, _), a in zip(recorded, alignments, strict=True))
    joined = tuple(side for side in sides if side.is_joined)
    if joined:
        lives = with_steal(host, with_border(case.lives, joined), joined, case.threads)
        lives = _with_handler(lives)
        late = thresholds(lives, late_after, clock_is_ns=case.clock_is_ns)
        case = replace(case, lives=lives, late_after=late)
    return replace(case, guests=sides), recorded


def alone(rec: GuestRecording) -> GuestSide:
    """Return a guest without its host."""
    from apftrace.model.guest.clock import Alignment

    none = pl.DataFrame(schema={"life": pl.Int64})
    return guest_side(rec, Alignment(rec.machine), waits(rec), wakes(rec), none)


def no_host(info: SourceInfo) -> Recording:
    """Return the recording of a host that was not recorded."""
    odometer = Odometer()
    empty = replace(info, comms={}, tgids={}, guests=())
    return Recording(
        machine="host",
        clock=info.clock,
        anchors=Anchors(odometer.ledger),
        threads=threads_of(odometer.threads(), empty),
        cpus_of={},
        losses=(),
        uncovered=(),
        cpu_spans={},
        counts={},
        recorded=frozenset(),
        fields={},
        vectors=odometer.vectors(),
        seen_vectors=odometer.seen_vectors(),
        first_ns=0,
        last_ns=0,
    )


def _side(case: Case, rec: GuestRecording, alignment: Alignment) -> GuestSide:
    lives = host_lives(case, alignment.vm) if alignment.clock is not None else host_lives(case).head(0)
    return guest_side(rec, alignment, waits(rec), wakes(rec), lives)


def _renamed(case: Case, alignments: tuple[Alignment, ...]) -> tuple[Case, tuple[Alignment, ...]]:
    """Give each VM the name of its guest, wherever the case names it."""
    names = {
        a.vm: a.machine for a in alignments if a.vm is not None and a.clock is not None and a.vm != a.machine
    }
    names |= {vm: a.machine for a in alignments if a.clock is not None for vm in a.also}
    if not names:
        return case, alignments

    def named(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.col("vm").replace(names))

    case = replace(
        case,
        lives=named(case.lives),
        threads=named(case.threads),
        accounting=named(case.accounting),
    )
    return case, tuple(replace(a, vm=names.get(a.vm or "", a.vm)) for a in alignments)


def _with_handler(lives: pl.DataFrame) -> pl.DataFrame:
    """Let P4 end and P5 begin where the guest enters its handler, where that was recorded; add ``handled``."""
    # A stamp that contradicts the host's order times nothing.
    after = (pl.col("irq") >= pl.col("accepted")).fill_null(value=False)
    told = after & (pl.col("irq") <= pl.col("acked")).fill_null(value=True)
    return lives.with_columns(
        pl.when(told).then(pl.col("irq") - pl.col("accepted")).otherwise("p4").alias("p4"),
        pl.when(told & pl.col("acked").is_not_null())
        .then((pl.col("acked") - pl.col("irq")).clip(lower_bound=0))
        .otherwise("p5")
        .alias("p5"),
        pl.when(told).then("irq").alias("handled"),
    )
