"""The verdict as plain text: at most 72 columns, fit to be pasted into a mail."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from apftrace_reports.base import Rendered
from apftrace_reports.data import REDACTED, named_records, phase_label, whereabouts
from apftrace_reports.escape import clip, columns, pad, wrap
from apftrace_reports.units import ABSENT, count, duration, instant, plural, share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apftrace.analysis import Analysis
    from apftrace_reports.catalogue import RuleWords
    from apftrace_reports.causes import CauseRow
    from apftrace_reports.data import Evidence, Finding, Group, LatencyRow, Life, ReportData, VcpuRow
    from apftrace_reports.environment import InputFacts

WIDTH = 72
"""Columns of a line, never more."""

PER_RULE = {"error": 3, "warning": 2}
"""Findings of a rule that are told in full, by its severity; one of any other."""

_EVIDENCE = 8
_EXCERPT = 20
_VCPUS = 16
_CAUSES = 12
_RECORD = re.compile(r"(?P<head>.*?\[\d+\].*? [\d.]+: (?:[\w:]+:)?) (?P<payload>.+)")
_EVENTS = 12


class TextReport(Rendered):
    """Plain text on a terminal or in a mail."""

    name = "text"
    suffixes = (".txt", ".text")

    def render(self, analysis: Analysis) -> bytes:
        """Return the report as UTF-8, the verdict on the first line."""
        from apftrace_reports.prepare import prepare

        return ("\n".join(lines(prepare(analysis, per_rule=max(PER_RULE.values())))) + "\n").encode()


def lines(data: ReportData) -> list[str]:
    """Return every line of the report."""
    sections = (
        _verdict(data),
        _findings(data),
        _phases(data),
        _slowest(data),
        _stories(data),
        _accounting(data),
        _vcpus(data),
        _environment(data),
        _not_run(data),
    )
    out: list[str] = []
    for section in sections:
        if section:
            out += ["", *section] if out else section
    return out


def _verdict(data: ReportData) -> list[str]:
    out = wrap(f"{data.verdict.upper()}: {data.headline}", WIDTH)
    if data.redacted:
        out += ["", *wrap(REDACTED, WIDTH)]
    if data.unsafe:
        out += ["", "Why this verdict is not safe:", *_bullets(data.unsafe)]
    return out


def _findings(data: ReportData) -> list[str]:
    if not data.groups:
        looked = "No rule found anything."
        if data.not_run:
            looked += f" {plural(len(data.not_run), 'rule')} could not look, see the end."
        return _section("FINDINGS", looked)
    counts = ", ".join(plural(number, severity) for severity, number in data.severities if severity != "info")
    counts = ", ".join(filter(None, (counts, *(f"{n} info" for s, n in data.severities if s == "info"))))
    out = [f"FINDINGS  {counts}"]
    excerpt_due = True
    for group in data.groups:
        shown = group.findings[: PER_RULE.get(group.severity, 1)]
        out += ["", *_group_head(group, data.unit)]
        for finding in shown:
            with_excerpt = excerpt_due and bool(finding.excerpt)
            out += _finding(finding, data, with_excerpt=with_excerpt)
            excerpt_due = excerpt_due and not with_excerpt
        if group.count > len(shown):
            out.append(f"  ... and {count(group.count - len(shown))} more; --format json tells them all")
        out += _advice(group.words)
    return out


def _group_head(group: Group, unit: str) -> list[str]:
    head = f"[{group.severity}] {group.rule}"
    title = f": {group.words.title}" if group.words.title else ""
    if group.count == 1:
        return wrap(head + title, WIDTH, rest="  ")
    out = wrap(f"{head} x {count(group.count)}{title}", WIDTH, rest="  ")
    out += _fact("certainty", ", ".join(f"{number} {confidence}" for confidence, number in group.confidences))
    out += _fact("first", f"{instant(group.first, unit)}, last {instant(group.last, unit)}")
    out += _fact("on", _some(group.where, 12)) if group.where else []
    return out + _causes(group.causes, unit)


def _causes(causes: Sequence[CauseRow], unit: str) -> list[str]:
    if not causes:
        return []
    out = [f"{'count':>7} {'phase':<5}{'worst':>8}{'median':>8}  cause of late wakeups"]
    for row in causes[:_CAUSES]:
        first = f"{count(row.count):>7} {phase_label(row.phase):<5}"
        first += "".join(f"{_short(took, unit, 8):>8}" for took in (row.worst, row.median)) + "  "
        out += wrap(row.cause, WIDTH, first, " " * columns(first))
    if len(causes) > _CAUSES:
        out.append(f"  ... and {plural(len(causes) - _CAUSES, 'more cause')}; --format html shows them all")
    return out


def _advice(words: RuleWords) -> list[str]:
    out = _fact("means", words.means) if words.means else []
    out += _fact("next", words.remedy) if words.remedy else []
    return out + [line for bug in words.bugs for line in _fact("see also", bug)]


def _finding(finding: Finding, data: ReportData, *, with_excerpt: bool) -> list[str]:
    out = wrap(finding.message, WIDTH, first="  * ", rest="    ")
    out += wrap(whereabouts(finding, data.unit), WIDTH, "    ", "    ")
    for label, text in (
        ("cause", finding.cause or ""),
        ("charged to", f"token {finding.blocker}" if finding.blocker else ""),
        ("ruled out", "; ".join(finding.ruled_out)),
        ("not ruled out", "; ".join(finding.not_ruled_out)),
    ):
        if text:
            out += wrap(f"{label}: {text}", WIDTH, "    ", "      ")
    if finding.evidence and not (with_excerpt and named_records(finding, data.unit)[1]):
        out += ["    evidence:", *_evidence(finding.evidence, data.unit)]
    return out + (_excerpt(finding, data.unit) if with_excerpt else [])


def _evidence(evidence: Sequence[Evidence], unit: str) -> list[str]:
    out = []
    for one in evidence[:_EVIDENCE]:
        cpu = f" [{one.cpu:03d}]" if one.cpu is not None else ""
        tid = f" {one.tid}" if one.tid is not None else ""
        out += wrap(f"{instant(one.ts, unit)}{cpu}{tid} {one.event}: {one.text}", WIDTH, "      ", "        ")
    if len(evidence) > _EVIDENCE:
        out.append(f"      ... and {len(evidence) - _EVIDENCE} more events")
    return out


def _excerpt(finding: Finding, unit: str) -> list[str]:
    """Return the raw records in at most ``_EXCERPT`` lines, the ones that the evidence names first of all."""
    records = [_raw_record(line) for line in finding.excerpt]
    shows, _ = named_records(finding, unit)
    last = len(records) - 1
    ends = [at for step in range(len(records)) for at in (step, last - step)]  # how it began, how it ended
    kept: list[int] = []
    for at in dict.fromkeys([*shows, *ends]):
        more = sorted([*kept, at])
        if len(_with_holes(records, more)) <= _EXCERPT:
            kept = more
    whole = len(kept) == len(records)
    head = (
        "raw records:" if whole else f"raw records, {len(kept)} of {len(records)}; --format html shows all:"
    )
    return [f"    {head}", *_with_holes(records, kept)]


def _with_holes(records: Sequence[list[str]], kept: Sequence[int]) -> list[str]:
    out = []
    for before, at in zip([-1, *kept], [*kept, len(records)], strict=True):
        out += [f"      ... {at - before - 1} more ..."] if at - before > 1 else []
        out += records[at] if at < len(records) else []
    return out


def _raw_record(line: str) -> list[str]:
    """Return a record within the width; one that is too long breaks after the name of its event."""
    text = line.strip()
    whole = wrap(text, WIDTH, "    ", "        ")
    match = _RECORD.match(text)
    if len(whole) == 1 or match is None:
        return whole
    head = wrap(match["head"], WIDTH, "    ", "        ")
    return [*head, *wrap(match["payload"], WIDTH, "        ", "        ")]


def _phases(data: ReportData) -> list[str]:
    if not data.latency:
        why = "no fault was seen" if not data.lives else "no fault has a measured phase"
        return _section("PHASES", f"Nothing to measure: {why}.")
    head = f"{'PHASES':<29}{'n':>7}" + "".join(f"{name:>9}" for name in ("p50", "p95", "p99", "max"))
    limits = {row.label: row.late_after for row in data.latency if row.late_after is not None}
    late = ", ".join(f"{label} {_short(limit, data.unit)}" for label, limit in limits.items())
    rows = [head, *(_phase_row(row, data.unit) for row in data.latency)]
    return rows + (wrap(f"late above: {late}", WIDTH, "  ", "    ") if late else [])


def _phase_row(row: LatencyRow, unit: str) -> str:
    words = row.label if row.label == row.name else f"{row.label} {row.name}"
    kind = "" if row.kind == "all" else row.kind
    return (
        pad(words, 24)
        + pad(kind, 5)
        + f"{row.n:>7}"
        + "".join(f"{_short(value, unit):>9}" for value in (row.p50, row.p95, row.p99, row.max))
    )


def _slowest(data: ReportData) -> list[str]:
    if not data.slowest:
        return []
    # The width of a mail holds the host's phases; those in the guest stand in words below.
    phases = [phase for phase in data.life_phases if phase not in ("p6", "p7")]
    followed = any(life.e2e is not None for life in data.slowest)
    names = [*(["e2e"] if followed else []), "total", *map(phase_label, phases)]
    room = 9 if len(names) <= 6 else 8
    out = [pad("SLOWEST", 2 * room) + "".join(f"{name:>{room}}" for name in names)]
    for life in data.slowest:
        numbers = [*([life.e2e] if followed else []), life.total, *(life.phases[phase] for phase in phases)]
        told = "".join(f"{_short(number, data.unit, room):>{room}}" for number in numbers)
        out += [pad(life.token, 2 * room) + told, *wrap(_life_words(life, data.unit), WIDTH, "  ", "  ")]
    return out


def _stories(data: ReportData) -> list[str]:
    if not data.told:
        return []
    out = [f"STORIES  the {'lost and the ' if data.lost else ''}slowest faults, step by step"]
    for life in data.told:
        out += wrap(f"{life.token}, {life.where}, {life.lasted(data.unit)}:", WIDTH, "  ", "  ")
        for step in life.steps:
            label = phase_label(step.phase) if step.phase else ""
            first = "    " + pad(f"+{_short(step.after, data.unit)}", 9) + " " + pad(label, 6)
            out += wrap(step.text, WIDTH, first, " " * columns(first))
    return out


def _life_words(life: Life, unit: str) -> str:
    words = [life.where, life.kind, life.outcome, f"not_present at {instant(life.not_present, unit)}"]
    if life.blocker:
        words.append(f"waited for the ACK of {life.blocker}")
    beyond = [(phase, life.phases[phase]) for phase in ("p6", "p7") if life.phases[phase] is not None]
    words += [f"{phase_label(phase)} {_short(length, unit)}" for phase, length in beyond]
    return ", ".join(word for word in words if word)


def _accounting(data: ReportData) -> list[str]:
    if not data.accounting:
        return []
    out = ["ACCOUNTING"]
    for line in data.accounting:
        out += wrap(line.equation(), WIDTH, "  ", "    ")
    out += wrap("besides: " + ", ".join(f"{name} {count(n)}" for name, n in data.asides), WIDTH, "  ", "    ")
    if data.broken:
        out += ["  does not balance:", *_bullets(data.broken, "    ")]
    return out


def _vcpus(data: ReportData) -> list[str]:
    if not data.vcpus:
        return []
    named = f"{'vCPUs':<22}{'tid':>9}{'faults':>7}{'pv':>7}{'halt':>6}{'p99':>9}{'open':>5}{'slot':>7}"
    out = [named, *(_vcpu_row(row, data.unit) for row in data.vcpus[:_VCPUS])]
    if len(data.vcpus) > _VCPUS:
        out.append(f"  ... and {len(data.vcpus) - _VCPUS} more")
    return [*out, "  p99 of total; open: most at once; slot: share with an un-ACKed ready"]


def _vcpu_row(row: VcpuRow, unit: str) -> str:
    v = row.values
    numbers = (
        (v["tid"], 9),
        (v["faults"], 7),
        (v["pv"], 7),
        (v["halt"], 6),
        (_short(v["p99"], unit), 9),
        (v["outstanding_max"], 5),
        (share(v["slot_busy"]), 7),
    )
    return pad(f"  {row.where} {row.comm}", 22) + "".join(
        f"{ABSENT if number is None else number:>{width}}" for number, width in numbers
    )


def _environment(data: ReportData) -> list[str]:
    out = ["ENVIRONMENT"]
    for one in data.inputs:
        out += wrap(one.path, WIDTH, "  ", "    ")
        for label, text in one.facts:
            out += _fact(label, text, 4)
        out += _events(one)
        out += [line for note in one.notes for line in _fact("note", note, 4)]
    out += [line for gap in data.gaps.told for line in _fact("gap", gap)]
    if data.gaps.hidden:
        out += _fact("", f"... and {plural(data.gaps.hidden, 'more gap')}")
    return out + _fact("protocol", data.protocol)


def _events(one: InputFacts) -> list[str]:
    out = []
    for name, hits in one.events[:_EVENTS]:
        out.append("      " + pad(name, 44) + f"{count(hits):>16}")
    if len(one.events) > _EVENTS:
        rest = one.events[_EVENTS:]
        out.append("      " + pad(f"{len(rest)} more", 44) + f"{count(sum(hits for _, hits in rest)):>16}")
    return out


def _not_run(data: ReportData) -> list[str]:
    if not data.not_run:
        return []
    out = ["NOT LOOKED FOR  what was not recorded, and the rules that need it"]
    for missing, named in data.lacking:
        out += wrap(f"{', '.join(missing)}: {' '.join(named)}", WIDTH, "  ", "    ")
    return out


def _section(title: str, sentence: str) -> list[str]:
    return [title, *wrap(sentence, WIDTH, "  ", "  ")]


def _fact(label: str, text: str, indent: int = 2) -> list[str]:
    first = " " * indent + pad(label, 9) + " "
    return wrap(text, WIDTH, first, " " * columns(first))


def _bullets(texts: Iterable[str], indent: str = "  ") -> list[str]:
    return [line for text in texts for line in wrap(text, WIDTH, f"{indent}- ", f"{indent}  ")]


def _some(words: Sequence[str], most: int) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return clip(", ".join(words[:most]), 400) + more


def _short(value: int | None, unit: str, room: int = 9) -> str:
    # A column of ticks has its unit in the environment block; the number alone must fit.
    if unit == "ns" or value is None:
        return duration(value)
    return str(value) if value < 10 ** (room - 1) else f"{value:.{room - 7}e}"
