"""Compressed streams: recognised by their first bytes, unpacked a piece at a time and no further than allowed."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Protocol

from apftrace.batch.limits import CHUNK, Limits, Refused, in_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW = 1 << 27  # what the zstd tool itself takes without --long=31
_ZSTD_PIECE = 1 << 10
_PIECE = 1 << 16

DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)
"""What the decompressors raise on bytes that are not theirs."""


class _Decompressor(Protocol):
    """The common face of the standard library's decompressors."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    # zlib keeps the input that it did not use; bz2 and lzma keep it to themselves.
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


class _Zstd:
    # Its output is bounded by the input instead: a block unpacks to 128 KiB at most, and takes 4 bytes at least.
    def __init__(self) -> None:
        import zstandard

        self._stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        self._error = zstandard.ZstdError
        self._waiting = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data + self._waiting

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._waiting += data
        piece, self._waiting = self._waiting[:_ZSTD_PIECE], self._waiting[_ZSTD_PIECE:]
        try:
            out = self._stream.decompress(piece)
        except self._error as error:
            raise ValueError(str(error)) from None
        self.needs_input = not self._waiting
        return out


_STREAMS: tuple[tuple[bytes, str, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b", "gzip", _Gzip),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", "xz", lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
    (b"\x28\xb5\x2f\xfd", "zstd", _Zstd),
)


def compression(head: bytes) -> str | None:
    """Return how a file that starts with ``head`` is compressed; null when it is not."""
    return next((name for magic, name, _ in _STREAMS if head.startswith(magic)), None)


class Unpacked:
    """The content of a compressed file, forward only.

    Attributes:
        unpacked: bytes that came out so far.
        packed: bytes that went in so far.
    """

    def __init__(self, file: BinaryIO, how: str, limits: Limits) -> None:
        self._file = file
        self._make = next(make for _, name, make in _STREAMS if name == how)
        self._limits = limits
        self._stream: _Decompressor | None = None
        self._ready = b""
        self._rest = b""
        self.unpacked = 0
        self.packed = 0

    def read(self, size: int, /) -> bytes:
        """Return ``size`` bytes, fewer only at the end.

        Raises:
            Refused: more came out than may come out.
            EOFError: the file ends within the stream.
            OSError, ValueError: it is damaged.
        """
        parts = [self._ready]
        have = len(self._ready)
        while have < size and (piece := self._next(size - have)):
            parts.append(piece)
            have += len(piece)
        whole = b"".join(parts)
        self._ready = whole[size:]
        return whole[:size]

    def _next(self, most: int) -> bytes:
        """Return some bytes; none at the end of the last stream."""
        while True:
            if self._stream is not None and self._stream.eof:
                self._rest = self._stream.unused_data + self._rest
                self._stream = None
            if self._stream is None:
                # Streams may follow each other; zeros after the last are padding.
                self._rest = self._rest.lstrip(b"\0") or self._fill().lstrip(b"\0")
                if not self._rest:
                    return b""
                self._stream = self._make()
            fresh = b""
            if self._stream.needs_input:
                fresh, self._rest = self._rest or self._fill(), b""
                if not fresh:
                    raise EOFError("ends within its compressed data")
            out = self._stream.decompress(fresh, min(most, CHUNK))
            if out:
                self._count(len(out))
                return out

    def _fill(self) -> bytes:
        piece = self._file.read(_PIECE)
        self.packed += len(piece)
        return piece

    def _count(self, fresh: int) -> None:
        self.unpacked += fresh
        self._limits.check_ratio(self.unpacked, self.packed)
        if self.unpacked > self._limits.total:
            raise Refused(f"unpacks to more than the limit of {in_bytes(self._limits.total)}")
