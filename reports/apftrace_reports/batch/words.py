"""Figures of a comparison as people read them, the same in every report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.batch.baseline import TOO_FEW
from apftrace_reports.data import phase_label
from apftrace_reports.units import duration

if TYPE_CHECKING:
    from apftrace.batch.baseline import Change


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


def certainty(change: Change) -> str:
    """Return sample sizes, effect size and p in one clause."""
    before, now = change.runs
    told = f"{before} runs before, {now} now, {change.pairing}"
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
