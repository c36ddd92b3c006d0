"""Steal: how long the host kept a vCPU off its CPUs while a guest's thread waited to run on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.frames import attach
from apftrace_parsers.base import PassResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.guest.join import GuestSide
    from apftrace_parsers.base import Source

_SWITCHES = {"ts": pl.Int64, "tid": pl.Int64, "on": pl.Boolean}


def switches(source: Source, tids: Iterable[int]) -> pl.DataFrame:
    """Return when these host threads came on a CPU and left it: ts, tid, on; a second look at the trace."""
    wanted = sorted(set(tids))
    parts = [pl.DataFrame(schema=_SWITCHES)]
    if wanted and source.resolve([tp.PICKS[tp.SWITCH]])[0] is not None:
        for batch in source.stream([tp.PICKS[tp.SWITCH]], PassResult()):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            for column, on in (("a", False), ("c", True)):
                rows = frame.filter((pl.col("pick") == 0) & pl.col(column).is_in(wanted))
                parts.append(rows.select("ts", pl.col(column).alias("tid"), pl.lit(on).alias("on")))
    return pl.concat(parts).sort("ts", maintain_order=True)


def off_until(seen: pl.DataFrame, rows: pl.DataFrame, instant: str, name: str) -> pl.DataFrame:
    """Add ``name``: how long the row's ``host_tid`` had been off CPU, all in all, up to ``instant``."""
    spans = seen.with_columns(
        pl.when(~pl.col("on"))
        .then(pl.col("ts").shift(-1).over("tid") - pl.col("ts"))
        .fill_null(0)
        .alias("off")
    ).with_columns((pl.col("off").cum_sum().over("tid") - pl.col("off")).alias("before"))
    known = rows.select("life", pl.col("host_tid").alias("tid"), pl.col(instant).alias("ts")).drop_nulls()
    found = known.sort("ts").join_asof(
        spans.rename({"ts": "since"}).with_columns(pl.col("since").alias("ts")).sort("ts"),
        on="ts", by="tid", strategy="backward", check_sortedness=False,
    )  # fmt: skip
    off = pl.col("before") + pl.when(~pl.col("on")).then(pl.col("ts") - pl.col("since")).otherwise(0)
    return attach(rows, found.select("life", off.alias(name)))


def with_steal(
    source: Source, lives: pl.DataFrame, sides: tuple[GuestSide, ...], threads: pl.DataFrame
) -> pl.DataFrame:
    """Add ``steal``: the part of P6 during which the vCPU that was to run the thread had no CPU of the host.

    Null where P6 is, or where the host's switches were not recorded.
    """
    vcpu_tid = {(vm, vcpu): tid for vm, vcpu, tid in threads.select("vm", "vcpu", "tid").iter_rows()}
    parts = []
    for side in sides:
        slept = side.waits.filter(
            pl.col("slept") & pl.col("life").is_not_null() & pl.col("running").is_not_null()
        )
        tids = [vcpu_tid.get((side.alignment.vm, cpu)) for cpu in slept["in_cpu"].to_list()]
        parts.append(
            slept.select(
                "life",
                pl.coalesce("wakeup", "wake").alias("runnable"),
                "running",
                pl.Series("host_tid", tids, pl.Int64),
            )
        )
    rows = pl.concat(parts).filter(pl.col("host_tid").is_not_null())
    seen = switches(source, rows["host_tid"].to_list())
    if not seen.height:
        return lives.with_columns(pl.lit(None, pl.Int64).alias("steal"))
    rows = off_until(seen, off_until(seen, rows, "runnable", "off0"), "running", "off1")
    return attach(
        lives, rows.select("life", (pl.col("off1") - pl.col("off0")).clip(lower_bound=0).alias("steal"))
    )
