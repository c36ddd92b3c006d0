"""Runs the catalogue over a case and states the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from apftrace.ahead import side_by_side
from apftrace.analysis import NotRun
from apftrace.model import tracepoints as tp
from apftrace.model.evidence import texts
from apftrace.model.guest.verdict import followed, guest_unsafe, guest_verdict
from apftrace.model.rules import CATALOGUE
from apftrace.model.rules.base import ERROR, INFO, WARNING, Finding
from apftrace.schema import FINDINGS

if TYPE_CHECKING:
    from apftrace.model.correlate import Case
    from apftrace.model.rules.base import Rule

EVIDENCE_PER_RULE = 1000
"""Findings of one rule that carry their events; further ones state everything else."""

_SEVERITY_ORDER = {ERROR: 0, WARNING: 1, INFO: 2}

_UNSIGNED = ("blocker", "gva", "token")

_CORE = (tp.NOT_PRESENT, tp.READY)
"""Without these there is nothing to pair."""

_PROOF = (tp.COMPLETED, tp.ENTRY)
"""Without these a lost wakeup cannot be told from one in flight."""


@dataclass(frozen=True)
class Judgement:
    """What the catalogue says: findings, rules that could not look, verdict and headline."""

    findings: pl.DataFrame
    not_run: tuple[NotRun, ...]
    verdict: str
    headline: str
    unsafe: tuple[str, ...]


def judge(case: Case) -> Judgement:
    """Run every rule that has its tracepoints."""
    missing = {rule.id: rule.missing(case) for rule in CATALOGUE}
    looking = [rule for rule in CATALOGUE if not missing[rule.id]]
    stated = side_by_side(partial(_look, case), looking)
    findings = _frame(case, stated)
    if case.guests and not case.rec.counts:
        unsafe = guest_unsafe(case)
        verdict, headline = guest_verdict(case, findings, unsafe)
    else:
        unsafe = (*_unsafe(case), *guest_unsafe(case))
        verdict, headline = _verdict(case, findings, unsafe)
    not_run = tuple(NotRun(rule, lacking) for rule, lacking in missing.items() if lacking)
    return Judgement(findings, not_run, verdict, headline, unsafe)


def _look(case: Case, rule: Rule) -> tuple[str, list[Finding]]:
    found = list(rule.find(case))
    assert all(f["severity"] in rule.severities for f in found), rule.id
    return rule.id, found


def _frame(case: Case, stated: list[tuple[str, list[Finding]]]) -> pl.DataFrame:
    """Return the findings of all rules as the table ``findings``, the most severe first."""
    numbered = [(rule, n, f) for rule, found in stated for n, f in enumerate(found, 1)]
    if not numbered:
        return FINDINGS.empty()
    numbered.sort(key=lambda one: _SEVERITY_ORDER[one[2]["severity"]])
    in_order = [f for _, _, f in numbered]
    columns = {
        "id": [f"{rule}-{n}" for rule, n, _ in numbered],
        "rule": [rule for rule, _, _ in numbered],
        "evidence": _evidence(case, numbered),
        **{name: [f.get(name, ()) for f in in_order] for name in ("ruled_out", "not_ruled_out")},
    }
    made = {
        f.name: pa.array(
            columns.get(f.name) or [finding.get(f.name) for finding in in_order],
            pa.int64() if f.name in _UNSIGNED else f.type,
        )
        for f in FINDINGS.arrow()
        if f.name not in ("vm", "vcpu")
    }
    frame = pl.from_arrow(pa.table(made))
    assert isinstance(frame, pl.DataFrame)
    frame = frame.with_columns(pl.col(c).reinterpret(signed=False) for c in _UNSIGNED)
    frame = frame.join(case.threads.select("tid", "vm", "vcpu"), on="tid", how="left", maintain_order="left")
    return FINDINGS.conform(frame.with_columns(pl.col("machine").fill_null(case.rec.machine)))


def _evidence(case: Case, numbered: list[tuple[str, int, Finding]]) -> list[list[dict[str, object]]]:
    """Return the events of each finding in order of time; none of those that come late in their rule."""
    wanted = {s for _, n, f in numbered if n <= EVIDENCE_PER_RULE for s in f["seqs"] if s is not None}
    shown = texts(case.rec, wanted)
    none: list[dict[str, object]] = []

    def told(finding: Finding) -> list[dict[str, object]]:
        events = [shown[s] for s in finding["seqs"] if s is not None and s in shown]
        return sorted([*events, *finding.get("seen", [])], key=lambda e: e["ts"])  # type: ignore[arg-type, return-value]

    return [told(f) if n <= EVIDENCE_PER_RULE else none for _, n, f in numbered]


def _unsafe(case: Case) -> tuple[str, ...]:
    if not any(case.rec.counts.values()):
        return ("the trace holds no event",)
    out = []
    # What would prove a wakeup lost is missed only where there was a fault.
    needed = (*_CORE, *_PROOF) if case.lives.height else _CORE
    missing = [tp.NAMES[k] for k in needed if not case.rec.has(k)]
    if missing:
        out.append("tracepoints missing: " + ", ".join(missing))
    if case.rec.silent:
        out.append("kvm_async_pf_ready was never hit: it was off, or no fault was answered")
    if case.rec.losses:
        cpus = ", ".join(str(c) for c in sorted({loss.cpu for loss in case.rec.losses}))
        counts = [loss.count for loss in case.rec.losses]
        known = sum(c for c in counts if c is not None)
        many = (
            f"{known} records"
            if None not in counts
            else f"{known or 'some'} or more records"
            if known
            else "records"
        )
        out.append(f"{many} lost on CPU {cpus}")
    if not out and (case.lives["outcome"] == "undecided").any():
        out.append("records that would tell may be missing")
    return tuple(out)


def _verdict(case: Case, findings: pl.DataFrame, unsafe: tuple[str, ...]) -> tuple[str, str]:
    errors = findings.filter(pl.col("severity") == ERROR)
    warnings = findings.filter((pl.col("severity") == WARNING) & (pl.col("rule") != "events-lost"))
    n = case.lives.height
    faults = f"{n} async page fault{'' if n == 1 else 's'}"
    if not any(case.rec.counts.values()):
        return "unusable", "The trace holds no event."
    if not case.rec.has(*_CORE):
        return "unusable", "The trace does not hold the events that async page faults are paired from."
    if errors.height:
        return "anomaly", f"{faults}; {_summary(errors)}."
    open_lives = case.lives.filter(pl.col("outcome") == "in_flight").height
    answered = case.lives.filter(pl.col("outcome") == "answered").height
    undecided = case.lives.filter(pl.col("outcome") == "undecided").height
    ends = [f"{answered} answered"] if answered < n else []
    ends += [f"{open_lives} in flight at the end"] if open_lives else []
    ends += [f"{undecided} undecided"] if undecided else []
    cancelled = n - answered - open_lives - undecided
    ends += [f"{cancelled} cancelled"] if cancelled else []
    if not n:
        told = "No async page fault in the trace"
    elif ends:
        told = f"{faults}: {', '.join(ends)}"
    else:
        told = f"{faults}, {'' if n == 1 else 'all '}answered"
    told += followed(case)
    lost = "nothing lost" if not unsafe else "nothing shown to be lost"
    if undecided or case.rec.losses or any(side.rec.losses for side in case.guests):
        return "undecided", f"{told}; {unsafe[-1]}."
    if warnings.height:
        return "warnings", f"{told}; {lost}; {_summary(warnings)}."
    timed = "nothing late" if case.rec.measures_time else f"not timed: clock {case.rec.clock}"
    return "clean", f"{told}; {lost}, {timed}." if n else f"{told}."


def _summary(findings: pl.DataFrame) -> str:
    counts = (
        findings.group_by("rule", maintain_order=True).len().sort("len", "rule", descending=[True, False])
    )
    return ", ".join(f"{count} {rule}" for rule, count in counts.iter_rows())
