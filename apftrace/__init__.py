"""apftrace: KVM asynchronous page faults, paired and judged from recorded traces.

>>> import apftrace
>>> analysis = apftrace.analyze("trace.dat")  # doctest: +SKIP
>>> analysis.verdict  # doctest: +SKIP
'clean'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.api import ASYNC_PF_EVENTS, Trace, analyze, read_trace, scan_events
from apftrace.errors import (
    ApftraceError,
    InputsError,
    ReportError,
    TraceError,
    TraceFormatError,
    TraceUnsupported,
)

if TYPE_CHECKING:
    from apftrace.analysis import Analysis

__version__ = "0.1.0"

__all__ = (
    "ASYNC_PF_EVENTS",
    "Analysis",
    "ApftraceError",
    "InputsError",
    "ReportError",
    "Trace",
    "TraceError",
    "TraceFormatError",
    "TraceUnsupported",
    "analyze",
    "read_trace",
    "scan_events",
)


def __getattr__(name: str) -> object:
    # Only annotations name it, and its dataclasses take longer to make than --help to print.
    if name == "Analysis":
        from apftrace.analysis import Analysis

        return Analysis
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
