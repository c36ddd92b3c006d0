"""What every trace.dat starts with (trace-cmd.dat.v6(5), trace-cmd.dat.v7(5): INITIAL FORMAT)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace.errors import TraceUnsupported

if TYPE_CHECKING:
    from apftrace_parsers.cursor import Cursor, FileCursor

MAGIC = b"\x17\x08\x44tracing"
VERSIONS = (6, 7)
CODECS = ("none", "zlib", "zstd")
MAX_SUBBUF = 1 << 20
"""ring_buffer_subbuf_order_set() in the kernel allows no larger sub-buffer: RB_WRITE_MASK + 1."""
HEADER_PAGE = b"header_page\0"
HEADER_EVENT = b"header_event\0"

_COMMIT = re.compile(rb"field:\s*\w+\s+commit;\s*offset:\d+;\s*size:(\d+);")


@dataclass(frozen=True)
class Header:
    """The first fields of the file.

    Attributes:
        version: 6 or 7.
        big: everything in the file is big endian.
        long_size: bytes of the recorder's long; the kernel's may differ, see header_page.
        page_size: bytes of a sub-buffer of the top instance.
        codec: compression of sections: none, zlib or zstd.
        options_at: offset of the first options section, 0 in version 6.
    """

    version: int
    big: bool
    long_size: int
    page_size: int
    codec: str = "none"
    options_at: int = 0


def read_header(cursor: FileCursor) -> Header:
    """Read up to the point where versions part, and the version 7 fields behind it.

    Raises:
        TraceFormatError: this is no trace.dat, or its header is cut off.
        TraceUnsupported: a version or compression that this reader does not know.
    """
    if cursor.take(len(MAGIC), "the magic of trace.dat") != MAGIC:
        cursor.seek(0)
        cursor.fail("other bytes", "the magic of trace.dat")
    text = cursor.cstring("a version", 16)
    if not text.isdigit() or int(text) not in VERSIONS:
        raise TraceUnsupported(cursor.path, f"trace.dat version {text!r}; versions 6 and 7 can be read")
    version = int(text)
    endian = cursor.u8("a byte order")
    if endian > 1:
        cursor.fail(f"byte order {endian}", "0 (little endian) or 1 (big endian)")
    cursor.big = bool(endian)
    long_size = cursor.u8("a size of long")
    if long_size not in (4, 8):
        cursor.fail(f"a long of {long_size} bytes", "4 or 8")
    page_size = check_page_size(cursor, cursor.u32("a page size"))
    if version == 6:
        return Header(version, cursor.big, long_size, page_size)
    codec = cursor.cstring("a compression name", 64)
    if codec not in CODECS:
        raise TraceUnsupported(cursor.path, f"compression {codec!r}; none, zlib and zstd can be read")
    cursor.cstring("a compression version", 256)
    return Header(version, cursor.big, long_size, page_size, codec, cursor.u64("the offset of the options"))


def check_page_size(cursor: FileCursor, size: int) -> int:
    """Return a sub-buffer size that a kernel can have.

    Raises:
        TraceFormatError: it is none.
    """
    if not 32 <= size <= MAX_SUBBUF or size % 4:
        cursor.fail(f"sub-buffers of {size} bytes", f"32 to {MAX_SUBBUF}, a multiple of 4")
    return size


def read_header_pages(cursor: Cursor, long_size: int) -> int:
    """Read header_page and header_event; return the size of the kernel's long.

    The size of ``commit`` in header_page is that of the kernel's long (trace-cmd.dat.v6(5), HEADER INFO).

    Raises:
        TraceFormatError: the names or lengths are wrong.
    """
    texts = []
    for name in (HEADER_PAGE, HEADER_EVENT):
        if cursor.take(len(name), repr(name)) != name:
            cursor.fail("other bytes", repr(name))
        texts.append(cursor.take(cursor.u64("the length of a header text"), "a header text"))
    match = _COMMIT.search(texts[0])
    size = int(match[1]) if match else long_size
    return size if size in (4, 8) else long_size
