"""The standard streams: closed ones replaced, and errors of writing that say where."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT = "standard output"


class _Output(io.FileIO):
    # An error of a descriptor has no file name, unlike that of a file.
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            if error.errno == errno.EBADF:
                error.strerror = "it is closed"
            raise


def open_streams() -> None:
    """Make the standard streams fit to use, before any file is opened.

    A stream that the caller closed is None, and the next file to be opened would get its number. In its place comes
    /dev/null: from standard input nothing is read, what is said on standard error is lost, and writing to standard
    output is an error, because what is asked for must not get lost.
    """
    if sys.stdin is None:
        sys.stdin = open(_number(os.O_RDONLY), encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = _text(_number(os.O_RDONLY), line_buffering=False)
    elif sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        sys.stdout.flush()
        sys.stdout = _text(sys.__stdout__.fileno(), line_buffering=sys.__stdout__.line_buffering)
    if sys.stderr is None:
        sys.stderr = open(_number(os.O_WRONLY), "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Give up what standard output still holds: it has nowhere to go, and the interpreter would try again."""
    if isinstance(getattr(sys.stdout.buffer, "raw", None), _Output):
        os.dup2(_number(os.O_WRONLY), sys.stdout.fileno())


def _number(flags: int) -> int:
    return os.open(os.devnull, flags)


def _text(number: int, *, line_buffering: bool) -> io.TextIOWrapper:
    raw = _Output(number, "w", closefd=False)
    encoding = getattr(sys.__stdout__, "encoding", "utf-8")
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, line_buffering=line_buffering)
