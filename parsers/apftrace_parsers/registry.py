"""Which parser reads a file: decided by its first bytes, never by its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from apftrace.errors import TraceFormatError, TraceUnsupported
from apftrace_parsers.ftracetext import FtraceTextParser
from apftrace_parsers.tracedat import TraceDatParser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apftrace_parsers.base import Parser, Source

ENTRY_POINTS = "apftrace.parsers"
SNIFF_BYTES = 512
BUILTIN: tuple[Parser, ...] = (TraceDatParser(), FtraceTextParser())
"""Parsers that come along, in the order in which they are asked."""

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_TEXT_INSIDE = {"gzip": " (ftrace text in it would be read, but its begin is none)"}
_PERF_SCRIPT = re.compile(rb"^ *\S.{0,40} +\d+(?:/\d+)? +\[\d{3,5}\] +\d+\.\d+: +[\w-]+:\w+: ", re.MULTILINE)
_KNOWN = {b"PERFILE2": "perf.data", b"2ELIFREP": "perf.data of the other byte order"}


def plugins() -> tuple[Parser, ...]:
    """Return the parsers that other packages install, in order of their names."""
    # Here, because this import takes longer than reading a small trace.
    from importlib.metadata import entry_points

    return tuple(sorted((p.load()() for p in entry_points(group=ENTRY_POINTS)), key=lambda p: p.name))


def open_source(path: str | Path) -> Source:
    """Open a trace of any known format; plugins are asked when no builtin parser recognises it.

    Raises:
        TraceFormatError: no parser recognises the content, or its headers contradict the format.
        TraceUnsupported: the format is known but cannot be read.
        OSError: the file cannot be read.
    """
    if Path(path).is_dir():
        raise TraceUnsupported(str(path), "a directory, not a trace file")
    with Path(path).open("rb") as file:
        if not file.seekable():
            raise TraceUnsupported(str(path), "a pipe, and a trace must be a file: the formats need to seek")
        head = file.read(SNIFF_BYTES)
    for parser in BUILTIN:
        if parser.sniff(head):
            return parser.open(path)
    further = plugins()
    for parser in further:
        if parser.sniff(head):
            return parser.open(path)
    raise _unknown(str(path), head, (*BUILTIN, *further))


def _unknown(path: str, head: bytes, parsers: Sequence[Parser]) -> TraceFormatError | TraceUnsupported:
    for magic, name in _KNOWN.items():
        if head.startswith(magic):
            return TraceUnsupported(path, f"{name}, which no installed parser reads")
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            return TraceUnsupported(path, f"{name} compressed: unpack it first{_TEXT_INSIDE.get(name, '')}")
    if _PERF_SCRIPT.search(head):
        return TraceUnsupported(path, "perf script text, which no installed parser reads")
    found = f"bytes {head[:8].hex(' ')}" if head else "an empty file"
    expected = "a trace (" + ", ".join(parser.name for parser in parsers) + ")"
    return TraceFormatError(path, offset=0, found=found, expected=expected)
