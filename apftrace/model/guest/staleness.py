"""How long a guest's thread must have been due to run before it counts as stuck."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from apftrace.model.outcome import MIN_AGE_NS

FEWEST = 3
"""Waits that ended, below which the guest does not tell what is usual."""


@dataclass(frozen=True)
class Usual:
    """What a guest's waits take.

    Attributes:
        age: how long a thread must have been due to count as stuck.
        n: waits that ended, on which this rests; 0 when they are too few to tell.
    """

    age: int
    n: int


def guest_staleness(waits: pl.DataFrame, start: str, *, in_ns: bool) -> Usual:
    """Learn from the waits that ended: the larger of twice P99, ten medians and 10 ms.

    Args:
        waits: with ``running_at``, ``ran_at`` and ``start``.
        start: column from which a wait's time counts.
        in_ns: whether the clock counts ns.
    """
    took = waits.select(pl.coalesce("running_at", "ran_at") - pl.col(start)).to_series()
    took = took.filter(took >= 0).drop_nulls()
    floor = MIN_AGE_NS if in_ns else 0
    if len(took) < FEWEST:
        return Usual(floor, 0)
    median = took.median()
    assert isinstance(median, (int, float))
    return Usual(max(int(2 * (took.quantile(0.99, "nearest") or 0)), int(10 * median), floor), len(took))
