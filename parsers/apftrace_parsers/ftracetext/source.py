"""ftrace text as a source of Arrow data."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from apftrace.errors import TraceUnsupported
from apftrace_parsers.base import (
    EventFormat,
    FileOwner,
    Loss,
    PassResult,
    Pick,
    Resolved,
    SourceInfo,
    is_glob,
    matches,
)
from apftrace_parsers.eventformat import LEADING
from apftrace_parsers.ftracetext.fields import is_place, place
from apftrace_parsers.ftracetext.graph import RECORDED, GraphText, NamedText, as_records
from apftrace_parsers.ftracetext.machines import MachineText, StrangeText, machines_of
from apftrace_parsers.ftracetext.rows import Bounds, streamed, tabulated
from apftrace_parsers.ftracetext.survey import survey
from apftrace_parsers.ftracetext.text import GzipText
from apftrace_parsers.stream import MAX_STREAM_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apftrace_parsers.ftracetext.survey import Survey
    from apftrace_parsers.ftracetext.text import Text

MAX_FILES = 64
"""Machines that one text is read for; each needs a pass over all of it."""
MAX_STRANGERS = 8
_SYSTEM = re.compile(r"(kvm|sched|workqueue|signal|block|irq|timer|mmap_lock)_")
GRAPH_EVENTS = frozenset(name.decode() for name in RECORDED)
_SYSTEMS = {"memory_failure_event": "ras", "function": "ftrace"} | dict.fromkeys(GRAPH_EVENTS, "ftrace")


class TextSymbols:
    """Functions by the numbers that stand for their names; a `base.Symbols`."""

    def find(self, name: str) -> tuple[int, ...]:
        """Return the number of a name."""
        return (place(name.encode()),)

    def covers(self, value: int) -> bool:
        """Say whether a value stands for a name; a bare address in a text means nothing."""
        return is_place(value)


class TextSource:
    """An opened text; a `base.Source`.

    It is read through once when it is opened: only its records tell which events it holds, and of which
    fields. A tracepoint that was on and never hit is therefore unknown. A text of several machines is
    rarely asked for as a whole, and so only read when it is.

    Args:
        info: facts from elsewhere; the text adds its own.
        text: the bytes.
        notes: damage found elsewhere; every pass repeats it.

    Raises:
        TraceUnsupported: no line is a record, or the text is of more machines than can be told apart.
    """

    def __init__(self, info: SourceInfo, text: Text, notes: Sequence[str] = ()) -> None:
        self._text = as_records(text)
        if isinstance(self._text, GraphText) and not self._text.timed:
            # What the kernel's clock of this name does: it counts records.
            info = replace(info, clock="counter")
            notes = (*notes, "the text shows no times: records are numbered instead")
        self._given = info
        self._notes = tuple(notes)
        self._machines = {name.decode("utf-8", "replace"): name for name in machines_of(self._text)}
        if len(self._machines) > MAX_FILES:
            raise TraceUnsupported(info.path, f"text of more than {MAX_FILES} trace files in one")
        if not self._machines:
            _check(self._survey, info.path)

    @cached_property
    def _survey(self) -> Survey:
        found = survey(self._text)
        if GRAPH_EVENTS & found.events().keys() and not isinstance(self._text, GraphText):
            found = survey(NamedText(self._text))
        return found

    @cached_property
    def _counts(self) -> dict[str, int]:
        return self._survey.events()

    @cached_property
    def info(self) -> SourceInfo:
        """Facts from the whole text."""
        info, found = self._given, self._survey
        return replace(
            info,
            clock_unit="ns" if found.grammar.has_unit else "ticks",
            cpus=max(info.cpus, found.cpus),
            kernel=info.kernel or found.kernel,
            instances=tuple(dict.fromkeys(["", *found.instances.values()])),
            # Option latency-format cuts comms to 8 letters.
            comms=found.comms | info.comms,
            tgids=found.tgids | info.tgids,
            options=info.options | ({"tracer": found.tracer} if found.tracer else {}),
        )

    @property
    def machines(self) -> tuple[str, ...]:
        """Names of trace files, where the text is of several."""
        return tuple(self._machines)

    def machine(self, name: str) -> TextSource:
        """Return the lines of one machine as a source of its own.

        Raises:
            KeyError: there is no such machine.
            TraceUnsupported: none of its lines is a record.
        """
        whole = self._given
        info = SourceInfo(
            path=whole.path,
            format=f"{whole.format}, lines of {name}",
            clock=whole.clock,
            clock_unit=whole.clock_unit,
            cpus=0,
            kernel=None,
            instances=("",),
            options={"machine": name},
        )
        return TextSource(info, MachineText(self._text, self._machines[name]), (*self._notes, *self._strange))

    @cached_property
    def _strange(self) -> list[str]:
        found = survey(StrangeText(self._text, self._machines.values()))
        others = sorted(set(found.instances.values()) - {""})[:MAX_STRANGERS]
        return [f"records of {other!r} are of no known machine, left out" for other in others]

    def formats(self) -> tuple[EventFormat, ...]:
        """Return every event that occurs; ids only tell them apart."""
        return tuple(self._format(event, i) for i, event in enumerate(self._counts))

    def resolve(self, picks: Sequence[Pick]) -> tuple[Resolved | None, ...]:
        """Return per pick the event that occurs, and which of its fields the texts show."""
        return tuple(map(self._resolve, picks))

    def probes(self) -> tuple[EventFormat, ...]:
        """Return the events whose texts begin as those of probes do."""
        return tuple(
            f
            for f in self.formats()
            if any(n.startswith("__probe_") for n in self._survey.fields.get(f.name, ()))
        )

    def symbols(self) -> TextSymbols:
        """Return what tells functions by their names in the text."""
        return TextSymbols()

    def stream(
        self,
        picks: Sequence[Pick],
        result: PassResult,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield narrow batches in time order, see `base.Source`; equal stamps keep the order of the text.

        Records of several instances are merged only event by event: of each event the instance that holds
        most of it, since the same hit stands in each.

        Raises:
            TraceUnsupported: events are wanted of several machines at once.
        """
        if self._machines and any(self.resolve(picks)):
            problem = "text of several machines: " + ", ".join(self._machines)
            raise TraceUnsupported(self._given.path, problem)
        bounds = Bounds(start_ns, end_ns)
        wanted = self.resolve(picks)
        yield from streamed(self._survey, wanted, bounds, result)
        self._finish(bounds, result)

    def tables(
        self,
        events: Sequence[str],
        result: PassResult,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[tuple[EventFormat, pa.RecordBatch]]:
        """Yield typed batches of the named events, in the order of the text; column ``text`` is all of it.

        Raises:
            KeyError: a name without wildcard that does not occur.
        """
        formats = self.formats()
        chosen: dict[str, EventFormat] = {}
        for pattern in events:
            hits = [f for f in formats if matches(f, pattern)]
            if not hits and not is_glob(pattern):
                raise KeyError(pattern)
            chosen |= {f.name: f for f in hits}
        return self._tables(chosen, result, Bounds(start_ns, end_ns))

    def close(self) -> None:
        """Release what the source holds; here nothing."""

    def _tables(
        self, chosen: dict[str, EventFormat], result: PassResult, bounds: Bounds
    ) -> Iterator[tuple[EventFormat, pa.RecordBatch]]:
        yield from tabulated(self._survey, chosen, bounds, result)
        self._finish(bounds, result)

    def _resolve(self, pick: Pick) -> Resolved | None:
        event = next((n for n in (e.rpartition(":")[2] for e in pick.events) if n in self._counts), None)
        if event is None:
            return None
        known = self._survey.columns(event) | {n: n for n in self._survey.fields.get(event, {})}
        fields = [next((known[n] for n in names if n in known), None) for names in pick.fields]
        return Resolved(event, (*fields, *(None,) * MAX_STREAM_FIELDS)[:MAX_STREAM_FIELDS])

    def _format(self, event: str, number: int) -> EventFormat:
        unsigned = self._survey.fields.get(event, {})
        own = [
            pa.field(column, pa.uint64() if unsigned[name] else pa.int64())
            for column, name in self._survey.columns(event).items()
        ]
        text = pa.field("text", pa.string(), nullable=False)
        return EventFormat(_system(event), event, number, pa.schema([*LEADING, *own, text]))

    def _finish(self, bounds: Bounds, result: PassResult) -> None:
        found = self._survey
        result.notes += [*self._notes, *found.notes]
        result.losses += [loss for loss in found.losses if _is_within(loss, bounds)]
        if bounds.is_open:
            result.counts = dict(self._counts)
            result.cpu_first_ns |= found.cpu_first
            result.cpu_last_ns |= found.cpu_last
        result.first_ns = min(result.cpu_first_ns.values(), default=None)
        result.last_ns = max(result.cpu_last_ns.values(), default=None)


class TextFile(FileOwner, TextSource):
    """A text that is a file of its own.

    Args:
        path: as the user named it.
        fd: the file; closed with the source.
        text: its text.
    """

    def __init__(self, path: str, fd: int, text: Text) -> None:
        form = "ftrace text (gzip)" if isinstance(text, GzipText) else "ftrace text"
        super().__init__(
            SourceInfo(
                path=path,
                format=form,
                clock="not stated",
                clock_unit="ns",
                cpus=0,
                kernel=None,
                instances=("",),
            ),
            text,
        )
        self.fd = fd


def _check(found: Survey, path: str) -> None:
    if found.header_cpus > 1:
        raise TraceUnsupported(path, "several texts in one, which no name before their lines tells apart")
    if not found.records and found.notes:
        problem = f"text of which no line is an ftrace record with its event; {found.notes[0]}"
        raise TraceUnsupported(path, problem)


def _system(event: str) -> str:
    # Text does not say it; the names of the tracepoints that matter here begin with it.
    found = _SYSTEM.match(event)
    return _SYSTEMS.get(event) or (found[1] if found else "")


def _is_within(loss: Loss, bounds: Bounds) -> bool:
    if loss.before_ns is None:
        return bounds.is_open
    return bounds.holds(loss.before_ns)
