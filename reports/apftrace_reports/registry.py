"""Which reports there are, and which one a name or a file suffix means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from apftrace.errors import ReportError
from apftrace_reports.base import STDOUT
from apftrace_reports.html import HtmlReport
from apftrace_reports.json_report import JsonReport
from apftrace_reports.junit import JunitReport
from apftrace_reports.markdown import MarkdownReport
from apftrace_reports.parquet_report import ParquetReport
from apftrace_reports.text import TextReport

if TYPE_CHECKING:
    from apftrace_reports.base import Rendered, Report

BUILTIN: tuple[Rendered, ...] = (
    HtmlReport(),
    TextReport(),
    MarkdownReport(),
    JsonReport(),
    JunitReport(),
)
"""The reports that are one file each, in the order in which help texts list them."""

FOLDERS: tuple[Report, ...] = (ParquetReport(),)
"""The reports that are a folder, which has no bytes to render."""

REPORTS: tuple[Report, ...] = (*BUILTIN, *FOLDERS)

NAMES: tuple[str, ...] = tuple(report.name for report in REPORTS)
"""The names that ``--format`` takes."""


@overload
def by_name(name: Literal["html", "text", "md", "json", "junit"]) -> Rendered: ...


@overload
def by_name(name: str) -> Report: ...


def by_name(name: str) -> Report:
    """Return the report called ``name``.

    Raises:
        ReportError: there is none.
    """
    for report in REPORTS:
        if report.name == name:
            return report
    raise ReportError(f"no report is called {name!r}; known are {', '.join(NAMES)}")


def report_for(path: str, format: str | None = None) -> Report:  # noqa: A002
    """Return the report for ``path``: the one called ``format``, else the one that its suffix means.

    Raises:
        ReportError: neither says which.
    """
    if format is not None:
        return by_name(format)
    if path == STDOUT:
        return by_name("text")
    matches = [(len(s), r) for r in REPORTS for s in r.suffixes if path.lower().endswith(s)]
    if not matches:
        known = ", ".join(f"{r.suffixes[0]} ({r.name})" for r in REPORTS)
        raise ReportError(f"{path!r}: its suffix names no report; known are {known}")
    return max(matches, key=lambda match: match[0])[1]
