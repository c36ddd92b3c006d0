"""Lives followed across the border: which wait and which wake of the guest belong to which life of the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model.frames import attach
from apftrace.model.guest.candidates import has_tokens, hits_of

if TYPE_CHECKING:
    from apftrace.model.guest.clock import Alignment
    from apftrace.model.guest.recording import GuestRecording

INSTANTS = ("wait", "slept_at", "running_at", "returned", "wake", "irq", "wakeup", "ran_at")
"""Columns of a guest's waits that are instants."""

_WOKEN = ("wake_seq", "wake", "wake_cpu", "woken_in", "irq_seq", "irq")

BORDER = ("wait", "irq", "wake", "wakeup", "running", "retry", "guest_tid", "guest_cpu")
"""What a life gets from the guest."""


@dataclass(frozen=True)
class GuestSide:
    """A guest beside its host.

    Attributes:
        rec: its hits, in its own clock.
        alignment: which VM it is, and how its clock is the host's.
        waits: one row per wait, see `waits.waits`; instants in the host's clock where there is one; ``life``
            of the host, null where it has none; ``all_seq`` ``woken_all``: a wake-all on its CPU while it
            slept; ``state``: ran, runnable, asleep, or unseen where nothing would show that it ran.
        wakes: one row per wake, with ``life`` and ``wait_seq``.
        ends: one row per gap in the guest's record: start and stop in the same clock.
        first: where the guest's record begins, in the same clock.
        last: where it ends.
    """

    rec: GuestRecording
    alignment: Alignment
    waits: pl.DataFrame
    wakes: pl.DataFrame
    ends: tuple[tuple[int, int], ...]
    first: int
    last: int

    @property
    def is_joined(self) -> bool:
        """Say whether its instants are on the host's clock."""
        return self.alignment.clock is not None

    def at(self, ts: int) -> int:
        """Return an instant of the guest's clock on the host's, or as it is where that cannot be told."""
        return ts if self.alignment.clock is None else self.alignment.clock.one(ts)

    def instants(self, ts: pl.Series) -> pl.Series:
        """Return instants of the guest's clock as `at` does."""
        return ts if self.alignment.clock is None else self.alignment.clock.to_host(ts)

    def is_blind(self, start: int, stop: int) -> bool:
        """Say whether records of any CPU of the guest may be missing in a span."""
        return any(begin <= stop and end >= start for begin, end in self.ends)

    def covers(self, start: int, stop: int) -> bool:
        """Say whether the guest was recorded all the while."""
        return self.first <= start and stop <= self.last and not self.is_blind(start, stop)

    def sees_running(self) -> bool:
        """Say whether a thread that runs again after its wait is bound to be seen."""
        return self.rec.has("switch") or self.rec.has("wait_return")


_EARLIEST, _LATEST = -(2**62), 2**62


def guest_side(
    rec: GuestRecording, alignment: Alignment, waits: pl.DataFrame, wakes: pl.DataFrame, lives: pl.DataFrame
) -> GuestSide:
    """Put a guest beside its host.

    Args:
        rec: the guest.
        alignment: its VM and clock.
        waits: from `waits.waits`.
        wakes: from `waits.wakes`.
        lives: from ``host_lives`` of its VM; empty where there is none.
    """
    clock = alignment.clock
    if clock is not None:
        waits = waits.with_columns(clock.to_host(waits[c]) for c in INSTANTS)
        wakes = wakes.with_columns(clock.to_host(wakes[c]) for c in ("wake", "irq"))
    tokens = has_tokens(hits_of(rec))
    if clock is not None and lives.height:
        waits = _with_life(waits, lives, "wait", "wait_seq", "guest_cpu", "told", tokens=tokens)
        wakes = _with_life(wakes, lives, "wake", "wake_seq", "wake_cpu", "taken", tokens=tokens)
    else:
        waits = waits.with_columns(pl.lit(None, pl.Int64).alias("life"))
        wakes = wakes.with_columns(pl.lit(None, pl.Int64).alias("life"))
    if not tokens:
        waits = _woken_by_life(waits, wakes)
    owner = waits.filter(pl.col("wake_seq").is_not_null()).select("wake_seq", "wait_seq")
    wakes = wakes.join(owner, on="wake_seq", how="left", maintain_order="left")
    waits = _with_state(_with_all(rec, waits, alignment), rec)

    def at(ts: int | None, otherwise: int) -> int:
        return otherwise if ts is None else ts if clock is None else clock.one(ts)

    gaps = [*rec.losses, *rec.uncovered]
    return GuestSide(
        rec=rec,
        alignment=alignment,
        waits=waits,
        wakes=wakes,
        ends=tuple((at(g.after_ns, _EARLIEST), at(g.before_ns, _LATEST)) for g in gaps),
        first=at(rec.first_ns, 0),
        last=at(rec.last_ns, 0),
    )


def _with_life(
    rows: pl.DataFrame, lives: pl.DataFrame, instant: str, seq: str, cpu: str, since: str, *, tokens: bool
) -> pl.DataFrame:
    """Add ``life``: the latest one of the token (or of the vCPU) that had begun, each life once.

    A hit that comes before its life, or too late for it, still belongs to it where its token occurs once on
    both sides: the token then says more than the clock.
    """
    if tokens:
        told = lives.filter(pl.col("life").is_not_null()).select(
            "life", "token", pl.col("not_present").alias("from")
        )
        shown = rows.filter(pl.col("token").is_not_null()).select(seq, "token", pl.col(instant).alias("from"))
        key = "token"
    else:
        told = lives.filter((pl.col("kind") != "halt") & pl.col(since).is_not_null()).select(
            "life", "vcpu", pl.col(since).alias("from")
        )
        shown = rows.select(seq, pl.col(cpu).alias("vcpu"), pl.col(instant).alias("from"))
        key = "vcpu"
    found = (
        shown.sort("from", seq)
        .join_asof(told.sort("from"), on="from", by=key, strategy="backward", check_sortedness=False)
        .filter(pl.col("life").is_not_null() & pl.col("life").is_first_distinct())
        .select(seq, "life")
    )
    if tokens:
        left = shown.join(found, on=seq, how="anti").filter(pl.len().over("token") == 1)
        once = told.join(found, on="life", how="anti").filter(pl.len().over("token") == 1)
        late = left.join(once.select("token", "life"), on="token", how="inner").select(seq, "life")
        found = pl.concat([found, late])
    return rows.join(found, on=seq, how="left", maintain_order="left")


def _woken_by_life(waits: pl.DataFrame, wakes: pl.DataFrame) -> pl.DataFrame:
    """Give each wait the wake of its life: without tokens only the host's order tells whose it is."""
    known = wakes.filter(pl.col("life").is_not_null()).select("life", *_WOKEN)
    found = waits.select("wait_seq", "life").join(
        known.unique("life", keep="first", maintain_order=True), on="life", how="left", maintain_order="left"
    )
    waits = waits.drop(*_WOKEN).with_columns(found[c] for c in _WOKEN)
    return waits.with_columns((pl.col("wake_seq") < pl.col("wait_seq")).fill_null(value=False).alias("early"))


def _with_all(rec: GuestRecording, waits: pl.DataFrame, alignment: Alignment) -> pl.DataFrame:
    """Add ``all_seq`` and ``woken_all``: the first wake-all on the wait's CPU before the thread ran again."""
    alls = rec.kind("wake_all").select(
        pl.col("seq").alias("all_seq"), pl.col("ts").alias("woken_all"), pl.col("cpu").alias("guest_cpu")
    )
    if alignment.clock is not None:
        alls = alls.with_columns(alignment.clock.to_host(alls["woken_all"]))
    found = waits.select(
        "wait_seq", "guest_cpu", "ran_seq", pl.col("wait_seq").alias("all_seq_at")
    ).join_asof(
        alls.with_columns(pl.col("all_seq").alias("all_seq_at")),
        on="all_seq_at",
        by="guest_cpu",
        strategy="forward",
        check_sortedness=False,
    )
    before = (pl.col("all_seq") < pl.col("ran_seq").fill_null(_LATEST)).fill_null(value=False)
    found = found.select(pl.when(before).then(c).alias(c) for c in ("all_seq", "woken_all"))
    return waits.hstack(found)


def _with_state(waits: pl.DataFrame, rec: GuestRecording) -> pl.DataFrame:
    """Add ``slept``, ``state``, ``running`` and ``retry``.

    A thread that was woken before it could sleep just goes on: it runs from the wake. Without sched_switch that
    is only known where the wake came in its own context, or before the wait.
    """
    seen = rec.has("switch") or rec.has("wait_return")
    nested = (pl.col("woken_in") == pl.col("guest_tid")).fill_null(value=False)
    slept = pl.col("out_seq").is_not_null() & (
        pl.col("wake_seq").is_null() | (pl.col("out_seq") < pl.col("wake_seq"))
    )
    told = pl.col("wake_seq").is_not_null() & pl.lit(rec.has("switch"))
    awake = nested | ((told | pl.col("early")) & ~slept)
    return waits.with_columns(slept.alias("slept")).with_columns(
        pl.when(pl.col("ran_seq").is_not_null() | (awake & ~pl.col("slept")))
        .then(pl.lit("ran"))
        .when(pl.col("wakeup_seq").is_not_null())
        .then(pl.lit("runnable"))
        .otherwise(pl.lit("asleep" if seen else "unseen"))
        .alias("state"),
        pl.when(pl.col("slept"))
        .then("running_at")
        .when(awake)
        .then(pl.max_horizontal("wake", "wait"))
        .alias("running"),
        pl.col("returned").alias("retry"),
    )


def with_border(lives: pl.DataFrame, sides: tuple[GuestSide, ...]) -> pl.DataFrame:
    """Add to the host's lives what their guests show: guest, the instants of ``BORDER`` and phases P6 and P7.

    P6 begins where the guest's scheduler makes the thread runnable, else at the wake, and ends where it runs;
    P7 lasts from there until the wait returns.
    """
    parts = []
    for side in sides:
        own = side.waits.filter(pl.col("life").is_not_null()).select(
            "life",
            pl.lit(side.rec.machine).alias("guest"),
            *BORDER,
            pl.col("slept"),
            pl.col("state").alias("guest_state"),
        )
        woken = side.wakes.filter(pl.col("life").is_not_null() & pl.col("wait_seq").is_null()).select(
            "life",
            pl.lit(side.rec.machine).alias("guest"),
            "irq",
            "wake",
            pl.col("wake_cpu").alias("guest_cpu"),
        )
        parts.append(pl.concat([own, woken.join(own, on="life", how="anti")], how="diagonal"))
    lives = attach(lives, pl.concat(parts))
    runnable = pl.coalesce("wakeup", "wake")
    return lives.with_columns(
        pl.when(pl.col("slept")).then((pl.col("running") - runnable).clip(lower_bound=0)).alias("p6"),
        (pl.col("retry") - pl.col("running")).clip(lower_bound=0).alias("p7"),
        (pl.coalesce("retry", "running") - pl.col("not_present")).alias("e2e"),
    )
