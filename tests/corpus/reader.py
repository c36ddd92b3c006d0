"""Read trace.dat into editable records.

Pure Python and on purpose independent of ``apftrace_parsers``: a bug of the parsers cannot hide here.
It reads what the captures hold (versions 6 and 7, little-endian, 64-bit) and fails loudly on the rest.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import zstandard

from tests.builders import options as opt
from tests.builders.formats import Format, parse
from tests.builders.subbuf import MISSED_EVENTS, MISSED_STORED, Layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NS_CLOCKS = {"local", "global", "perf", "mono", "mono_raw", "boot", "tai"}
POINTERS = {opt.BUFFER, *range(opt.STRINGS, opt.CMDLINES + 1)}


@dataclass(slots=True, eq=False)
class Rec:
    """One record; ``missed`` says that records of its CPU were lost right before it (-1: unknown number)."""

    ts: int
    cpu: int
    instance: str
    format: Format | None
    payload: bytes
    missed: int | None = None

    @property
    def name(self) -> str:
        return self.format.name if self.format else ""

    def __getitem__(self, name: str) -> int:
        f = self._field(name)
        return int.from_bytes(self.payload[f.offset : f.offset + f.size], "little", signed=f.signed)

    @property
    def tid(self) -> int:
        return int.from_bytes(self.payload[4:8], "little", signed=True)

    def is_about(self, tids: set[int]) -> bool:
        """Say whether one of these threads recorded it, or it wakes or switches one."""
        if self.tid in tids:
            return True
        match self.name:
            case "sched_switch":
                return bool({self["prev_pid"], self["next_pid"]} & tids)
            case "sched_wakeup" | "sched_waking":
                return self["pid"] in tids
        return False

    def but(
        self, *, ts: int | None = None, cpu: int | None = None, missed: int | None = None, **fields: int
    ) -> Rec:
        """Return a copy with other values."""
        payload = bytearray(self.payload)
        for name, value in fields.items():
            f = self._field(name)
            payload[f.offset : f.offset + f.size] = (value & (1 << 8 * f.size) - 1).to_bytes(f.size, "little")
        return Rec(
            self.ts if ts is None else ts,
            self.cpu if cpu is None else cpu,
            self.instance,
            self.format,
            bytes(payload),
            self.missed if missed is None else missed,
        )

    def _field(self, name: str) -> Any:
        assert self.format
        return next(f for f in self.format.fields if f.name == name)


@dataclass
class Capture:
    """A decoded trace.dat: its records in time order, and what is needed to write it again."""

    path: Path
    version: int
    page_size: int
    compression: str
    clock: str = "local"
    cpus: int = 1
    formats: tuple[Format, ...] = ()
    cmdlines: dict[int, str] = field(default_factory=dict)
    options: list[tuple[int, bytes]] = field(default_factory=list)
    records: list[Rec] = field(default_factory=list)
    ticks_per_ns: float | None = 1.0

    def ticks(self, ns: float) -> int:
        """Convert a duration to units of the trace clock."""
        assert self.ticks_per_ns
        return int(ns * self.ticks_per_ns)


class _Cursor:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, size: int) -> bytes:
        self.at += size
        assert self.at <= len(self.data)
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        raw = self.take(end - self.at)
        self.at += 1
        return raw.decode()


def read(path: Path) -> Capture:
    """Decode a whole file."""
    cur = _Cursor(path.read_bytes())
    assert cur.take(10) == b"\x17\x08\x44tracing"
    version = int(cur.text())
    assert cur.take(2) == b"\x00\x08"
    capture = Capture(path, version, cur.number(4), "none")
    buffers = _read_v6(capture, cur) if version == 6 else _read_v7(capture, cur)
    by_id = {f.id: f for f in capture.formats}
    for name, page_size, cpu, pages in buffers:
        capture.records += _records(pages, page_size, cpu, name, by_id)
    capture.records.sort(key=lambda r: r.ts)
    capture.ticks_per_ns = _rate(capture)
    return capture


def _rate(capture: Capture) -> float | None:
    for number, data in capture.options:
        if number == opt.TSC2NSEC:
            mult, shift = struct.unpack_from("<II", data)
            return (1 << shift) / mult
    return 1.0 if capture.clock in NS_CLOCKS else None


def _read_v6(capture: Capture, cur: _Cursor) -> list[tuple[str, int, int, bytes]]:
    cur.text()
    cur.take(cur.number(8))
    cur.text()
    cur.take(cur.number(8))
    for _ in range(cur.number(4)):
        cur.take(cur.number(8))
    capture.formats = tuple(_formats(cur))
    cur.take(cur.number(4))
    cur.take(cur.number(4))
    capture.cmdlines = _cmdlines(cur.take(cur.number(8)))
    capture.cpus = cur.number(4)
    assert cur.take(10) == b"options  \0"
    while number := cur.number(2):
        capture.options.append((number, cur.take(cur.number(4))))
    assert not any(number == opt.BUFFER for number, _ in capture.options)
    assert cur.take(10) == b"flyrecord\0"
    table = [(cur.number(8), cur.number(8)) for _ in range(capture.cpus)]
    capture.clock = _active(cur.take(cur.number(8)))
    capture.options = [o for o in capture.options if o[0] not in {opt.TRACECLOCK, opt.CPUCOUNT}]
    return [("", capture.page_size, n, cur.data[at : at + size]) for n, (at, size) in enumerate(table)]


def _read_v7(capture: Capture, cur: _Cursor) -> list[tuple[str, int, int, bytes]]:
    capture.compression = cur.text()
    cur.text()
    options = list(_options_v7(cur.data, cur.number(8)))
    buffers: list[tuple[str, int, int, bytes]] = []
    for number, data in options:
        if number == opt.EVENT_FORMATS:
            capture.formats = tuple(_formats(_Cursor(_section(capture, cur.data, data))))
        elif number == opt.CMDLINES:
            text = _Cursor(_section(capture, cur.data, data))
            capture.cmdlines = _cmdlines(text.take(text.number(8)))
        elif number == opt.TRACECLOCK:
            capture.clock = _active(data)
        elif number == opt.CPUCOUNT:
            capture.cpus = int.from_bytes(data, "little")
        elif number == opt.BUFFER:
            clock, found = _buffer(capture, cur.data, data)
            capture.clock = clock if found and not found[0][0] else capture.clock
            buffers += found
        elif number not in POINTERS:
            capture.options.append((number, data))
    return buffers


def _options_v7(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at:
        cur = _Cursor(data, at + 16)
        while number := cur.number(2):
            yield number, cur.take(cur.number(4))
        cur.number(4)
        at = cur.number(8)


def _section(capture: Capture, data: bytes, pointer: bytes) -> bytes:
    cur = _Cursor(data, int.from_bytes(pointer, "little"))
    cur.number(2)
    packed = cur.number(2)
    cur.number(4)
    size = cur.number(8)
    return _unpack(capture, cur) if packed else cur.take(size)


def _unpack(capture: Capture, cur: _Cursor) -> bytes:
    size, full = cur.number(4), cur.number(4)
    if capture.compression == "zlib":
        return zlib.decompress(cur.take(size))
    return zstandard.ZstdDecompressor().decompress(cur.take(size), max_output_size=full)


def _buffer(capture: Capture, data: bytes, option: bytes) -> tuple[str, list[tuple[str, int, int, bytes]]]:
    cur = _Cursor(option)
    packed = data[cur.number(8) + 2] & 1
    name, clock, page_size = cur.text(), cur.text(), cur.number(4)
    found = []
    for _ in range(cur.number(4)):
        cpu, at, size = cur.number(4), cur.number(8), cur.number(8)
        chunks = _Cursor(data, at)
        pages = (
            b"".join(_unpack(capture, chunks) for _ in range(chunks.number(4)))
            if packed
            else chunks.take(size)
        )
        found.append((name, page_size, cpu, pages))
    return clock, found


def _formats(cur: _Cursor) -> Iterator[Format]:
    for _ in range(cur.number(4)):
        system = cur.text()
        for _ in range(cur.number(4)):
            yield parse(system, cur.take(cur.number(8)).decode())


def _cmdlines(text: bytes) -> dict[int, str]:
    pairs = (line.split(" ", 1) for line in text.decode().splitlines() if line)
    return {int(tid): comm for tid, comm in pairs}


def _active(text: bytes) -> str:
    found = text.decode().partition("[")[2].partition("]")[0]
    return found or "local"


def _records(
    pages: bytes, page_size: int, cpu: int, instance: str, by_id: dict[int, Format]
) -> Iterator[Rec]:
    for at in range(0, len(pages), page_size):
        page = pages[at : at + page_size]
        ts, commit = struct.unpack_from("<QQ", page)
        end = Layout().header_size + (commit & (1 << 27) - 1)
        missed = None
        if commit & MISSED_EVENTS:
            missed = struct.unpack_from("<q", page, end)[0] if commit & MISSED_STORED else -1
        for stamp, payload in _walk(page, Layout().header_size, end, ts):
            fmt = by_id.get(int.from_bytes(payload[:2], "little"))
            yield Rec(stamp, cpu, instance, fmt, payload, missed)
            missed = None


def _walk(page: bytes, at: int, end: int, ts: int) -> Iterator[tuple[int, bytes]]:
    while at < end:
        head = int.from_bytes(page[at : at + 4], "little")
        kind, delta = head & 31, head >> 5
        word = int.from_bytes(page[at + 4 : at + 8], "little")
        if kind == 30:
            ts, at = ts + delta + (word << 27), at + 8
        elif kind == 31:
            ts, at = delta + (word << 27) | ts & 0xF8 << 56, at + 8
        elif kind == 29:
            if not delta:
                return
            ts, at = ts + delta, at + 4 + word
        else:
            size, start = (4 * kind, at + 4) if kind else (word - 4, at + 8)
            ts += delta
            yield ts, page[start : start + size]
            at = start + size + -size % 4
