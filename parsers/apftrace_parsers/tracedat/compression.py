"""zlib and zstd blocks of version 7, never larger than they say and never larger than is sane."""

from __future__ import annotations

import zlib
from threading import local
from typing import Protocol

import zstandard

MAX_SECTION = 64 << 20
"""Bytes of an uncompressed section; the event formats of a large kernel take about 5 MB."""


class Codec(Protocol):
    """Decompresses one block."""

    def __call__(self, data: bytes, size: int) -> bytes:
        """Return the content of a block, at most ``size`` bytes.

        Raises:
            BlockError: the block is damaged, or holds more or less than it says.
        """


_MAX_KEPT = 1 << 20
"""Bytes of a block up to which a kept context unpacks it: the context keeps as much memory."""


class _Contexts(local):
    # To set one up takes as long as a chunk, and each is for one thread at a time.
    def __init__(self) -> None:
        self.zstd = zstandard.ZstdDecompressor()


_CONTEXTS = _Contexts()


class BlockError(Exception):
    """A compressed block that cannot be read; the message says why. Never leaves this package."""


def _none(data: bytes, size: int) -> bytes:
    raise BlockError("the file names no compression")


def _zlib(data: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, size)
    except zlib.error as error:
        raise BlockError(str(error)) from None
    return _checked(content, size)


def _zstd(data: bytes, size: int) -> bytes:
    # trace-cmd leaves the content size out of its frames: the limit has to come from outside. A frame that has
    # one is given as much memory as it claims, whatever the limit says.
    try:
        claimed = zstandard.frame_content_size(data)
        if claimed > size:
            raise BlockError(f"its frame claims {claimed} bytes instead of {size}")
        context = _CONTEXTS.zstd if size <= _MAX_KEPT else zstandard.ZstdDecompressor()
        content = context.decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise BlockError(str(error)) from None
    return _checked(content, size)


def _checked(content: bytes, size: int) -> bytes:
    if len(content) != size:
        raise BlockError(f"it holds {len(content)} bytes and claims {size}")
    return content


_CODECS: dict[str, Codec] = {"none": _none, "zlib": _zlib, "zstd": _zstd}


def codec(name: str) -> Codec:
    """Return the codec of a name in the file header."""
    return _CODECS[name]
