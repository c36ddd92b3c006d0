"""Version 7: sections, found through options (trace-cmd.dat.v7(5))."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.errors import TraceFormatError
from apftrace_parsers.cursor import Cursor
from apftrace_parsers.tracedat.compression import MAX_SECTION, BlockError, codec
from apftrace_parsers.tracedat.header import read_header_pages
from apftrace_parsers.tracedat.meta import Meta, read_event_formats, read_ftrace_events
from apftrace_parsers.tracedat.options import OptionId, read_option
from apftrace_parsers.tracedat.recovery import find_buffers
from apftrace_parsers.tracedat.section import SectionHeader, read_section_header

if TYPE_CHECKING:
    from apftrace_parsers.cursor import FileCursor
    from apftrace_parsers.importlog import ImportLog
    from apftrace_parsers.tracedat.header import Header


def read_v7(cursor: FileCursor, header: Header, log: ImportLog) -> Meta:
    """Read everything but the pages.

    Raises:
        TraceFormatError: the first options or a section that they name cannot be read.
    """
    meta = Meta(header, header.long_size)
    whole, end = _read_options(cursor, meta, log)
    meta.cut = not whole
    if meta.cut and not meta.options.buffers:
        meta.options.buffers = find_buffers(cursor, end, header.page_size)
        log.note(
            "cut files",
            f"the file is cut off: its pages were searched from offset {end} on, "
            f"{sum(len(b.cpus) for b in meta.options.buffers)} CPUs found and numbered in their order",
        )
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
    meta.kallsyms = lambda: _kallsyms(cursor, header, sections)
    return meta


def _kallsyms(cursor: FileCursor, header: Header, sections: dict[int, int]) -> bytes:
    if OptionId.KALLSYMS not in sections:
        return b""
    try:
        part = _open(cursor.copy(0), header, OptionId.KALLSYMS, sections)
        return part.take(part.u32("the length of kallsyms"), "kallsyms")
    except TraceFormatError:
        return b""


def _read_options(cursor: FileCursor, meta: Meta, log: ImportLog) -> tuple[bool, int]:
    # Returns whether the chain of options sections is whole, and where the last one ends.
    at, end = meta.header.options_at, 0
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        try:
            section = read_section_header(cursor, at)
            if section.id != OptionId.DONE:
                cursor.seek(at)
                cursor.fail(f"section {section.id}", "options (0)")
            at = _read_options_section(_content(cursor, meta.header, section), meta, log)
            end = section.offset + section.size
        except TraceFormatError as error:
            # The first part names what the file needs; a later one that is cut off costs only its own.
            if len(seen) == 1:
                raise
            log.note("lost options", f"further options: {error.problem}")
            return False, end
    return True, end


def _read_options_section(part: Cursor, meta: Meta, log: ImportLog) -> int:
    while True:
        number = part.u16("an option")
        size = part.u32("the length of an option")
        base = part.offset
        data = Cursor(part.take(size, "an option"), path=part.path, base=base, big=part.big)
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
