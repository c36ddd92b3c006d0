"""The charts of the page, in order: which there are, what they are called, how to read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from altair.utils.schemapi import debug_mode

from apftrace_reports import charts, gaps, series
from apftrace_reports.series import Series, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import altair as alt

    from apftrace.analysis import Analysis
    from apftrace_reports.data import ReportData

    Draw = Callable[[Series, View, Series], alt.Chart | alt.LayerChart]

_KINDS = {"pv": "PV faults: the guest was told.", "halt": "HALT faults: only the vCPU slept."}
_STRIPS = (
    "A strip below a chart marks when records of that CPU were lost: what happened there then is not in the "
    "picture. CPUs without a strip lost nothing in this time."
)


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


@dataclass(frozen=True)
class Figures:
    """All charts of the page by id, and how to read the strips below those of time."""

    charts: dict[str, Figure]
    strips: str


def figures(analysis: Analysis, data: ReportData) -> Figures:
    """Return the charts that the analysis has something for."""
    if analysis.faults["not_present"].count() == 0:
        return Figures({}, "")
    view = view_of(analysis, data)
    strips = gaps.strips(analysis.losses, view)
    words = _STRIPS if strips.lanes else ""
    drawn = {figure.id: figure for figure in _figures(analysis, view, strips)}
    return Figures(drawn, f"{words} {strips.note}".strip())


def _figures(analysis: Analysis, view: View, strips: Series) -> Iterator[Figure]:
    for kind, words in _KINDS.items():
        yield from _figure(
            f"distribution-{kind}",
            f"How long each phase takes, {kind.upper()}",
            f"{words} Where a curve crosses 99 %, 99 of 100 faults had that phase behind them.",
            charts.distribution_chart,
            series.distribution(analysis.faults, kind),
            Series([]),
            view=view,
        )
    lives, left_out = series.pick(analysis.faults)
    few = lives.height < series.FEWEST
    yield from _figure(
        "scatter",
        "When the slow ones were",
        f"One point per fault at its not_present, as high as {_height(lives)}; one that never ended at its age. "
        f"{left_out}",
        charts.scatter_chart,
        Series([]) if few else series.scatter(lives, view),
        strips,
        view=view,
    )
    yield from _figure(
        "timeline",
        "Faults by vCPU and phase",
        f"One box per phase. Faults of a vCPU that overlap lie below each other. {left_out}",
        charts.timeline_chart,
        series.timeline(lives, view),
        strips,
        view=view,
    )
    steps = Series([]) if few else series.outstanding(analysis.faults, view)
    yield from _figure(
        "outstanding", "Faults open at one time", _outstanding(steps), charts.outstanding_chart, steps, strips,
        view=view,
    )  # fmt: skip


def _height(lives: pl.DataFrame) -> str:
    return "the longer of its total and its e2e" if lives["e2e"].count() else "its total"


def _outstanding(steps: Series) -> str:
    words = "Height: faults of the vCPU that were open. "
    if steps.more.get("busy"):
        words += "Shaded: a delivered page-ready was not ACKed yet, the next one had to wait. "
    if steps.more.get("limit"):
        return f"{words}Dashed: the {series.LIMIT} that the kernel allows."
    return f"{words}The kernel allows {series.LIMIT} and refuses more."


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
    name: str, title: str, caption: str, draw: Draw, points: Series, strips: Series, *, view: View
) -> Iterator[Figure]:
    if points.rows:
        words = f"{caption.strip()} {points.note}".strip()
        with debug_mode(False):  # altair checks every part against the schema again and again
            spec = charts.spec(draw(points, view, strips), points, strips)
        yield Figure(name, title, words, embed_json(spec))
