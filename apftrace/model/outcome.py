"""How each life ended: answered, cancelled, in flight, lost, or undecided.

A verdict is a claim. A life is *lost* only on proof of progress: it was completed, its vCPU entered the
guest again and again for far longer than lives take, the page-ready slot was free meanwhile, and no CPU
that the thread uses lost a record. Whatever another event implies is repaired before anything is blamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.frames import attach, by_thread, without
from apftrace.model.readings import NEVER
from apftrace.model.slot import with_busy

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

MIN_ENTRIES = 10
"""Entries into the guest after which a vCPU that ignores a completed life has had its chances."""

MIN_OVERTAKEN = 3
"""Lives of the vCPU that were completed later and answered before an older one counts as passed by."""

MIN_AGE_NS = 10_000_000
"""No life younger than this is called stuck, however fast the others were."""

_READ = (tp.REPEATED, tp.NOT_PRESENT, tp.MSR, tp.INJ_EXCEPTION, tp.ACCEPT, tp.INJ_VIRQ)
"""Anchors that carry their thread's entries into the guest."""

_CLEARS: dict[str, pl.DataType] = {
    "cleared": pl.Int64(),
    "cleared_by": pl.String(),
    "cleared_entries": pl.Int32(),
    "dated": pl.Boolean(),
    "woken_all": pl.Int64(),
}
_PROGRESS = ("since", "last_run", "entries_after", "progress", "slot_free")

BY_NEXT_LIFE = "ended before the next life of its gfn"
"""A repair that tells that KVM was through with a life, not whether the guest was told."""

UNMEASURED_AGE_NS = 1_000_000_000
"""Age that counts as stuck where no life closed to tell what is usual."""


@dataclass(frozen=True)
class Staleness:
    """How old an open life must be before it counts as stuck: far beyond what closed lives took.

    A page may take seconds to come, from a swap device or through userfaultfd; what is left to do once it is
    there is KVM's and the guest's, and has its own usual time.

    Attributes:
        age: since not_present, in units of the trace clock: the larger of twice P99, ten medians and 10 ms.
        told: the same since completed; never more than ``age``.
        n: closed lives that this rests on.
        proves: an open life of that age may count as stuck.
    """

    age: int
    told: int
    n: int
    proves: bool


def staleness(lives: pl.DataFrame, *, clock_is_ns: bool, none_ready: bool = False) -> Staleness:
    """Learn from the answered lives how old is too old; ``total`` spans not_present to the last instant.

    Where no fault was ever answered (``none_ready``) there is nothing to learn from, and a second must do.
    """
    closed = lives["total"].drop_nulls()
    floor = MIN_AGE_NS if clock_is_ns else 0
    if not len(closed):
        age = UNMEASURED_AGE_NS if clock_is_ns else 0
        return Staleness(age, age, 0, none_ready and clock_is_ns)
    after = lives.select(
        (pl.col("total") + pl.col("not_present") - pl.col("completed")).clip(lower_bound=0)
    ).to_series()
    age = _far_beyond(closed, floor)
    told = _far_beyond(after.drop_nulls(), floor) if after.count() else age
    return Staleness(age, min(age, told), len(closed), proves=True)


def _far_beyond(usual: pl.Series, floor: int) -> int:
    p99, median = usual.quantile(0.99, "nearest") or 0, usual.median()
    assert isinstance(median, (int, float))
    return max(int(2 * p99), int(10 * median), floor)


def with_repairs(lives: pl.DataFrame, delivered: pl.DataFrame) -> pl.DataFrame:
    """Add ``repaired`` and ``ended``: what else than its ready shows that a life ended, and when.

    An accept or an ACK implies the ready (assigned to a life before); a later life of the same gfn on the
    same vCPU implies that the old one ended (R14); a ready of its page under another token, or of its token
    for another page, ended it too.
    """
    implied = delivered.filter(pl.col("implied").is_not_null() & pl.col("life").is_not_null()).select(
        "life", "implied", pl.col("start").alias("implied_ts")
    )
    lives = attach(attach(lives, implied), _next_of_page(lives))
    unread = pl.col("ready").is_null()
    return lives.with_columns(
        pl.when(pl.col("answer") == "retagged")
        .then(pl.lit("ready of its page under another token"))
        .when(pl.col("answer") == "repaged")
        .then(pl.lit("ready of its token for another page"))
        .when(unread & pl.col("implied").is_not_null())
        .then(pl.lit("ready implied by ") + pl.col("implied"))
        .when(unread & pl.col("next_of_gfn").is_not_null())
        .then(pl.lit(BY_NEXT_LIFE))
        .alias("repaired"),
        pl.coalesce("ready", "implied_ts", "next_of_gfn").alias("ended"),
    )


def _next_of_page(lives: pl.DataFrame) -> pl.DataFrame:
    """Return per life without a ready ``next_of_gfn``: when the next life of its gfn on its vCPU began."""
    waits = lives.filter(pl.col("ready").is_null()).select("life", "tid", "gfn")
    begun = lives.select("tid", "gfn", "life", pl.col("not_present").alias("next_of_gfn"))
    return waits.join_asof(
        begun.filter(pl.col("gfn").is_in(waits["gfn"].unique().implode())),
        on="life",
        by=["tid", "gfn"],
        strategy="forward",
        allow_exact_matches=False,
        check_sortedness=False,
    ).select("life", "next_of_gfn")


def with_clears(rec: Recording, lives: pl.DataFrame, threads: pl.DataFrame) -> pl.DataFrame:
    """Add ``cleared`` (instant) and ``cleared_by`` to lives without a ready: what took them off the vCPU's queue.

    EN written without bit 0 and a vCPU's reset clear the queue (R20). A reset shows when the vCPU enters at the
    reset vector or is sent an INIT; else by what the guest writes after it, INT and EN, anew. The end of the
    vCPU thread ends everything. ``woken_all`` is the first broadcast ready on the thread after it began: the guest
    then wakes all its waiters. ``dated`` says that the instant of the clear is known, so that what
    came before it is proof; ``cleared_entries`` are those of the vCPU by then.
    """
    waits = lives.filter(pl.col("ready").is_null()).select("life", "tid")
    if not waits.height:
        return without(lives, _CLEARS)
    writes = rec.kind(tp.MSR).filter((pl.col("a") == 1) & (pl.col("b") == tp.MSR_EN))
    events = writes.select(
        "seq",
        "tid",
        pl.col("ts").alias("cleared"),
        pl.when(pl.col("c") & tp.EN_ENABLED == 0)
        .then(pl.lit("async page faults disabled by the guest"))
        .otherwise(pl.lit("async page faults enabled anew: reset, resume or restore"))
        .alias("cleared_by"),
        pl.col("entries").alias("cleared_entries"),
        (pl.col("c") & tp.EN_ENABLED == 0).alias("dated"),
    )
    events = pl.concat([events, _resets_as_clears(resets(rec, threads))]).sort("seq")
    alls = (
        rec.kind(tp.READY)
        .filter(pl.col("a") == tp.BROADCAST)
        .select("seq", "tid", pl.col("ts").alias("woken_all"))
    )
    waits = _next_on_thread(_next_on_thread(waits, events), alls)
    gone = threads.filter(pl.col("gone") > 0).select("tid", "gone")
    return attach(
        lives,
        by_thread(waits, gone)
        .with_columns(
            pl.coalesce("cleared", "gone").alias("cleared"),
            pl.when(pl.col("cleared").is_not_null())
            .then("cleared_by")
            .when(pl.col("gone").is_not_null())
            .then(pl.lit("the vCPU thread exited"))
            .alias("cleared_by"),
        )
        .drop("gone", "tid"),
    )


def resets(rec: Recording, threads: pl.DataFrame) -> pl.DataFrame:
    """Return the resets of vCPUs that show: seq, tid (of the vCPU that was reset), ts, by and entries before it.

    ``by`` is the vCPU that sent an INIT; null for an entry at the reset vector. An INIT is traced on its
    sender's thread and names a vCPU of the same VM: ``entries`` of that one are those at its last anchor before.
    """
    own = rec.kind(tp.RESET).select("seq", "tid", "ts", pl.lit(None, pl.Int32).alias("by"), "entries")
    sent = rec.kind(tp.STARTUP).filter(pl.col("a") == tp.DM_INIT).select("seq", "ts", "tid", "b")
    if not sent.height:
        return own
    sender = threads.select("tid", "vm", pl.col("vcpu").alias("by"))
    target = threads.select("vm", pl.col("vcpu").cast(pl.Int64).alias("b"), "tid")
    found = sent.join(sender, on="tid", how="inner").drop("tid").join(target, on=["vm", "b"], how="inner")
    read = _readings(rec).drop("at").sort("seq")
    found = found.sort("seq").join_asof(read, on="seq", by="tid", strategy="backward", check_sortedness=False)
    found = found.with_columns(pl.col("entries").fill_null(0))
    return pl.concat([own, found.select(own.columns)]).sort("seq")


def _readings(rec: Recording) -> pl.DataFrame:
    """Return what anchors tell of their threads' entries into the guest: seq, tid, at (instant) and entries."""
    return pl.concat(rec.kind(k).select("seq", "tid", pl.col("ts").alias("at"), "entries") for k in _READ)


def _resets_as_clears(found: pl.DataFrame) -> pl.DataFrame:
    return found.select(
        "seq",
        "tid",
        pl.col("ts").alias("cleared"),
        pl.when(pl.col("by").is_null())
        .then(pl.lit("vCPU reset: it entered the guest at the reset vector"))
        .otherwise(pl.lit("vCPU reset by INIT"))
        .alias("cleared_by"),
        pl.col("entries").alias("cleared_entries"),
        pl.lit(value=True).alias("dated"),
    )


def _next_on_thread(lives: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    found = lives.select("tid", pl.col("life").alias("seq")).join_asof(
        events, on="seq", by="tid", strategy="forward", check_sortedness=False
    )
    return lives.hstack(found.drop("seq", "tid"))


def with_progress(
    rec: Recording, lives: pl.DataFrame, threads: pl.DataFrame, spans: pl.DataFrame
) -> pl.DataFrame:
    """Add what the vCPU did after ``completed`` of a life without a ready.

    These are since, last_run, entries_after, progress and slot_free. ``entries_after`` counts kvm_entry; where
    that was off, the thread's later try, not_present and ready events, each of which is a further run of the
    guest. ``progress`` is the time from ``since`` to ``last_run``, ``slot_free`` the part of it in which the
    page-ready slot was free.
    """
    since = pl.coalesce("completed", "finished", "not_present")
    waits = lives.filter(pl.col("ready").is_null()).with_columns(since.alias("since"))
    if not waits.height:
        return without(lives, dict.fromkeys(_PROGRESS, pl.Int64()))
    if rec.has(tp.ENTRY):
        waits = by_thread(
            _read_after_work(rec, waits), threads.select("tid", "entries", pl.col("entry_ts").alias("last_run"))
        ).with_columns(
            # What the vCPU did after its queue was cleared says nothing of the life.
            (pl.coalesce("cleared_entries", "entries") - pl.coalesce("comp_entries", "fin_entries", "np_entries"))
            .clip(lower_bound=0)
            .alias("entries_after"),
            pl.min_horizontal("last_run", "cleared").alias("last_run"),
        )  # fmt: skip
    else:
        waits = _by_own_events(rec, waits)
    waits = waits.with_columns((pl.col("last_run") - pl.col("since")).clip(lower_bound=0).alias("progress"))
    waits = with_busy(waits, spans, "since", "last_run", "busy")
    return attach(
        lives,
        waits.with_columns((pl.col("progress") - pl.col("busy").fill_null(0)).alias("slot_free")).select(
            "life", *_PROGRESS
        ),
    )


def _read_after_work(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Add ``fin_entries``: at the vCPU's first reading after the end of the work that stands for ``completed``.

    Of a vCPU that was never read again nothing is known: it is its last count of entries.
    """
    ended = pl.col("completed").is_null() & pl.col("finished").is_not_null()
    asked = lives.filter(ended).select("life", "tid", pl.col("finished").alias("at"))
    if not asked.height:
        return without(lives, {"fin_entries": pl.Int32()})
    read = _readings(rec).drop("seq").sort("at")
    found = asked.sort("at").join_asof(read, on="at", by="tid", strategy="forward", check_sortedness=False)
    last = rec.threads.select("tid", pl.col("entries").alias("all"))
    found = found.join(last, on="tid", how="left", maintain_order="left")
    entries = pl.coalesce("entries", "all").cast(pl.Int32).alias("fin_entries")
    return attach(lives, found.select("life", entries).sort("life"))


def _by_own_events(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    # A try that became a life or a repeated fault has no row of its own.
    twice = (pl.col("tried") > NEVER).fill_null(value=False)
    hits = pl.when(twice).then(2).otherwise(1)
    rows = rec.kind(tp.TRY, tp.NOT_PRESENT, tp.READY, tp.REPEATED)
    own = rows.filter((pl.col("kind") != tp.REPEATED) | (pl.col("c") == 1)).select(
        pl.col("ts").alias("since"),
        "tid",
        hits.cum_sum().over("tid").alias("nth"),
        hits.sum().over("tid").alias("entries"),
        pl.col("ts").last().over("tid").alias("last_run"),
    )
    ends = own.group_by("tid").agg(pl.col("entries").first(), pl.col("last_run").first())
    seen = (
        lives.select("life", "tid", "since")
        .sort("since")
        .join_asof(
            own.select("since", "tid", "nth").sort("since"), on="since", by="tid", check_sortedness=False
        )
        .select("life", "nth")
    )
    return (
        attach(by_thread(lives, ends), seen)
        .with_columns((pl.col("entries") - pl.col("nth").fill_null(0)).alias("entries_after"))
        .drop("nth")
    )


def with_overtaken(lives: pl.DataFrame) -> pl.DataFrame:
    """Add ``overtaken`` to lives without a ready: how many of the thread were completed later and got one."""
    done = lives.select("life", "tid", "completed", "ready").filter(pl.col("completed").is_not_null())
    waits = done.filter(pl.col("ready").is_null()).select("life", "tid", "completed")
    passed = [waits.select("life", pl.lit(0, pl.Int64).alias("overtaken")).clear()]
    for (tid,), group in waits.group_by("tid"):
        got = done.filter((pl.col("tid") == tid) & pl.col("ready").is_not_null())["completed"].sort()
        later = len(got) - got.search_sorted(group["completed"], side="right").cast(pl.Int64)
        passed.append(group.select("life", later.alias("overtaken")))
    return attach(lives, pl.concat(passed))


def with_outcome(
    lives: pl.DataFrame, stale: Staleness, *, ready_traced: bool, slot_known: bool
) -> pl.DataFrame:
    """Add ``outcome``, ``lost_rule`` and ``end``; the order of the cases is the order of trust.

    Without kvm_async_pf_ready in the trace a life that nothing else shows to have ended is undecided. Where
    nothing tells when the slot was taken (``slot_known``), only later lives that were answered show it free.
    That KVM was through with a life before the next one of its gfn makes it answered where its ready may be among
    the lost records; in a record without a gap KVM may as well have dropped it with its queue.
    """
    gone = (pl.col("repaired") == BY_NEXT_LIFE).fill_null(value=False)
    untold = gone & ~pl.col("tainted") & pl.lit(ready_traced)
    # What took it off the queue must lie before the next life of its gfn.
    cleared, woken = (
        pl.col(c).is_not_null() & (~gone | (pl.col(c) <= pl.col("ended"))) for c in ("cleared", "woken_all")
    )
    stuck = (
        (pl.col("entries_after") >= MIN_ENTRIES)
        & (pl.col("progress") > stale.told)
        & (pl.col("slot_free") > stale.told)
        & pl.lit(stale.proves and slot_known)
    )
    # ``done`` is first in, first out (R6): lives completed later and answered went past this one.
    passed_by = (
        (pl.col("overtaken") >= MIN_OVERTAKEN) & (pl.col("progress") > stale.told) & pl.lit(stale.proves)
    )
    stuck = stuck | passed_by
    done = pl.coalesce("completed", "finished").is_not_null()
    # A reset by the VMM clears the queue unseen; what the guest writes or is sent on its way up shows it later.
    restarted = pl.col("woken_all").is_not_null() | (
        pl.col("cleared_entries").is_not_null() & ~pl.col("dated")
    )
    return lives.with_columns(
        pl.when(
            pl.col("ready").is_not_null()
            | (pl.col("repaired").is_not_null() & ~untold & ~(gone & (cleared | woken)))
        )
        .then(pl.lit("answered"))
        .when(done & stuck & ~restarted & ~gone)
        .then(
            pl.when(pl.col("tainted") | pl.lit(not ready_traced))
            .then(pl.lit("undecided"))
            .otherwise(pl.lit("lost"))
        )
        .when(cleared)
        .then(pl.lit("cancelled"))
        .when(woken)
        .then(pl.lit("woken_by_all"))
        .when(pl.col("tainted") | pl.lit(not ready_traced) | untold)
        .then(pl.lit("undecided"))
        .otherwise(pl.lit("in_flight"))
        .alias("outcome")
    ).with_columns(
        pl.when(pl.col("outcome") == "lost").then(pl.lit("lost-wakeup")).alias("lost_rule"),
        pl.when(~gone | (pl.col("outcome") == "answered")).then("repaired").alias("repaired"),
        (gone & (pl.col("outcome") == "undecided")).alias("forgotten"),
        pl.when(pl.col("outcome") == "answered")
        .then(pl.coalesce("acked", "injected", "accepted", "ended"))
        .when(pl.col("outcome").is_in(["cancelled", "woken_by_all"]))
        .then(pl.coalesce("cleared", "woken_all"))
        .when(gone)
        .then("ended")
        .otherwise(pl.max_horizontal("last_run", "completed", "not_present"))
        .alias("end"),
    )
