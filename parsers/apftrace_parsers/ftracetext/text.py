"""Where the bytes of a text lie: in a file, in a gzip file, or in compressed chunks of a trace.dat."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from apftrace_parsers.tracedat.compression import BlockError, codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apftrace_parsers.importlog import ImportLog

PIECE = 1 << 20
GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31
"""Window of 32 KiB, gzip header expected: zlib's inflateInit2()."""
MAX_CHUNK = 16 << 20
"""trace-cmd writes 10 pages per chunk; no page is larger than 1 MiB."""


class Text(Protocol):
    """A text that can be read again and again."""

    def pieces(self, log: ImportLog) -> Iterator[bytes]:
        """Yield the bytes in pieces of bounded size; damage is noted and ends the text."""


@dataclass(frozen=True)
class PlainText:
    """Bytes of a file as they are."""

    fd: int
    offset: int
    size: int

    def pieces(self, log: ImportLog) -> Iterator[bytes]:
        """Yield the bytes in pieces."""
        at, end = self.offset, self.offset + self.size
        while at < end:
            piece = os.pread(self.fd, min(PIECE, end - at), at)
            if not piece:
                return
            at += len(piece)
            yield piece


@dataclass(frozen=True)
class GzipText:
    """A whole gzip file, of one member or several."""

    packed: PlainText

    def pieces(self, log: ImportLog) -> Iterator[bytes]:
        """Yield the decompressed bytes in pieces."""
        at, whole = 0, True
        stream = zlib.decompressobj(_GZIP_WINDOW)
        for piece in self.packed.pieces(log):
            rest = piece
            try:
                while rest:
                    whole = False
                    data = stream.decompress(rest, PIECE)
                    if data:
                        yield data
                    rest = stream.unconsumed_tail
                    if stream.eof:
                        rest, whole = stream.unused_data.lstrip(b"\0"), True
                        stream = zlib.decompressobj(_GZIP_WINDOW)
            except zlib.error as error:
                log.note(
                    "damaged gzip data", f"gzip data near offset {at}: {error}; what follows is not read"
                )
                return
            at += len(piece)
        if not whole:
            log.note("cut gzip data", "the gzip data is cut off: the end of the trace is missing")


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
                log.note(
                    "cut text", f"chunk of text at offset {at}: claims {packed} bytes for {size}; cut off"
                )
                return
            try:
                yield unpack(os.pread(fd, packed, at + 8), size)
            except BlockError as error:
                log.note("damaged text", f"chunk of text at offset {at}: {error}; what follows is not read")
                return
            at += 8 + packed
