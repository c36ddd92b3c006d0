"""One self-contained page: the verdict, the evidence, the charts. It asks the network for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.grades import CONFIDENCES
from apftrace.schema import OUTCOMES
from apftrace_reports.base import Rendered, tool_version
from apftrace_reports.data import REDACTED
from apftrace_reports.page import bundle, content_policy, environment, raw, source

if TYPE_CHECKING:
    from apftrace.analysis import Analysis
    from apftrace_reports.data import ReportData
    from apftrace_reports.figures import Figures

IN_FULL = 200
"""Findings that a page tells with their evidence."""

_CONFIDENCE_WORDS = (
    "the trace shows it",
    "it rests on one assumption that the trace does not show",
    "another capture would have to settle it",
)


class HtmlReport(Rendered):
    """One HTML file for a bug tracker or a browser."""

    name = "html"
    suffixes = (".html", ".htm")

    def render(self, analysis: Analysis) -> bytes:
        """Return the page as UTF-8."""
        from apftrace_reports.prepare import prepare

        data = prepare(analysis, in_full=IN_FULL)
        drawn = None
        if data.lives:
            from apftrace_reports.figures import figures  # altair takes as long as all the rest

            drawn = figures(analysis, data)
        return render_page(data, drawn).encode()


def render_page(data: ReportData, drawn: Figures | None) -> str:
    """Return the page for prepared data; without charts it carries no script."""
    charts = drawn.charts if drawn else {}
    templates = environment(data.unit)
    style = source(templates, "page.css")
    scripts = [bundle(), source(templates, "page.js")] if charts else []
    return templates.get_template("page.html.j2").render(
        data=data,
        figures=charts,
        strips=drawn.strips if drawn else "",
        version=tool_version(),
        policy=content_policy(style, scripts),
        style=raw(style),
        scripts=[raw(script) for script in scripts],
        redacted=REDACTED,
        glossary=_glossary(data),
    )


def _glossary(data: ReportData) -> list[tuple[str, str]]:
    phases = {row.label: (row.name, row.doc) for row in data.latency}
    terms = [(label if label == name else f"{label}, {name}", doc) for label, (name, doc) in phases.items()]
    terms += zip(CONFIDENCES, _CONFIDENCE_WORDS, strict=True)
    return terms + [(name.replace("_", " "), words) for name, words in OUTCOMES.items()]
