"""The charts of the index page: run after run, kernel after kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
from altair.utils.schemapi import debug_mode

from apftrace_reports.charts import human, log_axis, look
from apftrace_reports.escape import visible
from apftrace_reports.figures import Figure, embed_json
from apftrace_reports.units import plural

if TYPE_CHECKING:
    from apftrace.batch.overview import Batch

MOST_RUNS = 2000
"""Points of a chart; more are thinned evenly."""

_COLORS = ("var(--p2)", "var(--p3)", "var(--p5)", "var(--p4)", "var(--p1)", "var(--open)")
_OTHERS = "others"
_HEIGHT = 260


def figures(batch: Batch) -> dict[str, Figure]:
    """Return the charts that the batch has something for."""
    rows, note = trend(batch)
    if not rows:
        return {}
    caption = (
        "One point per run, in the order of kernel and path: the median of how long its async page faults took, the "
        f"line up to their 99th percentile. {note}"
    )
    with debug_mode(False):  # altair checks every part against the schema again and again
        spec = _trend(rows)
    title = "How long the guest waited, run by run"
    return {"trend": Figure("trend", title, caption.strip(), embed_json(spec))}


def trend(batch: Batch) -> tuple[list[dict[str, Any]], str]:
    """Return the points of the trend, and what was left out."""
    lines = [
        line
        for line in batch.analysed
        if line["clock_unit"] == "ns" and (line["latency_ns"].get("total") or {}).get("p50")
    ]
    lines.sort(key=lambda line: (line["kernel"], line["path"]))
    kernels = list(dict.fromkeys(line["kernel"] for line in lines))
    named = set(kernels if len(kernels) <= len(_COLORS) else kernels[: len(_COLORS) - 1])
    undrawn = len(batch.analysed) - len(lines)
    notes = [f"{plural(undrawn, 'run')} without a timed fault {'is' if undrawn == 1 else 'are'} not drawn."]
    notes = notes if undrawn else []
    if len(lines) > MOST_RUNS:
        notes.append(f"{MOST_RUNS:,} of {len(lines):,} runs are drawn.")
        lines = [lines[at * len(lines) // MOST_RUNS] for at in range(MOST_RUNS)]
    rows = [
        {
            "at": number,
            "ns": line["latency_ns"]["total"]["p50"],
            "p99": max(line["latency_ns"]["total"]["p99"], line["latency_ns"]["total"]["p50"]),
            "kernel": visible(line["kernel"]) if line["kernel"] in named else _OTHERS,
            "run": visible(line["path"]),
            "verdict": line["verdict"],
        }
        for number, line in enumerate(lines, 1)
    ]
    return rows, " ".join(notes)


def _trend(rows: list[dict[str, Any]]) -> dict[str, Any]:
    kernels = list(dict.fromkeys(row["kernel"] for row in rows))
    scale = alt.Scale(domain=kernels, range=list(_COLORS[: len(kernels)]))
    color = alt.Color("kernel:N", scale=scale, legend=alt.Legend(columns=3, labelLimit=260))
    x = alt.X(
        "at:Q", title="run", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(nice=False, padding=8)
    )
    low = min(row["ns"] for row in rows)
    high = max(row["p99"] for row in rows)
    y = log_axis(alt.Y("ns:Q", title=None), low, high)
    base = alt.Chart(alt.NamedData("rows")).transform_calculate(
        median=human("datum.ns", ".3~r"), tail=human("datum.p99", ".3~r")
    )
    tips = [
        alt.Tooltip("run:N"),
        alt.Tooltip("kernel:N"),
        alt.Tooltip("verdict:N"),
        alt.Tooltip("median:N"),
        alt.Tooltip("tail:N", title="p99"),
    ]
    chart = alt.LayerChart(
        layer=[
            base.mark_rule(opacity=0.45, strokeWidth=1.2).encode(x=x, y=y, y2="p99:Q", color=color),
            base.mark_point(filled=True, size=22).encode(x=x, y=y, color=color, tooltip=tips),
        ]
    ).properties(width="container", height=_HEIGHT)
    spec: dict[str, Any] = chart.configure(**look()).to_dict(validate=False)
    return spec | {"datasets": {"rows": rows}}
