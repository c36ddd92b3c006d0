"""One self-contained page: the verdict, the evidence, the charts. It asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from apftrace.schema import OUTCOMES
from apftrace_reports.base import Rendered, tool_version
from apftrace_reports.data import CONFIDENCES, phase_label
from apftrace_reports.units import count, duration, instant, plural, share

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

    from apftrace.analysis import Analysis
    from apftrace_reports.data import ReportData
    from apftrace_reports.figures import Figures

IN_FULL = 200
"""Findings that a page tells with their evidence."""

_CONFIDENCE_WORDS = (
    "the trace shows it",
    "very likely: it rests on one assumption that the trace does not show",
    "possible: another capture would have to settle it",
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
    environment = _environment(data.unit)
    style = _source(environment, "page.css")
    scripts = [_bundle(), _source(environment, "page.js")] if charts else []
    return environment.get_template("page.html.j2").render(
        data=data,
        figures=charts,
        strips=drawn.strips if drawn else "",
        version=tool_version(),
        policy=content_policy(style, scripts),
        style=_raw(style),
        scripts=[_raw(script) for script in scripts],
        glossary=_glossary(data),
    )


def content_policy(style: str, scripts: list[str]) -> str:
    """Return a Content-Security-Policy that admits exactly these texts and no request at all."""
    allowed = " ".join(_source_hash(script) for script in scripts) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_source_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _glossary(data: ReportData) -> list[tuple[str, str]]:
    phases = {row.label: (row.name, row.doc) for row in data.latency}
    terms = [(label if label == name else f"{label}, {name}", doc) for label, (name, doc) in phases.items()]
    terms += zip(CONFIDENCES, _CONFIDENCE_WORDS, strict=True)
    return terms + [(name.replace("_", " "), words) for name, words in OUTCOMES.items()]


def _environment(unit: str) -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("apftrace_reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "duration": lambda value: duration(value, unit),
        "instant": lambda value: instant(value, unit),
        "phase_label": phase_label,
        "plural": plural,
        "share": share,
    }
    return environment


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _raw(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - our own files and the chart library, never the trace


def _bundle() -> str:
    from apftrace_reports.bundle import chart_bundle

    return chart_bundle()


def _source_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
