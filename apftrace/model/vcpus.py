"""One row per vCPU thread: rates, percentiles, how many faults were open at a time, how busy the slot was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.schema import VCPUS

if TYPE_CHECKING:
    from apftrace.model.recording import Recording


def vcpus(
    rec: Recording,
    threads: pl.DataFrame,
    lives: pl.DataFrame,
    accounting: pl.DataFrame,
    spans: pl.DataFrame,
    *,
    clock_is_ns: bool = True,
) -> pl.DataFrame:
    """Return the table ``vcpus``; how many faults a second there were is known only by a clock in ns."""
    span = max(1, rec.last_ns - rec.first_ns)
    per_tid = lives.group_by("tid").agg(
        pl.len().alias("faults"),
        (pl.col("kind") == "pv").sum().alias("pv"),
        (pl.col("kind") == "halt").sum().alias("halt"),
        pl.col("total").quantile(0.5, "nearest").alias("p50"),
        pl.col("total").quantile(0.95, "nearest").alias("p95"),
        pl.col("total").quantile(0.99, "nearest").alias("p99"),
        pl.col("total").max().alias("max"),
    )
    busy = spans.group_by("tid").agg((pl.col("busy").sum() / span).alias("slot_busy"))
    sums = accounting.filter(pl.col("tid").is_not_null()).select("tid", "wake_all", "refused", "repeated")
    entries = pl.col("entries") if rec.has(tp.ENTRY) else pl.lit(None, pl.Int64)
    table = threads.select(
        "tid", "vm", "vcpu", "comm", entries.alias("entries"), pl.lit(rec.machine).alias("machine")
    )
    for part in (per_tid, busy, sums, outstanding(lives)):
        table = table.join(part, on="tid", how="left", maintain_order="left")
    counted = ("faults", "pv", "halt", "outstanding_max")
    table = table.with_columns(*(pl.col(c).fill_null(0) for c in counted), pl.col("slot_busy").fill_null(0.0))
    rate = pl.col("faults") * 1e9 / span if clock_is_ns else pl.lit(None, pl.Float64)
    return VCPUS.conform(table.with_columns(rate.alias("per_s")).sort("machine", "vm", "vcpu", "tid"))


def outstanding(lives: pl.DataFrame) -> pl.DataFrame:
    """Return tid and outstanding_max: the most lives of a vCPU between not_present and its end at one time."""
    most = []
    for part in lives.select("tid", "not_present", "ended").partition_by("tid"):
        begins, ends = part["not_present"].sort(), part["ended"].drop_nulls().sort()
        # At each not_present: how many began by then, less those that ended by then.
        began = pl.int_range(1, len(begins) + 1, dtype=pl.Int64, eager=True)
        over = ends.search_sorted(begins, side="right").cast(pl.Int64)
        most.append((part["tid"][0], (began - over).max()))
    return pl.DataFrame(most, schema={"tid": pl.Int32, "outstanding_max": pl.Int64}, orient="row")
