"""The page-ready slot of each vCPU: while a delivered ready is not ACKed, KVM hands nothing more over (R11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model.frames import attach

if TYPE_CHECKING:
    from collections.abc import Iterator


def busy_spans(delivered: pl.DataFrame, last_ns: int) -> pl.DataFrame:
    """Return when slots were taken: tid, start, stop, token, life, busy and ``busy_sum`` (ns busy before start).

    A delivery that was never ACKed keeps the slot until the next delivery, which proves that it was
    free again, or else to the end of the trace. The spans of a thread follow one another in time.
    """
    delivered = delivered.select("tid", "start", "acked", "token", "life")
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
    waits = lives.select("life", "tid", "completed", "ready").drop_nulls()
    parts = [_held(part, own) for part, own in _with_spans(waits, spans)] or [_held(waits, spans)]
    busy, held = (pl.concat(of_all) for of_all in zip(*parts, strict=True))
    return attach(busy, held)


def _held(waits: pl.DataFrame, spans: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return slot_busy of the lives of one thread, given its spans, and who held up those that were held up."""
    waits = waits.with_columns(_busy_between(waits["completed"], waits["ready"], spans).alias("slot_busy"))
    names = {"start": "held_from", "stop": "held_to", "token": "holder", "life": "holder_life"}
    chosen = waits.filter(pl.col("slot_busy") > 0)
    for instant, prefix in (("completed", "h0"), ("ready", "h1")):
        at = _span_before(chosen[instant], spans, exact=False)
        chosen = chosen.hstack(
            spans.select(pl.col(c).gather(at).alias(f"{prefix}_{n}") for c, n in names.items())
        )
    overlap = {p: _overlap(p) for p in ("h0", "h1")}
    first = overlap["h0"] >= overlap["h1"]
    held = chosen.filter(pl.max_horizontal(overlap["h0"], overlap["h1"]) > 0).select(
        "life",
        pl.when(first).then("h0_holder").otherwise("h1_holder").alias("blocker"),
        pl.when(first).then("h0_holder_life").otherwise("h1_holder_life").alias("blocker_life"),
    )
    return waits.select("life", "slot_busy"), held


def _overlap(prefix: str) -> pl.Expr:
    start = pl.max_horizontal("completed", f"{prefix}_held_from")
    stop = pl.min_horizontal("ready", f"{prefix}_held_to")
    return (stop - start).clip(lower_bound=0).fill_null(0)


def with_busy(frame: pl.DataFrame, spans: pl.DataFrame, since: str, until: str, name: str) -> pl.DataFrame:
    """Add ``name``: ns between two instants for which the slot of the row's ``tid`` was taken; rows go by thread."""
    spans = spans.filter(pl.col("tid").is_in(frame["tid"].unique().implode()))
    parts = [
        part.with_columns(_busy_between(part[since], part[until], own).alias(name))
        for part, own in _with_spans(frame, spans)
    ]
    return pl.concat(parts) if parts else frame.with_columns(pl.lit(None, pl.Int64).alias(name))


def _with_spans(frame: pl.DataFrame, spans: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Yield the rows of each thread, in their order, with the spans of its slot."""
    own = {part["tid"][0]: part for part in spans.partition_by("tid", maintain_order=True)}
    for part in frame.partition_by("tid", maintain_order=True):
        yield part, own.get(part["tid"][0], spans.clear())


def _busy_between(since: pl.Series, until: pl.Series, spans: pl.DataFrame) -> pl.Series:
    return (_busy_until(until, spans) - _busy_until(since, spans)).clip(lower_bound=0)


def _busy_until(instants: pl.Series, spans: pl.DataFrame) -> pl.Series:
    """Return per instant for how long a thread's slot had been taken, all in all, up to then."""
    at = _span_before(instants, spans, exact=True)
    held = spans.select(pl.col("start", "busy", "busy_sum").gather(at)).hstack([instants.alias("at")])
    in_span = pl.min_horizontal("busy", pl.col("at") - pl.col("start"))
    return held.select((pl.col("busy_sum") + in_span).fill_null(0)).to_series()


def _span_before(instants: pl.Series, spans: pl.DataFrame, *, exact: bool) -> pl.Series:
    """Return per instant the last span that starts before it, or at it; null when there is none."""
    n = spans["start"].set_sorted().search_sorted(instants, side="right" if exact else "left").cast(pl.Int64)
    return pl.select(pl.when((n > 0) & instants.is_not_null()).then(n - 1)).to_series().cast(pl.UInt32)
