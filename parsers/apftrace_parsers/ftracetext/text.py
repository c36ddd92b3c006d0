"""Where the bytes of a text lie: in a file, or in a gzip file."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apftrace_parsers.importlog import ImportLog

PIECE = 1 << 20
GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31
"""Window of 32 KiB, gzip header expected: zlib's inflateInit2()."""


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
