"""The page-ready slot of each vCPU: while a delivered ready is not ACKed, KVM hands nothing more over (R11)."""

from __future__ import annotations

import polars as pl

from apftrace.model.frames import attach


def busy_spans(delivered: pl.DataFrame, last_ns: int) -> pl.DataFrame:
    """Return when slots were taken: tid, start, stop, token, life, busy and ``busy_sum`` (ns busy before start).

    A delivery that was never ACKed keeps the slot until the next delivery, which proves that it was
    free again, or else to the end of the trace. The spans of a thread follow one another in time.
    """
    parts = [_of_thread(part, last_ns) for part in delivered.partition_by("tid")]
    return pl.concat(parts) if parts else _of_thread(delivered, last_ns)


def _of_thread(delivered: pl.DataFrame, last_ns: int) -> pl.DataFrame:
    later = pl.col("start").shift(-1)
    stop = pl.coalesce("acked", later, pl.lit(last_ns))
    busy = (pl.min_horizontal(stop, pl.coalesce(later, stop)) - pl.col("start")).clip(lower_bound=0)
    return delivered.sort("start", maintain_order=True).select(
        "tid",
        "start",
        stop.alias("stop"),
        "token",
        "life",
        busy.alias("busy"),
        (busy.cum_sum() - busy).alias("busy_sum"),
        "acked",
    )


def blockers(lives: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """Return what held up each life in P3: life, slot_busy (ns for which the slot was taken), blocker, blocker_life.

    The last two are who held it longest. The candidates are the delivery that held the slot at ``completed`` and
    the last one before ``ready``.
    """
    waits = lives.filter(pl.col("completed").is_not_null() & pl.col("ready").is_not_null())
    waits = with_busy(
        waits.select("life", "tid", "completed", "ready"), spans, "completed", "ready", "slot_busy"
    )
    busy = waits.filter(pl.col("slot_busy") > 0)
    for instant, prefix in (("completed", "h0"), ("ready", "h1")):
        at = _span_before(busy, spans, instant, exact=False)
        names = {"start": "held_from", "stop": "held_to", "token": "holder", "life": "holder_life"}
        busy = busy.hstack(
            spans.select(pl.col(c).gather(at).alias(f"{prefix}_{n}") for c, n in names.items())
        )
    overlap = {p: _overlap(p) for p in ("h0", "h1")}
    first = overlap["h0"] >= overlap["h1"]
    held = busy.filter(pl.max_horizontal(overlap["h0"], overlap["h1"]) > 0).select(
        "life",
        pl.when(first).then("h0_holder").otherwise("h1_holder").alias("blocker"),
        pl.when(first).then("h0_holder_life").otherwise("h1_holder_life").alias("blocker_life"),
    )
    return attach(waits.select("life", "slot_busy"), held)


def _overlap(prefix: str) -> pl.Expr:
    start = pl.max_horizontal("completed", f"{prefix}_held_from")
    stop = pl.min_horizontal("ready", f"{prefix}_held_to")
    return (stop - start).clip(lower_bound=0).fill_null(0)


def with_busy(frame: pl.DataFrame, spans: pl.DataFrame, since: str, until: str, name: str) -> pl.DataFrame:
    """Add ``name``: ns between two instants for which the slot of the row's ``tid`` was taken."""
    until_then = _busy_until(frame, spans, until) - _busy_until(frame, spans, since)
    return frame.with_columns(until_then.clip(lower_bound=0).alias(name))


def _busy_until(frame: pl.DataFrame, spans: pl.DataFrame, instant: str) -> pl.Series:
    """Return per row for how long its thread's slot had been taken, all in all, up to an instant."""
    at = _span_before(frame, spans, instant, exact=True)
    held = spans.select(pl.col("start", "busy", "busy_sum").gather(at)).hstack([frame[instant].alias("at")])
    in_span = pl.min_horizontal("busy", pl.col("at") - pl.col("start"))
    return held.select((pl.col("busy_sum") + in_span).fill_null(0)).to_series()


def _span_before(frame: pl.DataFrame, spans: pl.DataFrame, instant: str, *, exact: bool) -> pl.Series:
    """Return per row the last span of its thread that starts before an instant, or at it; null when there is none."""
    first: dict[int, tuple[int, pl.Series]] = {}
    row = 0
    for part in spans.select("tid", "start").partition_by("tid", maintain_order=True):
        first[part["tid"][0]] = (row, part["start"].set_sorted())
        row += part.height
    found = []
    wanted = frame.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), "tid", pl.col(instant).alias("at")
    )
    for part in wanted.partition_by("tid"):
        offset, starts = first.get(part["tid"][0], (0, None))
        if starts is None:
            continue
        n = starts.search_sorted(part["at"], side="right" if exact else "left").cast(pl.Int64)
        at = pl.select(pl.when((n > 0) & part["at"].is_not_null()).then(n - 1 + offset)).to_series()
        found.append(part.select("row", at.cast(pl.UInt32).alias("span")))
    if not found:
        return pl.Series("span", [None] * frame.height, pl.UInt32)
    spread = pl.concat(found)
    if spread.height == frame.height:
        return spread.sort("row")["span"]
    return wanted.select("row").join(spread, on="row", how="left", maintain_order="left")["span"]
