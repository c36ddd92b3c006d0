"""The header before each section of version 7 (trace-cmd.dat.v7(5): SECTION HEADER)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apftrace_parsers.cursor import FileCursor

COMPRESSED = 1


@dataclass(frozen=True)
class SectionHeader:
    """The 16 bytes before each section; the offset is that of what follows them."""

    id: int
    compressed: bool
    offset: int
    size: int


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
