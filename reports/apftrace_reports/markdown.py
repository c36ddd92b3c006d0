"""The report as GitHub-flavoured Markdown: for an issue, a merge request or a CI job summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace_reports.base import Rendered
from apftrace_reports.data import REDACTED, named_records, phase_label, whereabouts
from apftrace_reports.escape import code_span, markdown, markdown_table
from apftrace_reports.units import count, duration, instant, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apftrace.analysis import Analysis
    from apftrace_reports.causes import CauseRow
    from apftrace_reports.data import Evidence, Finding, Group, ReportData

PER_RULE = 3
"""Findings of a rule that are told in full."""

_EVENTS = 12


class MarkdownReport(Rendered):
    """Markdown that renders on a tracker and reads well as it is."""

    name = "md"
    suffixes = (".md", ".markdown")

    def render(self, analysis: Analysis) -> bytes:
        """Return the report as UTF-8, the verdict as its heading."""
        from apftrace_reports.prepare import prepare

        return ("\n".join(lines(prepare(analysis, per_rule=PER_RULE))) + "\n").encode()


def lines(data: ReportData) -> list[str]:
    """Return every line of the report."""
    out = [f"## {data.verdict.upper()}: {markdown(data.headline)}"]
    if data.redacted:
        out += ["", REDACTED]
    if data.unsafe:
        out += [
            "",
            "Why this verdict is not safe:",
            "",
            *(f"- reason: {markdown(one)}" for one in data.unsafe),
        ]
    sections = (_findings, _phases, _stories, _accounting, _environment, _not_run)
    return out + [line for section in sections for line in section(data)]


def _findings(data: ReportData) -> list[str]:
    if not data.groups:
        looked = "No rule found anything."
        if data.not_run:
            looked += f" {plural(len(data.not_run), 'rule')} could not look, see the end."
        return ["", "### Findings", "", looked]
    out = ["", "### Findings", ""]
    out += markdown_table(
        ("severity", "rule", "meaning", "count", "first", "last", "on"),
        (
            (g.severity, g.rule, g.words.title, count(g.count), *_span(g, data.unit), ", ".join(g.where[:8]))
            for g in data.groups
        ),
    )
    out += [line for group in data.groups for line in _causes(group.causes, data.unit)]
    told = [finding for group in data.groups for finding in group.findings[:PER_RULE]]
    for at, finding in enumerate(told):
        out += _finding(finding, data.unit, opened=at == 0)
    return out


def _causes(causes: Sequence[CauseRow], unit: str) -> list[str]:
    if not causes:
        return []
    rows = (
        (
            row.cause,
            phase_label(row.phase),
            count(row.count),
            duration(row.worst, unit),
            duration(row.median, unit),
        )
        for row in causes
    )
    head = ("cause", "phase", "count", "worst", "median")
    return ["", "#### Causes of late wakeups", "", *markdown_table(head, rows, numbers=2)]


def _span(group: Group, unit: str) -> tuple[str, str]:
    return instant(group.first, unit), instant(group.last, unit)


def _finding(finding: Finding, unit: str, *, opened: bool) -> list[str]:
    out = [
        "",
        f"#### {finding.severity}: {markdown(finding.message)}",
        "",
        f"- {markdown(whereabouts(finding, unit))}",
    ]
    facts = (
        ("cause", finding.cause or ""),
        ("charged to token", finding.blocker or ""),
        ("ruled out", "; ".join(finding.ruled_out)),
        ("not ruled out", "; ".join(finding.not_ruled_out)),
    )
    out += [f"- {label}: {markdown(text)}" for label, text in facts if text]
    if finding.evidence and not (opened and finding.excerpt and named_records(finding, unit)[1]):
        out += ["", *_code(_record(event, unit) for event in finding.evidence)]
    if finding.excerpt:
        # HTML, because Markdown has nothing that folds; every tracker that matters keeps these two elements.
        head = f"<details{' open' if opened else ''}><summary>Raw records, "
        out += ["", f"{head}{plural(len(finding.excerpt), 'line')}</summary>", ""]
        out += [*_code(finding.excerpt), "", "</details>"]
    return out


def _code(lines: Iterable[str]) -> list[str]:
    # Indented code: it has no fence that a record could close. Six columns also when it follows a list.
    return [f"      {line}" for line in lines]


def _record(event: Evidence, unit: str) -> str:
    cpu = f" [{event.cpu:03d}]" if event.cpu is not None else ""
    tid = f" {event.tid}" if event.tid is not None else ""
    return f"{instant(event.ts, unit)}{cpu}{tid} {event.event}: {event.text}"


def _phases(data: ReportData) -> list[str]:
    if not data.latency:
        return ["", "### Phases", "", "No fault was measured."]
    rows = (
        (
            row.label if row.label == row.name else f"{row.label} {row.name}",
            row.kind,
            count(row.n),
            *(duration(value, data.unit) for value in (row.p50, row.p95, row.p99, row.max)),
        )
        for row in data.latency
    )
    return [
        "",
        "### Phases",
        "",
        *markdown_table(("phase", "kind", "n", "p50", "p95", "p99", "max"), rows, numbers=2),
    ]


def _stories(data: ReportData) -> list[str]:
    out = []
    for life in data.told:
        out += ["", f"- {code_span(life.token)} {life.where}: {life.lasted(data.unit)}"]
        for step in life.steps:
            phase = f" {phase_label(step.phase)}" if step.phase else ""
            out.append(f"  - +{duration(step.after, data.unit)}{phase}: {markdown(step.text)}")
    head = f"### The {'lost and the ' if data.lost else ''}slowest faults, step by step"
    return ["", head, *out] if out else []


def _accounting(data: ReportData) -> list[str]:
    out = ["", "### Accounting", ""]
    out += [f"- {code_span(line.equation())}" for line in data.accounting] or ["Nothing to account for."]
    return out + [f"- does not balance: {markdown(identity)}" for identity in data.broken]


def _environment(data: ReportData) -> list[str]:
    out = ["", "### Environment", "", f"- protocol: {markdown(data.protocol)}"]
    for one in data.inputs:
        out.append(f"- input {code_span(one.path)}")
        out += [f"  - {label}: {markdown(text)}" for label, text in one.facts]
        out += [f"  - {code_span(name)}: {count(hits)}" for name, hits in one.events[:_EVENTS]]
        out += [f"  - note: {markdown(note)}" for note in one.notes]
    out += [f"- gap: {markdown(gap)}" for gap in data.gaps.told]
    return out + ([f"- and {plural(data.gaps.hidden, 'more gap')}"] if data.gaps.hidden else [])


def _not_run(data: ReportData) -> list[str]:
    if not data.not_run:
        return []
    out = ["", "### Not looked for", "", "What was not recorded, and the rules that need it:", ""]
    return out + [
        f"- {', '.join(map(code_span, missing))}: {', '.join(map(code_span, named))}"
        for missing, named in data.lacking
    ]
