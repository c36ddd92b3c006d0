"""Where a trace comes from and what it can tell: kernel, clock, window, events, losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace_reports.escape import visible
from apftrace_reports.units import count, duration, instant, plural

if TYPE_CHECKING:
    from apftrace.analysis import GuestLink, Input

NONE_LOST = "none known"


@dataclass(frozen=True)
class InputFacts:
    """One input, as text.

    Attributes:
        path: as the user named it.
        machine: ``host`` or the guest's name.
        facts: label and text, in reading order.
        events: tracepoint and hits: async page faults first, then by number of hits.
        cpus: number of CPUs.
        lost_cpus: those with a loss.
        notes: what was odd in the file.
        sha256: digest, null when nobody asked.
    """

    path: str
    machine: str
    facts: tuple[tuple[str, str], ...]
    events: tuple[tuple[str, int], ...]
    cpus: int
    lost_cpus: tuple[int, ...]
    notes: tuple[str, ...]
    sha256: str | None


def environment(
    inputs: tuple[Input, ...], guests: tuple[GuestLink, ...] = (), unit: str = "ns"
) -> tuple[InputFacts, ...]:
    """Describe every input.

    Args:
        inputs: the traces.
        guests: how those of guests were brought to the host's clock.
        unit: of the host's clock.
    """
    links = {link.machine: link for link in guests}
    return tuple(_describe(one, links.get(one.machine), unit) for one in inputs)


def _describe(one: Input, link: GuestLink | None, unit: str) -> InputFacts:
    return InputFacts(
        path=visible(one.path),
        machine=visible(one.machine),
        facts=(
            ("machine", visible(one.machine)),
            ("kernel", visible(one.kernel) if one.kernel else "not recorded"),
            ("format", visible(one.format)),
            ("clock", _clock(one)),
            *(_joined(link, unit) if link is not None else ()),
            ("CPUs", count(one.cpus)),
            ("window", _window(one)),
            ("events", _events(one)),
            ("lost", lost_text(one)),
        ),
        events=tuple((visible(name), hits) for name, hits in sorted(one.events.items(), key=_event_order)),
        cpus=one.cpus,
        lost_cpus=tuple(sorted(one.lost_cpus)),
        notes=tuple(visible(note) for note in one.notes),
        sha256=one.sha256,
    )


def _clock(one: Input) -> str:
    name = visible(one.clock)
    return name if one.clock_unit == "ns" else f"{name}, in {visible(one.clock_unit)}: no rate is known"


def _joined(link: GuestLink, unit: str) -> list[tuple[str, str]]:
    """Return how a guest's clock was brought to the host's, how good that is, and what it joined."""
    if link.refused is not None:
        return [("joined", f"{link.method}: {visible(link.refused)}"), *_remarks(link)]
    facts = [("joined", f"{link.method}: {visible(link.how)}")]
    if link.within is not None:
        facts.append(("quality", f"{_spread(link, unit)}; {plural(link.bounds, 'wait')} and wakes in order"))
    if link.lives or link.joined:
        facts.append(
            ("faults", f"{count(link.joined)} of {count(link.lives)} that the guest knew of were followed")
        )
    return [*facts, *_remarks(link)]


def _spread(link: GuestLink, unit: str) -> str:
    """Return what is known of the offset: where it lies, how far it can be off, and how it drifts."""
    parts = [f"off by {duration(link.within, unit)} at most, typically {duration(link.typical, unit)}"]
    if link.offset is not None:
        parts.append(f"offset {link.offset} {unit}")
    if link.low is not None and link.high is not None and link.low <= link.high:
        parts.append(f"{link.low} to {link.high} {unit} would do without drift")
    if link.rate != 1.0:
        parts.append(f"{link.rate:.9g} {unit} per unit of the guest")
    if link.drift_ppm:
        parts.append(f"drift {link.drift_ppm:.1f} ppm")
    return ", ".join(parts)


def _remarks(link: GuestLink) -> list[tuple[str, str]]:
    broken = [f"{plural(link.broken, 'wait')} or wakes out of order"] if link.broken else []
    return [("", visible(text)) for text in (*broken, *link.contradictions, *link.notes)]


def _window(one: Input) -> str:
    if one.first_ns is None or one.last_ns is None:
        return "no event"
    first, last = instant(one.first_ns, one.clock_unit), instant(one.last_ns, one.clock_unit)
    return f"{duration(one.last_ns - one.first_ns, one.clock_unit)}, {first} to {last}"


def _events(one: Input) -> str:
    if not one.events:
        return "none"
    return f"{count(sum(one.events.values()))} of {plural(len(one.events), 'tracepoint')}"


def lost_text(one: Input) -> str:
    """Return how much an input lost and where, in one phrase."""
    if one.lost_events == 0 and not one.lost_cpus:
        return NONE_LOST
    number = "an unknown number of events" if one.lost_events is None else plural(one.lost_events, "event")
    if not one.lost_cpus:
        return f"{number}, CPU unknown"
    cpus = f"CPU{'s' if len(one.lost_cpus) > 1 else ''} {ranges(one.lost_cpus)}"
    return f"{number} on {cpus} of {one.cpus}"


def ranges(numbers: tuple[int, ...]) -> str:
    """Return ``0-3, 7`` for 0, 1, 2, 3, 7."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _event_order(item: tuple[str, int]) -> tuple[bool, int, str]:
    name, hits = item
    return ("async_pf" not in name and "async_get_page" not in name, -hits, name)
