"""Bounds-checked reads that know where they are: errors carry the offset in the file."""

from __future__ import annotations

import os
from typing import NoReturn

from apftrace.errors import TraceFormatError

READ_AHEAD = 1 << 16


class Cursor:
    """Reads integers, strings and blocks one after the other from bytes.

    Args:
        data: what to read.
        path: file that errors name.
        base: offset of ``data`` in that file.
        big: integers are big endian.
    """

    def __init__(self, data: bytes, *, path: str, base: int = 0, big: bool = False) -> None:
        self.path = path
        self.big = big
        self._data = data
        self._base = base
        self._at = 0

    @property
    def offset(self) -> int:
        """Where in the file the next read starts."""
        return self._base + self._at

    @property
    def remaining(self) -> int:
        """Bytes that are left."""
        return len(self._data) - self._at

    def take(self, n: int, what: str) -> bytes:
        """Return the next n bytes.

        Args:
            n: how many.
            what: noun phrase for the error, such as ``a page size``.

        Raises:
            TraceFormatError: fewer are left.
        """
        if n > self.remaining:
            self.fail(f"{self.remaining} bytes before the end", f"{what} of {n} bytes")
        self._at += n
        return self._bytes(self._at - n, n)

    def skip(self, n: int, what: str) -> None:
        """Pass over n bytes.

        Raises:
            TraceFormatError: fewer are left.
        """
        if n > self.remaining:
            self.fail(f"{self.remaining} bytes before the end", f"{what} of {n} bytes")
        self._at += n

    def u8(self, what: str) -> int:
        """Return the next byte."""
        return self.take(1, what)[0]

    def u16(self, what: str) -> int:
        """Return the next 16 bits."""
        return self._integer(2, what)

    def u32(self, what: str) -> int:
        """Return the next 32 bits."""
        return self._integer(4, what)

    def u64(self, what: str) -> int:
        """Return the next 64 bits."""
        return self._integer(8, what)

    def i64(self, what: str) -> int:
        """Return the next 64 bits, signed."""
        value = self._integer(8, what)
        return value - (1 << 64) if value >> 63 else value

    def cstring(self, what: str, limit: int = 4096) -> str:
        """Return the text up to the next NUL, which is read too.

        Raises:
            TraceFormatError: no NUL within ``limit`` bytes.
        """
        raw = self._bytes(self._at, min(limit, self.remaining))
        end = raw.find(b"\0")
        if end < 0:
            self.fail(f"no NUL within {len(raw)} bytes", what)
        self._at += end + 1
        return raw[:end].decode("utf-8", "replace")

    def fail(self, found: str, expected: str) -> NoReturn:
        """Raise for what stands at the cursor.

        Raises:
            TraceFormatError: always.
        """
        raise TraceFormatError(self.path, offset=self.offset, found=found, expected=expected)

    def _integer(self, n: int, what: str) -> int:
        return int.from_bytes(self.take(n, what), "big" if self.big else "little")

    def _bytes(self, at: int, n: int) -> bytes:
        return self._data[at : at + n]


class FileCursor(Cursor):
    """The same over an open file; what is skipped is never read.

    Args:
        fd: file descriptor, read with pread.
        size: bytes of the file.
        path: file that errors name.
        at: offset to start at.
        big: integers are big endian.
    """

    def __init__(self, fd: int, size: int, *, path: str, at: int = 0, big: bool = False) -> None:
        super().__init__(b"", path=path, big=big)
        self._fd = fd
        self._size = size
        self._at = at
        self._window = b""
        self._window_at = 0

    @property
    def remaining(self) -> int:
        """Bytes that are left."""
        return max(self._size - self._at, 0)

    def copy(self, at: int) -> FileCursor:
        """Return a cursor of its own over the same file."""
        return FileCursor(self._fd, self._size, path=self.path, at=at, big=self.big)

    def seek(self, at: int) -> None:
        """Go to an offset of the file."""
        self._at = at

    def _bytes(self, at: int, n: int) -> bytes:
        start = at - self._window_at
        if start < 0 or start + n > len(self._window):
            self._window = os.pread(self._fd, max(n, READ_AHEAD), at)
            self._window_at = at
            start = 0
        return self._window[start : start + n]
