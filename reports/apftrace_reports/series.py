"""What the charts draw, reduced in polars so that a page stays small however long the trace is.

Instants become seconds since the first event of the trace, durations stay in the trace's unit. Where
lives are left out, the slowest of every slice of time and all that were not answered are kept, and the
result says how many there were.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from apftrace_reports.data import phase_label, place
from apftrace_reports.units import hexadecimal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_LIVES = 1_500
"""Lives that a chart draws one by one, roughly."""

MOST_LANES = 32
"""vCPU threads that a chart has room for."""

FEWEST = 5
"""Lives below which only the timeline says more than the tables."""

LIMIT = 64
"""Lives of a vCPU that the kernel lets be open at one time (ASYNC_PF_PER_VCPU)."""

_SLICES = 300
_POINTS = 120
_STEPS = 400
_BULK = 0.02
_GAP = 1.5  # lines above a lane, for its name
_LANE = ("machine", "vm", "vcpu", "tid")
_SEGMENTS = ("p1", "p2", "p12", "p3", "p4", "p5")
_BEYOND = ("p6", "p7")
"""Phases in the guest: P6 overlaps the end of P5, because the guest wakes its task before it ACKs."""

Row = dict[str, Any]


@dataclass(frozen=True)
class View:
    """The span of time that all charts share, and how they name things.

    Attributes:
        origin: first event of the trace, zero of the axis.
        first: where the picture begins: the first life.
        last: where it ends: the last instant of a life.
        several: a vCPU number needs the VM in front.
        unit: ``ns`` or ``ticks``.
    """

    origin: int
    first: int
    last: int
    several: bool
    unit: str

    def at(self, ts: int) -> float:
        """Return an instant as seconds since the origin; ticks stay ticks."""
        return round((ts - self.origin) / 1e9, 7) if self.unit == "ns" else ts - self.origin

    def many(self, ts: pl.Series) -> pl.Series:
        """Return what :meth:`at` does for each instant of a column."""
        since = ts - self.origin
        return (since / 1e9).round(7) if self.unit == "ns" else since

    def ends(self) -> tuple[int, int]:
        """Return the instants at the ends of the time axis, a little beyond the lives."""
        margin = max(1, (self.last - self.first) // 50)
        return self.first - margin, self.last + margin

    def span(self) -> list[float]:
        """Return the ends of the time axis as it counts."""
        return [self.at(end) for end in self.ends()]


@dataclass(frozen=True)
class Lane:
    """A strip of a chart for one vCPU: its name, where it begins, counted from the top, and its height."""

    name: str
    top: float
    height: float


@dataclass(frozen=True)
class Series:
    """Rows for one chart, one per mark; ``note`` says what was left out, ``more`` holds further rows by name."""

    rows: list[Row]
    note: str = ""
    lanes: tuple[Lane, ...] = ()
    more: dict[str, list[Row]] = field(default_factory=dict)


def distribution(faults: pl.DataFrame, kind: str) -> Series:
    """Return points of the cumulative distribution of every phase of one kind of life."""
    lives = faults.filter(pl.col("kind") == kind)
    split = lives["p1"].count() or lives["p2"].count()
    rows: list[Row] = []
    for phase in ("e2e", "total", *_SEGMENTS, *_BEYOND):
        values = lives[phase].drop_nulls().sort()
        if len(values) < FEWEST or (phase == "p12" and split):
            continue
        at = _ranks(len(values))
        rows += [
            {"phase": phase_label(phase), "ns": max(1, ns), "share": round((rank + 1) / len(values), 6)}
            for rank, ns in zip(at, values.gather(at), strict=True)
        ]
    # A handful of near-zero durations would squeeze every curve into the right half of a log axis.
    floor = min((row["ns"] for row in rows if row["share"] > _BULK), default=1)
    return Series([row for row in rows if row["ns"] >= floor])


def _ranks(number: int) -> list[int]:
    # Evenly through the bulk, then every decade of the tail: a percentile that matters is a point.
    if number <= _POINTS:
        return list(range(number))
    shares = [step / _POINTS for step in range(_POINTS)]
    shares += [1 - 10**-nines * part for nines in range(2, 7) for part in (1, 0.5, 0.2)]
    return sorted({min(number - 1, int(share * number)) for share in shares} | {number - 1})


def pick(faults: pl.DataFrame, most: int = MOST_LIVES) -> tuple[pl.DataFrame, str]:
    """Return about ``most`` lives that show where a trace went wrong, and a sentence on what was left out."""
    timed = faults.filter(pl.col("not_present").is_not_null()).sort("not_present", "token")
    if timed.height <= most:
        return timed, ""
    answered = pl.col("outcome") == "answered"
    odd = timed.filter(~answered).head(most // 2)
    per_slice = max(1, (most - odd.height) // _SLICES)
    slow = timed.filter(answered).filter(
        pl.max_horizontal("total", "e2e").rank("ordinal", descending=True).over(_slice(timed)) <= per_slice
    )
    picked = pl.concat([odd, slow]).sort("not_present", "token")
    return picked, (
        f"{picked.height:,} of {timed.height:,} faults are drawn: those that were not answered, "
        f"and the {per_slice} slowest of each of {_SLICES} slices of time."
    )


def _slice(timed: pl.DataFrame) -> pl.Expr:
    first, last = timed["not_present"][0], timed["not_present"][-1]
    number: pl.Expr = (pl.col("not_present") - first) // ((last - first) // _SLICES + 1)
    return number


def scatter(lives: pl.DataFrame, view: View) -> Series:
    """Return one point per life: when it began, how long it took or has been open."""
    return Series(
        [
            {
                "at": view.at(row["not_present"]),
                "ns": max(1, _age(row)),
                "outcome": (row["outcome"] or "undecided").replace("_", " "),
                "token": hexadecimal(row["token"]),
                "where": place(row, several=view.several),
            }
            for row in lives.iter_rows(named=True)
        ]
    )


def _age(row: Row) -> int:
    if row["total"] is not None:
        return int(max(row["total"], row["e2e"] or 0))
    return 0 if row["end"] is None else int(row["end"] - row["not_present"])


def timeline(lives: pl.DataFrame, view: View) -> Series:
    """Return the phases of each life as boxes in the lane of its vCPU, overlapping lives below each other."""
    rows: list[Row] = []
    lanes: list[Lane] = []
    top = _GAP
    shown, note = _busiest(lives)
    for key, mine in shown:
        boxes, height = _boxes(mine.sort("not_present", "token").to_dicts(), top, view)
        lanes.append(Lane(_name(key, view), top, height))
        rows += boxes
        top += height + _GAP
    # A life narrower than a pixel shows the phase that took longest, because that one is painted last.
    return Series(sorted(rows, key=lambda row: float(row["to"] - row["from"])), note, tuple(lanes))


def outstanding(faults: pl.DataFrame, view: View) -> Series:
    """Return how many lives were open on each of the busiest vCPUs, as steps.

    ``more`` holds when a slot was ``busy``, and where the ``limit`` of the kernel lies if a vCPU reached it.
    """
    rows: list[Row] = []
    busy: list[Row] = []
    limit: list[Row] = []
    lanes: list[Lane] = []
    shown, note = _busiest(faults.drop_nulls(("not_present", "end")))
    steps = [(key, mine, _steps(mine)) for key, mine in shown]
    height = max((_peak(step) for _, _, step in steps), default=1)
    for at, (key, mine, step) in enumerate(steps):
        top = height * (at * 1.6 + 0.6)
        base = top + height
        name = _name(key, view)
        lanes.append(Lane(f"{name}, at most {_peak(step)}", top, height))
        times = view.many(step["ts"])
        rows += [
            {"at": ts, "open": number, "where": name, "y": base - number, "base": base}
            for ts, number in zip(times, step["open"], strict=True)
        ]
        busy += [
            {"from": start, "to": stop, "share": share, "y": top, "base": base}
            for start, stop, share in slot_busy(mine, view)
        ]
        if height >= LIMIT:
            limit.append({"y": base - LIMIT})
    return Series(rows, note, tuple(lanes), {"busy": busy, "limit": limit})


def slot_busy(lives: pl.DataFrame, view: View) -> list[tuple[float, float, float]]:
    """Return when, on the axis, the page-ready slot of one vCPU was taken: start, stop, which share of that.

    It is taken from the delivery of a ready until its ACK; without an ACK until the next delivery, which
    proves that it was free again, or else to the end. Many spans become shares of slices of time.
    """
    spans = (
        lives.filter(pl.any_horizontal(pl.col("accepted", "injected", "acked").is_not_null()))
        .select(pl.coalesce("accepted", "ready", "injected").alias("start"), "acked")
        .drop_nulls("start")
        .sort("start", "acked")
        .with_columns(pl.col("start").shift(-1, fill_value=view.last).alias("next"))
        .select("start", pl.min_horizontal("acked", "next").alias("stop"))
        .filter(pl.col("stop") > pl.col("start"))
    )
    if spans.height <= _SLICES:
        return [
            (*ends, 1.0) for ends in zip(view.many(spans["start"]), view.many(spans["stop"]), strict=True)
        ]
    low, high = view.ends()
    width = (high - low) // _SLICES + 1
    edges = pl.Series([low + width * step for step in range(_SLICES + 1)])
    # The spans are disjoint and in order, so the busy time before an edge is that of the spans before it.
    before = (spans["stop"] - spans["start"]).cum_sum()
    at = spans["start"].search_sorted(edges, side="right").cast(pl.Int64) - 1
    last = at.clip(lower_bound=0)
    busy = before.gather(last) - (spans["stop"].gather(last) - edges).clip(lower_bound=0)
    shares = busy.clip(lower_bound=0).diff().drop_nulls() / width
    times = view.many(edges)
    slices = zip(times, times[1:], shares.round(4), strict=False)
    return [(start, stop, share) for start, stop, share in slices if share > 0]


def _peak(step: pl.DataFrame) -> int:
    return max(step["open"].to_list(), default=0)


def _busiest(lives: pl.DataFrame) -> tuple[list[tuple[Row, pl.DataFrame]], str]:
    parts = [
        (dict(zip(_LANE, key, strict=True)), part) for key, part in lives.group_by(_LANE, maintain_order=True)
    ]
    kept = sorted(parts, key=lambda part: (-part[1].height, _lane_order(part[0])))[:MOST_LANES]
    note = f"The {len(kept)} busiest of {len(parts)} vCPUs are drawn." if len(parts) > len(kept) else ""
    return sorted(kept, key=lambda part: _lane_order(part[0])), note


def _lane_order(lane: Row) -> tuple[str, str, int, int]:
    vcpu = -1 if lane["vcpu"] is None else lane["vcpu"]
    return lane["machine"] or "", lane["vm"] or "", vcpu, lane["tid"] or -1


def _name(lane: Row, view: View) -> str:
    return place(lane, several=view.several) or f"thread {lane['tid']}"


def _boxes(lives: Sequence[Row], top: float, view: View) -> tuple[list[Row], int]:
    free: list[int] = []  # per line of the lane the instant from which it is free
    boxes: list[Row] = []
    for row in lives:
        segments = list(_segments(row))
        start = row["not_present"]
        line = next((at for at, until in enumerate(free) if until <= start), len(free))
        free[line : line + 1] = [segments[-1][2] if segments else start]
        token = hexadecimal(row["token"])
        boxes += [
            {"phase": phase, "from": view.at(begin), "to": view.at(end), "y": top + line, "token": token}
            for phase, begin, end in segments
        ]
    return boxes, max(1, len(free))


def _segments(row: Row) -> Iterator[tuple[str, int, int]]:
    now = row["not_present"]
    split = row["p1"] is not None or row["p2"] is not None
    for phase in _SEGMENTS:
        length = row[phase]
        if length is not None and not (phase == "p12" and split):
            yield phase_label(phase), now, now + length
            now += length
    if row["running"] is not None:
        for phase, until in zip(_BEYOND, (row["running"], row["retry"]), strict=True):
            if until is not None and until > now:
                yield phase_label(phase), now, until
                now = until
    if row["total"] is None and row["end"] is not None and row["end"] > now:
        yield "lost" if row["outcome"] == "lost" else "open", now, row["end"]


def _steps(lives: pl.DataFrame) -> pl.DataFrame:
    changes = pl.concat(
        [
            lives.select(ts=pl.col("not_present"), step=pl.lit(1)),
            lives.select(ts=pl.col("end"), step=pl.lit(-1)),
        ]
    )
    steps = (
        changes.group_by("ts")
        .agg(pl.col("step").sum())
        .sort("ts")
        .select("ts", open=pl.col("step").cum_sum().cast(pl.Int64))
    )
    if steps.height <= _STEPS:
        return steps
    width = (steps["ts"][-1] - steps["ts"][0]) // _STEPS + 1
    slices = steps.group_by(slice=pl.col("ts") // width, maintain_order=True)
    return slices.agg(pl.col("ts").min(), pl.col("open").max()).select("ts", "open")
