"""Where output goes: errors of writing that say where, and standard streams that may be closed."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer

STDOUT = "standard output"


class Output(io.FileIO):
    """A file to write, whose errors give it the name that people know it by.

    Args:
        file: path or number.
        shown: that name.
        closefd: whether the number is closed with it.
    """

    def __init__(self, file: str | os.PathLike[str] | int, shown: str, *, closefd: bool = True) -> None:
        self._shown = shown
        with named(shown):
            super().__init__(file, "w", closefd=closefd)

    def write(self, data: ReadableBuffer, /) -> int:
        """Write; an error of a descriptor has no name otherwise, unlike that of opening a file."""
        with named(self._shown):
            return super().write(data)


class Printable(io.RawIOBase):
    """A terminal, to which control characters go only escaped; what is written is UTF-8 text in lines.

    Args:
        out: what it is written to.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        """Say that it is."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what of it is a whole character."""
        from apftrace_reports.escape import visible

        text = self._decoder.decode(bytes(data))
        self._out.write("\n".join(map(visible, text.split("\n"))).encode())
        return memoryview(data).nbytes


@contextmanager
def named(shown: str) -> Iterator[None]:
    """Let an OSError tell this name instead of another one, or none."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = shown, None
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
    if isinstance(getattr(sys.stdout.buffer, "raw", None), Output):
        os.dup2(_number(os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def while_read() -> Iterator[None]:
    """Write to standard output as long as somebody reads it: who has seen enough changes nothing else."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()


def _number(flags: int) -> int:
    return os.open(os.devnull, flags)


def _text(number: int, *, line_buffering: bool) -> io.TextIOWrapper:
    raw = Output(number, STDOUT, closefd=False)
    encoding = getattr(sys.__stdout__, "encoding", "utf-8")
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, line_buffering=line_buffering)
