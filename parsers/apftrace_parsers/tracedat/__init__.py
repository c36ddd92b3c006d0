"""trace.dat, the file of trace-cmd(1), versions 6 and 7."""

from __future__ import annotations

from apftrace_parsers.tracedat.parser import TraceDatParser

__all__ = ["TraceDatParser"]
