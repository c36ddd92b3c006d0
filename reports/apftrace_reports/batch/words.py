"""Figures of a comparison as people read them, the same in every report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.batch.baseline import TOO_FEW
from apftrace_reports.data import phase_label
from apftrace_reports.units import count, duration

if TYPE_CHECKING:
    from apftrace.batch.baseline import Change, Comparison


def name(change: Change) -> str:
    """Return what was compared: ``P2``, or a rule's id."""
    return change.what if change.is_rule else phase_label(change.what)


def group(change: Change) -> str:
    """Return where: ``kernel 6.12``."""
    return ", ".join(f"{label} {value}" for label, value in change.group.items()) or "all runs"


def typical(change: Change, side: int) -> str:
    """Return the typical value before (0) or now (1)."""
    value = change.typical[side]
    return f"{value:.2f} per 1,000 faults" if change.is_rule else duration(round(value))


def effect(change: Change) -> str:
    """Return by how much it changed: ``+20.3 %``, or ``2.1 times``."""
    if change.ratio is None:
        return "new"
    if change.is_rule:
        return f"{change.ratio:.2f} times"
    return f"{(change.ratio - 1) * 100:+.1f} %"


def runs(change: Change, side: int) -> str:
    """Return how many runs were compared before (0) or now (1), and of how many where some were left out."""
    compared, there = change.runs[side], change.of[side]
    return count(compared) if compared == there else f"{count(compared)} of {count(there)}"


def dropped(comparison: Comparison) -> str:
    """Return which runs were left out of a comparison, wholly or in part; empty where none were."""
    told = [f"{why} ({count(before)} before, {count(now)} now)" for why, before, now in comparison.dropped]
    if any(change.runs != change.of for change in comparison.changes):
        told.append("where it says so, runs that do not have the phase or have none to be held against")
    return f"Left out: {'; '.join(told)}." if told else ""


def certainty(change: Change) -> str:
    """Return sample sizes, effect size and p in one clause."""
    told = f"{runs(change, 0)} runs before, {runs(change, 1)} now, {change.pairing}"
    if change.verdict == TOO_FEW:
        return f"{told}: too few to tell"
    return f"{told}; Cliff's delta {change.shift.delta:+.2f}, p {probability(change.p)}"


def probability(p: float | None) -> str:
    """Return an adjusted p."""
    if p is None:
        return "-"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def sentence(change: Change) -> str:
    """Return a change in one sentence."""
    return (
        f"{group(change)}: {name(change)} {change.verdict}, {typical(change, 0)} before, {typical(change, 1)} now "
        f"({effect(change)}; {certainty(change)})"
    )
