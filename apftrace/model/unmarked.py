"""Gaps in the record of which nothing in the file tells: only that a chain of events is broken shows them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from apftrace.model import tracepoints as tp
from apftrace.model.lives import SKEW_NS
from apftrace_parsers.base import Loss

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.breaks import Break
    from apftrace.model.odometer import Odometer
    from apftrace_parsers.base import PassResult

_SUB_BUFFERFUL = 20
"""Records that are lost at a time, at least: sub-buffers go missing, or the recorder pauses, never a single exit."""

_LONG_NS = 10_000_000
"""A gap as long as this is one however seldom there are records: no vCPU was ever proved stuck in less."""


def unmarked(odometer: Odometer, recorded: frozenset[int], result: PassResult) -> list[Loss]:
    """Return the gaps that nothing in the file tells of: a thread leaves a CPU that it never came to, or enters twice.

    Args:
        odometer: met the broken chains.
        recorded: kinds of tracepoint that were on.
        result: of the pass, with the losses that the file tells of.
    """
    gaps = [
        # Where a damaged record made the CPU's time run backwards, the gap is all that was told twice.
        Loss(one.after, "", None, min(one.since, one.ts), max(one.since, one.ts))
        for one in odometer.broken()
        if not any(_meets(loss, one) for loss in result.losses if loss.cpu == one.after)
    ]
    if recorded >= {tp.ENTRY, tp.EXIT}:
        least = min(_SUB_BUFFERFUL * _usual_interval(result), _LONG_NS)
        # What a vCPU did on its way to another CPU and back may be missing there.
        known = [*result.losses, *gaps]
        gaps += [
            Loss(cpu, "", None, one.since, one.ts)
            for one in _without_skew(odometer.broken_runs())
            if one.ts - one.since >= least
            and not _explained(one, known, odometer.cpus_of.get(one.tid, set()))
            for cpu in sorted({one.before, one.after})
        ]
    return gaps


def _explained(one: Break, known: Iterable[Loss], cpus: set[int]) -> bool:
    return any(_meets(loss, one) for loss in known if loss.cpu in cpus or loss.before_ns is None)


def _without_skew(breaks: Iterable[Break]) -> list[Break]:
    """Leave out what the clocks of two CPUs put in the wrong order: an exit on one and the entry on the next."""
    found = sorted(breaks)
    wrong = {
        one
        for first, second in pairwise(sorted(found, key=lambda b: (b.tid, b.since)))
        if first.tid == second.tid
        and 0 <= second.since - first.ts <= SKEW_NS
        and (first.before != first.after or second.before != second.after)
        for one in (first, second)
    }
    return [one for one in found if one not in wrong]


def _usual_interval(result: PassResult) -> int:
    """Return how long it takes on average from one record of a CPU to its next."""
    spans = (result.cpu_last_ns.get(cpu, first) - first for cpu, first in result.cpu_first_ns.items())
    return sum(spans) // max(sum(result.counts.values()), 1)


def _meets(loss: Loss, one: Break) -> bool:
    since = loss.after_ns if loss.after_ns is not None else loss.before_ns
    until = loss.before_ns if loss.before_ns is not None else loss.after_ns
    return since is None or until is None or (since <= one.ts and until >= one.since)
