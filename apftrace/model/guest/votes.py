"""The offset on which most pairs agree: found before anything is known of the clocks.

Each pair of a host's life and a guest's hit allows an interval of offsets. Pairs that do not belong together
(a token used twice, another VM's equal token) scatter; those that do all hold the true offset.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

RIVAL = 0.8
"""A second place with this share of the votes makes the first one no decision."""

_VALLEY = 0.5


@dataclass(frozen=True)
class Election:
    """The winner: its offset, how many pairs hold it, and whether another place is as good."""

    offset: int
    votes: int
    rival: bool


def elect(intervals: pl.DataFrame, slack: int) -> Election | None:
    """Return the offset that most intervals hold; null where there is no interval.

    Args:
        intervals: has ``low`` and ``high``, Int64, not null, low <= high.
        slack: by how much the offset may differ between any two of them.
    """
    if not intervals.height:
        return None
    edges = pl.concat(
        [
            intervals.select((pl.col("low") - slack).alias("edge"), pl.lit(1).alias("step")),
            intervals.select((pl.col("high") + slack).alias("edge"), pl.lit(-1).alias("step")),
        ]
    ).sort("edge", "step", descending=[False, True])
    depth = edges["step"].cum_sum()
    most = int(depth.max())  # type: ignore[arg-type]
    at = int(depth.arg_max() or 0)
    start, stop = int(edges["edge"][at]), int(edges["edge"][min(at + 1, edges.height - 1)])
    hills = pl.select(
        pl.when(depth > RIVAL * most).then(1).when(depth < _VALLEY * most).then(0).alias("hill")
    )["hill"].drop_nulls()
    tops = int(((hills == 1) & (hills.shift(1, fill_value=0) == 0)).sum())
    return Election((start + stop) // 2, most, tops > 1)
