"""Deliveries that the guest never acknowledged: the interrupt was lost, or the handler did not finish.

Only the last delivery of a vCPU can be meant, because a later one proves that the earlier was ACKed
(R11). It must have had its chances: many entries into the guest, for far longer than lives take, with
interrupts taken meanwhile, and no record lost on the vCPU's CPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.delivery import FIRST_EXTERNAL, told_threads
from apftrace.model.frames import look_up, turn, without
from apftrace.model.loss import overlaps_blind
from apftrace.model.outcome import MIN_ENTRIES, Staleness, resets

if TYPE_CHECKING:
    from apftrace.model.delivery import Vectors
    from apftrace.model.recording import Recording


MIN_VIRQS = 5
"""Further interrupts that the guest took: one may have come first and run its handler with interrupts off."""


def unacked(
    rec: Recording, delivered: pl.DataFrame, threads: pl.DataFrame, vectors: Vectors, stale: Staleness
) -> pl.DataFrame:
    """Return the stuck deliveries with ``verdict``: ``wrong-vector``, ``lost-interrupt`` or ``missing-ack``.

    ``entries_after`` and ``virqs_after`` count entries and injected interrupts since the delivery, and
    ``progress`` is the time from it to the vCPU's last entry. Where every delivery was ACKed there is only
    ``verdict``, and no row.
    """
    # Only where an ACK was recorded can one be missing.
    asked = rec.has(tp.MSR, tp.ENTRY) and delivered["acked"].count() > 0
    last = delivered.filter(pl.col("acked").is_null() & pl.lit(asked))
    if not last.height:
        return without(last, {"verdict": pl.String()})
    ends = delivered.group_by("tid").agg(pl.col("seq").max())["seq"]
    last = (
        look_up(
            last.filter(pl.col("seq").is_in(ends.implode())),
            rec.kind(tp.INJ_VIRQ).rename({"seq": "inj_seq"}),
            "inj_seq",
            inj_entries=pl.col("entries"),
            inj_virqs=pl.col("virqs"),
        )
        .join(
            threads.select(
                "tid", "vm", "vcpu", "entries", "virqs", "gone", pl.col("entry_ts").alias("last_run")
            ),
            on="tid",
            how="left",
            maintain_order="left",
        )
        .with_columns(
            (pl.col("entries") - pl.coalesce("acc_entries", "inj_entries")).alias("entries_after"),
            (pl.col("virqs") - pl.coalesce("inj_virqs", "acc_virqs")).alias("virqs_after"),
            (pl.col("last_run") - pl.col("start")).alias("progress"),
        )
    )
    last = _with_chances(rec, last)
    last = overlaps_blind(rec, last, "start", "last_run", "blind")
    cleared = rec.kind(tp.MSR).filter((pl.col("a") == 1) & (pl.col("b") == tp.MSR_EN)).select("seq", "tid")
    # A guest that begins anew knows nothing of the interrupt that it was about to take.
    cleared = pl.concat([cleared, resets(rec, threads).select("seq", "tid")]).sort("seq")
    ended = last.select("seq", "tid").join_asof(
        cleared.with_columns(pl.col("seq").alias("cleared_seq")),
        on="seq",
        by="tid",
        strategy="forward",
        allow_exact_matches=False,
        check_sortedness=False,
    )["cleared_seq"]
    stuck = last.with_columns(ended.alias("cleared_seq")).filter(
        ~pl.col("blind")
        & ((pl.col("faults_after") > 0) | (pl.col("virqs_after") >= MIN_VIRQS))
        & pl.col("cleared_seq").is_null()
        & (pl.col("entries_after") >= MIN_ENTRIES)
        & (pl.col("progress") > stale.told)
    )
    # Where posted interrupts bypass injection (APICv, AVIC) no kvm_inj_virq is due, and only the ACK counts.
    injects = rec.has(tp.INJ_VIRQ) and delivered["injected"].count() > 0
    took_others = pl.col("virqs_after") >= MIN_VIRQS
    return stuck.with_columns(
        pl.when(_on_wrong_vector(delivered, vectors))
        .then(pl.lit("wrong-vector"))
        .when(pl.col("injected").is_not_null())
        .then(pl.lit("missing-ack"))
        .when(pl.lit(injects) & took_others)
        .then(pl.lit("lost-interrupt"))
        .when(pl.lit(not injects))
        .then(pl.lit("missing-ack"))
        .alias("verdict")
    ).filter(pl.col("verdict").is_not_null())


def _on_wrong_vector(delivered: pl.DataFrame, vectors: Vectors) -> pl.Expr:
    # A vector of exceptions, or another than the thread is told on otherwise: what the guest made of it is no news.
    known = vectors.known(pl.col("tid"), pl.col("vec"))
    told = pl.col("tid").is_in(told_threads(delivered, vectors).implode())
    return (~known & ((pl.col("vec") < FIRST_EXTERNAL) | told)).fill_null(value=False)


def _with_chances(rec: Recording, last: pl.DataFrame) -> pl.DataFrame:
    """Add ``faults_after``: fault events after the delivery, each of which needs IF=1 in the guest."""
    faults = pl.concat(
        rec.kind(k)
        .filter(pl.col("tid").is_in(last["tid"].implode()))
        .select("tid", pl.col("seq").alias("fault_seq"))
        for k in (tp.TRY, tp.NOT_PRESENT, tp.REPEATED)
    )
    counted = (
        last.select("tid", "seq")
        .join(faults, on="tid", how="inner")
        .filter(pl.col("fault_seq") > pl.col("seq"))
        .group_by("tid")
        .agg(pl.len().alias("faults_after"))
    )
    return last.join(counted, on="tid", how="left", maintain_order="left").with_columns(
        pl.col("faults_after").fill_null(0)
    )


def with_lost_interrupts(lives: pl.DataFrame, stuck: pl.DataFrame) -> pl.DataFrame:
    """Turn the outcome of lives whose interrupt was lost, or came on a wrong vector, into ``lost``."""
    for verdict in ("lost-interrupt", "wrong-vector"):
        hit = stuck.filter(pl.col("verdict") == verdict)["life"].drop_nulls()
        lives = turn(lives, hit, "lost", rule=verdict)
    return lives


def with_lost_work(rec: Recording, lives: pl.DataFrame, stale: Staleness) -> pl.DataFrame:
    """Turn lives whose work item never started into ``lost``, when items queued after it did start.

    Three later items of the same CPU must have started, and the life must be stuck by age: a starved pool
    starts nothing at all.
    """
    if not rec.has(tp.QUEUE_WORK, tp.EXECUTE_START) or not lives.height:
        return lives
    began = pl.col("started").is_not_null().cast(pl.Int64)
    lives = lives.with_columns(
        (began.reverse().cum_sum().reverse() - began).over("cpu").alias("started_later")
    )
    hit = (
        (pl.col("outcome") == "in_flight")
        & pl.col("queued").is_not_null()
        & pl.col("started").is_null()
        & pl.col("completed").is_null()
        & (pl.col("started_later") >= 3)
        & (rec.last_ns - pl.col("not_present") > stale.age)
        & (pl.col("entries_after") >= MIN_ENTRIES)
        & (pl.col("progress") > stale.age)
    )
    return turn(lives, hit, "lost", rule="lost-work").drop("started_later")
