"""apftrace: KVM asynchronous page faults, paired and judged from recorded traces.

>>> import apftrace
>>> analysis = apftrace.analyze("trace.dat")  # doctest: +SKIP
>>> analysis.verdict  # doctest: +SKIP
'clean'
"""

from apftrace.analysis import Analysis
from apftrace.api import ASYNC_PF_EVENTS, Trace, analyze, read_trace, scan_events
from apftrace.errors import ApftraceError, ReportError, TraceError, TraceFormatError, TraceUnsupported

__version__ = "0.1.0"

__all__ = (
    "ASYNC_PF_EVENTS",
    "Analysis",
    "ApftraceError",
    "ReportError",
    "Trace",
    "TraceError",
    "TraceFormatError",
    "TraceUnsupported",
    "analyze",
    "read_trace",
    "scan_events",
)
