"""The text of a latency tracer, which a trace.dat holds instead of records.

Version 6 keeps it behind the mark ``latency``, up to the end of the file; version 7 in a section
BUFFER_TEXT, in chunks when the file is compressed. Both copy what tracefs ``trace`` held
(tracecmd_create_file_latency() in trace-output.c of libtracecmd).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace.errors import TraceUnsupported
from apftrace_parsers.base import FileOwner
from apftrace_parsers.ftracetext.source import TextSource
from apftrace_parsers.ftracetext.text import CUT, PlainText
from apftrace_parsers.tracedat.compression import BlockError, codec
from apftrace_parsers.tracedat.info import info_of
from apftrace_parsers.tracedat.options import OptionId
from apftrace_parsers.tracedat.section import read_section_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apftrace_parsers.cursor import FileCursor
    from apftrace_parsers.ftracetext.text import Text
    from apftrace_parsers.importlog import ImportLog
    from apftrace_parsers.tracedat.meta import Meta
    from apftrace_parsers.tracedat.options import Buffer, Options

MAX_CHUNK = 16 << 20
"""trace-cmd writes 10 pages per chunk; no page is larger than 1 MiB."""


@dataclass(frozen=True)
class ChunkText:
    """Text in chunks: u32 count, then per chunk {u32 compressed size, u32 size, data} (trace-cmd.dat.v7(5))."""

    packed: PlainText
    codec: str
    big: bool

    def pieces(self, log: ImportLog) -> Iterator[bytes]:
        """Yield the content of each chunk."""
        fd, at, end = self.packed.fd, self.packed.offset, self.packed.offset + self.packed.size
        order = "big" if self.big else "little"
        count = int.from_bytes(os.pread(fd, 4, at), order)  # type: ignore[arg-type]
        unpack = codec(self.codec)
        at += 4
        for _ in range(count):
            head = os.pread(fd, 8, at).ljust(8, b"\0")
            packed, size = struct.unpack(">II" if self.big else "<II", head)
            if not 0 < size <= MAX_CHUNK or not 0 < packed <= end - at - 8:
                log.note(CUT, f"chunk of text at offset {at}: claims {packed} bytes for {size}; cut off")
                return
            try:
                yield unpack(os.pread(fd, packed, at + 8), size)
            except BlockError as error:
                log.note(CUT, f"chunk of text at offset {at}: {error}; what follows is not read")
                return
            at += 8 + packed


class LatencyDat(FileOwner, TextSource):
    """An opened trace.dat of a latency tracer.

    Attributes:
        options: everything that the options of the file say, as data.
    """

    options: Options


def open_latency(cursor: FileCursor, meta: Meta, fd: int, log: ImportLog) -> LatencyDat:
    """Open the text of a file whose buffers are all text; the first of them is read.

    Raises:
        TraceFormatError: the section that should hold it is another.
        TraceUnsupported: no line of it is a record.
    """
    first, *others = sorted(meta.options.buffers, key=lambda b: bool(b.name))
    for buffer in others:
        log.note("text buffers", f"instance {buffer.name!r} holds further text, not read")
    try:
        source = LatencyDat(info_of(meta, cursor.path), _text_of(cursor, meta, first, fd), log.sentences())
    except TraceUnsupported as error:
        problem = f"holds the text of a latency tracer instead of records: {error.problem}"
        raise TraceUnsupported(error.path, problem) from None
    source.options = meta.options
    source.fd = fd
    return source


def _text_of(cursor: FileCursor, meta: Meta, buffer: Buffer, fd: int) -> Text:
    cursor.seek(buffer.offset)
    if meta.header.version == 6:
        return PlainText(fd, buffer.offset, cursor.remaining)
    section = read_section_header(cursor, buffer.offset)
    if section.id != OptionId.BUFFER_TEXT:
        cursor.seek(buffer.offset)
        cursor.fail(f"section {section.id}", f"text ({OptionId.BUFFER_TEXT:d})")
    if section.compressed:
        # The chunks say themselves where they end.
        rest = PlainText(fd, section.offset, cursor.remaining)
        return ChunkText(rest, meta.header.codec, meta.header.big)
    return PlainText(fd, section.offset, min(section.size, cursor.remaining))
