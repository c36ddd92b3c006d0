"""The first pass over a text: what it holds, since text describes nothing of itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from operator import ge
from typing import TYPE_CHECKING

from apftrace_parsers.base import Loss
from apftrace_parsers.clock import STAMP_LIMIT
from apftrace_parsers.eventformat import column_names
from apftrace_parsers.ftracetext.fields import UNTABLED, fields_of
from apftrace_parsers.ftracetext.lines import (
    COMM_COLUMNS,
    MARK,
    OTHER,
    SHOWN,
    Columns,
    Grammar,
    read_header,
    split_task,
    whole_lines,
)
from apftrace_parsers.ftracetext.text import CUT, DAMAGED
from apftrace_parsers.importlog import SAMPLES, ImportLog
from apftrace_parsers.walk import MAX_LOSSES

if TYPE_CHECKING:
    import re

    from apftrace_parsers.ftracetext.text import Text

EXAMPLES = 16
"""Texts of an event that are looked at for its fields."""
MAX_EVENTS = 1 << 13
"""Names of events that are told apart; a kernel has some 2,700 tracepoints."""
MAX_FIELDS = 64
FUNCTION = "function"
_REST = (b"", b"(other)")
MAX_TASKS = 1 << 20
MAX_KEPT = 16 << 20
"""Bytes of text whose records are kept for the passes that follow; they take about three times as many."""


@dataclass
class Survey:
    """What the first pass found.

    Attributes:
        text: what was read, and what the passes that follow read again.
        grammar: how records are written.
        counts: records per (instance, event).
        fields: per event the fields that its texts show, each with whether it is unsigned.
        comms: thread id to comm.
        tgids: thread id to thread group.
        instances: by the comm column as it is written; the top one is empty.
        spans: first and last stamp of each block, null where it holds no record.
        kept: all records, block by block; null when the text is longer than MAX_KEPT.
        is_sorted: records stand in order of time.
        cpu_first: first stamp per CPU.
        cpu_last: last stamp per CPU.
        losses: gaps, in order of the instant after each.
        cpus: number of CPUs that the header names, else that records show.
        header_cpus: how many ``cpus=`` lines there are.
        tracer: of the header.
        kernel: of the header.
        notes: damage.
    """

    text: Text
    grammar: Grammar
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    fields: dict[str, dict[str, bool]] = field(default_factory=dict)
    comms: dict[int, str] = field(default_factory=dict)
    tgids: dict[int, int] = field(default_factory=dict)
    instances: dict[bytes, str] = field(default_factory=dict)
    spans: list[tuple[int, int] | None] = field(default_factory=list)
    kept: list[Columns] | None = field(default_factory=list)
    is_sorted: bool = True
    cpu_first: dict[int, int] = field(default_factory=dict)
    cpu_last: dict[int, int] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    cpus: int = 0
    header_cpus: int = 0
    tracer: str | None = None
    kernel: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def records(self) -> int:
        """Number of records."""
        return sum(self.counts.values())

    def events(self) -> dict[str, int]:
        """Return the number of records per event, all instances together."""
        found: Counter[str] = Counter()
        for (_, event), n in self.counts.items():
            found[event] += n
        return dict(found)

    def instance_of(self, task: bytes) -> str:
        """Return the instance of a record from its comm column as it is written."""
        return self.instances.get(task[:-COMM_COLUMNS], "")

    def owners(self) -> dict[bytes, str]:
        """Return per event the instance that holds most of it; nothing when there is one instance only."""
        if len(set(self.instances.values())) < 2:
            return {}
        fullest: dict[str, tuple[int, str]] = {}
        for (instance, event), n in self.counts.items():
            if event not in fullest or n > fullest[event][0]:
                fullest[event] = (n, instance)
        return {key: instance for event, (_, instance) in fullest.items() for key in event_keys(event)}

    def columns(self, event: str) -> dict[str, str]:
        """Return the columns that an event's table has beside LEADING and text, each with the field shown there."""
        names = [name for name in self.fields.get(event, {}) if name not in UNTABLED]
        return dict(zip(column_names(names, "text"), names, strict=True))


def survey(text: Text) -> Survey:
    """Read a text once."""
    return _Surveyor(text).run()


class _Surveyor:
    # What lasts from block to block.
    def __init__(self, text: Text) -> None:
        self._log = ImportLog()
        self._found = Survey(text, Grammar(b""))
        self._counts: Counter[tuple[bytes, bytes]] = Counter()
        self._examples: Counter[bytes] = Counter()
        self._tasks: dict[tuple[bytes, bytes, bytes], None] = {}
        self._last = -1
        self._pending: dict[int, int | None] = {}
        self._loss_of: dict[int, int] = {}
        self._blind: dict[int, None] = {}
        self._written: tuple[int, int, int] | None = None
        self._strangers = 0
        self._at = 0

    def run(self) -> Survey:
        found = self._found
        for n, block in enumerate(whole_lines(found.text.pieces(self._log), self._log)):
            if n == 0:
                found.grammar = Grammar(block)
            self._block(block)
            self._at += len(block)
        self._tell_tasks()
        self._tell_counts()
        self._tell_losses()
        found.cpus = max(found.cpus, max(found.cpu_first, default=-1) + 1)
        found.notes = self._log.sentences()
        return found

    def _block(self, block: bytes) -> None:
        lowest, highest, at = STAMP_LIMIT, -1, 0
        parts: list[Columns] = []
        marks = MARK.finditer(block) if b"EVENTS" in block or b" buffer started" in block else ()
        for mark in (*marks, None):
            part = block[at : mark.start() if mark else len(block)]
            columns = self._found.grammar.columns(part) if part else None
            if columns:
                parts.append(columns)
                low, high = self._records(columns)
                lowest, highest = min(lowest, low), max(highest, high)
            if mark:
                self._mark(mark)
                at = mark.end()
        self._found.spans.append((lowest, highest) if parts else None)
        if parts:
            self._keep(Columns.joined(parts))
        if sum(len(part.stamps) for part in parts) != block.count(b"\n"):
            self._others(self._found.grammar.strangers(block))

    def _keep(self, columns: Columns) -> None:
        if self._at > MAX_KEPT:
            self._found.kept = None
        elif self._found.kept is not None:
            self._found.kept.append(columns)

    def _records(self, columns: Columns) -> tuple[int, int]:
        found = self._found
        stamps, cpus = columns.stamps, list(map(int, columns.cpus))
        in_order = stamps[0] >= self._last and all(map(ge, stamps[1:], stamps))
        if in_order:
            low, high = stamps[0], stamps[-1]
            first = dict(zip(reversed(cpus), reversed(stamps), strict=True))
            last = dict(zip(cpus, stamps, strict=True))
        else:
            found.is_sorted = False
            low, high = min(stamps), max(stamps)
            first, last = {}, {}
            for cpu, stamp in zip(cpus, stamps, strict=True):
                first[cpu] = min(first.get(cpu, stamp), stamp)
                last[cpu] = max(last.get(cpu, stamp), stamp)
        self._last = high
        self._resolve_losses(first)
        for cpu, stamp in first.items():
            found.cpu_first[cpu] = min(found.cpu_first.get(cpu, stamp), stamp)
            found.cpu_last[cpu] = max(found.cpu_last.get(cpu, stamp), last[cpu])
        self._count(columns)
        if len(self._tasks) < MAX_TASKS:
            self._tasks.update(dict.fromkeys(zip(columns.tasks, columns.tids, columns.tgids, strict=True)))
        return low, high

    def _count(self, columns: Columns) -> None:
        prefixes = {task: task[:-COMM_COLUMNS] for task in set(columns.tasks)}
        instances = map(prefixes.__getitem__, columns.tasks)
        for key, n in Counter(zip(instances, columns.events, strict=True)).items():
            is_known = key in self._counts or len(self._counts) < MAX_EVENTS
            self._counts[key if is_known else _REST] += n
        if any(self._examples[event] < EXAMPLES for event in set(columns.events)):
            self._look_at(columns)

    def _look_at(self, columns: Columns) -> None:
        for event, text in zip(columns.events, columns.texts, strict=True):
            if self._examples[event] < EXAMPLES and len(self._examples) < MAX_EVENTS:
                self._examples[event] += 1
                shown = self._found.fields.setdefault(event_name(event), {})
                for name, unsigned in fields_of(event_name(event), text).items():
                    if name in shown or len(shown) < MAX_FIELDS:
                        shown[name] = shown.get(name, True) and unsigned

    def _mark(self, mark: re.Match[bytes]) -> None:
        if mark[3]:
            self._blind[int(mark[3])] = None
            return
        cpu, count = int(mark[1]), int(mark[2]) if mark[2] else None
        before = self._pending.get(cpu, 0)
        self._pending[cpu] = None if count is None or before is None else before + count

    def _resolve_losses(self, first: dict[int, int]) -> None:
        # A loss is printed before the next record of its CPU.
        for cpu in [cpu for cpu in self._pending if cpu in first]:
            self._lost(Loss(cpu, "", self._pending.pop(cpu), self._found.cpu_last.get(cpu), first[cpu]))

    def _lost(self, loss: Loss) -> None:
        losses = self._found.losses
        if loss.cpu in self._loss_of and len(losses) >= MAX_LOSSES:
            earlier = losses[self._loss_of[loss.cpu]]
            both = None if None in (earlier.count, loss.count) else (earlier.count or 0) + (loss.count or 0)
            losses[self._loss_of[loss.cpu]] = replace(loss, count=both, after_ns=earlier.after_ns)
            return
        self._loss_of[loss.cpu] = len(losses)
        losses.append(loss)

    def _others(self, lines: dict[int, bytes]) -> None:
        found = self._found
        header = read_header(b"\n".join(lines.values()))
        found.header_cpus += len(header.cpus)
        found.cpus = max(found.cpus, *header.cpus, header.entries[2] if header.entries else 0, 0)
        found.tracer = found.tracer or header.tracer
        found.kernel = found.kernel or header.kernel
        self._written = self._written or header.entries
        strange = {at: line for at, line in lines.items() if not OTHER.fullmatch(line)}
        shown = list(strange.items())[: max(SAMPLES - self._strangers, 0)]
        for at, line in shown:
            self._strange(self._at + at, line)
        self._log.count("lines of no known form", len(strange) - len(shown))

    def _strange(self, at: int, line: bytes) -> None:
        self._strangers += 1
        shown = line[:SHOWN].decode("utf-8", "backslashreplace")
        self._log.note("lines of no known form", f"line at offset {at} is of no known form: {shown!r}")

    def _tell_tasks(self) -> None:
        found = self._found
        for task, tid_text, tgid in self._tasks:
            tid = int(tid_text)
            comm, instance = split_task(task)
            found.instances[task[:-COMM_COLUMNS]] = instance
            if comm != "<...>":
                found.comms[tid] = comm
            if tgid.isdigit():
                found.tgids[tid] = int(tgid)

    def _tell_counts(self) -> None:
        for (prefix, event), n in self._counts.items():
            self._found.counts[self._found.instances.get(prefix, ""), event_name(event)] += n

    def _tell_losses(self) -> None:
        found = self._found
        for cpu, count in self._pending.items():
            self._lost(Loss(cpu, "", count, found.cpu_last.get(cpu), None))
        entries, written, _ = self._written or (0, 0, 0)
        overwritten = written - entries
        if overwritten > 0:
            self._log.note(
                "overwritten",
                f"{overwritten} of {written} records were overwritten before this text was read",
            )
            self._blind.update(dict.fromkeys(found.cpu_first))
        elif self._written:
            self._blind.clear()
        for cpu in self._blind:
            count = overwritten if overwritten > 0 and len(self._blind) == 1 else None
            self._lost(Loss(cpu, "", count, None, found.cpu_first.get(cpu)))
        if self._log.has(DAMAGED) or self._log.has(CUT):
            for cpu, last in found.cpu_last.items():
                self._lost(Loss(cpu, "", None, None if self._log.has(DAMAGED) else last, None))
        found.losses.sort(key=lambda loss: STAMP_LIMIT if loss.before_ns is None else loss.before_ns)


def event_name(event: bytes) -> str:
    """Return the name of an event; records of the function tracer have none before a colon."""
    return event.decode("ascii") if event else FUNCTION


def event_keys(name: str) -> tuple[bytes, ...]:
    """Return how texts write an event's name; that of the function tracer tracefs leaves out."""
    return (b"", b"function") if name == FUNCTION else (name.encode("ascii"),)
