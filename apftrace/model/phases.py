"""Where the time of each life went: phases P1 to P5, their percentiles, and when one is late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.frames import attach
from apftrace.schema import PHASES

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

LATE_FLOOR_NS = 10_000_000
LATE_MEDIANS = 10


def lasting(late_after: int | None, *, clock_is_ns: bool) -> int:
    """Return how long a phase lasts at least that can be late, see ``thresholds``, in units of the trace clock."""
    return late_after if late_after is not None else LATE_FLOOR_NS if clock_is_ns else 0


def with_unanswered(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Add comp_entries and comp_hlts, the vCPU's counts at ``completed``, to lives without a ready."""
    found = rec.kind(tp.UNANSWERED).select(
        pl.col("a").alias("life"),
        pl.col("ts").alias("counted_at"),
        pl.col("b").cast(pl.Int32).alias("comp_entries"),
        pl.col("hlts").alias("comp_hlts"),
    )
    lives = attach(lives, found)
    # Where two vCPUs wait for one page, the first completed may have been the other's.
    own = pl.col("counted_at") == pl.col("completed")
    return lives.with_columns(pl.when(own).then(c).alias(c) for c in ("comp_entries", "comp_hlts")).drop(
        "counted_at"
    )


def with_phases(lives: pl.DataFrame) -> pl.DataFrame:
    """Add p1 p2 p12 p3 p4 p5 and total, in units of the trace clock; null where an instant is missing.

    P1 begins at not_present, which is where the vCPU stops. completed may be traced after the ready that
    it caused (R4): P3 is then 0, not negative.
    """
    return lives.with_columns(
        (pl.col("started") - pl.col("not_present")).clip(lower_bound=0).alias("p1"),
        (pl.col("completed") - pl.col("started")).alias("p2"),
        (pl.col("completed") - pl.col("not_present")).clip(lower_bound=0).alias("p12"),
        (pl.col("ready") - pl.col("completed")).clip(lower_bound=0).alias("p3"),
        (pl.col("injected") - pl.col("accepted")).alias("p4"),
        (pl.col("acked") - pl.col("injected")).alias("p5"),
        (pl.coalesce("acked", "injected", "accepted", "ready") - pl.col("not_present")).alias("total"),
    )


def thresholds(lives: pl.DataFrame, late_after: int | None, *, clock_is_ns: bool) -> dict[str, int]:
    """Return per phase the duration above which it counts as late.

    Args:
        lives: with phases.
        late_after: the user's own threshold for all phases, or null for the larger of 10 ms and ten
            medians of the phase.
        clock_is_ns: without a clock in ns only the medians count.
    """
    floor = LATE_FLOOR_NS if clock_is_ns else 0
    out = {}
    for phase in PHASES:
        if phase not in lives.columns:
            continue  # P6 and P7 are there with a guest's trace only
        median = lives[phase].median() if lives.height else None
        learned = int(LATE_MEDIANS * median) if isinstance(median, (int, float)) else 0
        out[phase] = late_after if late_after is not None else max(floor, learned)
    return out


def latency_row(phase: str, kind: str, values: pl.Series) -> dict[str, object]:
    """Return one row of the latency table; percentiles are nearest-rank, so each is a measured value."""
    v = values.drop_nulls().sort()
    q = {f"p{p}": v.quantile(p / 100, "nearest") if len(v) else None for p in (50, 95, 99)}
    return {"phase": phase, "kind": kind, "n": len(v), "min": v.min(), **q, "max": v.max()}


def latency(faults: pl.DataFrame) -> pl.DataFrame:
    """Return the latency table: every phase that any life has, all lives, then PV and HALT apart."""
    rows = []
    kinds = {kind: faults["kind"] == kind for kind in ("pv", "halt")}
    for phase in ("total", "e2e", *PHASES):
        values = faults[phase]
        if not values.count():
            continue
        whole = latency_row(phase, "all", values)
        rows.append(whole)
        for kind, own in kinds.items():
            n = values.filter(own).count()
            if n == whole["n"]:
                rows.append({**whole, "kind": kind})
            elif n:
                rows.append(latency_row(phase, kind, values.filter(own)))
    from apftrace.schema import LATENCY

    return LATENCY.conform(pl.DataFrame(rows)) if rows else LATENCY.empty()
