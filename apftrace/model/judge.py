"""Runs the catalogue over a case and states the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from apftrace.ahead import side_by_side
from apftrace.amounts import plural
from apftrace.analysis import NotRun
from apftrace.model import tracepoints as tp
from apftrace.model.counted import counted
from apftrace.model.findings import stated, table
from apftrace.model.guest.verdict import followed, guest_unsafe, guest_verdict
from apftrace.model.rules import CATALOGUE
from apftrace.model.rules.base import ERROR, WARNING

if TYPE_CHECKING:
    from apftrace.model.correlate import Case
    from apftrace.model.rules.base import Rule

_CORE = (tp.NOT_PRESENT, tp.READY)
"""Without these there is nothing to pair."""

_PROOF = (tp.COMPLETED, tp.ENTRY)
"""Without these a lost wakeup cannot be told from one in flight."""

_MANY = 1 / 3
"""Share of the rules from which on "clean" alone would claim too much if they could not look."""


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
    findings = table(case, side_by_side(partial(_look, case), looking))
    if case.guests and not case.rec.counts:
        unsafe = guest_unsafe(case)
        verdict, headline = guest_verdict(case, findings, unsafe)
    else:
        unsafe = (*_unsafe(case), *guest_unsafe(case))
        verdict, headline = _verdict(case, findings, unsafe)
    not_run = tuple(NotRun(rule, lacking) for rule, lacking in missing.items() if lacking)
    if verdict == "clean":
        headline = _as_far_as_looked(headline, not_run)
    return Judgement(findings, not_run, verdict, headline, unsafe)


def _as_far_as_looked(headline: str, not_run: tuple[NotRun, ...]) -> str:
    """Return the headline of a clean trace; how many rules could not look stands in front where those are many."""
    if len(not_run) < _MANY * len(CATALOGUE):
        return headline
    blind = f"{len(not_run)} of {len(CATALOGUE)} rules could not"
    return f"As far as could be looked ({blind}): {headline[:1].lower()}{headline[1:]}"


def _look(case: Case, rule: Rule) -> tuple[str, pl.DataFrame]:
    found = stated(rule.find(case))
    assert set(found["severity"].unique()) <= set(rule.severities), rule.id
    return rule.id, found


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
    faults = plural(n, "async page fault")
    if not any(case.rec.counts.values()):
        return "unusable", "The trace holds no event."
    if not case.rec.has(*_CORE):
        return "unusable", "The trace does not hold the events that async page faults are paired from."
    if errors.height:
        return "anomaly", f"{faults}; {counted(errors)}."
    ended = dict(case.lives["outcome"].value_counts().iter_rows())
    open_lives, answered, undecided, stuck = (
        ended.get(o, 0) for o in ("in_flight", "answered", "undecided", "lost")
    )
    ends = [f"{answered} answered"] if answered < n else []
    ends += [f"{open_lives} in flight at the end"] if open_lives else []
    ends += [f"{undecided} undecided"] if undecided else []
    ends += [f"{stuck} stuck"] if stuck else []
    cancelled = n - answered - open_lives - undecided - stuck
    ends += [f"{cancelled} cancelled"] if cancelled else []
    if not n:
        told = "No async page fault in the trace"
    elif ends:
        told = f"{faults}: {', '.join(ends)}"
    else:
        told = f"{faults}, {'' if n == 1 else 'all '}answered"
    told += followed(case)
    lost = "nothing lost" if not unsafe else "nothing shown to be lost"
    if undecided or stuck or case.rec.losses or any(side.rec.losses for side in case.guests):
        return "undecided", f"{told}; {unsafe[-1] if unsafe else 'the rules for them lack tracepoints'}."
    if warnings.height:
        return "warnings", f"{told}; {lost}; {counted(warnings)}."
    timed = "nothing late" if case.rec.measures_time else f"not timed: clock {case.rec.clock}"
    return "clean", f"{told}; {lost}, {timed}." if n else f"{told}."
