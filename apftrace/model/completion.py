"""Which kvm_async_pf_completed belongs to which life: the event has neither token, vCPU nor VM.

With workqueue events the work pointer decides: not_present is followed on its thread by
workqueue_queue_work of async_pf_execute, and that pointer returns in workqueue_execute_start on the
kworker that traces completed. Without them the page decides: same gva, first in first out, and where
several lives wait for equal gva at a time, the memslot (hva minus guest address) tells the VMs apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.frames import attach, is_first

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

_AFTER_READY_NS = 100_000_000
"""completed may be traced after the ready it caused (R4), late by what the kworker lost in between."""

_OWN_SHARE = 10
"""A memslot is a thread's own when one in ten of its lives lies there, and one in ten that do has an owner."""

_RESULT = {
    "life": pl.Int64, "completed": pl.Int64, "completed_seq": pl.Int64, "hva": pl.Int64, "worker": pl.Int32,
}  # fmt: skip


def completions(rec: Recording) -> pl.DataFrame:
    """Return the completed rows: seq, completed, worker, gva, hva, base (hva minus the page of gva), sole, tid.

    ``sole`` is the life that alone waited for the page at that instant, on the vCPU thread ``tid``; null when
    none or several did.
    """
    alone = pl.col("c") >= 0
    return rec.kind(tp.COMPLETED).select(
        "seq",
        pl.col("ts").alias("completed"),
        pl.col("tid").alias("worker"),
        pl.col("a").alias("gva"),
        pl.col("b").alias("hva"),
        (pl.col("b") - pl.col("a") + (pl.col("a") & 0xFFF)).alias("base"),
        pl.when(alone).then("c").alias("sole"),
        pl.when(alone).then("vcpu_tid").alias("tid"),
    )


def completed(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Return what was done for each life, in the order of the lives.

    Columns: completed, completed_seq, hva, worker, and from workqueue events work, queued, started, finished.

    Args:
        rec: the recording.
        lives: has life, tid, gva and ready.
    """
    done = completions(rec)
    lives = _with_work(rec, lives.select("life", "tid", "gva", "ready"))
    matched = _by_work(rec, lives, done)
    done = _with_sole(_rest(done, matched), matched, lives)
    rows = attach(lives, pl.concat([matched, _result(done.filter(pl.col("life").is_not_null()))]))
    waiting, left = rows.filter(pl.col("completed").is_null()), done.filter(pl.col("life").is_null())
    if waiting.height and left.height:
        bases = {tid: set(group["base"]) for (tid,), group in bases_of_threads(rows).group_by("tid")}
        found = attach(rows.select("life"), _by_page(waiting, left, bases))
        rows = rows.with_columns(
            pl.coalesce(c, found[c]).alias(c) for c in ("completed", "completed_seq", "hva", "worker")
        )
    return rows.drop("life", "tid", "gva", "ready")


def _rest(done: pl.DataFrame, matched: pl.DataFrame) -> pl.DataFrame:
    """Return the completed rows that have no partner yet."""
    if not matched.height:
        return done
    return done.join(matched, left_on="seq", right_on="completed_seq", how="anti", maintain_order="left")


def _result(done: pl.DataFrame) -> pl.DataFrame:
    """Return completed rows with their ``life`` as what is attached to lives."""
    return done.select("life", "completed", pl.col("seq").alias("completed_seq"), "hva", "worker").cast(
        _RESULT  # type: ignore[arg-type]
    )


def _with_work(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Add work, queued, started and finished from the workqueue events; null where they were off."""
    if not rec.has(tp.QUEUE_WORK, tp.EXECUTE_START):
        names = ("work", "queued", "started", "finished")
        return lives.with_columns(pl.lit(None, pl.Int64).alias(n) for n in names)
    # Since 5.8 the work is queued after not_present, before that ahead of it (7863e346e108).
    ahead = rec.kind(tp.NOT_PRESENT).filter(pl.col("queued") >= 0)
    queued = (
        rec.kind(tp.QUEUE_WORK)
        .join(
            ahead.select(pl.col("queued").alias("seq"), pl.col("seq").alias("next")),
            on="seq",
            how="left",
            maintain_order="left",
        )
        .select(
            pl.when(pl.col("c") >= 0).then("c").otherwise("next").alias("life"),
            "seq",
            pl.col("ts").alias("queued"),
            pl.col("a").alias("work"),
        )
    )
    queued = queued.filter(pl.col("life").is_not_null()).unique("life", keep="first", maintain_order=True)
    runs = _runs(rec, queued)
    return attach(lives, attach(queued.drop("seq"), runs))


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
            .select("life", name)
        )
        out = attach(out, found)
    return out


def _by_work(rec: Recording, lives: pl.DataFrame, done: pl.DataFrame) -> pl.DataFrame:
    """Match through the work pointer: completed runs between execute_start and execute_end of its kworker."""
    if not rec.has(tp.QUEUE_WORK, tp.EXECUTE_START) or not done.height:
        return pl.DataFrame(schema=_RESULT)
    running = done.join_asof(
        rec.kind(tp.EXECUTE_START, tp.EXECUTE_END).select(
            "seq",
            pl.col("tid").alias("worker"),
            pl.col("kind"),
            pl.col("a").alias("work"),
            pl.col("ts").alias("began"),
        ),
        on="seq",
        by="worker",
        strategy="backward",
        check_sortedness=False,
    ).filter(pl.col("kind") == tp.EXECUTE_START)
    found = running.join(
        lives.filter(pl.col("started").is_not_null()).select(
            "life", "gva", "work", pl.col("started").alias("began")
        ),
        on=["work", "began", "gva"],
        how="inner",
        maintain_order="left",
    )
    return _result(found.filter(is_first(found["life"])))


def _with_sole(done: pl.DataFrame, matched: pl.DataFrame, lives: pl.DataFrame) -> pl.DataFrame:
    """Add ``life``: the only one that waited for the page, unless it has a completed or the memslot is another VM's."""
    own = pl.lit(is_first(done["sole"]))
    if matched.height:
        own &= ~pl.col("sole").is_in(matched["life"].implode())
    done = done.with_columns(pl.when(own).then("sole").alias("life"))
    # A life whose not_present was lost may be completed while another VM waits for an equal gva.
    n = pl.col("n")
    seen = done.filter(pl.col("life").is_not_null()).group_by("tid", "base").agg(pl.len().alias("n"))
    seen = seen.join(done.group_by("base").agg(pl.len().alias("all")), on="base", how="left").with_columns(
        n.sum().over("tid").alias("of_tid"),
        n.sum().over("base").alias("of_base"),
        n.max().over("base").alias("best"),
    )
    rare = (n * _OWN_SHARE < pl.col("of_tid")) & (n < pl.col("best"))
    # Of VMs in lockstep the one behind is never alone: what lies in its memslot is nearly all nobody's so far, and
    # it has as many lives of which none was ever alone.
    homeless = lives.join(seen, on="tid", how="anti").height
    unclaimed = (pl.col("of_base") * _OWN_SHARE < pl.col("all")) & (homeless * 2 >= pl.col("all"))
    foreign = seen.filter(rare | unclaimed)
    if not foreign.height:
        return done
    there = done.filter(pl.col("base").is_in(foreign["base"].implode()))
    theirs = there.join(foreign, on=["tid", "base"], how="semi")["seq"]
    return done.with_columns(pl.when(~pl.col("seq").is_in(theirs.implode())).then("life").alias("life"))


def _by_page(lives: pl.DataFrame, done: pl.DataFrame, bases: dict[object, set[int]]) -> pl.DataFrame:
    """Match what is left, first in first out per page: pages that several lives waited for at a time."""
    if not lives.height or not done.height:
        return pl.DataFrame(schema=_RESULT)
    shared = lives.select(pl.col("gva").unique()).join(done.select(pl.col("gva").unique()), on="gva")
    begin = lives.join(shared, on="gva", how="semi").select(
        "gva", pl.col("life").alias("seq"), "tid", pl.col("ready"), pl.lit(None, pl.Int64).alias("base")
    )
    end = done.join(shared, on="gva", how="semi").select(
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
    pairs = pl.DataFrame(found, schema={"life": pl.Int64, "seq": pl.Int64}, orient="row")
    return _result(pairs.join(done.drop("life"), on="seq", how="inner", maintain_order="left"))


def _choose(
    waiting: list[tuple[int, int, int | None]], instant: int, base: int, bases: dict[object, set[int]]
) -> tuple[int, int, int | None] | None:
    alive = [w for w in waiting if w[2] is None or w[2] + _AFTER_READY_NS >= instant]
    fits = [w for w in alive if base in bases.get(w[1], ())] or [w for w in alive if w[1] not in bases]
    # Of those, the one whose ready comes next; a life without any ready only when no other fits.
    return min(fits, key=lambda w: (w[2] is None, w[2] or 0, w[0]), default=None)


def bases_of_threads(lives: pl.DataFrame) -> pl.DataFrame:
    """Return tid, base and n: how often each thread's completed lives lay in the memslot ``base``."""
    return (
        lives.select("tid", "gva", "hva")
        .filter(pl.col("hva").is_not_null())
        .with_columns((pl.col("hva") - pl.col("gva") + (pl.col("gva") & 0xFFF)).alias("base"))
        .group_by("tid", "base")
        .agg(pl.len().alias("n"))
        .sort("tid", "base")
    )
