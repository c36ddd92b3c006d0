"""Recognises ftrace text and opens it."""

from __future__ import annotations

import contextlib
import os
import zlib
from typing import TYPE_CHECKING

from apftrace_parsers.ftracetext.text import GZIP, GzipText, PlainText

if TYPE_CHECKING:
    from pathlib import Path

    from apftrace_parsers.ftracetext.source import TextFile

_STARTS = (b"# tracer: ", b"cpus=", b"version = 6\n")


class FtraceTextParser:
    """Opens tracefs ``trace`` and ``trace_pipe``, and the output of trace-cmd report, plain or gzip."""

    name = "ftrace text"

    def sniff(self, head: bytes) -> bool:
        """Say whether the first lines of a file, or of what a gzip file holds, are ftrace text."""
        if head.startswith(GZIP):
            with contextlib.suppress(zlib.error):
                return _is_ftrace(zlib.decompressobj(31).decompress(head, 1 << 14))
            return False
        return _is_ftrace(head)

    def open(self, path: str | Path) -> TextFile:
        """Open a file and read through it once.

        Raises:
            TraceUnsupported: no line is a record, or the text is of more machines than can be told apart.
            OSError: the file cannot be read.
        """
        from apftrace_parsers.ftracetext.source import TextFile

        with contextlib.ExitStack() as on_error:
            fd = os.open(path, os.O_RDONLY)
            on_error.callback(os.close, fd)
            plain = PlainText(fd, 0, os.fstat(fd).st_size)
            is_packed = os.pread(fd, 2, 0) == GZIP
            source = TextFile(str(path), fd, GzipText(plain) if is_packed else plain)
            on_error.pop_all()
        return source


def _is_ftrace(head: bytes) -> bool:
    # Here and above, because the patterns of lines take longer to compile than a small trace.dat to read.
    from apftrace_parsers.ftracetext.graph import is_graph
    from apftrace_parsers.ftracetext.lines import LATENCY, MARK, RECORD

    text = head.lstrip()
    if text.startswith(_STARTS) or b"\0" in head:
        return b"\0" not in head
    if any(pattern.search(head) for pattern in (RECORD, LATENCY, MARK)) or b": cpus=" in text[:256]:
        return True
    return is_graph(head)
