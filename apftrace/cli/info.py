"""``apftrace info``: what a trace holds, and which rules can look at it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apftrace.model.guest.recording import GuestRecording
    from apftrace.model.rules.base import Rule
    from apftrace_parsers.base import PassResult, Source


@click.command()
@click.argument("trace", metavar="TRACE", type=click.Path(path_type=Path, readable=False))
def info(trace: Path) -> None:
    """Show what TRACE holds: format, clock, CPUs, events, losses, guests, and the rules that it can answer.

    Exit status: 0 shown, 2 usage, 3 TRACE cannot be read.

    \b
    Example:
      apftrace info trace.dat
    """
    from apftrace.api import read_trace
    from apftrace_parsers.base import PassResult
    from apftrace_reports.escape import visible

    with read_trace(trace) as opened:
        result = PassResult()
        for _ in opened.source.stream((), result):
            pass
        for line in _lines(opened.source, result):
            click.echo(visible(line))


def _lines(source: Source, result: PassResult) -> list[str]:
    facts = source.info
    first, last = result.first_ns, result.last_ns
    lines = [
        f"{facts.path}",
        f"  format     {facts.format}",
        f"  kernel     {facts.kernel or 'not stated'}",
        f"  clock      {facts.clock} ({facts.clock_unit})",
        f"  cpus       {facts.cpus}",
    ]
    if first is not None and last is not None:
        if facts.clock_unit == "ns":
            lines.append(f"  window     {_seconds(first)} to {_seconds(last)} ({_seconds(last - first)})")
        else:
            lines.append(f"  window     {first} to {last} {facts.clock_unit}")
    if source.machines:
        lines.append("  machines   " + ", ".join(source.machines))
    elif len(facts.instances) > 1:
        lines.append("  instances  " + ", ".join(name or "(top)" for name in facts.instances))
    if facts.trace_id is not None:
        lines.append(f"  trace id   {facts.trace_id:#x}")
    lines += [
        f"  guest      {g.name} (trace id {g.trace_id:#x}), vCPU threads "
        + " ".join(f"{vcpu}:{tid}" for vcpu, tid in sorted(g.vcpu_tids.items()))
        for g in facts.guests
    ]
    lines += [
        f"  {name:<10} {text.strip()}" for name, text in facts.options.items() if "\n" not in text.strip()
    ]
    lines += _losses(result, facts.clock_unit)
    lines += [f"  note       {note}" for note in result.notes]
    lines.append("  events")
    lines += [
        f"    {count:>12}  {name}"
        for name, count in sorted(result.counts.items(), key=lambda i: (-i[1], i[0]))
    ]
    parts = [source.machine(name) for name in source.machines] or [source]
    guests = _guests(parts)
    for rec in guests:
        lines += _guest(rec)
    return lines + _rules(source, result, guests, alone=len(guests) == len(parts))


def _guests(parts: Sequence[Source]) -> list[GuestRecording]:
    from apftrace.model.guest.identity import guest_name, is_guest
    from apftrace.model.guest.recording import record_guest

    return [record_guest(part, guest_name(part.info))[0] for part in parts if is_guest(part)]


def _guest(rec: GuestRecording) -> list[str]:
    hits = dict(rec.hits["kind"].value_counts().iter_rows())
    return [
        f"  guest {rec.machine}",
        *(f"    {hits.get(kind, 0):>12}  {kind} by {' '.join(events)}" for kind, events in rec.hooks.items()),
        *(f"  note       {note}" for note in rec.notes),
    ]


def _seconds(ns: int) -> str:
    return f"{ns // 1_000_000_000}.{ns % 1_000_000_000:09d} s"


def _losses(result: PassResult, unit: str) -> list[str]:
    if not result.losses:
        return ["  lost       nothing"]
    stamp = _seconds if unit == "ns" else str
    out = []
    for loss in result.losses:
        many = "records" if loss.count is None else f"{loss.count} records"
        place = f" of instance {loss.instance}" if loss.instance else ""
        when = f" before {stamp(loss.before_ns)}" if loss.before_ns is not None else ""
        out.append(f"  lost       {many} on CPU {loss.cpu}{place}{when}")
    return out


def _rules(source: Source, result: PassResult, guests: Sequence[GuestRecording], *, alone: bool) -> list[str]:
    """Return a line per rule: whether it can look, or what to record; ``alone`` says that no host was traced."""
    from apftrace.model.recording import recorded_kinds
    from apftrace.model.rules import CATALOGUE
    from apftrace.model.tracepoints import NAMES

    # What a guest's own events have in common with a host's tells nothing of its host.
    kinds = frozenset[int]() if alone else recorded_kinds(source, result)[0]
    where = " on the host" if alone else ""
    lines = ["  rules"]
    for rule in CATALOGUE:
        missing = _missing(rule, kinds, guests, where)
        helps = [NAMES[k] for k in rule.helps if k not in kinds]
        state = "cannot look: record " + ", ".join(missing) if missing else "can look"
        more = f"; surer with {' '.join(helps)}{where}" if helps and not missing else ""
        lines.append(f"    {rule.id:<22} {state}{more}")
    return lines


def _missing(rule: Rule, kinds: frozenset[int], guests: Sequence[GuestRecording], where: str) -> list[str]:
    """Return what is to be recorded for a rule, piece by piece."""
    from apftrace.model.rules.base import GUEST_TRACE

    host = rule.missing_of_host(kinds)
    guest = rule.missing_of_guests(guests)
    told = [" ".join(host) + where] if host else []
    return told + ["the guest too" if one == GUEST_TRACE else one for one in guest]
