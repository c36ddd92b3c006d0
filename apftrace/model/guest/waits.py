"""A guest's waits, from its own trace alone: who waited, who woke it, and when it ran again.

A wait belongs to its thread, and a wake to its token; the first wake with the token of a wait ends it. A
thread that leaves the CPU in state D after its wait began sleeps in it; it runs again when it is switched in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp

if TYPE_CHECKING:
    from apftrace.model.guest.recording import GuestRecording

_LATER = 1 << 62
_D = tp.TASK_UNINTERRUPTIBLE


def waits(rec: GuestRecording) -> pl.DataFrame:
    """Return one row per wait, in order of time.

    Columns: wait_seq wait guest_cpu guest_tid token; what the thread did: out_seq (left the CPU in state D),
    in_seq running_at (switched in again), return_seq returned, next_seq (its next wait), ran_seq ran_at (the
    first sign that it ran on); what woke it: wake_seq wake wake_cpu woken_in (thread current then) irq_seq
    irq wakeup_seq wakeup; ``early``: the wake came first.
    """
    begun = rec.kind("wait").select(
        pl.col("seq").alias("wait_seq"),
        pl.col("ts").alias("wait"),
        pl.col("cpu").alias("guest_cpu"),
        pl.col("tid").alias("guest_tid"),
        "token",
    )
    begun = begun.with_columns(
        pl.col("wait_seq").shift(-1).over("guest_tid").fill_null(_LATER).alias("until"),
        pl.col("wait_seq").shift(-1).over("guest_tid").alias("next_seq"),
    )
    begun = _with_returns(rec, begun)
    begun = _with_sleep(rec, begun)
    begun = _with_wake(begun, wakes(rec))
    begun = _with_wakeup(rec, begun)
    return _with_signs(rec, begun)


def wakes(rec: GuestRecording) -> pl.DataFrame:
    """Return one row per wake: wake_seq wake wake_cpu woken_in token, and irq_seq irq of its interrupt."""
    rows = rec.kind("wake").select(
        pl.col("seq").alias("wake_seq"),
        pl.col("ts").alias("wake"),
        pl.col("cpu").alias("wake_cpu"),
        pl.col("tid").alias("woken_in"),
        "token",
    )
    irqs = rec.kind("irq").select(
        pl.col("seq").alias("wake_seq"),
        pl.col("seq").alias("irq_seq"),
        pl.col("ts").alias("irq"),
        pl.col("cpu").alias("wake_cpu"),
    )
    rows = rows.join_asof(irqs, on="wake_seq", by="wake_cpu", strategy="backward", check_sortedness=False)
    # An interrupt wakes once; of a later wake without its own the record of the interrupt is missing.
    first = pl.col("irq_seq").is_first_distinct()
    return rows.with_columns(pl.when(first).then(c).alias(c) for c in ("irq_seq", "irq"))


def _after(begun: pl.DataFrame, rows: pl.DataFrame, start: str, by: str, seq: str) -> pl.DataFrame:
    """Add the first of ``rows`` behind ``start`` and before the thread's next wait, by ``by``.

    Args:
        begun: the waits.
        rows: has ``by``, ``seq`` and what to add.
        start: column of ``begun`` after which to look; where it is null there is nothing.
        by: key.
        seq: column of ``rows`` that orders it.
    """
    known = begun.filter(pl.col(start).is_not_null()).select(
        "wait_seq", by, "until", pl.col(start).alias("at")
    )
    found = (
        known.sort("at")
        .join_asof(
            rows.with_columns(pl.col(seq).alias("at")).sort("at"),
            on="at", by=by, strategy="forward", allow_exact_matches=False, check_sortedness=False,
        )
        .filter(pl.col(seq) < pl.col("until"))
        .drop(by, "until", "at")
    )  # fmt: skip
    return begun.join(found, on="wait_seq", how="left", maintain_order="left")


def _with_returns(rec: GuestRecording, begun: pl.DataFrame) -> pl.DataFrame:
    back = rec.kind("wait_return").select(
        pl.col("tid").alias("guest_tid"), pl.col("seq").alias("return_seq"), pl.col("ts").alias("returned")
    )
    return _after(begun, back, "wait_seq", "guest_tid", "return_seq")


def _with_sleep(rec: GuestRecording, begun: pl.DataFrame) -> pl.DataFrame:
    switched = rec.kind("switch")
    out = switched.filter((pl.col("a") & _D) != 0).select(
        pl.col("tid").alias("guest_tid"), pl.col("seq").alias("out_seq"), pl.col("ts").alias("slept_at")
    )
    into = switched.select(
        pl.col("b").cast(pl.Int32).alias("guest_tid"),
        pl.col("seq").alias("in_seq"),
        pl.col("ts").alias("running_at"),
        pl.col("cpu").alias("in_cpu"),
    )
    begun = _after(begun, out, "wait_seq", "guest_tid", "out_seq")
    # A thread that is back from its wait sleeps for another reason.
    over = pl.col("out_seq") > pl.col("return_seq")
    begun = begun.with_columns(
        pl.when(~over.fill_null(value=False)).then(c).alias(c) for c in ("out_seq", "slept_at")
    )
    return _after(begun, into, "out_seq", "guest_tid", "in_seq")


def _with_wake(begun: pl.DataFrame, woken: pl.DataFrame) -> pl.DataFrame:
    """Give each wait the first wake with its token behind it, else one that came just before it."""
    keyed = begun.filter(pl.col("token").is_not_null()).select("wait_seq", "token")
    # Every wake goes to the latest wait of its token before it, and of several the first counts.
    owned = (
        woken.filter(pl.col("token").is_not_null())
        .with_columns(pl.col("wake_seq").alias("at"))
        .join_asof(
            keyed.with_columns(pl.col("wait_seq").alias("at")),
            on="at", by="token", strategy="backward", check_sortedness=False,
        )
    )  # fmt: skip
    ends = owned.filter(pl.col("wait_seq").is_not_null() & pl.col("wait_seq").is_first_distinct())
    begun = begun.join(ends.drop("at", "token"), on="wait_seq", how="left", maintain_order="left")
    begun = begun.with_columns(pl.lit(value=False).alias("early"))
    strays = owned.filter(pl.col("wait_seq").is_null()).drop("wait_seq")
    open_waits = begun.filter(pl.col("wake_seq").is_null() & pl.col("token").is_not_null())
    early = (
        strays.join_asof(
            open_waits.select("wait_seq", "token", pl.col("wait_seq").alias("at")),
            on="at", by="token", strategy="forward", check_sortedness=False,
        )
        .filter(pl.col("wait_seq").is_not_null())
        # Of several the nearest to the wait.
        .unique("wait_seq", keep="last", maintain_order=True)
        .drop("at", "token")
        .with_columns(pl.lit(value=True).alias("early"))
    )  # fmt: skip
    return begun.update(early, on="wait_seq", how="left") if early.height else begun


def _with_wakeup(rec: GuestRecording, begun: pl.DataFrame) -> pl.DataFrame:
    """Add the scheduler's own wakeup of a thread that sleeps: sched_waking, else sched_wakeup."""
    rows = rec.kind("waking", "wakeup").select(
        pl.col("a").cast(pl.Int32).alias("guest_tid"),
        pl.col("seq").alias("wakeup_seq"),
        pl.col("ts").alias("wakeup"),
    )
    return _after(begun, rows, "out_seq", "guest_tid", "wakeup_seq")


def _with_signs(rec: GuestRecording, begun: pl.DataFrame) -> pl.DataFrame:
    """Add ran_seq and ran_at: the first sign that the thread ran on, whatever woke it.

    It was switched in, its wait returned, it faulted or waited again, or it left the CPU for another reason.
    What interrupts do in a thread's context is no sign.
    """
    own = rec.hits.filter(
        pl.col("kind").is_in(["wait", "wait_return", "page_fault"])
        | ((pl.col("kind") == "switch") & (pl.col("a") & tp.TASK_STATE_MASK & ~_D != 0))
    ).select(pl.col("tid").alias("guest_tid"), pl.col("seq").alias("sign_seq"), pl.col("ts").alias("sign_at"))
    begun = begun.with_columns(
        pl.coalesce("out_seq", "wait_seq").alias("since"), (pl.col("until") + 1).alias("until")
    )
    begun = _after(begun, own, "since", "guest_tid", "sign_seq")
    return begun.with_columns(
        pl.min_horizontal("in_seq", "sign_seq").alias("ran_seq"),
        pl.min_horizontal("running_at", "sign_at").alias("ran_at"),
    ).drop("since", "until", "sign_seq", "sign_at")
