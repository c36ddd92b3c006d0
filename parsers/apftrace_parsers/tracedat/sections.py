"""Version 7: sections, found through options (trace-cmd.dat.v7(5))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace.errors import TraceFormatError
from apftrace_parsers.cursor import Cursor
from apftrace_parsers.tracedat.compression import MAX_SECTION, BlockError, codec
from apftrace_parsers.tracedat.header import read_header_pages
from apftrace_parsers.tracedat.meta import Meta, read_event_formats, read_ftrace_events
from apftrace_parsers.tracedat.options import OptionId, read_option

if TYPE_CHECKING:
    from apftrace_parsers.cursor import FileCursor
    from apftrace_parsers.importlog import ImportLog
    from apftrace_parsers.tracedat.header import Header

COMPRESSED = 1


@dataclass(frozen=True)
class SectionHeader:
    """The 16 bytes before each section; the offset is that of what follows them."""

    id: int
    compressed: bool
    offset: int
    size: int


def read_v7(cursor: FileCursor, header: Header, log: ImportLog) -> Meta:
    """Read everything but the pages.

    Raises:
        TraceFormatError: the first options or a section that they name cannot be read.
    """
    meta = Meta(header, header.long_size)
    _read_options(cursor, meta, log)
    sections = meta.options.sections
    if OptionId.HEADER_INFO in sections:
        meta.kernel_long = read_header_pages(
            _open(cursor, header, OptionId.HEADER_INFO, sections), header.long_size
        )
    if OptionId.FTRACE_EVENTS in sections:
        read_ftrace_events(_open(cursor, header, OptionId.FTRACE_EVENTS, sections), meta)
    if OptionId.EVENT_FORMATS in sections:
        read_event_formats(_open(cursor, header, OptionId.EVENT_FORMATS, sections), meta)
    if OptionId.CMDLINES in sections:
        part = _open(cursor, header, OptionId.CMDLINES, sections)
        meta.cmdlines = part.take(part.u64("the length of the saved command lines"), "saved command lines")
    return meta


def read_section_header(cursor: FileCursor, at: int) -> SectionHeader:
    """Read the header at an offset; the cursor stands behind it then.

    Raises:
        TraceFormatError: the file ends before.
    """
    cursor.seek(at)
    number = cursor.u16("a section")
    flags = cursor.u16("the flags of a section")
    cursor.u32("the name of a section")
    size = cursor.u64("the size of a section")
    return SectionHeader(number, bool(flags & COMPRESSED), cursor.offset, size)


def _read_options(cursor: FileCursor, meta: Meta, log: ImportLog) -> None:
    at = meta.header.options_at
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        try:
            at = _read_options_section(cursor, at, meta, log)
        except TraceFormatError as error:
            # The first part names what the file needs; a later one that is cut off costs only its own.
            if len(seen) == 1:
                raise
            log.note("lost options", f"further options: {error.problem}")
            return


def _read_options_section(cursor: FileCursor, at: int, meta: Meta, log: ImportLog) -> int:
    section = read_section_header(cursor, at)
    if section.id != OptionId.DONE:
        cursor.seek(at)
        cursor.fail(f"section {section.id}", "options (0)")
    part = _content(cursor, meta.header, section)
    while True:
        number = part.u16("an option")
        size = part.u32("the length of an option")
        base = part.offset
        data = Cursor(part.take(size, "an option"), path=cursor.path, base=base, big=cursor.big)
        if number == OptionId.DONE:
            return data.u64("the offset of further options")
        read_option(meta.options, number, data, log)


def _open(cursor: FileCursor, header: Header, number: int, offsets: dict[int, int]) -> Cursor:
    section = read_section_header(cursor, offsets[number])
    if section.id != number:
        cursor.seek(offsets[number])
        cursor.fail(f"section {section.id}", f"section {number}")
    return _content(cursor, header, section)


def _content(cursor: FileCursor, header: Header, section: SectionHeader) -> Cursor:
    if not section.compressed:
        data = cursor.take(section.size, "a section")
        return Cursor(data, path=cursor.path, base=section.offset, big=cursor.big)
    packed = cursor.u32("the compressed size of a section")
    size = cursor.u32("the size of a section")
    if size > MAX_SECTION:
        cursor.fail(f"a section of {size} bytes", f"at most {MAX_SECTION}")
    try:
        data = codec(header.codec)(cursor.take(packed, "a compressed section"), size)
    except BlockError as error:
        cursor.seek(section.offset)
        cursor.fail(f"a damaged compressed section ({error})", f"{header.codec} data")
    # Offsets in errors are those within the section: its bytes have no place of their own in the file.
    return Cursor(data, path=cursor.path, base=section.offset, big=cursor.big)
