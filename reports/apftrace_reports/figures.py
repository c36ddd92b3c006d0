"""The charts of the page, in order: which there are, what they are called, how to read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from apftrace_reports import charts, series
from apftrace_reports.series import Series, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import altair as alt

    from apftrace.analysis import Analysis
    from apftrace_reports.data import ReportData

    Draw = Callable[[Series, View], alt.Chart | alt.LayerChart]

_KINDS = {"pv": "PV lives: the guest was told.", "halt": "HALT lives: only the vCPU slept."}


@dataclass(frozen=True)
class Figure:
    """A chart of the page.

    Attributes:
        id: the element that it is drawn into.
        title: what it shows.
        caption: how to read it, and what was left out.
        spec: Vega-Lite, as JSON that is safe inside a script element.
    """

    id: str
    title: str
    caption: str
    spec: str


def figures(analysis: Analysis, data: ReportData) -> Iterator[Figure]:
    """Yield the charts that the analysis has something for."""
    if analysis.faults["not_present"].count() == 0:
        return
    view = view_of(analysis, data)
    for kind, words in _KINDS.items():
        yield from _figure(
            f"distribution-{kind}",
            f"How long each phase takes, {kind.upper()}",
            f"{words} Where a curve crosses 99 %, 99 of 100 lives had that phase behind them.",
            charts.distribution_chart,
            series.distribution(analysis.faults, kind),
            view=view,
        )
    lives, left_out = series.pick(analysis.faults)
    few = lives.height < series.FEWEST
    yield from _figure(
        "scatter",
        "When the slow ones were",
        f"One point per life at its not_present; lives that never ended at their age. {left_out}",
        charts.scatter_chart,
        Series([]) if few else series.scatter(lives, view),
        view=view,
    )
    yield from _figure(
        "timeline",
        "Lives by vCPU and phase",
        f"One box per phase. Lives of a vCPU that overlap lie below each other. {left_out}",
        charts.timeline_chart,
        series.timeline(lives, view),
        view=view,
    )
    yield from _figure(
        "outstanding",
        "Lives open at one time",
        "Height: lives of the vCPU that were open. The kernel allows 64 and refuses more.",
        charts.outstanding_chart,
        Series([]) if few else series.outstanding(analysis.faults, view),
        view=view,
    )


def view_of(analysis: Analysis, data: ReportData) -> View:
    """Return the span of time that every chart shows, and how it names things."""
    lives = analysis.faults.select(
        first=pl.col("not_present").min(), last=pl.max_horizontal("not_present", "end").max()
    )
    first, last = lives.row(0)
    origin = min((one.first_ns for one in analysis.inputs if one.first_ns is not None), default=first)
    return View(min(origin, first), first, last, several=data.several, unit=data.unit)


def embed_json(value: object) -> str:
    """Return JSON that cannot end the script element that holds it; it reads back as the same value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _figure(
    name: str, title: str, caption: str, draw: Draw, points: Series, *, view: View
) -> Iterator[Figure]:
    if points.rows:
        words = f"{caption.strip()} {points.note}".strip()
        yield Figure(name, title, words, embed_json(charts.spec(draw(points, view), points)))
