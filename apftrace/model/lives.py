"""Tokens paired: each kvm_async_pf_not_present begins a life, and its kvm_async_pf_ready ends it.

Both events carry token and gva and come from the same vCPU thread (async-PF rules R7, R14), so the key
is thread, token and gva, and the latest not_present before a ready is the one that it answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.frames import attach, without
from apftrace.model.readings import NEVER

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

ENDS = ("first", "retagged", "repaged")
"""Answers of the readies that end their lives, see ``pair``."""

SKEW_NS = 20_000_000
"""Most that the clocks of two CPUs may disagree: trace clock ``local`` is only roughly in step."""


def begin(rec: Recording) -> pl.DataFrame:
    """Return one row per not_present: life, not_present, cpu, tid, token, gva and its reading."""
    return rec.kind(tp.NOT_PRESENT).select(
        pl.col("seq").alias("life"),
        pl.col("ts").alias("not_present"),
        "cpu",
        "tid",
        pl.col("a").alias("token"),
        pl.col("b").alias("gva"),
        pl.col("entries").alias("np_entries"),
        *_of_try(rec),
    )


def uses(lives: pl.DataFrame) -> pl.DataFrame:
    """Return ``use`` per life: 1 for the first of its token on its thread, 2 for the next."""
    use = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("tid", "token")
    return lives.select(use.alias("use"))


def readies(rec: Recording) -> pl.DataFrame:
    """Return one row per ready, broadcasts too: seq, ready, cpu, tid, token, gva, broadcast, link."""
    return rec.kind(tp.READY).select(
        "seq",
        pl.col("ts").alias("ready"),
        "cpu",
        "tid",
        pl.col("a").alias("token"),
        pl.col("b").alias("gva"),
        (pl.col("a") == tp.BROADCAST).alias("broadcast"),
        pl.when(pl.col("c") >= 0).then("c").alias("link"),
    )


def pair(lives: pl.DataFrame, ready_rows: pl.DataFrame) -> pl.DataFrame:
    """Return ``ready_rows`` with what each one answers.

    Adds ``life`` (null when none) and ``answer``: ``first`` (ends its life), ``again`` (the life was
    answered before), ``retagged`` (a life of the same page waits, but under another token),
    ``repaged`` (the life of its token waits, but for another page), ``none``,
    or ``broadcast``.
    """
    linked = ready_rows.with_columns(
        pl.col("link").alias("life"),
        pl.when("broadcast")
        .then(pl.lit("broadcast"))
        .when(pl.col("link").is_not_null())
        .then(pl.lit("first"))
        .otherwise(pl.lit("none"))
        .alias("answer"),
    ).drop("link")
    return _retagged(lives, _late_links(lives, linked))


def _late_links(lives: pl.DataFrame, paired: pl.DataFrame) -> pl.DataFrame:
    """Match the readies that found no waiting life in the order of rows, now in the order of time.

    Under a coarse clock both may carry one stamp on two CPUs, in either row order. A ready whose life had
    its answer before is ``again``.
    """
    on_key = ["tid", "token", "gva"]
    strays = paired.filter(pl.col("answer") == "none")
    if not strays.height:
        return paired
    meant = lives.select(pl.col("life").alias("other"), *on_key, pl.col("not_present").alias("ready"))
    meant = meant.filter(pl.col("token").is_in(strays["token"].unique().implode()))
    found = (
        strays.select("seq", "ready", *on_key)
        .sort("ready", "seq")
        .join_asof(
            meant.sort("ready", "other"),
            on="ready",
            by=on_key,
            strategy="backward",
            check_sortedness=False,
        )
        .filter(pl.col("other").is_not_null())
    )
    taken = paired.filter(pl.col("answer") == "first")["life"].implode()
    found = found.select(
        "seq", "other", (pl.col("other").is_first_distinct() & ~pl.col("other").is_in(taken)).alias("first")
    )
    return (
        paired.join(found, on="seq", how="left", maintain_order="left")
        .with_columns(
            pl.coalesce("life", "other").alias("life"),
            pl.when("first")
            .then(pl.lit("first"))
            .when(pl.col("other").is_not_null())
            .then(pl.lit("again"))
            .otherwise("answer")
            .alias("answer"),
        )
        .drop("other", "first")
    )


def _retagged(lives: pl.DataFrame, paired: pl.DataFrame) -> pl.DataFrame:
    """Give a ready without a not_present the open life that it can only mean.

    First the one of its own token that begins just after it: two CPUs' clocks disagree by so much. Then
    the one of its page before it, under another token; then the one of its token, for another page.
    """
    for key, strategy, tolerance, answer in (
        (["tid", "token", "gva"], "forward", SKEW_NS, "first"),
        (["tid", "gva"], "backward", None, "retagged"),
        (["tid", "token"], "backward", None, "repaged"),
    ):
        strays = paired.filter(pl.col("answer") == "none")
        if not strays.height:
            break
        taken = paired.filter(pl.col("answer").is_in(ENDS))["life"]
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
    """Add ready, ready_seq and answer to each life that was answered."""
    ends = paired.filter(pl.col("answer").is_in(ENDS)).select(
        "life", "ready", "answer", pl.col("seq").alias("ready_seq")
    )
    return attach(lives, ends)


def _of_try(rec: Recording) -> tuple[pl.Expr, ...]:
    """Return try, gfn and headless of a life from its not_present (R1: same thread, nothing of this vCPU between).

    ``headless`` is a life before whose try the record began, where tries were traced. Without a try the frame is the
    page of gva: true under EPT and NPT, where gva is a guest physical address.
    """
    tried = pl.col("tried") > NEVER
    return (
        pl.when(tried).then("tried").alias("try"),
        pl.when(tried).then("c").otherwise(pl.col("b") // 4096).alias("gfn"),
        (~tried & _at_head(rec) & pl.lit(rec.has(tp.TRY))).alias("headless"),
    )


def _at_head(rec: Recording) -> pl.Expr:
    # The record may begin in the middle of a fault: no exit before it.
    return (pl.col("first") == 1) & (pl.col("exit_ts") < rec.first_ns)


def tries(rec: Recording) -> pl.DataFrame:
    """Return the try rows that became no life, and the repeated rows: seq ts tid gva gfn kind after_try at_head became.

    ``became`` of a try is ``refused``, or ``cut`` where the record ends in the middle of the fault (no entry
    after it); null for a repeated, which comes ``after_try`` when its try was traced.
    """
    last_entries = dict(rec.threads.select("tid", "entries").iter_rows())
    rows = rec.kind(tp.TRY, tp.REPEATED)
    is_try = pl.col("kind") == tp.TRY
    ended = pl.col("entries") == pl.col("tid").replace_strict(last_entries, default=-1, return_dtype=pl.Int64)
    return rows.select(
        "seq",
        "ts",
        "tid",
        pl.col("a").alias("gva"),
        pl.col("b").alias("gfn"),
        "kind",
        (~is_try & (pl.col("c") == 1)).alias("after_try"),
        _at_head(rec).alias("at_head"),
        pl.when(is_try & (pl.col("c") == 1) & ended)
        .then(pl.lit("cut"))
        .when(is_try)
        .then(pl.lit("refused"))
        .alias("became"),
    ).sort("ts", "seq")


def with_repeated(lives: pl.DataFrame, tries: pl.DataFrame) -> pl.DataFrame:
    """Add ``repeated``: hits of repeated_fault on the life's gfn and thread while it was open."""
    hits = tries.filter(pl.col("kind") == tp.REPEATED).select("seq", "tid", "gfn")
    begun = lives.select("life", "tid", "gfn", pl.col("life").alias("seq"))
    counted = (
        hits.join_asof(
            begun.filter(pl.col("gfn").is_in(hits["gfn"].unique().implode())),
            on="seq",
            by=["tid", "gfn"],
            strategy="backward",
            check_sortedness=False,
        )
        .group_by("life")
        .agg(pl.len().cast(pl.Int32).alias("repeated"))
    )
    return attach(lives, counted).with_columns(pl.col("repeated").fill_null(0))


def told(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Return ``pf_injected`` per life: when the guest was told by #PF; null when it was not, or not traced.

    A not_present was delivered when kvm_inj_exception #PF follows on the thread before its next
    kvm_entry (R8); a re-injection is the same delivery and does not count.
    """
    of_all = lives.select("life")
    if not rec.has(tp.INJ_EXCEPTION):
        return without(of_all, {"pf_injected": pl.Int64()}).drop("life")
    injected = (
        rec.kind(tp.INJ_EXCEPTION)
        .filter((pl.col("a") == tp.PF_VECTOR) & (pl.col("c") == 0) & (pl.col("told") >= 0))
        .select(pl.col("told").alias("life"), pl.col("ts").alias("pf_injected"))
    )
    return attach(of_all, injected).drop("life")


def with_hint(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Add ``kind_hint``: the kind as far as it is known before the deliveries are."""
    return lives.with_columns(kind(rec).alias("kind_hint"))


def kind(rec: Recording, accepted: pl.Expr | None = None) -> pl.Expr:
    """Return ``kind``: pv when the guest was told, halt when only the vCPU sleeps, else unknown.

    Args:
        rec: the recording.
        accepted: when the page-ready vector was accepted right after ready, which says the same as
            ``pf_injected`` from the other end (R9, R10); null while that is not known yet.
    """
    # A fault taken in a nested guest is told to L1 by a #PF exit, which injects no exception.
    nested = any(hits and name.split(":")[-1].startswith("kvm_nested_") for name, hits in rec.counts.items())
    by_exception = pl.lit(rec.has(tp.INJ_EXCEPTION, tp.ENTRY) and not nested)
    by_vector = pl.lit(rec.has(tp.ACCEPT) and accepted is not None) & pl.col("ready").is_not_null()
    told = pl.col("pf_injected").is_not_null()
    return (
        pl.when(told if accepted is None else told | accepted.is_not_null())
        .then(pl.lit("pv"))
        .when((by_exception | by_vector) & ~pl.col("tainted"))
        .then(pl.lit("halt"))
        .otherwise(pl.lit("unknown"))
    )
