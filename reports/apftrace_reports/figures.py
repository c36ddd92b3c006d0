"""The charts of the page, in order: which there are, what they are called, how to read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace_reports import charts, series
from apftrace_reports.series import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import altair as alt

    from apftrace.analysis import Analysis
    from apftrace_reports.data import ReportData
    from apftrace_reports.series import Series

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
    view = view_of(analysis, data)
    for kind, words in _KINDS.items():
        yield from _figure(
            f"distribution-{kind}",
            f"How long each phase takes, {kind.upper()}",
            f"{words} Where a curve crosses 99 %, 99 of 100 lives had that phase behind them.",
            charts.distribution_chart,
            series.distribution(analysis.faults, kind),
            view,
        )
    lives, left_out = series.pick(analysis.faults)
    yield from _figure(
        "scatter",
        "When the slow ones were",
        f"One point per life at its not_present; lives that never ended at their age. {left_out}",
        charts.scatter_chart,
        series.scatter(lives, view),
        view,
    )
    yield from _figure(
        "timeline",
        "Lives by vCPU and phase",
        f"One box per phase. Lives of a vCPU that overlap lie below each other. {left_out}",
        charts.timeline_chart,
        series.timeline(lives, view),
        view,
    )
    yield from _figure(
        "outstanding",
        "Lives open at one time",
        "Height: lives of the vCPU that were open. The kernel allows 64 and refuses more.",
        charts.outstanding_chart,
        series.outstanding(analysis.faults, view),
        view,
    )


def view_of(analysis: Analysis, data: ReportData) -> View:
    """Return the span of time that every chart shows, and how it names things."""
    edges = [edge for one in analysis.inputs for edge in (one.first_ns, one.last_ns) if edge is not None]
    for column in ("not_present", "end"):
        values = analysis.faults[column].drop_nulls()
        edges += [int(edge) for edge in (values.min(), values.max()) if isinstance(edge, int)]
    return View(
        origin=min(edges, default=0), last=max(edges, default=0), several=data.several, unit=data.unit
    )


def embed_json(value: object) -> str:
    """Return JSON that cannot end the script element that holds it; it reads back as the same value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _figure(name: str, title: str, caption: str, draw: Draw, points: Series, view: View) -> Iterator[Figure]:
    if points.rows:
        words = f"{caption.strip()} {points.note}".strip()
        yield Figure(name, title, words, embed_json(charts.spec(draw(points, view), points)))
