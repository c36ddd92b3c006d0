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
_STEP = 1 << 12
"""Packed bytes taken at a time: what a wrong sum behind them takes along."""
CUT = "cut texts"
"""Kind of note: the end is missing."""
DAMAGED = "damaged texts"
"""Kind of note: what is missing, or was changed, may be anywhere."""
GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31
"""Window of 32 KiB, gzip header expected: zlib's inflateInit2()."""


class Text(Protocol):
    """A text that can be read again and again."""

    def pieces(self, log: ImportLog) -> Iterator[bytes]:
        """Yield the bytes in pieces of bounded size; damage is noted, as ``CUT`` or ``DAMAGED``, and ends the text."""


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
        for step in _steps(self.packed.pieces(log)):
            rest = step
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
                # Where the sum of all is wrong, what came before is not sure either.
                log.note(DAMAGED, f"gzip data near offset {at}: {error}; what follows is not read")
                return
            at += len(step)
        if not whole:
            log.note(CUT, "the gzip data is cut off: the end of the trace is missing")


def _steps(pieces: Iterator[bytes]) -> Iterator[bytes]:
    return (piece[at : at + _STEP] for piece in pieces for at in range(0, len(piece), _STEP))
