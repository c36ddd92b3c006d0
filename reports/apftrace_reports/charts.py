"""The charts of the page, one function per chart: a series in, ``alt.Chart`` out.

Colours are CSS variables of the page (``var(--p2)``), which the SVG renderer passes through: a chart
follows light, dark and print without a second copy. Every expression below is a constant; what came
from a trace is only ever data.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import altair as alt

if TYPE_CHECKING:
    from apftrace_reports.series import Series, View

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

PHASE_COLORS = {
    "total": "var(--total)",
    "P1": "var(--p1)",
    "P2": "var(--p2)",
    "P1+P2": "var(--p2)",
    "P3": "var(--p3)",
    "P4": "var(--p4)",
    "P5": "var(--p5)",
    "open": "var(--open)",
    "lost": "var(--lost)",
}
OUTCOME_COLORS = {
    "answered": "var(--answered)",
    "in flight": "var(--open)",
    "undecided": "var(--p3)",
    "cancelled": "var(--p1)",
    "woken by all": "var(--p5)",
    "lost": "var(--lost)",
}

_LINE = 11  # pixels of one line of the timeline
_STEP_LANE = 42  # pixels of one lane of the step plot, with its name

_DENSE = 100  # points of a curve from which steps would be those of the drawing, not of the data
_SINCE = "time since the first event"
_HUMAN = (
    "{v} >= 1e9 ? format({v} / 1e9, '{f}') + ' s' : {v} >= 1e6 ? format({v} / 1e6, '{f}') + ' ms' : "
    "{v} >= 1e3 ? format({v} / 1e3, '{f}') + ' µs' : format({v}, '{f}') + ' ns'"
)


def distribution_chart(series: Series, view: View) -> alt.Chart:
    """Draw the share of lives that have a phase behind them after a time, the time on a log axis."""
    most = max(Counter(row["phase"] for row in series.rows).values())
    chart = (
        _rows()
        .transform_calculate(took=_human("datum.ns", ".3~r", view))
        .mark_line(
            interpolate="step-after" if most < _DENSE else "linear",
            strokeWidth=1.8,
            point=alt.OverlayMarkDef(size=60, opacity=0),
        )
        .encode(
            x=_log(alt.X("ns:Q", title=_title("duration", view)), series, view),
            y=alt.Y(
                "share:Q",
                title="share of lives",
                axis=alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 0.9, 1]),
                scale=alt.Scale(domain=[0, 1]),
            ),
            color=_color(alt.Color("phase:N"), PHASE_COLORS, series),
            tooltip=[
                alt.Tooltip("phase:N"),
                alt.Tooltip("took:N", title="within"),
                alt.Tooltip("share:Q", format=".2%"),
            ],
        )
    )
    return _sized(chart, 250)


def scatter_chart(series: Series, view: View) -> alt.Chart:
    """Draw when each life began against how long it took."""
    chart = (
        _rows()
        .transform_calculate(took=_human("datum.ns", ".3~r", view))
        .mark_point(filled=True, size=24, opacity=0.75)
        .encode(
            x=_time(alt.X("at:Q"), view),
            y=_log(alt.Y("ns:Q", title=_title("total, or age", view)), series, view),
            color=_color(alt.Color("outcome:N"), OUTCOME_COLORS, series),
            tooltip=[
                alt.Tooltip("token:N"),
                alt.Tooltip("where:N", title="on"),
                alt.Tooltip("outcome:N"),
                alt.Tooltip("took:N"),
            ],
        )
        .add_params(_zoom("scatter_zoom"))
    )
    return _sized(chart, 220)


def timeline_chart(series: Series, view: View) -> alt.LayerChart:
    """Draw the lives as boxes, one lane per vCPU, coloured by phase."""
    depth = series.lanes[-1].top + series.lanes[-1].height
    took = "(datum.to - datum.from)" + (" * 1e9" if view.unit == "ns" else "")
    boxes = (
        _rows()
        .transform_calculate(bottom="datum.y + 0.82", took=_human(took, ".3~r", view))
        # The stroke keeps a box visible that is narrower than a pixel.
        .mark_rect(strokeWidth=0.8, clip=True)
        .encode(
            x=_time(alt.X("from:Q"), view),
            x2="to:Q",
            y=_line("y:Q", depth),
            y2="bottom:Q",
            fill=_color(alt.Fill("phase:N"), PHASE_COLORS, series),
            stroke=_color(alt.Stroke("phase:N"), PHASE_COLORS, series),
            tooltip=[alt.Tooltip("token:N"), alt.Tooltip("phase:N"), alt.Tooltip("took:N")],
        )
        .add_params(_zoom("timeline_zoom"))
    )
    return _in_lanes(boxes, depth, round(depth * _LINE))


def outstanding_chart(series: Series, view: View) -> alt.LayerChart:
    """Draw how many lives were open at a time, one lane of steps per vCPU."""
    depth = series.lanes[-1].top + series.lanes[-1].height
    steps = (
        _rows()
        .mark_area(
            interpolate="step-after",
            color="var(--answered)",
            line=alt.OverlayMarkDef(color="var(--answered)", strokeWidth=0.8, interpolate="step-after"),
            clip=True,
        )
        .encode(x=_time(alt.X("at:Q"), view), y=_line("y:Q", depth), y2="base:Q", detail="where:N")
        .add_params(_zoom("outstanding_zoom"))
    )
    return _in_lanes(steps, depth, len(series.lanes) * _STEP_LANE)


def spec(chart: alt.Chart | alt.LayerChart, series: Series) -> dict[str, Any]:
    """Return the Vega-Lite spec of a chart with its rows, in the look of the page."""
    whole: dict[str, Any] = chart.configure(**_look()).to_dict(validate=False)
    # The rows join the finished spec: altair would copy and check every one of them, several times.
    return whole | {"datasets": {"rows": series.rows, "lanes": [asdict(lane) for lane in series.lanes]}}


def _look() -> dict[str, Any]:
    return {
        "font": FONT,
        "background": "transparent",
        "view": {"stroke": None},
        "axis": {
            "labelColor": "var(--ink-2)",
            "titleColor": "var(--ink-2)",
            "gridColor": "var(--rule)",
            "domainColor": "var(--axis)",
            "tickColor": "var(--axis)",
            "labelFontSize": 11,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelPadding": 4,
            "tickSize": 4,
            "labelOverlap": "greedy",
        },
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "orient": "top",
            "title": None,
            "labelColor": "var(--ink-2)",
            "labelFontSize": 11,
            "symbolType": "square",
            "symbolStrokeWidth": 0,
            "symbolOpacity": 1,
            "symbolSize": 80,
            "columnPadding": 14,
            "offset": 10,
        },
    }


def _rows() -> alt.Chart:
    return alt.Chart(alt.NamedData("rows"))


def _in_lanes(marks: alt.Chart, depth: float, height: int) -> alt.LayerChart:
    # The name stands in the free line above its lane, so that it needs no margin on a narrow screen.
    names = (
        alt.Chart(alt.NamedData("lanes"))
        .mark_text(align="left", baseline="bottom", dy=-1, fontSize=11, color="var(--ink-2)")
        .encode(x=alt.value(0), y=_line("top:Q", depth), text="name:N")
    )
    layers = alt.LayerChart(layer=[marks, names])
    sized: alt.LayerChart = layers.properties(width="container", height=max(40, height))
    return sized


def _line(field: str, depth: float) -> alt.Y:
    return alt.Y(field, axis=None, scale=alt.Scale(domain=[0, depth], reverse=True, nice=False))


def _time(channel: Any, view: View) -> Any:
    title = _title(_SINCE, view, "s")
    return channel.title(title).scale(domain=view.span(), nice=False).axis(tickCount=8)


def _log(channel: Any, series: Series, view: View) -> Any:
    durations = [row["ns"] for row in series.rows]
    low, high = min(durations), max(durations)
    domain = [low * 0.8, high * 1.25]
    axis = alt.Axis(values=log_ticks(*domain), labelExpr=_human("datum.value", "~g", view))
    return channel.scale(type="log", domain=domain, nice=False).axis(axis)


def log_ticks(low: float, high: float) -> list[int]:
    """Return the round numbers between two durations: decades, and their parts where there are few."""
    steps = (1,) if high / low > 10**4 else (1, 3) if high / low > 10**2 else (1, 2, 5)
    decades = range(max(0, math.floor(math.log10(low))), math.ceil(math.log10(high)) + 1)
    return [tick for power in decades for step in steps if low <= (tick := step * 10**power) <= high]


def _color(channel: Any, colors: dict[str, str], series: Series) -> Any:
    present = {row[channel.shorthand.partition(":")[0]] for row in series.rows}
    domain = [name for name in colors if name in present]
    # On a narrow screen a long row of names would leave the picture.
    columns = 3 if max(map(len, domain)) > len("total") else 4
    legend = alt.Legend(columns=alt.ExprRef(f"width < 420 ? {columns} : 0"))
    return channel.scale(domain=domain, range=[colors[name] for name in domain]).legend(legend)


def _zoom(name: str) -> alt.Parameter:
    # The wheel alone scrolls the page. A name of our own, because altair numbers its own per process.
    return alt.selection_interval(name=name, encodings=["x"], bind="scales", zoom="wheel![event.shiftKey]")


def _sized(chart: alt.Chart, height: int) -> alt.Chart:
    sized: alt.Chart = chart.properties(width="container", height=height)
    return sized


def _human(value: str, form: str, view: View) -> str:
    return _HUMAN.format(v=value, f=form) if view.unit == "ns" else f"format({value}, ',')"


def _title(words: str, view: View, shown: str = "") -> str:
    if view.unit != "ns":
        return f"{words} ({view.unit})"
    return f"{words} ({shown})" if shown else words
