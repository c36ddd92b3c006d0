"""The report as JUnit XML, which CI systems show: a test suite per analysis, a test case per rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace_reports.base import Rendered
from apftrace_reports.data import REDACTED, whereabouts
from apftrace_reports.escape import xml
from apftrace_reports.units import plural

if TYPE_CHECKING:
    from apftrace.analysis import Analysis, NotRun
    from apftrace_reports.data import Group, ReportData

FAILING = "error"
"""Severity that fails a test case; milder findings are told in its output."""

_TOLD = 20


class JunitReport(Rendered):
    """JUnit XML: failures are findings of severity error, skipped are rules that could not look."""

    name = "junit"
    suffixes = (".xml",)

    def render(self, analysis: Analysis) -> bytes:
        """Return the document as UTF-8."""
        from apftrace_reports.prepare import prepare

        return ("\n".join(lines(prepare(analysis, per_rule=_TOLD))) + "\n").encode()


def lines(data: ReportData) -> list[str]:
    """Return every line of the document."""
    suite = ", ".join(one.path for one in data.inputs) or "apftrace"
    cases = [_verdict(data), *(_rule(group, data) for group in data.groups), *map(_skipped, data.not_run)]
    cases += map(_passed, data.quiet)
    failures = sum(group.severity == FAILING for group in data.groups)
    totals = (
        f'tests="{len(cases)}" failures="{failures}" errors="{int(data.verdict == "unusable")}" '
        f'skipped="{len(data.not_run)}"'
    )
    return [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites name="apftrace" {totals}>',
        f'<testsuite name="{xml(suite)}" {totals}>',
        *(line for case in cases for line in case),
        "</testsuite>",
        "</testsuites>",
    ]


def _verdict(data: ReportData) -> list[str]:
    # The case that is always there: an unusable trace must not look like a passed one.
    words = [f"{data.verdict}: {data.headline}", *data.unsafe, *([REDACTED] if data.redacted else [])]
    if data.verdict == "unusable":
        return _case("verdict", "error", words[0], words[1:])
    return _case("verdict", "system-out", "", words)


def _rule(group: Group, data: ReportData) -> list[str]:
    told = [f"{one.message} ({whereabouts(one, data.unit)})" for one in group.findings[:_TOLD]]
    if group.count > len(told):
        told.append(f"... and {group.count - len(told)} more")
    if group.severity == FAILING:
        return _case(group.rule, "failure", plural(group.count, "finding"), told)
    return _case(group.rule, "system-out", "", told)


def _skipped(one: NotRun) -> list[str]:
    return _case(one.rule, "skipped", f"needs {', '.join(one.missing)}", [])


def _passed(rule: str) -> list[str]:
    return [f'<testcase classname="apftrace" name="{xml(rule)}"/>']


def _case(name: str, element: str, message: str, text: list[str]) -> list[str]:
    told = f' message="{xml(message)}"' if message else ""
    body = "\n".join(map(xml, text))
    return [
        f'<testcase classname="apftrace" name="{xml(name)}">',
        f"<{element}{told}>{body}</{element}>",
        "</testcase>",
    ]
