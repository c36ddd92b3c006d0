"""ftrace as text: tracefs ``trace`` and ``trace_pipe``, and what ``trace-cmd report`` prints."""

from __future__ import annotations

from apftrace_parsers.ftracetext.parser import FtraceTextParser

__all__ = ["FtraceTextParser"]
