"""Where a record of a vCPU is missing though nothing marks it: what its deliveries show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp

if TYPE_CHECKING:
    from apftrace.model.recording import Recording


def holes(rec: Recording, delivered: pl.DataFrame, tids: pl.Series) -> dict[int, list[tuple[int, int]]]:
    """Return per thread the spans in ns, from one delivery to the next, in each of which a record is missing.

    It is the ready before an ACK or an accept, where only those were traced, or the ACK of a delivery that another
    one follows: KVM hands over none before (R11).

    Args:
        rec: the recording.
        delivered: the readies that filled the slot, traced or implied, with their ACKs.
        tids: the threads asked about.
    """
    asked = rec.has(tp.MSR) and delivered["acked"].count() > 0
    # A ready that nothing followed may be one too many: a second one of its life was never due.
    took = pl.any_horizontal(pl.col("accepted", "injected", "acked").is_not_null())
    after = (
        delivered.filter(took & pl.col("tid").is_in(tids.implode()))
        .sort("tid", "seq")
        .with_columns(
            pl.col("start").shift(1).over("tid").alias("before"),
            pl.col("acked").shift(1).over("tid").alias("acked_before"),
        )
    )
    unacked = pl.col("acked_before").is_null() & pl.col("before").is_not_null() & pl.lit(asked)
    found = after.filter(pl.col("implied").is_not_null() | unacked).select(
        "tid", pl.coalesce("before", pl.lit(rec.first_ns)), "start"
    )
    spans: dict[int, list[tuple[int, int]]] = {}
    for tid, start, stop in found.iter_rows():
        spans.setdefault(tid, []).append((start, stop))
    return spans
