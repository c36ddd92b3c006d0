"""How much an archive may unpack to, and the copying that stops there."""

from __future__ import annotations

import os
import tempfile
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from apftrace.amounts import plural
from apftrace.errors import ApftraceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

CHUNK = 1 << 20
"""Bytes that are copied at a time; no reader of an archive may ask for more at once."""

FREE = 32 << 20
"""Bytes that may come out of anything, whatever they were packed into: traces hold pages of zeros."""

_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


class Refused(Exception):
    """Something that is left alone, with the reason in one clause."""


class NoRoom(ApftraceError):
    """The place for temporary files is full or cannot be written: nobody's input is to blame."""


class Readable(Protocol):
    """Anything that bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        size: bytes of one member, unpacked.
        ratio: bytes out per byte in, once more than a few MiB came out.
        count: members of one archive.
        total: bytes that one archive may unpack to.
        depth: archives within each other: 2 is an archive in an archive.
    """

    size: int = 2 << 30
    ratio: int = 250
    count: int = 100_000
    total: int = 256 << 30
    depth: int = 2

    def check_size(self, size: int) -> None:
        """Refuse a member that says it is larger than one may be.

        Raises:
            Refused: it does.
        """
        if size > self.size:
            raise Refused(f"{in_bytes(size)} unpacked, more than the limit of {in_bytes(self.size)}")

    def check_ratio(self, unpacked: int, packed: int) -> None:
        """Refuse what unpacks to implausibly much.

        Raises:
            Refused: it does.
        """
        if unpacked > FREE and unpacked > self.ratio * max(packed, 1):
            raise Refused(f"unpacks to more than {self.ratio} times its size")


class Spooled:
    """A temporary file under a name of our own; it goes when nobody refers to it any more."""

    def __init__(self, folder: Path) -> None:
        handle, self.path = tempfile.mkstemp(prefix="input-", dir=folder)
        self.file = os.fdopen(handle, "wb")
        self._gone = weakref.finalize(self, _remove, self.path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108 - also at exit, when little else works
    except OSError:
        return


def spool(stream: Readable, folder: Path, limits: Limits, *, head: bytes = b"") -> Spooled:
    """Copy a stream into a temporary file.

    Args:
        stream: what is left of the member.
        folder: where temporary files go.
        limits: how large it may be.
        head: what was read of it before.

    Raises:
        Refused: it is larger than a member may be.
        NoRoom: the copy cannot be written.
    """
    out = _written(lambda: Spooled(folder), folder)
    with out.file:
        size = 0
        chunk = head or stream.read(CHUNK)
        while chunk:
            size += len(chunk)
            limits.check_size(size)
            _written(lambda data=chunk: out.file.write(data), folder)  # type: ignore[misc]
            chunk = stream.read(CHUNK)
        _written(out.file.flush, folder)
    return out


def _written(step: Callable[[], T], folder: Path) -> T:
    try:
        return step()
    except OSError as error:
        raise NoRoom(f"{folder}: no temporary file can be written: {error.strerror or error}") from None


def in_bytes(size: int) -> str:
    """Return a number of bytes as people write it: ``2 GiB``, ``1.5 MiB``, ``17 bytes``."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + f" {name}"
    return plural(size, "byte")
