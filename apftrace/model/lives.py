"""Tokens paired: each kvm_async_pf_not_present begins a life, and its kvm_async_pf_ready ends it.

Both events carry token and gva and come from the same vCPU thread (async-PF rules R7, R14), so the key
is thread, token and gva, and the latest not_present before a ready is the one that it answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.anchors import READINGS
from apftrace.model.frames import attach

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

_SKEW_NS = 20_000_000
"""Most that the clocks of two CPUs may disagree: trace clock ``local`` is only roughly in step."""


def reading(kind: int, prefix: str) -> list[pl.Expr]:
    """Return ``seq`` and the reading of an anchor kind, renamed with ``prefix`` to stand beside an instant."""
    return [pl.col(c).alias(f"{prefix}_{c}") for c in ("seq", *READINGS[kind]) if c != "exit_ts"]


def begin(rec: Recording) -> pl.DataFrame:
    """Return one row per not_present: life, not_present, cpu, tid, token, gva, use and its reading."""
    return (
        rec.kind(tp.NOT_PRESENT)
        .select(
            pl.col("seq").alias("life"),
            pl.col("ts").alias("not_present"),
            "cpu",
            "tid",
            pl.col("a").alias("token"),
            pl.col("b").alias("gva"),
            pl.col("entries").alias("np_entries"),
        )
        .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("tid", "token").alias("use"))
    )


def readies(rec: Recording) -> pl.DataFrame:
    """Return one row per ready, broadcasts too: seq, ready, cpu, tid, token, gva, broadcast and its reading."""
    return rec.kind(tp.READY).select(
        "seq",
        pl.col("ts").alias("ready"),
        "cpu",
        "tid",
        pl.col("a").alias("token"),
        pl.col("b").alias("gva"),
        (pl.col("a") == tp.BROADCAST).alias("broadcast"),
        *reading(tp.READY, "ready"),
    )


def pair(lives: pl.DataFrame, ready_rows: pl.DataFrame) -> pl.DataFrame:
    """Return ``ready_rows`` with what each one answers.

    Adds ``life`` (null when none) and ``answer``: ``first`` (ends its life), ``again`` (the life was
    answered before), ``retagged`` (a life of the same page waits, but under another token), ``none``,
    or ``broadcast``.
    """
    on_key = ["tid", "token", "gva"]
    # By time, not by row: under a coarse clock both may carry one stamp on two CPUs, in either row order.
    matched = (
        ready_rows.filter(~pl.col("broadcast"))
        .sort("ready", "seq")
        .join_asof(
            lives.select("life", *on_key, pl.col("not_present").alias("ready")).sort("ready", "life"),
            on="ready",
            by=on_key,
            strategy="backward",
            check_sortedness=False,
        )
    )
    matched = matched.with_columns(
        pl.when(pl.col("life").is_null())
        .then(pl.lit("none"))
        .when(pl.col("life").is_first_distinct())
        .then(pl.lit("first"))
        .otherwise(pl.lit("again"))
        .alias("answer")
    )
    broadcasts = ready_rows.filter("broadcast").with_columns(
        pl.lit(None, pl.Int64).alias("life"), pl.lit("broadcast").alias("answer")
    )
    paired = pl.concat([matched, broadcasts.select(matched.columns)]).sort("seq")
    return _retagged(lives, paired)


def _retagged(lives: pl.DataFrame, paired: pl.DataFrame) -> pl.DataFrame:
    """Give a ready without a not_present the open life that it can only mean.

    First the one of its own token that begins just after it: two CPUs' clocks disagree by so much. Then
    the one of its page before it, under another token.
    """
    for key, strategy, tolerance, answer in (
        (["tid", "token", "gva"], "forward", _SKEW_NS, "first"),
        (["tid", "gva"], "backward", None, "retagged"),
    ):
        strays = paired.filter(pl.col("answer") == "none")
        if not strays.height:
            break
        taken = paired.filter(pl.col("answer").is_in(["first", "retagged"]))["life"]
        open_lives = lives.filter(~pl.col("life").is_in(taken.implode()))
        found = (
            strays.select("seq", "ready", *key)
            .sort("ready")
            .join_asof(
                open_lives.select("life", *key, pl.col("not_present").alias("ready")).sort("ready"),
                on="ready",
                by=key,
                strategy=strategy,  # type: ignore[arg-type]
                tolerance=tolerance,
                check_sortedness=False,
            )
            .filter(pl.col("life").is_not_null() & pl.col("life").is_first_distinct())
            .select("seq", pl.col("life").alias("other"))
        )
        paired = (
            paired.join(found, on="seq", how="left", maintain_order="left")
            .with_columns(
                pl.coalesce("life", "other").alias("life"),
                pl.when(pl.col("other").is_not_null())
                .then(pl.lit(answer))
                .otherwise("answer")
                .alias("answer"),
            )
            .drop("other")
        )
    return paired


def with_ready(lives: pl.DataFrame, paired: pl.DataFrame) -> pl.DataFrame:
    """Add ready, ready_seq and the reading at ready to each life that was answered."""
    ends = paired.filter(pl.col("answer").is_in(["first", "retagged"])).select(
        "life", "ready", "answer", pl.col("^ready_.*$")
    )
    return attach(lives, ends)


def with_try(rec: Recording, lives: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tie every try to what came of it (R1: same thread, nothing of this vCPU between).

    Returns:
        The lives with ``try``, ``gfn`` and ``headless`` (the record began after their try); and the try and
        repeated rows with ``became``: ``not_present``, ``repeated``, ``refused`` or ``cut`` (the record ends
        there) for a try, null for a repeated, with columns seq ts tid gva gfn kind after_try at_head.
    """
    rows = (
        rec.kind(tp.TRY, tp.NOT_PRESENT, tp.REPEATED)
        .select(
            "seq", "ts", "tid", "kind", "b", "entries", "exit_ts",
            pl.when(pl.col("kind") == tp.NOT_PRESENT).then("b").otherwise("a").alias("gva"),
        )
        .sort("tid", maintain_order=True)
    )  # fmt: skip
    last_entries = dict(rec.threads.select("tid", "entries").iter_rows())
    ends = pl.col("tid") != pl.col("tid").shift(-1)
    begins = pl.col("tid") != pl.col("tid").shift(1)
    rows = rows.with_columns(
        ends.fill_null(value=True).alias("is_last"), begins.fill_null(value=True).alias("is_first")
    )
    rows = rows.with_columns(
        pl.when(~pl.col("is_last")).then(pl.col("kind").shift(-1)).alias("next_kind"),
        (~pl.col("is_last") & (pl.col("gva").shift(-1) == pl.col("gva"))).alias("same_next"),
        (
            ~pl.col("is_first")
            & (pl.col("gva").shift(1) == pl.col("gva"))
            & (pl.col("kind").shift(1) == tp.TRY)
        ).alias("after_try"),
        pl.col("ts").shift(1).alias("prev_ts"),
        pl.col("b").shift(1).alias("prev_gfn"),
        # The record may begin or end in the middle of a fault: no exit before it, no entry after it.
        (pl.col("is_first") & (pl.col("exit_ts") < rec.first_ns)).alias("at_head"),
        (
            pl.col("is_last")
            & (
                pl.col("entries")
                == pl.col("tid").replace_strict(last_entries, default=-1, return_dtype=pl.Int64)
            )
        ).alias("at_tail"),
    ).sort("seq")
    tries = rows.filter(pl.col("kind") != tp.NOT_PRESENT).select(
        "seq", "ts", "tid", "gva", pl.col("b").alias("gfn"), "kind", "after_try", "at_head",
        pl.when(pl.col("kind") == tp.REPEATED).then(None)
        .when(pl.col("same_next") & (pl.col("next_kind") == tp.NOT_PRESENT)).then(pl.lit("not_present"))
        .when(pl.col("same_next") & (pl.col("next_kind") == tp.REPEATED)).then(pl.lit("repeated"))
        .when(pl.col("at_tail")).then(pl.lit("cut"))
        .otherwise(pl.lit("refused")).alias("became"),
    )  # fmt: skip
    tried = pl.col("after_try")
    of_life = rows.filter(pl.col("kind") == tp.NOT_PRESENT).select(
        pl.col("seq").alias("life"),
        pl.when(tried).then("prev_ts").alias("try"),
        pl.when(tried).then("prev_gfn").alias("gfn"),
        (~tried & pl.col("at_head")).alias("headless"),
    )
    lives = attach(lives, of_life)
    # Without a try the frame is the page of gva: true under EPT and NPT, where gva is a guest physical address.
    return lives.with_columns(pl.coalesce("gfn", pl.col("gva").cast(pl.Int64) // 4096).alias("gfn")), tries


def with_repeated(lives: pl.DataFrame, tries: pl.DataFrame) -> pl.DataFrame:
    """Add ``repeated``: hits of repeated_fault on the life's gfn and thread while it was open."""
    hits = tries.filter(pl.col("kind") == tp.REPEATED).select("seq", "tid", "gfn")
    counted = (
        hits.join_asof(
            lives.select("life", "tid", "gfn", pl.col("life").alias("seq")),
            on="seq",
            by=["tid", "gfn"],
            strategy="backward",
            check_sortedness=False,
        )
        .group_by("life")
        .agg(pl.len().cast(pl.Int32).alias("repeated"))
    )
    return attach(lives, counted).with_columns(pl.col("repeated").fill_null(0))


def with_told(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Add ``pf_injected``: when the guest was told by #PF; null when it was not, or not traced.

    A not_present was delivered when kvm_inj_exception #PF follows on the thread before its next
    kvm_entry (R8); a re-injection is the same delivery and does not count.
    """
    if not rec.has(tp.INJ_EXCEPTION):
        return lives.with_columns(pl.lit(None, pl.Int64).alias("pf_injected"))
    injections = rec.kind(tp.INJ_EXCEPTION).filter((pl.col("a") == tp.PF_VECTOR) & (pl.col("c") == 0))
    told = (
        injections.select("seq", "tid", "ts", "entries")
        .join_asof(
            lives.select("life", "tid", "np_entries", pl.col("life").alias("seq")),
            on="seq",
            by="tid",
            strategy="backward",
            check_sortedness=False,
        )
        .filter(pl.col("entries") == pl.col("np_entries"))
        .filter(pl.col("life").is_first_distinct())
        .select("life", pl.col("ts").alias("pf_injected"))
    )
    return attach(lives, told)


def kind(rec: Recording, accepted: pl.Expr) -> pl.Expr:
    """Return ``kind``: pv when the guest was told, halt when only the vCPU sleeps, else unknown.

    Args:
        rec: the recording.
        accepted: when the page-ready vector was accepted right after ready, which says the same as
            ``pf_injected`` from the other end (R9, R10).
    """
    by_exception = pl.lit(rec.has(tp.INJ_EXCEPTION, tp.ENTRY))
    by_vector = pl.lit(rec.has(tp.ACCEPT)) & pl.col("ready").is_not_null()
    return (
        pl.when(pl.col("pf_injected").is_not_null() | accepted.is_not_null())
        .then(pl.lit("pv"))
        .when((by_exception | by_vector) & ~pl.col("tainted"))
        .then(pl.lit("halt"))
        .otherwise(pl.lit("unknown"))
    )
