"""trace.dat as a source of Arrow data."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from apftrace_parsers.base import FileOwner
from apftrace_parsers.cursor import FileCursor
from apftrace_parsers.eventformat import EventTable
from apftrace_parsers.importlog import ImportLog
from apftrace_parsers.ringsource import RingSource
from apftrace_parsers.symbols import Kallsyms
from apftrace_parsers.tracedat.buffers import lanes_of
from apftrace_parsers.tracedat.cpustat import parse_cpustats
from apftrace_parsers.tracedat.header import MAGIC, read_header
from apftrace_parsers.tracedat.info import info_of
from apftrace_parsers.tracedat.sections import read_v7
from apftrace_parsers.tracedat.timesync import clock_of
from apftrace_parsers.tracedat.v6 import read_v6
from apftrace_parsers.walk import Ring

if TYPE_CHECKING:
    from pathlib import Path

    from apftrace_parsers.tracedat.latency import LatencyDat
    from apftrace_parsers.tracedat.meta import Meta
    from apftrace_parsers.tracedat.options import Options


class TraceDat(FileOwner, RingSource):
    """An opened trace.dat.

    Attributes:
        options: everything that the options of the file say, as data.
    """

    options: Options


class TraceDatParser:
    """Recognises and opens trace.dat, versions 6 and 7."""

    name = "trace.dat"

    def sniff(self, head: bytes) -> bool:
        """Say whether a file starts as every trace.dat does."""
        return head.startswith(MAGIC)

    def open(self, path: str | Path) -> TraceDat | LatencyDat:
        """Open a file.

        Raises:
            TraceFormatError: the headers contradict the format.
            TraceUnsupported: the version or a feature cannot be read.
            OSError: the file cannot be read.
        """
        with contextlib.ExitStack() as on_error:
            fd = os.open(path, os.O_RDONLY)
            on_error.callback(os.close, fd)
            source = _read(fd, str(path))
            on_error.pop_all()
        return source


def _read(fd: int, path: str) -> TraceDat | LatencyDat:
    log = ImportLog()
    cursor = FileCursor(fd, os.fstat(fd).st_size, path=path)
    header = read_header(cursor)
    meta = (read_v6 if header.version == 6 else read_v7)(cursor, header, log)
    if meta.options.buffers and all(buffer.text for buffer in meta.options.buffers):
        # Here, because nearly no trace.dat is text, and the parser of text is large.
        from apftrace_parsers.tracedat.latency import open_latency

        return open_latency(cursor, meta, fd, log)
    _check_buffers(meta, log)
    table = EventTable(meta.event_texts, meta.kernel_long)
    lanes, lost = lanes_of(cursor, meta, fd, log)
    ring = Ring(
        lanes=tuple(lanes),
        big=header.big,
        long_size=meta.kernel_long,
        clock=clock_of(meta.options, log),
        tid_at=table.tid_offset(),
    )
    source = TraceDat(
        info_of(meta, path),
        ring,
        table,
        stats=parse_cpustats(meta.options.cpustats),
        lost=lost,
        notes=log.sentences(),
        symbols=Kallsyms(meta.kallsyms),
    )
    source.options = meta.options
    source.fd = fd
    return source


def _check_buffers(meta: Meta, log: ImportLog) -> None:
    for buffer in (b for b in meta.options.buffers if b.text):
        log.note("text buffers", f"instance {buffer.name or 'top'!r} holds text instead of records, not read")
    clock = meta.options.buffers[0].clock if meta.options.buffers else ""
    for buffer in meta.options.buffers[1:]:
        if buffer.clock != clock:
            log.note(
                "different clocks",
                f"instance {buffer.name!r} has another clock ({buffer.clock}): its times do not compare",
            )
