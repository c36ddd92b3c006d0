"""Where the record has gaps: in words for the environment, as a strip per CPU for the charts of time.

A trace under pressure can hold thousands of gaps. Words name the first few and count the rest; strips
join gaps that lie closer together than the picture can tell apart.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace_reports.escape import visible
from apftrace_reports.series import Lane, Row, Series
from apftrace_reports.units import duration, instant, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apftrace.analysis import LossSpan
    from apftrace_reports.series import View

FIRST = 5
"""Gaps that are told one by one."""

MOST_STRIPS = 8
"""CPUs that get a strip."""

STRIP = 24
"""Pixels of a strip with its name."""

BAR = 7
"""Pixels of the strip alone."""

_PARTS = 300  # gaps closer together than this part of the picture are drawn as one
_EARLIEST, _LATEST = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Gaps:
    """The gaps in words: the first few, and how many there are in all."""

    told: tuple[str, ...] = ()
    count: int = 0

    @property
    def hidden(self) -> int:
        """How many are counted only."""
        return self.count - len(self.told)


def gaps_in_words(losses: Sequence[LossSpan], unit: str) -> Gaps:
    """Describe the first gaps in order of time; those without a known place come last."""
    machines = _machines(losses)
    first = sorted(losses, key=lambda one: (_nowhere(one), _start(one), one.machine, one.cpu))[:FIRST]
    return Gaps(tuple(_sentence(one, unit, several=len(machines) > 1) for one in first), len(losses))


def strips(losses: Sequence[LossSpan], view: View) -> Series:
    """Return the gaps as boxes, one lane in pixels per CPU; the note tells those that cannot be drawn."""
    placed = [one for one in losses if not _nowhere(one)]
    low, high = view.ends()
    inside = [one for one in placed if _start(one) < high and _stop(one) > low]
    by_cpu: dict[tuple[str, int], list[LossSpan]] = defaultdict(list)
    for one in inside:
        by_cpu[one.machine, one.cpu].append(one)
    several = len(_machines(losses)) > 1
    worst = sorted(by_cpu, key=lambda key: (-_blind(by_cpu[key], low, high), key))[:MOST_STRIPS]
    rows: list[Row] = []
    lanes: list[Lane] = []
    for at, key in enumerate(sorted(worst)):
        top = STRIP * (at + 1) - BAR
        lanes.append(Lane(f"{_cpu(*key, several=several)}: {_lost(by_cpu[key])}", top, BAR))
        rows += [
            {
                "from": view.at(max(low, start)),
                "to": view.at(min(high, stop)),
                "y": top,
                "bottom": top + BAR,
                "cpu": _cpu(*key, several=several),
                "lost": words,
            }
            for start, stop, words in _joined(by_cpu[key], (high - low) // _PARTS)
        ]
    return Series(rows, _note(losses, placed, inside, by_cpu, several=several), tuple(lanes))


def _joined(losses: Iterable[LossSpan], closer: int) -> list[tuple[int, int, str]]:
    starts: list[int] = []
    stops: list[int] = []
    parts: list[list[LossSpan]] = []
    for one in sorted(losses, key=_start):
        if parts and _start(one) - stops[-1] <= closer:
            stops[-1] = max(stops[-1], _stop(one))
            parts[-1].append(one)
        else:
            starts.append(_start(one))
            stops.append(_stop(one))
            parts.append([one])
    return list(zip(starts, stops, map(_lost, parts), strict=True))


def _note(
    losses: Sequence[LossSpan],
    placed: Sequence[LossSpan],
    inside: Sequence[LossSpan],
    by_cpu: dict[tuple[str, int], list[LossSpan]],
    *,
    several: bool,
) -> str:
    out = []
    if len(by_cpu) > MOST_STRIPS:
        out.append(f"The {MOST_STRIPS} of {len(by_cpu)} CPUs that were blind longest have a strip.")
    if len(inside) < len(placed):
        number = len(placed) - len(inside)
        out.append(f"{plural(number, 'gap')} {'lies' if number == 1 else 'lie'} outside of the picture.")
    nowhere: dict[tuple[str, int], list[LossSpan]] = defaultdict(list)
    for one in losses:
        if _nowhere(one):
            nowhere[one.machine, one.cpu].append(one)
    names = [f"{_cpu(*key, several=several)} ({_lost(mine)})" for key, mine in sorted(nowhere.items())]
    if names:
        more = f" and {len(names) - FIRST} more" if len(names) > FIRST else ""
        out.append(f"The trace does not say when the losses of {', '.join(names[:FIRST])}{more} were.")
    return " ".join(out)


def _sentence(one: LossSpan, unit: str, *, several: bool) -> str:
    words = f"{_cpu(one.machine, one.cpu, several=several)}: {_lost([one])}"
    after, before = instant(one.after_ns, unit), instant(one.before_ns, unit)
    if one.after_ns is None and one.before_ns is None:
        return f"{words}, the trace does not say when"
    if one.after_ns is None:
        return f"{words}, from the start to {before}"
    if one.before_ns is None:
        return f"{words}, from {after} to the end"
    return f"{words}, {after} to {before} ({duration(one.before_ns - one.after_ns, unit)})"


def _lost(losses: Sequence[LossSpan]) -> str:
    counts = [one.count for one in losses]
    known = [number for number in counts if number is not None]
    if len(known) == len(counts):
        words = f"{plural(sum(known), 'record')} lost"
    else:
        words = f"at least {plural(sum(known), 'record')} lost" if known else "records lost"
    return words if len(losses) == 1 else f"{words} in {plural(len(losses), 'gap')}"


def _cpu(machine: str, cpu: int, *, several: bool) -> str:
    return f"{visible(machine)} CPU {cpu}" if several else f"CPU {cpu}"


def _machines(losses: Sequence[LossSpan]) -> set[str]:
    return {one.machine for one in losses}


def _nowhere(one: LossSpan) -> bool:
    return one.after_ns is None and one.before_ns is None


def _start(one: LossSpan) -> int:
    return _EARLIEST if one.after_ns is None else one.after_ns


def _stop(one: LossSpan) -> int:
    return _LATEST if one.before_ns is None else one.before_ns


def _blind(losses: Iterable[LossSpan], low: int, high: int) -> int:
    return sum(min(high, _stop(one)) - max(low, _start(one)) for one in losses)
