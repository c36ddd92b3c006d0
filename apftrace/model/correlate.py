"""Events to lives: the steps of the model in their order, each a function over frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from apftrace.ahead import beside
from apftrace.model import (
    accounting,
    completion,
    delivery,
    doubt,
    lives,
    outcome,
    phases,
    slot,
    strays,
    switched_on,
    unacked,
    vms,
)
from apftrace.model import tracepoints as tp
from apftrace.model.frames import attach, by_thread
from apftrace.model.loss import overlaps_blind

if TYPE_CHECKING:
    from apftrace.model.guest.join import GuestSide
    from apftrace.model.recording import Recording
    from apftrace.model.timeline import Spent


@dataclass(frozen=True)
class Case:
    """Everything that the rules look at.

    Attributes:
        rec: the recording.
        lives: one row per not_present, with instants, phases, readings, repairs and outcome.
        tries: try and repeated rows, with what each try ``became``.
        readies: ready rows with ``answer`` and ``life``.
        delivered: readies that filled the slot, traced or implied, with accept, injection and ACK.
        spans: when each slot was taken, see ``slot.busy_spans``.
        unacked: last deliveries that the guest had every chance to ACK and did not, with ``verdict``.
        threads: vCPU threads with vm, vcpu and final reading.
        stale: how old an open life must be to count as stuck.
        late_after: threshold per phase.
        accounting: table ``accounting``.
        vectors: page-ready vectors of the guests here.
        comms: names of threads, by thread id.
        clock_is_ns: false when the trace clock has no known rate.
        slot_known: the trace tells when the page-ready slot was taken.
        guests: what the guests' own traces show; empty without one.
        close: what the thread concerned did in a phase, by life and phase, for the lives that are told in full.
    """

    rec: Recording
    lives: pl.DataFrame
    tries: pl.DataFrame
    readies: pl.DataFrame
    delivered: pl.DataFrame
    spans: pl.DataFrame
    unacked: pl.DataFrame
    threads: pl.DataFrame
    stale: outcome.Staleness
    late_after: dict[str, int]
    accounting: pl.DataFrame
    vectors: delivery.Vectors
    comms: dict[int, str]
    clock_is_ns: bool
    slot_known: bool
    guests: tuple[GuestSide, ...] = ()
    close: dict[tuple[int, str], Spent] = field(default_factory=dict)


def correlate(rec: Recording, *, late_after: int | None = None, clock_is_ns: bool = True) -> Case:
    """Pair, time and judge every life of a recording.

    Args:
        rec: the recording.
        late_after: threshold for late phases in units of the trace clock; null to learn it.
        clock_is_ns: whether that unit is ns.
    """
    rec = switched_on.settle(rec)
    born = lives.begin(rec)
    used, told = beside(lives.uses, born), beside(lives.told, rec, born)
    acked = beside(delivery.acks, rec)
    paired = lives.pair(born, lives.readies(rec))
    rows = lives.with_ready(born, paired)
    tries = lives.tries(rec)
    done = beside(completion.completed, rec, rows)
    rows = lives.with_hint(rec, _with_taint(rec, rows).hstack(told.result()))
    vectors = delivery.page_ready_vectors(rec, delivery.accepts(rec))
    delivered, acks = _delivered(rec, rows, paired, vectors, acked.result())
    rows = phases.with_unanswered(rec, rows.hstack(done.result()))
    delivered = delivery.assign_implied(delivered, rows)
    spans = slot.busy_spans(delivered, rec.last_ns)
    held = beside(slot.blockers, rows, spans)
    rows = _with_delivery(rows, delivered)
    rows = rows.with_columns(lives.kind(rec, pl.col("accepted")).alias("kind")).drop("kind_hint")
    rows = phases.with_phases(rows)
    late = beside(phases.thresholds, rows, late_after, clock_is_ns=clock_is_ns)
    silent = tp.READY in rec.silent
    usual = beside(outcome.staleness, rows, clock_is_ns=clock_is_ns, none_ready=silent)
    rows = outcome.with_repairs(rows, delivered)
    rows = lives.with_repeated(rows, tries)
    threads = vms.vcpu_threads(rec, rows)
    rows = by_thread(rows, threads.select("tid", "vm", "vcpu"))
    rows = outcome.with_clears(rec, rows, threads)
    rows = outcome.with_progress(rec, rows, threads, spans)
    rows = outcome.with_overtaken(rows)
    slot_known = rec.tells_deliveries or silent or (rec.has(tp.MSR) and not acks.height)
    stale = usual.result()
    rows = outcome.with_outcome(rows, stale, ready_traced=rec.has(tp.READY), slot_known=slot_known)
    rows = doubt.with_interrupts_off(rec, rows, delivered)
    rows = doubt.with_ownerless_acks(rec, doubt.with_sweeps(rec, rows, stale), acks)
    rows = doubt.with_pauses(rec, doubt.with_silent_ready(rec, rows), delivered, stale)
    rows = doubt.with_holes(rec, rows, delivered, stale)
    rows = doubt.with_silences(rec, rows, stale)
    stuck = unacked.unacked(rec, delivered, threads, vectors, stale)
    rows = unacked.with_lost_work(rec, unacked.with_lost_interrupts(rows, stuck), stale)
    paired = _with_doubt(rec, strays.classify(rec, rows, paired, delivered))
    sums = beside(accounting.account, rec, threads, rows, tries, paired, delivered, acks)
    return Case(
        rec=rec,
        lives=attach(rows.hstack(used.result()), held.result()),
        tries=_with_crowd(rec, tries, rows),
        readies=paired,
        delivered=delivered,
        spans=spans,
        unacked=stuck,
        threads=threads,
        stale=stale,
        late_after=late.result(),
        accounting=sums.result(),
        vectors=vectors,
        comms=dict(rec.threads.filter(pl.col("comm").is_not_null()).select("tid", "comm").iter_rows()),
        clock_is_ns=clock_is_ns,
        slot_known=slot_known,
    )


def _with_doubt(rec: Recording, paired: pl.DataFrame) -> pl.DataFrame:
    """Add to each further ready of a life ``first_seq``, and ``blind``: records were lost between the two."""
    again = paired.filter(pl.col("answer") == "again")
    of_them = pl.col("life").is_in(again["life"].unique().implode())
    firsts = paired.filter((pl.col("answer") == "first") & of_them).select(
        "life", pl.col("seq").alias("first_seq"), pl.col("ready").alias("first_ready")
    )
    again = attach(again, firsts)
    again = overlaps_blind(rec, again, "first_ready", "ready", "blind")
    found = again.select("seq", "first_seq", "first_ready", "blind")
    return paired.join(found, on="seq", how="left", maintain_order="left")


def _with_crowd(rec: Recording, tries: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Add to each refused try ``outstanding`` lives of its vCPU, and ``blind``: records were lost around it."""
    refused = tries.filter(pl.col("became") == "refused")
    spans = rows.select(
        "tid", "not_present", pl.coalesce("ended", "cleared", pl.lit(rec.last_ns)).alias("over")
    )
    open_at = (
        refused.select("seq", "tid", "ts")
        .join(spans, on="tid")
        .filter((pl.col("not_present") < pl.col("ts")) & (pl.col("over") > pl.col("ts")))
        .group_by("seq")
        .agg(pl.len().alias("outstanding"))
    )
    tries = tries.join(open_at, on="seq", how="left", maintain_order="left")
    until = pl.col("ts").shift(-1).over("tid").fill_null(rec.last_ns)
    return overlaps_blind(rec, tries.with_columns(until.alias("until")), "ts", "until", "blind").drop("until")


def _with_taint(rec: Recording, rows: pl.DataFrame) -> pl.DataFrame:
    rows = rows.with_columns(pl.coalesce("ready", pl.lit(rec.last_ns)).alias("open_until"))
    return overlaps_blind(rec, rows, "not_present", "open_until", "tainted", silences=False).drop(
        "open_until"
    )


def _delivered(
    rec: Recording,
    rows: pl.DataFrame,
    paired: pl.DataFrame,
    vectors: delivery.Vectors,
    acks: pl.DataFrame,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the deliveries, the implied ones still without a life, and the ACKs with theirs."""
    delivered = delivery.without_repeats(delivery.deliveries(rec, paired, rows, vectors), acks)
    delivered, acks = delivery.with_ack(delivered, acks)
    if rec.tells_deliveries:
        delivered = delivery.imply_from_acks(delivered, acks)
    return delivery.with_virq(rec, delivered, vectors), acks


def _with_delivery(rows: pl.DataFrame, delivered: pl.DataFrame) -> pl.DataFrame:
    """Add accepted, injected and acked to the lives."""
    facts = delivered.select("life", "vec", "accepted", "injected", "acked", "acc_seq", "inj_seq", "ack_seq")
    return attach(rows, facts)
