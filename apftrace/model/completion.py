"""Which kvm_async_pf_completed belongs to which life: the event has neither token, vCPU nor VM.

With workqueue events the work pointer decides: not_present is followed on its thread by
workqueue_queue_work of async_pf_execute, and that pointer returns in workqueue_execute_start on the
kworker that traces completed. Without them the page decides: same gva, first in first out, and where
several lives wait for equal gva at a time, the memslot (hva minus guest address) tells the VMs apart.
"""

from __future__ import annotations

from collections import Counter

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.recording import Recording

_AFTER_READY_NS = 100_000_000
"""completed may be traced after the ready it caused (R4), late by what the kworker lost in between."""

_RESULT = {
    "life": pl.Int64, "completed": pl.Int64, "completed_seq": pl.Int64, "hva": pl.Int64, "worker": pl.Int32,
}  # fmt: skip


def completions(rec: Recording) -> pl.DataFrame:
    """Return the completed rows: seq, completed, worker, gva, hva, base (hva minus the page of gva)."""
    return rec.kind(tp.COMPLETED).select(
        "seq",
        pl.col("ts").alias("completed"),
        pl.col("tid").alias("worker"),
        pl.col("a").alias("gva"),
        pl.col("b").alias("hva"),
        (pl.col("b") - pl.col("a") + (pl.col("a") & 0xFFF)).alias("base"),
    )


def with_completed(rec: Recording, lives: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add completed, completed_seq, hva, worker, and from workqueue events work, queued, started, finished.

    Returns:
        The lives, and the completed rows with ``life`` (null: its not_present is not in the trace).
    """
    done = completions(rec)
    lives = _with_work(rec, lives)
    matched = _by_work(rec, lives, done)
    rest_lives = lives.filter(~pl.col("life").is_in(matched["life"].implode()))
    rest_done = done.filter(~pl.col("seq").is_in(matched["completed_seq"].implode()))
    matched = pl.concat([matched, _by_page(rest_lives, rest_done)])
    lives = lives.join(matched, on="life", how="left", maintain_order="left")
    owner = matched.select(pl.col("completed_seq").alias("seq"), "life")
    return lives, done.join(owner, on="seq", how="left", maintain_order="left")


def _with_work(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Add work, queued, started and finished from the workqueue events; null where they were off."""
    if not rec.has(tp.QUEUE_WORK, tp.EXECUTE_START):
        names = ("work", "queued", "started", "finished")
        return lives.with_columns(pl.lit(None, pl.Int64).alias(n) for n in names)
    rows = rec.kind(tp.TRY, tp.NOT_PRESENT, tp.QUEUE_WORK).with_columns(
        pl.col("kind").shift(1).over("tid").alias("before"),
        pl.col("kind").shift(-1).over("tid").alias("after"),
        pl.col("seq").shift(1).over("tid").alias("seq_before"),
        pl.col("seq").shift(-1).over("tid").alias("seq_after"),
    )
    queued = rows.filter(pl.col("kind") == tp.QUEUE_WORK).select(
        # Since 5.8 the work is queued after not_present, before that ahead of it (7863e346e108).
        pl.when(pl.col("before") == tp.NOT_PRESENT)
        .then("seq_before")
        .when(pl.col("after") == tp.NOT_PRESENT)
        .then("seq_after")
        .alias("life"),
        pl.col("seq"),
        pl.col("ts").alias("queued"),
        pl.col("a").alias("work"),
    )
    queued = queued.filter(pl.col("life").is_not_null()).unique("life", keep="first", maintain_order=True)
    runs = _runs(rec, queued)
    return lives.join(
        queued.drop("seq").join(runs, on="life", how="left", maintain_order="left"),
        on="life",
        how="left",
        maintain_order="left",
    )


def _runs(rec: Recording, queued: pl.DataFrame) -> pl.DataFrame:
    """Return per life when its work item started and finished: the pointer is reused only after the end."""
    out = queued.select("life")
    for kind, name in ((tp.EXECUTE_START, "started"), (tp.EXECUTE_END, "finished")):
        found = (
            rec.kind(kind)
            .select("seq", pl.col("a").alias("work"), pl.col("ts").alias(name))
            .join_asof(
                queued.select("seq", "work", "life"),
                on="seq",
                by="work",
                strategy="backward",
                check_sortedness=False,
            )
            .filter(pl.col("life").is_not_null())
            .unique("life", keep="first", maintain_order=True)
            .select("life", name)
        )
        out = out.join(found, on="life", how="left", maintain_order="left")
    return out


def _by_work(rec: Recording, lives: pl.DataFrame, done: pl.DataFrame) -> pl.DataFrame:
    """Match through the work pointer: completed runs between execute_start and execute_end of its kworker."""
    if not rec.has(tp.QUEUE_WORK, tp.EXECUTE_START) or not done.height:
        return pl.DataFrame(schema=_RESULT)
    running = done.join_asof(
        rec.kind(tp.EXECUTE_START, tp.EXECUTE_END).select(
            "seq", pl.col("tid").alias("worker"), pl.col("kind"), pl.col("a").alias("work"), pl.col("ts").alias("began")
        ),
        on="seq",
        by="worker",
        strategy="backward",
        check_sortedness=False,
    ).filter(pl.col("kind") == tp.EXECUTE_START)
    found = running.join(
        lives.filter(pl.col("started").is_not_null()).select("life", "gva", "work", pl.col("started").alias("began")),
        on=["work", "began", "gva"],
        how="inner",
        maintain_order="left",
    )
    return (
        found.unique("life", keep="first", maintain_order=True)
        .select("life", "completed", pl.col("seq").alias("completed_seq"), "hva", "worker")
        .cast(_RESULT)  # type: ignore[arg-type]
    )


def _by_page(lives: pl.DataFrame, done: pl.DataFrame) -> pl.DataFrame:
    """Match by gva in time order; only pages that several lives waited for at a time need a closer look."""
    if not lives.height or not done.height:
        return pl.DataFrame(schema=_RESULT)
    steps = (
        pl.concat(
            [
                lives.select(pl.col("life").alias("seq"), "gva", pl.lit(value=True).alias("begins")),
                done.select("seq", "gva", pl.lit(value=False).alias("begins")),
            ]
        )
        .sort("gva", "seq")
        .with_columns(
            pl.col("seq").shift(-1).over("gva").alias("next_seq"),
            pl.col("begins").shift(-1).over("gva").alias("next_begins"),
            pl.int_range(pl.len()).over("gva").alias("nth"),
        )
        .with_columns((pl.col("begins") == (pl.col("nth") % 2 == 0)).all().over("gva").alias("alternates"))
    )
    plain = steps.filter("alternates", "begins", pl.col("next_seq").is_not_null()).select(
        pl.col("seq").alias("life"), pl.col("next_seq").alias("completed_seq")
    )
    crowded = steps.filter(~pl.col("alternates"))["gva"].unique()
    pairs = pl.concat([plain, _crowded(lives, done, plain, crowded)])
    facts = done.select(pl.col("seq").alias("completed_seq"), "completed", "hva", "worker")
    return pairs.join(facts, on="completed_seq", how="inner", maintain_order="left").select(list(_RESULT)).cast(_RESULT)  # type: ignore[arg-type]


def _crowded(lives: pl.DataFrame, done: pl.DataFrame, plain: pl.DataFrame, pages: pl.Series) -> pl.DataFrame:
    """Match the pages where lives overlap or an event is missing, one step at a time."""
    bases = _bases(lives, done, plain)
    begin = lives.filter(pl.col("gva").is_in(pages.implode())).select(
        "gva", pl.col("life").alias("seq"), "tid", pl.col("ready"), pl.lit(None, pl.Int64).alias("base")
    )
    end = done.filter(pl.col("gva").is_in(pages.implode())).select(
        "gva", "seq", pl.lit(None, pl.Int32).alias("tid"), pl.col("completed").alias("ready"), "base"
    )
    found: list[tuple[int, int]] = []
    waiting: list[tuple[int, int, int | None]] = []
    page = None
    for gva, seq, tid, instant, base in pl.concat([begin, end]).sort("gva", "seq").iter_rows():
        if gva != page:
            page, waiting = gva, []
        if tid is not None:
            # A page is outstanding once per vCPU (R14): what this thread had there before is over.
            waiting = [w for w in waiting if w[1] != tid]
            waiting.append((seq, tid, instant))
            continue
        chosen = _choose(waiting, instant, base, bases)
        if chosen is not None:
            waiting.remove(chosen)
            found.append((chosen[0], seq))
    return pl.DataFrame(found, schema={"life": pl.Int64, "completed_seq": pl.Int64}, orient="row")


def _choose(
    waiting: list[tuple[int, int, int | None]], instant: int, base: int, bases: dict[int, Counter[int]]
) -> tuple[int, int, int | None] | None:
    alive = [w for w in waiting if w[2] is None or w[2] + _AFTER_READY_NS >= instant]
    fits = [w for w in alive if base in bases.get(w[1], ())] or [w for w in alive if w[1] not in bases]
    # Of those, the one whose ready comes next; a life without any ready only when no other fits.
    return min(fits, key=lambda w: (w[2] is None, w[2] or 0, w[0]), default=None)


def _bases(lives: pl.DataFrame, done: pl.DataFrame, plain: pl.DataFrame) -> dict[int, Counter[int]]:
    """Return per vCPU thread the memslot bases seen in its unambiguous completions."""
    seen = (
        plain.join(lives.select("life", "tid"), on="life", how="inner")
        .join(done.select(pl.col("seq").alias("completed_seq"), "base"), on="completed_seq", how="inner")
        .group_by("tid", "base")
        .len()
    )
    bases: dict[int, Counter[int]] = {}
    for tid, base, n in seen.iter_rows():
        bases.setdefault(tid, Counter())[base] = n
    return bases


def bases_of_threads(lives: pl.DataFrame) -> pl.DataFrame:
    """Return tid, base and n: how often each thread's completed lives lay in the memslot ``base``."""
    return (
        lives.filter(pl.col("hva").is_not_null())
        .with_columns((pl.col("hva") - pl.col("gva") + (pl.col("gva") & 0xFFF)).alias("base"))
        .group_by("tid", "base")
        .agg(pl.len().alias("n"))
        .sort("tid", "base")
    )
