"""What late wakeups were due to, all of them together: how often, how bad."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from apftrace.model.rules.causes import kind_of
from apftrace.schema import PHASES
from apftrace_reports.escape import visible

LATE = "late-wakeup"
"""The rule whose findings bear the phase that was late and its cause."""

FEWEST = 2
"""Findings below which a table says no more than they do."""

UNTOLD = "not told"


@dataclass(frozen=True)
class CauseRow:
    """Late wakeups of one phase with one kind of cause; ``worst`` and ``median`` are of that phase."""

    cause: str
    phase: str
    count: int
    worst: int | None
    median: int | None


def cause_rows(findings: pl.DataFrame, faults: pl.DataFrame) -> tuple[CauseRow, ...]:
    """Return one row per phase and kind of cause of the late wakeups, the most frequent first.

    Args:
        findings: table ``findings``.
        faults: table ``faults``, which tells how long the phase of each took.
    """
    late = (
        findings.lazy()
        .filter(pl.col("rule") == LATE)
        .select("tid", "token", "ts", "phase", "cause")
        .collect()
    )
    if late.height < FEWEST:
        return ()
    kinds = {cause: visible(kind_of(cause)) for cause in late["cause"].drop_nulls().unique()}
    took = pl.coalesce(pl.when(pl.col("phase") == phase).then(phase) for phase in PHASES)
    lives = faults.select("tid", "token", pl.col("not_present").alias("ts"), *PHASES)
    lives = lives.filter(pl.col("ts").is_in(late["ts"].unique().implode())).unique(("tid", "token", "ts"))
    rows = (
        late.join(lives, on=("tid", "token", "ts"), how="left")
        .with_columns(
            pl.col("cause").replace_strict(kinds, default=None, return_dtype=pl.String).fill_null(UNTOLD),
            pl.col("phase").fill_null(""),
            took.alias("took"),
        )
        .group_by("cause", "phase")
        .agg(
            pl.len().alias("count"),
            pl.col("took").max().alias("worst"),
            pl.col("took").median().cast(pl.Int64).alias("median"),
        )
        .sort("count", "worst", "cause", "phase", descending=[True, True, False, False], nulls_last=True)
    )
    return tuple(CauseRow(**row) for row in rows.iter_rows(named=True))
