"""The few verbs that a script or a notebook needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from apftrace.analysis import Analysis
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
    """An opened trace; a context manager that closes its file."""

    source: Source

    @property
    def info(self) -> SourceInfo:
        """Facts from the trace's headers."""
        return self.source.info

    def close(self) -> None:
        """Release the file."""
        self.source.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_trace(path: str | Path) -> Trace:
    """Open a trace; the format is found by content.

    Raises:
        TraceFormatError: the file is not what its first bytes promise, or is no trace.
        TraceUnsupported: a form that cannot be read.
        OSError: the file cannot be opened.
    """
    from apftrace_parsers.registry import open_source

    return Trace(open_source(path))


def analyze(trace: Trace | str | Path, *, late_after_ns: int | None = None) -> Analysis:
    """Correlate and judge a host trace.

    Args:
        trace: what ``read_trace`` gave, or a path.
        late_after_ns: phases longer than this are late; by default the larger of 10 ms and ten medians
            of the phase.
    """
    from apftrace.model.analyse import analyse_source

    if isinstance(trace, Trace):
        return analyse_source(trace.source, late_after=late_after_ns)
    with read_trace(trace) as opened:
        return analyse_source(opened.source, late_after=late_after_ns)


def scan_events(path: str | Path, events: Sequence[str] = ASYNC_PF_EVENTS) -> pa.RecordBatchReader:
    """Stream events as Arrow batches of one schema, in bounded memory.

    The columns are ts (ns of the trace clock), cpu, tid, comm, event, instance, then the union of the
    payload fields under the kernel's own names; a field that an event lacks is null.

    Args:
        path: the trace.
        events: ``event``, ``system:event`` or a glob of either.

    Raises:
        KeyError: the trace does not describe an event that is named without wildcard.
    """
    from apftrace.eventtable import reader
    from apftrace_parsers.registry import open_source

    return reader(open_source(path), events)
