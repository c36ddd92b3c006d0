"""The few verbs that a script or a notebook needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from apftrace.analysis import Analysis
    from apftrace.model.guest.tsc import TscOffset
    from apftrace_parsers.base import Source, SourceInfo

ASYNC_PF_EVENTS: tuple[str, ...] = (
    "kvm_try_async_get_page",
    "kvm_async_pf_repeated_fault",
    "kvm_async_pf_not_present",
    "kvm_async_pf_completed",
    "kvm_async_pf_ready",
)
"""The five async page fault tracepoints of the host, under their newest names."""


@dataclass(frozen=True)
class Trace:
    """An opened trace, or several of one session; a context manager that closes the files.

    Attributes:
        source: the first one.
        others: further traces: of guests, in any order.
        guests: traces that are guests' whatever they hold, each with the name to use, or null.
    """

    source: Source
    others: tuple[Source, ...] = ()
    guests: tuple[tuple[str | None, Source], ...] = ()

    @property
    def info(self) -> SourceInfo:
        """Facts from the headers of the first trace."""
        return self.source.info

    def close(self) -> None:
        """Release the files."""
        for source in (self.source, *self.others, *(source for _, source in self.guests)):
            source.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_trace(
    path: str | Path | Sequence[str | Path],
    *,
    guests: Sequence[str | Path] | Mapping[str, str | Path] = (),
) -> Trace:
    """Open a trace, or several of one session; formats are found by content.

    Args:
        path: the trace; or a host's trace and its guests' in any order.
        guests: traces that are guests' because you say so; a mapping gives each guest its name.

    Raises:
        TraceFormatError: a file is not what its first bytes promise, or is no trace.
        TraceUnsupported: a form that cannot be read.
        OSError: a file cannot be opened.
        ValueError: no path at all.
    """
    from contextlib import ExitStack
    from pathlib import Path

    from apftrace_parsers.registry import open_source

    paths = [path] if isinstance(path, (str, Path)) else list(path)
    if not paths:
        raise ValueError("no trace to read")
    named = guests.items() if hasattr(guests, "items") else ((None, guest) for guest in guests)
    with ExitStack() as on_error:

        def opened(one: str | Path) -> Source:
            source = open_source(one)
            on_error.callback(source.close)
            return source

        first, *others = [opened(one) for one in paths]
        trace = Trace(first, tuple(others), tuple((name, opened(guest)) for name, guest in named))
        on_error.pop_all()
    return trace


def analyze(
    trace: Trace | str | Path | Sequence[str | Path],
    *,
    guests: Sequence[str | Path] | Mapping[str, str | Path] = (),
    late_after_ns: int | None = None,
    tsc_offsets: Mapping[str | None, TscOffset] | None = None,
) -> Analysis:
    """Correlate and judge a host's trace, together with traces of its guests, or a guest's trace alone.

    Args:
        trace: what ``read_trace`` gave, or a path, or several paths of one session in any order.
        guests: traces that are guests' because you say so; a mapping gives each guest its name. Only with
            paths.
        late_after_ns: phases longer than this are late; by default the larger of 10 ms and ten medians
            of the phase.
        tsc_offsets: how a guest's TSC relates to the host's, by the guest's name; null for all others.
            Needed only where the traces do not tell, and the clock should not be inferred.

    Raises:
        InputsError: the traces do not belong together: several hosts, or several guests without one.
        ValueError: ``late_after_ns`` is below 0, or too long for any trace; ``guests`` beside an opened trace.
    """
    from apftrace_parsers.clock import STAMP_LIMIT

    if late_after_ns is not None and not 0 <= late_after_ns < STAMP_LIMIT:
        raise ValueError(f"late_after_ns must be from 0 to 2^62, not {late_after_ns}")
    from apftrace.model.analyse import analyse_guest, analyse_pair, analyse_source

    if not isinstance(trace, Trace):
        with read_trace(trace, guests=guests) as opened:
            return analyze(opened, late_after_ns=late_after_ns, tsc_offsets=tsc_offsets)
    if guests:
        raise ValueError("guests belong to read_trace where the trace is opened already")
    if not (trace.others or trace.guests or trace.source.machines):
        return analyse_source(trace.source, late_after=late_after_ns)
    from apftrace.inputs import session

    found = session((trace.source, *trace.others), trace.guests, tsc_offsets)
    if found.host is None:
        (guest,) = found.guests
        return analyse_guest(guest.source, guest.name)
    if not found.guests:
        return analyse_source(found.host, late_after=late_after_ns)
    return analyse_pair(found.host, found.guests, late_after=late_after_ns)


def scan_events(path: str | Path, events: Sequence[str] = ASYNC_PF_EVENTS) -> pa.RecordBatchReader:
    """Stream events as Arrow batches of one schema, in bounded memory.

    The columns are ts (ns of the trace clock), cpu, tid, comm, event, instance, then the union of the
    payload fields under the kernel's own names; a field that an event lacks is null. One that is called like a
    column has an underscore behind its name (``cpu_``), or its event before it (``sched_wakeup.comm``).

    Args:
        path: the trace.
        events: ``event``, ``system:event`` or a glob of either.

    The file is closed with the last batch, or with the reader.

    Raises:
        KeyError: the trace does not describe an event that is named without wildcard.
    """
    import pyarrow as pa

    from apftrace.eventtable import reader
    from apftrace_parsers.registry import open_source

    source = open_source(path)
    try:
        events_of = reader(source, events)
    except BaseException:
        source.close()
        raise

    return pa.RecordBatchReader.from_batches(events_of.schema, _Batches(source, iter(events_of)))


class _Batches:
    # Whoever drops a reader that he did not read to the end drops this.
    def __init__(self, source: Source, batches: Iterator[pa.RecordBatch]) -> None:
        self._source = source
        self._batches = batches

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> pa.RecordBatch:
        try:
            return next(self._batches)
        except BaseException:
            self._source.close()
            raise

    def __del__(self) -> None:
        self._source.close()
