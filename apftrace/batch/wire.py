"""What passes between the parent, its workers and the store: a JSON object and some blobs, framed and checked.

No pickles: a worker reads hostile files, and what it says must not be able to do anything to its parent.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_HEAD = struct.Struct("<8sIII")
_MAGIC = b"apfbatch"
_MOST = 1 << 31
_MOST_BLOBS = 8


@dataclass(frozen=True)
class Message:
    """A JSON object and the blobs that belong to it."""

    data: dict[str, Any]
    blobs: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """Return the frame; equal messages give equal bytes."""
        text = json.dumps(self.data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        sizes = struct.pack(f"<{len(self.blobs)}I", *map(len, self.blobs))
        body = b"".join((sizes, text, *self.blobs))
        return _HEAD.pack(_MAGIC, len(self.blobs), len(text), zlib.crc32(body)) + body


class Damaged(Exception):
    """Bytes that are no frame."""


def decode(frame: bytes) -> Message:
    """Return the message of a whole frame.

    Raises:
        Damaged: it is cut or changed.
    """
    decoder = Decoder()
    messages = decoder.feed(frame)
    if len(messages) != 1 or decoder.waiting:
        raise Damaged("no single whole frame")
    return messages[0]


def read(source: Callable[[int], bytes]) -> Message | None:
    """Return the next message of a blocking stream; null at its end."""
    decoder = Decoder()
    while True:
        piece = source(decoder.missing)
        if not piece:
            return None
        for message in decoder.feed(piece):
            return message


@dataclass
class Decoder:
    """Puts messages together from pieces of any size."""

    waiting: bytearray = field(default_factory=bytearray)
    missing: int = _HEAD.size

    def feed(self, piece: bytes) -> list[Message]:
        """Return the messages that are whole with this piece.

        Raises:
            Damaged: the bytes are no frame.
        """
        self.waiting += piece
        done = []
        while (end := self._end()) <= len(self.waiting):
            done.append(_message(bytes(self.waiting[:end])))
            del self.waiting[:end]
        self.missing = end - len(self.waiting)
        return done

    def _end(self) -> int:
        """Return how many bytes the first frame has, as far as that is known."""
        blobs: int
        text: int
        if len(self.waiting) < _HEAD.size:
            return _HEAD.size
        magic, blobs, text, _ = _HEAD.unpack_from(self.waiting)
        if magic != _MAGIC or blobs > _MOST_BLOBS or text > _MOST:
            raise Damaged("no frame starts here")
        sizes_end = _HEAD.size + 4 * blobs
        if len(self.waiting) < sizes_end:
            return sizes_end
        sizes: tuple[int, ...] = struct.unpack_from(f"<{blobs}I", self.waiting, _HEAD.size)
        return sizes_end + text + sum(sizes)


def _message(frame: bytes) -> Message:
    _, blobs, text, crc = _HEAD.unpack_from(frame)
    if zlib.crc32(memoryview(frame)[_HEAD.size :]) != crc:
        raise Damaged("the checksum differs")
    sizes = struct.unpack_from(f"<{blobs}I", frame, _HEAD.size)
    at = _HEAD.size + 4 * blobs
    try:
        data = json.loads(frame[at : at + text])
    except ValueError as error:
        raise Damaged(str(error)) from None
    at += text
    out = []
    for size in sizes:
        out.append(frame[at : at + size])
        at += size
    return Message(data, tuple(out))
