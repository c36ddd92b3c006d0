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

from apftrace_reports.gaps import STRIP
from apftrace_reports.series import LIMIT

if TYPE_CHECKING:
    from apftrace_reports.series import Series, View

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

PHASE_COLORS = {
    "e2e": "var(--e2e)",
    "total": "var(--total)",
    "P1": "var(--p1)",
    "P2": "var(--p2)",
    "P1+P2": "var(--p2)",
    "P3": "var(--p3)",
    "P4": "var(--p4)",
    "P5": "var(--p5)",
    "P6": "var(--p6)",
    "P7": "var(--p7)",
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
_ABOVE_STRIPS = 6  # pixels between a chart and the strips below it
_BELOW_STRIPS = 4  # pixels between the strips and the axis

_DENSE = 100  # points of a curve from which steps would be those of the drawing, not of the data
_SINCE = "time since the first event"
_HUMAN = (
    "{v} >= 1e9 ? format({v} / 1e9, '{f}') + ' s' : {v} >= 1e6 ? format({v} / 1e6, '{f}') + ' ms' : "
    "{v} >= 1e3 ? format({v} / 1e3, '{f}') + ' µs' : format({v}, '{f}') + ' ns'"
)


def distribution_chart(series: Series, view: View, _: Series) -> alt.Chart:
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
                title="share of faults",
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


def scatter_chart(series: Series, view: View, strips: Series) -> alt.LayerChart:
    """Draw when each life began against how long it took."""
    height = 220
    points = (
        _rows()
        .transform_calculate(took=_human("datum.ns", ".3~r", view))
        .mark_point(filled=True, size=24, opacity=0.75, clip=True)
        .encode(
            x=_time(alt.X("at:Q"), view),
            y=_log(alt.Y("ns:Q", title=None), series, view, inside=height),
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
    return _over_time([points], height, strips, view)


def timeline_chart(series: Series, view: View, strips: Series) -> alt.LayerChart:
    """Draw the lives as boxes, one lane per vCPU, coloured by phase."""
    depth = series.lanes[-1].top + series.lanes[-1].height
    height = max(40, round(depth * _LINE))
    boxes = (
        _rows()
        .transform_calculate(bottom="datum.y + 0.82", took=_span(view))
        # The stroke keeps a box visible that is narrower than a pixel.
        .mark_rect(strokeWidth=0.8, clip=True)
        .encode(
            x=_time(alt.X("from:Q"), view),
            x2="to:Q",
            y=_line("y:Q", depth, height),
            y2="bottom:Q",
            fill=_color(alt.Fill("phase:N"), PHASE_COLORS, series),
            stroke=_color(alt.Stroke("phase:N"), PHASE_COLORS, series),
            tooltip=[alt.Tooltip("token:N"), alt.Tooltip("phase:N"), alt.Tooltip("took:N")],
        )
        .add_params(_zoom("timeline_zoom"))
    )
    return _over_time([boxes, _names("lanes", depth, height)], height, strips, view)


def outstanding_chart(series: Series, view: View, strips: Series) -> alt.LayerChart:
    """Draw how many lives were open at a time, one lane of steps per vCPU, shaded while its slot was taken."""
    depth = series.lanes[-1].top + series.lanes[-1].height
    height = len(series.lanes) * _STEP_LANE
    x, y = _time(alt.X("from:Q"), view), _line("y:Q", depth, height)
    taken = (
        alt.Chart(alt.NamedData("busy"))
        .mark_rect(color="var(--busy)", clip=True)
        .encode(
            x=x,
            x2="to:Q",
            y=y,
            y2="base:Q",
            opacity=alt.Opacity("share:Q", legend=None).scale(domain=[0, 1], range=[0.06, 0.55]),
        )
    )
    steps = (
        _rows()
        .mark_area(
            interpolate="step-after",
            color="var(--answered)",
            line=alt.OverlayMarkDef(color="var(--answered)", strokeWidth=0.8, interpolate="step-after"),
            clip=True,
        )
        .encode(x=_time(alt.X("at:Q"), view), y=y, y2="base:Q", detail="where:N")
        .add_params(_zoom("outstanding_zoom"))
    )
    layers = [taken, steps, _names("lanes", depth, height)]
    if series.more["limit"]:
        limit = alt.Chart(alt.NamedData("limit")).encode(y=y)
        layers += [
            limit.mark_rule(color="var(--lost)", strokeDash=[4, 3]),
            limit.mark_text(
                text=str(LIMIT), align="right", baseline="bottom", dy=-1, fontSize=11, color="var(--lost)"
            ).encode(x=alt.value("width")),
        ]
    return _over_time(layers, height, strips, view)


def spec(chart: alt.Chart | alt.LayerChart, series: Series, strips: Series) -> dict[str, Any]:
    """Return the Vega-Lite spec of a chart with its rows, in the look of the page."""
    whole: dict[str, Any] = chart.configure(**look()).to_dict(validate=False)
    # The rows join the finished spec: altair would copy and check every one of them, several times.
    rows = {"rows": series.rows, "lanes": _lanes(series), **series.more}
    rows |= {"gaps": strips.rows, "strips": _lanes(strips)}
    drawn = _data_names(whole)
    return whole | {"datasets": {name: found for name, found in rows.items() if name in drawn}}


def _lanes(series: Series) -> list[dict[str, Any]]:
    return [asdict(lane) | {"bottom": lane.top + lane.height} for lane in series.lanes]


def _data_names(whole: dict[str, Any]) -> set[str]:
    return {part["data"]["name"] for part in (whole, *whole.get("layer", ())) if "data" in part}


def look() -> dict[str, Any]:
    """Return the configuration that gives every chart the look of the page."""
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


def _over_time(layers: list[alt.Chart], height: int, strips: Series, view: View) -> alt.LayerChart:
    """Put a strip per CPU with gaps below a chart of ``height`` pixels, on the same axis of time."""
    below = len(strips.lanes) * STRIP
    if below:
        height += _ABOVE_STRIPS + below
        layers = [*layers, *_strips(height, below, view)]
        height += _BELOW_STRIPS
    chart = alt.LayerChart(layer=layers).resolve_scale(y="independent")
    sized: alt.LayerChart = chart.properties(width="container", height=height)
    return sized


def _strips(height: int, below: int, view: View) -> list[alt.Chart]:
    # The strips count in pixels from the top of the first.
    ends = [below - height, below]
    lines, gaps = alt.Chart(alt.NamedData("strips")), alt.Chart(alt.NamedData("gaps"))
    return [
        lines.mark_rect(color="var(--rule)").encode(
            x=alt.value(0), x2=alt.value("width"), y=_line("top:Q", ends, height), y2="bottom:Q"
        ),
        gaps.transform_calculate(took=_span(view))
        .mark_rect(color="var(--gap)", stroke="var(--gap)", strokeWidth=1.5, clip=True)
        .encode(
            x=_time(alt.X("from:Q"), view),
            x2="to:Q",
            y=_line("y:Q", ends, height),
            y2="bottom:Q",
            tooltip=[alt.Tooltip("cpu:N"), alt.Tooltip("lost:N"), alt.Tooltip("took:N", title="blind for")],
        ),
        _names("strips", ends, height),
    ]


def _names(lanes: str, depth: float | list[int], height: int) -> alt.Chart:
    # The name stands in the free line above its lane, so that it needs no margin on a narrow screen.
    chart: alt.Chart = (
        alt.Chart(alt.NamedData(lanes))
        .mark_text(align="left", baseline="bottom", dy=-3, fontSize=11, color="var(--ink-2)")
        .encode(x=alt.value(0), y=_line("top:Q", depth, height), text="name:N")
    )
    return chart


def _line(field: str, depth: float | list[int], height: int) -> alt.Y:
    domain = depth if isinstance(depth, list) else [0, depth]
    return alt.Y(field, axis=None, scale=alt.Scale(domain=domain, range=[0, height], nice=False, zero=False))


def _time(channel: Any, view: View) -> Any:
    title = _title(_SINCE, view, "s")
    return channel.title(title).scale(domain=view.span(), nice=False).axis(tickCount=8)


def log_axis(channel: Any, low: float, high: float) -> Any:
    """Return the channel on a log axis of durations in ns."""
    domain = [low * 0.8, high * 1.25]
    axis = alt.Axis(values=log_ticks(*domain), labelExpr=human("datum.value", "~g"))
    return channel.scale(type="log", domain=domain, nice=False).axis(axis)


def human(value: str, form: str) -> str:
    """Return the expression that shows a number of ns as people read it."""
    return _HUMAN.format(v=value, f=form)


def _log(channel: Any, series: Series, view: View, inside: int | None = None) -> Any:
    durations = [row["ns"] for row in series.rows]
    low, high = min(durations), max(durations)
    domain = [low * 0.8, high * 1.25]
    # Labels on the grid lines need no margin, which would shift this axis of time against the other charts.
    place: dict[str, Any] = (
        {"labelAlign": "left", "labelBaseline": "bottom", "labelPadding": 0, "zindex": 1} if inside else {}
    )
    axis = alt.Axis(values=log_ticks(*domain), labelExpr=_human("datum.value", "~g", view), **place)
    scale = {"range": [inside, 0]} if inside else {}
    return channel.scale(type="log", domain=domain, nice=False, **scale).axis(axis)


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


def _span(view: View) -> str:
    return _human("(datum.to - datum.from)" + (" * 1e9" if view.unit == "ns" else ""), ".3~r", view)


def _human(value: str, form: str, view: View) -> str:
    return human(value, form) if view.unit == "ns" else f"format({value}, ',')"


def _title(words: str, view: View, shown: str = "") -> str:
    if view.unit != "ns":
        return f"{words} ({view.unit})"
    return f"{words} ({shown})" if shown else words
