"""What guests' traces add to the verdict, and the verdict on a guest without its host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.amounts import plural
from apftrace.model.counted import counted
from apftrace.model.rules.base import ERROR, WARNING

if TYPE_CHECKING:
    from apftrace.model.correlate import Case
    from apftrace.model.guest.join import GuestSide


def followed(case: Case) -> str:
    """Return how many lives were followed into which guest, as a piece of the headline."""
    parts = []
    for side in case.guests:
        if side.is_joined:
            n = case.lives.filter(pl.col("guest") == side.rec.machine).height
            parts.append(f"{n} followed into {side.rec.machine}")
    return f"; {', '.join(parts)}" if parts else ""


def guest_unsafe(case: Case) -> tuple[str, ...]:
    """Return why a verdict on the guests could be wrong."""
    out = []
    for side in case.guests:
        name = side.rec.machine
        if case.rec.counts and side.alignment.refused is not None:
            out.append(f"guest {name} is not on the host's clock: {side.alignment.refused}")
        if not side.rec.has("wait"):
            out.append(f"guest {name}: nothing shows its waits, probe kvm_async_pf_task_wait_schedule")
        if side.rec.losses:
            counts = [loss.count for loss in side.rec.losses]
            many = "records" if None in counts else f"{sum(c for c in counts if c is not None)} records"
            cpus = ", ".join(str(c) for c in sorted({loss.cpu for loss in side.rec.losses}))
            out.append(f"guest {name}: {many} lost on CPU {cpus}")
    return tuple(out)


def guest_verdict(case: Case, findings: pl.DataFrame, unsafe: tuple[str, ...]) -> tuple[str, str]:
    """Return verdict and headline of a guest's trace alone."""
    (side,) = case.guests
    if not any(side.rec.counts.values()):
        return "unusable", "The trace holds no event."
    if not side.rec.has("wait"):
        return (
            "unusable",
            "The guest's trace shows no wait for a page: probe kvm_async_pf_task_wait_schedule.",
        )
    told = f"{_summary(side)} in {side.rec.machine}, without its host's trace"
    errors, warnings = (findings.filter(pl.col("severity") == grade) for grade in (ERROR, WARNING))
    if errors.height:
        return "anomaly", f"{told}; {counted(errors)}."
    if side.rec.losses:
        return "undecided", f"{told}; {unsafe[-1]}."
    if warnings.height:
        return "warnings", f"{told}; {counted(warnings)}."
    return "clean", f"{told}; nothing shown to be lost."


def _summary(side: GuestSide) -> str:
    n = side.waits.height
    states = dict(side.waits["state"].value_counts().iter_rows())
    still = n - states.get("ran", 0) - states.get("unseen", 0)
    ends = [f"{states.get('ran', 0)} ended"] + ([f"{still} open at the end"] if still else [])
    ends += [f"{states['unseen']} whose end is not recorded"] if "unseen" in states else []
    return f"{plural(n, 'wait')} for a page: {', '.join(ends)}"
