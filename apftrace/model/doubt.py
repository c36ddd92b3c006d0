"""Lives that look lost and may not be: records that nothing marks as missing, hosts that hold a ready while IF=0.

A loss that the trace tells of makes every life undecided that is open across it. A CPU that falls silent
tells nothing: it may be idle. A life that was proved stuck by then stays lost; one whose proof needs what
the thread did afterwards is undecided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.frames import attach, by_thread, turn, without
from apftrace.model.holes import holes
from apftrace.model.loss import silent_spans
from apftrace.model.outcome import MIN_ENTRIES, Staleness
from apftrace.model.switched_on import shows_untold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apftrace.model.recording import Recording

_READ = (tp.TRY, tp.REPEATED, tp.NOT_PRESENT, tp.ACCEPT, tp.MSR, tp.INJ_VIRQ)
"""Anchors that carry the thread's entries into the guest."""

_NEVER = 2**62

LONG_STUCK = 10
"""Times the age of a stuck life after which it counts as one though no reading of its vCPU lies between."""

MIN_IMPLIED = 3
"""Deliveries in a row of which only the interrupt or the ACK was traced: readies were not."""

MIN_UNANSWERED = 8
"""Lives completed in a row, on whatever vCPU, of which none was answered: no queue that KVM drops holds as many."""


def with_interrupts_off(rec: Recording, lives: pl.DataFrame, delivered: pl.DataFrame) -> pl.DataFrame:
    """Turn lost lives into open ones where the host may wait for the guest to enable interrupts.

    Hosts before 5.8 deliver a ready, as they take an async page fault, only while the guest's interrupts are
    on. Where no interrupt delivery was seen the host may be one of these; a try after completed shows IF=1.
    """
    if delivered["accepted"].count() or delivered["acked"].count():
        return lives
    tries = rec.kind(tp.TRY, tp.NOT_PRESENT).select("tid", pl.col("ts").alias("tried"))
    last = tries.group_by("tid").agg(pl.col("tried").max())
    shut = by_thread(lives.select("life", "tid", "outcome", "since"), last).filter(
        (pl.col("outcome") == "lost") & ~(pl.col("tried") > pl.col("since"))
    )
    return turn(lives, shut["life"], "in_flight", rule=None)


def with_sweeps(rec: Recording, lives: pl.DataFrame, stale: Staleness) -> pl.DataFrame:
    """Add ``swept`` and ``swept_by``: when, and on what, hosts without ab4e41eb9fab clear the queue of an open life.

    They do on SMM and wherever CR0.PG changes; where it was stuck for long by then, that is not why. A lost
    life is then lost by that clear, if later faults of its vCPU were answered. Otherwise the guest may just be on
    its way through a reset: the life is undecided.
    """
    waits = lives.filter(pl.col("outcome").is_in(["lost", "in_flight"]) | pl.col("forgotten"))
    if not waits.height:
        return without(lives, {"swept": pl.Int64(), "swept_by": pl.String()})
    theirs = pl.col("tid").is_in(waits["tid"].unique().implode())
    answered = (
        lives.select("tid", "ready", "not_present")
        .filter(theirs & pl.col("ready").is_not_null())
        .group_by("tid")
        .agg(pl.col("not_present").max().alias("works"))
    )
    found = (
        waits.select("life", "tid", "end", "since", "outcome", pl.col("life").alias("seq"))
        .join_asof(sweeps(rec), on="seq", by="tid", strategy="forward", check_sortedness=False)
        .filter(pl.col("swept") <= pl.min_horizontal("end", pl.col("since") + stale.told))
        .join(answered, on="tid", how="left", maintain_order="left")
    )
    works = (pl.col("works") > pl.col("swept")).fill_null(value=False)
    doubtful = found.filter((pl.col("outcome") == "lost") & ~works)["life"]
    return turn(attach(lives, found.select("life", "swept", "swept_by")), doubtful, "undecided", rule="keep")


def sweeps(rec: Recording) -> pl.DataFrame:
    """Return what clears the queue though the guest knows nothing of it: seq, tid, swept (instant), swept_by."""
    smm = rec.kind(tp.SMM).select("seq", "tid", pl.col("ts").alias("swept"), pl.lit("SMM").alias("swept_by"))
    paged = (pl.col("c") & tp.CR0_PG) != 0
    # Of a first write nobody knows what it changed: a guest with faults has paging on.
    changed = paged != paged.shift(1).over("tid").fill_null(value=True)
    cr0 = rec.kind(tp.CR).filter((pl.col("a") == 1) & (pl.col("b") == 0)).filter(changed)
    return pl.concat(
        [smm, cr0.select("seq", "tid", pl.col("ts").alias("swept"), pl.lit("CR0.PG").alias("swept_by"))]
    ).sort("seq")


def with_ownerless_acks(rec: Recording, lives: pl.DataFrame, acks: pl.DataFrame) -> pl.DataFrame:
    """Turn lost lives into undecided ones, still blamed, where an ACK may be for a ready that is not traced.

    Which ready an ACK is for is only known where something tells the delivered readies from the others.
    """
    if rec.tells_deliveries or not acks.height:
        return lives
    return turn(lives, pl.col("outcome") == "lost", "undecided", rule="keep")


def with_silent_ready(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Turn lost and open lives into undecided ones where kvm_async_pf_ready itself may have been off.

    Only a guest that was told of its fault, and then got no interrupt, shows without it that nothing came.
    """
    if tp.READY not in rec.silent:
        return lives
    shown = pl.lit(shows_untold(rec)) & (pl.col("kind") == "pv")
    hit = (pl.col("outcome") == "in_flight") | (pl.col("outcome") == "lost") & ~shown
    return turn(lives, hit, "undecided", rule="keep")


def with_pauses(
    rec: Recording, lives: pl.DataFrame, delivered: pl.DataFrame, stale: Staleness
) -> pl.DataFrame:
    """Turn lost lives into undecided ones, still blamed, where kvm_async_pf_ready seems to have been off for a time.

    It was, between two readies, if many deliveries or completed lives came to nothing there, whoever's they were.
    A life that was stuck by then, as its vCPU's readings or a long time show, stays lost, and so does one of a guest
    that was told and got no interrupt.
    """
    if tp.READY in rec.silent:
        return lives
    lost = (pl.col("outcome") == "lost") & ~(pl.lit(shows_untold(rec)) & (pl.col("kind") == "pv"))
    doubtful = lives.filter(lost)
    if not doubtful.height:
        return lives
    pauses = sorted(_pauses(rec, lives, delivered))
    return _doubted(rec, lives, doubtful, lambda _: pauses, stale)


def with_holes(
    rec: Recording, lives: pl.DataFrame, delivered: pl.DataFrame, stale: Staleness
) -> pl.DataFrame:
    """Turn lost lives into undecided ones, still blamed, where a delivery shows that a record of their vCPU is missing.

    What is missing there may be more, see ``holes``. A life that was stuck by then stays lost.
    """
    doubtful = lives.filter(pl.col("outcome") == "lost")
    if not doubtful.height:
        return lives
    shown = holes(rec, delivered, doubtful["tid"].unique())
    return _doubted(rec, lives, doubtful, lambda tid: shown.get(tid, []), stale)


def _doubted(
    rec: Recording,
    lives: pl.DataFrame,
    doubtful: pl.DataFrame,
    spans_of: Callable[[int], Sequence[tuple[int, int]]],
    stale: Staleness,
) -> pl.DataFrame:
    """Turn doubtful lives into undecided ones, still blamed, if not stuck when a span of their thread began."""
    first = [
        next((max(start, since) for start, stop in spans_of(tid) if stop > since), _NEVER)
        for tid, since in doubtful.select("tid", "since").iter_rows()
    ]
    doubtful = doubtful.with_columns(pl.Series("silent_from", first, pl.Int64)).filter(
        pl.col("silent_from") < pl.col("end")
    )
    proved = _proved_before(rec, doubtful, stale)
    # A vCPU that enters the guest and does nothing else leaves no reading; for so long it is not off its CPU.
    old = pl.col("silent_from") - pl.col("since") > LONG_STUCK * stale.told
    hits = doubtful.filter(~pl.col("life").is_in(proved.implode()) & ~old)["life"]
    return turn(lives, hits, "undecided", rule="keep")


def _pauses(rec: Recording, lives: pl.DataFrame, delivered: pl.DataFrame) -> list[tuple[int, int]]:
    """Return the times between two readies in which others were due."""
    edges = pl.concat(
        [pl.Series([rec.first_ns], dtype=pl.Int64), rec.kind(tp.READY)["ts"], pl.Series([rec.last_ns])]
    ).sort()
    due = (
        (delivered.filter(pl.col("implied").is_not_null())["start"], MIN_IMPLIED),
        (lives.filter(pl.col("ready").is_null())["completed"].drop_nulls(), MIN_UNANSWERED),
    )
    found = []
    for instants, least in due:
        after = edges.search_sorted(instants, side="right")
        often = after.value_counts().filter(pl.col("count") >= least)[after.name]
        found += [(edges[n - 1], edges[n]) for n in often.sort() if 0 < n < len(edges)]
    return found


def with_silences(rec: Recording, lives: pl.DataFrame, stale: Staleness) -> pl.DataFrame:
    """Turn lost and open lives into ``undecided`` where a CPU fell silent too early to tell."""
    open_lives = lives.filter(pl.col("outcome").is_in(["lost", "in_flight"]))
    if not open_lives.height or not rec.silences:
        return lives
    doubtful = open_lives.with_columns(
        pl.Series("silent_from", _first_spans(rec, open_lives), pl.Int64)
    ).filter(pl.col("silent_from") < pl.col("end"))
    proved = _proved_before(rec, doubtful, stale)
    hit = doubtful.filter(~pl.col("life").is_in(proved.implode()))["life"]
    tainted = pl.col("tainted") | pl.col("life").is_in(hit.implode())
    return turn(lives.with_columns(tainted), hit, "undecided", rule=None)


def _first_spans(rec: Recording, rows: pl.DataFrame) -> list[int]:
    """Return per life when the first silence begins that could hold its ready.

    Before a life is called lost every busy CPU counts: what its thread used outside of a silence tells nothing
    of what it used meanwhile. An open life is doubted only for CPUs that its thread uses.
    """
    found = []
    spans_of: dict[tuple[int, bool], list[tuple[int, int]]] = {}
    for tid, since, outcome in rows.select("tid", "since", "outcome").iter_rows():
        key = tid, outcome == "lost"
        if key not in spans_of:
            spans_of[key] = silent_spans(rec, tid, anywhere=key[1])
        spans = spans_of[key]
        found.append(next((max(start, since) for start, stop in spans if stop >= since), _NEVER))
    return found


def _proved_before(rec: Recording, lives: pl.DataFrame, stale: Staleness) -> pl.Series:
    """Return the lost lives whose proof was complete before the silence: the thread's last reading by then tells."""
    read = pl.concat(
        rec.kind(kind).select("tid", pl.col("ts").alias("at"), pl.col("entries").alias("entries_then"))
        for kind in _READ
    )
    found = (
        lives.filter(pl.col("outcome") == "lost")
        .with_columns((pl.col("silent_from") - 1).alias("silent_at"))
        .sort("silent_at")
        .join_asof(
            read.sort("at"),
            left_on="silent_at",
            right_on="at",
            by="tid",
            strategy="backward",
            check_sortedness=False,
            coalesce=False,
        )
    )
    waited = pl.col("at") - pl.col("since")
    return found.filter(
        (pl.col("entries_then") - pl.col("comp_entries") >= MIN_ENTRIES)
        & (waited > stale.told)
        & (waited - (pl.col("progress") - pl.col("slot_free")) > stale.told)
    )["life"]
