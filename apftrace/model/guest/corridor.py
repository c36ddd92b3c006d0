"""How far apart two clocks can be: what a set of inequalities leaves of the offset, with bounded drift.

A bound says that at an instant of the guest's clock the offset (host minus guest) was at least ``low`` or
at most ``high``. Clocks drift, so a bound weakens with the distance in time: by ``drift`` per unit. What all
bounds together allow at an instant is an interval, and along the time a corridor; where it closes, bounds
contradict each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

MOST_DROPPED = 200
"""Bounds that are given up one by one before the rest counts as contradictory too."""


@dataclass(frozen=True)
class Corridor:
    """What the bounds leave.

    Attributes:
        points: one row per bound kept, in order of ``at``: low, high, and the corridor there, floor and ceiling.
        dropped: bounds that contradict the others, with ``excess``: by how much.
        low: greatest lower bound of a constant offset; null without one.
        high: least upper bound of a constant offset.
        is_open: the bounds that are left do not contradict each other.
    """

    points: pl.DataFrame
    dropped: pl.DataFrame
    low: int | None
    high: int | None
    is_open: bool


def walls(bounds: pl.DataFrame, drift: float) -> pl.DataFrame:
    """Return ``bounds`` in order of ``at`` with ``floor`` and ``ceiling``, what all of them allow there.

    Args:
        bounds: has ``at``, ``low`` and ``high`` (Int64, null where there is none).
        drift: most by which the offset changes per unit of time.
    """
    rows = bounds.sort("at")
    slope = (pl.col("at") - pl.col("at").min()).cast(pl.Float64) * drift
    low, high = pl.col("low").cast(pl.Float64), pl.col("high").cast(pl.Float64)
    floors = (
        (low + slope).cum_max().forward_fill() - slope,
        (low - slope).cum_max(reverse=True).backward_fill() + slope,
    )
    ceilings = (
        (high - slope).cum_min().forward_fill() + slope,
        (high + slope).cum_min(reverse=True).backward_fill() - slope,
    )
    return rows.with_columns(
        pl.max_horizontal(floors).alias("floor"), pl.min_horizontal(ceilings).alias("ceiling")
    )


def corridor(bounds: pl.DataFrame, drift: float) -> Corridor:
    """Return the corridor of ``bounds``, without those that contradict the many.

    A bound is given up when it stands against more bounds than stand against any on its own side; two that
    stand only against each other are both given up, since nothing tells which is wrong.
    """
    rows = bounds
    dropped: list[pl.DataFrame] = []
    for _ in range(MOST_DROPPED):
        rows = walls(rows, drift)
        # A ns of grace: the walls are floats.
        under = pl.col("low") - pl.col("ceiling") - 1
        over = pl.col("floor") - pl.col("high") - 1
        rows = rows.with_columns(pl.max_horizontal(under, over).alias("excess"))
        n_low = int(rows.select((under > 0).sum()).item())
        n_high = int(rows.select((over > 0).sum()).item())
        if not n_low and not n_high:
            break
        wrong = (under > 0) & pl.lit(n_low <= n_high) | (over > 0) & pl.lit(n_high <= n_low)
        worst = rows.filter(wrong)["excess"].max()
        gone = wrong & (pl.col("excess") == worst)
        dropped.append(rows.filter(gone).drop("floor", "ceiling"))
        rows = rows.filter(~gone).drop("floor", "ceiling", "excess")
    else:
        rows = walls(rows, drift)
    rows = rows.drop("excess", strict=False)
    is_open = not rows.filter(pl.col("low") > pl.col("ceiling") + 1).height
    low, high = rows["low"].max(), rows["high"].min()
    assert low is None or isinstance(low, int)
    assert high is None or isinstance(high, int)
    none = bounds.head(0).with_columns(pl.lit(None, pl.Float64).alias("excess"))
    return Corridor(rows, pl.concat([none, *dropped], how="diagonal"), low, high, is_open)
