"""What the thread concerned did in a phase of each life: the sums that the fold kept of phases that last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.frames import look_up
from apftrace.model.readings import READINGS, SHARES

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

_ENDS = {
    "p1": "completed_seq", "p2": "completed_seq", "p12": "completed_seq",
    "p3": "ready_seq", "p4": "inj_seq", "p5": "ack_seq",
}  # fmt: skip
"""The anchor that ends each phase; of P1 and P2 the worker is asked for both at once."""

WORKER_PHASES = ("p1", "p2", "p12")
"""The phases that a worker spends; the others are the vCPU thread's."""

SLOT_PHASES = ("p4", "p5")
"""The phases in which a life keeps the page-ready slot from others."""

_BEGINS = {"p3": "completed", "p4": "accepted", "p5": "injected"}
"""The instant at which what the vCPU thread did in a phase begins to count."""

_OFF = 10
"""What a thread did is told of a phase when it was counted from an instant that is off by no more than a tenth."""


def with_spent(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Add to lives what the thread concerned did in the column ``phase`` of each.

    Adds ``spent_from``, ``spent_ran`` and so on for the other ``READINGS[SPENT]``; null where the phase did not
    last, see ``phases.lasting``, or where another life's phase was counted. ``did`` is what it did for most of the
    time, one of SHARES, and ``did_ns`` for how long.
    """
    ends, begins, lasted = (
        pl.coalesce(pl.when(pl.col("phase") == phase).then(column) for phase, column in table.items())
        for table in (_ENDS, _BEGINS, {phase: phase for phase in _BEGINS})
    )
    found = look_up(
        lives.with_columns((ends - 1).alias("seq")),
        rec.kind(tp.SPENT),
        "seq",
        spent_from=pl.col("a"),
        **{f"spent_{c}": pl.col(c) for c in READINGS[tp.SPENT]},
    )
    other = (_OFF * (pl.col("spent_from") - begins).abs() > lasted).fill_null(value=False)
    return _with_most(found.with_columns(pl.when(~other).then(pl.col("^spent_.*$"))).drop("seq"))


def _with_most(lives: pl.DataFrame) -> pl.DataFrame:
    # The worker's sums reach back to its previous life: no more than the phase itself can count, and no sleep.
    worker = pl.col("phase").is_in(WORKER_PHASES)
    ns = {
        share: pl.when(worker)
        .then(_at_most(f"spent_{share}", "p12") if share != "slept" else None)
        .otherwise(f"spent_{share}")
        for share in SHARES
    }
    lives = lives.with_columns(pl.max_horizontal(ns.values()).alias("did_ns"))
    most = {share: (took == pl.col("did_ns")) & (took > 0) for share, took in ns.items()}
    return lives.with_columns(
        pl.coalesce(pl.when(hit).then(pl.lit(share)) for share, hit in most.items()).alias("did")
    )


def _at_most(column: str, most: str) -> pl.Expr:
    return pl.when(pl.col(column).is_not_null()).then(pl.min_horizontal(column, most))


def longer_half(lives: pl.DataFrame) -> pl.DataFrame:
    """Add ``phase``, p4 or p5, whichever kept the slot longer; p4 where neither is known."""
    p4_is = pl.col("p4").fill_null(0) >= pl.col("p5").fill_null(0)
    return lives.with_columns(pl.when(p4_is).then(pl.lit("p4")).otherwise(pl.lit("p5")).alias("phase"))
