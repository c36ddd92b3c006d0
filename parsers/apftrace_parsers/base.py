"""What every parser gives: facts of the source, typed tables, and one narrow time-ordered stream.

Parsers know nothing of async page faults. A caller names tracepoints and fields; a parser hands out
Arrow data under the kernel's own field names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

MISSED = -1
"""Value of column ``pick`` in the stream for a gap: records of this CPU were lost before this instant."""


class Named(Protocol):
    """A tracepoint, by its names."""

    @property
    def system(self) -> str:
        """Its system, such as ``kvm``."""

    @property
    def name(self) -> str:
        """Its name in there."""


def is_glob(name: str) -> bool:
    """Say whether a name stands for whatever fits it."""
    return any(c in name for c in "*?[")


def matches(event: Named, name: str) -> bool:
    """Say whether ``name`` (``event``, ``system:event``, or a glob of either) means this tracepoint."""
    return fnmatchcase(f"{event.system}:{event.name}" if ":" in name else event.name, name)


@dataclass(frozen=True)
class Pick:
    """One tracepoint wanted in the narrow stream.

    Attributes:
        events: names of the tracepoint, newest kernel first; the first that the source has is used.
            A name may carry its system (``kvm:kvm_entry``).
        fields: up to three fields to carry as columns a, b, c; each is a tuple of names, newest first,
            the kernel's or those of columns of ``tables``.
            Integers only: sign-extended or zero-extended to 64 bits, uint64 as its bit pattern.
            A field that the source lacks reads as 0: ask ``resolve`` whether it is there.
    """

    events: tuple[str, ...]
    fields: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Resolved:
    """What a source made of a Pick: the event's own name, and which field filled a, b, c (null: none)."""

    event: str
    fields: tuple[str | None, ...]


@dataclass(frozen=True)
class EventFormat:
    """One tracepoint that a source can hold, as its format file declares it."""

    system: str
    name: str
    id: int
    schema: pa.Schema
    """Columns of ``tables``: ts int64, cpu int32, tid int32, instance string, then the payload fields.

    A field that would be called like a column before it has underscores behind its name.
    """


@dataclass(frozen=True)
class Loss:
    """Records lost on one CPU.

    Attributes:
        cpu: the CPU.
        instance: buffer instance, empty for the top one.
        count: how many, null when the trace does not say.
        after_ns: last record before the gap; null when the gap reaches back to the start.
        before_ns: first instant after the gap; null when the gap reaches to the end or has no known place.
    """

    cpu: int
    instance: str
    count: int | None
    after_ns: int | None
    before_ns: int | None


@dataclass(frozen=True)
class Guest:
    """A guest that a host trace names: option GUEST of trace.dat."""

    name: str
    trace_id: int
    vcpu_tids: dict[int, int]
    """vCPU number to host thread id."""


@dataclass(frozen=True)
class TickRate:
    """How a source made its times from ticks: ``ns = (ticks * mult >> shift) + offset``."""

    mult: int
    shift: int
    offset: int = 0


@dataclass(frozen=True)
class SourceInfo:
    """Facts of one source, known after its headers were read.

    Attributes:
        path: as the user named it.
        format: short, for example ``trace.dat v7 (zstd)``.
        clock: trace clock name.
        clock_unit: ``ns``, or ``ticks`` when the clock counts something else and no rate is known.
        cpus: number of CPUs.
        kernel: uname, or null.
        instances: buffer instances, the top one as an empty string.
        comms: thread id to comm, from saved_cmdlines.
        tgids: thread id to tgid where the source says so.
        trace_id: session id that links host and guest files, or null.
        peer: of a guest's file whose times were brought to its host's clock: the host's trace id.
        ticks: how times were made from TSC ticks; null where the clock is no TSC or has no known rate.
        guests: guests that the source names.
        options: further facts worth showing, name to text (trace-cmd version, CPU statistics ...).
    """

    path: str
    format: str
    clock: str
    clock_unit: str
    cpus: int
    kernel: str | None
    instances: tuple[str, ...]
    comms: dict[int, str] = field(default_factory=dict)
    tgids: dict[int, int] = field(default_factory=dict)
    trace_id: int | None = None
    peer: int | None = None
    ticks: TickRate | None = None
    guests: tuple[Guest, ...] = ()
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class PassResult:
    """What a whole pass over the records found; filled while an iterator of the source is consumed."""

    counts: dict[str, int] = field(default_factory=dict)
    """Hits per tracepoint name (``system:event`` only where two systems share a name), all of them."""
    losses: list[Loss] = field(default_factory=list)
    """Gaps found in the records, and losses that only the buffer statistics tell (no place known)."""
    first_ns: int | None = None
    last_ns: int | None = None
    cpu_first_ns: dict[int, int] = field(default_factory=dict)
    cpu_last_ns: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Recoverable damage, one sentence each, with offset; the first few of a kind, then a count."""


class Symbols(Protocol):
    """What the addresses in records mean: kallsyms of the kernel that recorded, or the names in a text."""

    def find(self, name: str) -> tuple[int, ...]:
        """Return the values that stand for the start of the functions of this name, as the stream carries them.

        A place within a function is at most its start plus the offset.
        """

    def covers(self, value: int) -> bool:
        """Say whether the symbols can tell what a value is; false for a bare address without kallsyms."""


class Source(Protocol):
    """An opened trace."""

    @property
    def info(self) -> SourceInfo:
        """Facts from the headers."""

    @property
    def machines(self) -> tuple[str, ...]:
        """Names of the machines of a source that holds several, else none."""

    def machine(self, name: str) -> Source:
        """Return the part of one of the machines; it is closed with the whole.

        Raises:
            KeyError: there is no such machine.
        """

    def formats(self) -> tuple[EventFormat, ...]:
        """Return every tracepoint that the source describes (not all need occur)."""

    def resolve(self, picks: Sequence[Pick]) -> tuple[Resolved | None, ...]:
        """Return per pick what the source offers; null when it knows none of the names."""

    def probes(self) -> tuple[EventFormat, ...]:
        """Return the events of dynamic probes: those with a field whose name begins with ``__probe_``."""

    def symbols(self) -> Symbols:
        """Return what tells functions by the addresses in records."""

    def stream(
        self,
        picks: Sequence[Pick],
        result: PassResult,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield narrow batches in time order, all CPUs and instances merged, bounded memory.

        Columns: ts int64, cpu int32, tid int32 (common_pid), pick int32 (index into ``picks`` or MISSED),
        a, b, c int64, all not null. In a MISSED row a is the number of records lost or -1, b the ts of
        the last record before the gap on that CPU or the least int64. Equal stamps keep CPU order.
        ``start_ns`` and ``end_ns`` bound ts (both inclusive); pages outside are skipped, not decoded.
        """

    def tables(
        self,
        events: Sequence[str],
        result: PassResult,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[tuple[EventFormat, pa.RecordBatch]]:
        """Yield typed batches of the named tracepoints, per event in time order within a CPU, bounded memory.

        Args:
            events: ``event``, ``system:event``, or a glob of either (``kvm:*``).
            result: filled in by the end of the iteration.
            start_ns: first time wanted.
            end_ns: last time wanted.

        Raises:
            KeyError: a name without wildcard that the source does not describe.
        """

    def close(self) -> None:
        """Release the file."""


class FileOwner:
    """A source that is a file of its own.

    Attributes:
        fd: the file, closed with the source; -1 for none.
    """

    fd = -1

    def close(self) -> None:
        """Release the file; a second time does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Parser(Protocol):
    """A format: how to recognise it and how to open it."""

    name: str

    def sniff(self, head: bytes) -> bool:
        """Say whether a file that starts with ``head`` (up to 512 bytes) is of this format."""

    def open(self, path: str | Path) -> Source:
        """Open a file.

        Raises:
            TraceFormatError: the headers contradict the format.
            TraceUnsupported: the version or a feature cannot be read.
            OSError: the file cannot be read.
        """
