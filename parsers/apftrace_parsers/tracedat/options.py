"""Options: facts about the recording (trace-cmd.dat.v7(5): OPTIONS SECTION; ids in trace-cmd-private.h)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from apftrace.errors import TraceFormatError
from apftrace_parsers.base import Guest

if TYPE_CHECKING:
    from collections.abc import Callable

    from apftrace_parsers.cursor import Cursor
    from apftrace_parsers.importlog import ImportLog

MAX_OFFSET_NS = 1 << 61

_OCTAL = re.compile(r"[+-]?0[0-7]+\Z")


class OptionId(IntEnum):
    """Numbers of options; from 15 on also of sections."""

    DONE = 0
    DATE = 1
    CPUSTAT = 2
    BUFFER = 3
    TRACECLOCK = 4
    UNAME = 5
    HOOK = 6
    OFFSET = 7
    CPUCOUNT = 8
    VERSION = 9
    PROCMAPS = 10
    TRACEID = 11
    TIME_SHIFT = 12
    GUEST = 13
    TSC2NSEC = 14
    STRINGS = 15
    HEADER_INFO = 16
    FTRACE_EVENTS = 17
    EVENT_FORMATS = 18
    KALLSYMS = 19
    PRINTK = 20
    CMDLINES = 21
    BUFFER_TEXT = 22
    BTF_FILE = 23
    LAST_BOOT_INFO = 24
    MODULES_FILE = 25


@dataclass(frozen=True)
class CpuData:
    """Where the pages of a CPU lie in the file."""

    cpu: int
    offset: int
    size: int


@dataclass(frozen=True)
class Buffer:
    """A buffer instance; the top one has no name.

    Attributes:
        offset: of its section.
        name: of the instance.
        clock: its trace clock; empty in version 6.
        page_size: its sub-buffers; 0 in version 6 and for text.
        cpus: where its data is; empty in version 6, whose table stands at ``offset``.
        text: it holds the text of a latency tracer, no pages.
    """

    offset: int
    name: str
    clock: str = ""
    page_size: int = 0
    cpus: tuple[CpuData, ...] = ()
    text: bool = False


@dataclass(frozen=True)
class CpuSamples:
    """Comparisons of a guest CPU's clock with the host's: times, offsets, and the ratio of the two."""

    times: tuple[int, ...]
    offsets: tuple[int, ...]
    scalings: tuple[int, ...]
    fractions: tuple[int, ...]


@dataclass(frozen=True)
class TimeShift:
    """How a guest's clock relates to its host's.

    Attributes:
        peer: trace id of the host's file.
        flags: bit 0: interpolate between samples.
        cpus: samples per CPU.
    """

    peer: int
    flags: int
    cpus: tuple[CpuSamples, ...]


@dataclass(frozen=True)
class Tsc2Nsec:
    """ns = ticks * mult >> shift. ``offset`` is kept, but libtracecmd does not apply it either."""

    mult: int
    shift: int
    offset: int


@dataclass
class Options:
    """Everything that the options of a file say."""

    date_ns: int = 0
    offset_ns: int = 0
    cpustats: list[str] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    clocks: str | None = None
    uname: str | None = None
    version: str | None = None
    hooks: list[str] = field(default_factory=list)
    cpu_count: int | None = None
    procmaps: list[str] = field(default_factory=list)
    trace_id: int | None = None
    time_shift: TimeShift | None = None
    guests: list[Guest] = field(default_factory=list)
    tsc2nsec: Tsc2Nsec | None = None
    last_boot: str | None = None
    sections: dict[int, int] = field(default_factory=dict)
    """Offset per section, by option id."""


def read_option(options: Options, number: int, data: Cursor, log: ImportLog) -> None:
    """Take one option in. Unknown ones are skipped, as the format asks; damaged ones are noted.

    Args:
        options: where to.
        number: id of the option.
        data: its content.
        log: for damage.
    """
    reader = _READERS.get(number)
    if reader is None:
        return
    try:
        reader(options, number, data)
    except TraceFormatError as error:
        log.note("damaged options", f"option {OptionId(number).name} is damaged: {error.problem}")


def _number(data: Cursor) -> int:
    # As strtoll(text, NULL, 0); a time out of all reason is none.
    text = _text(data).strip()
    try:
        value = int(text, 8 if _OCTAL.match(text) else 0)
    except ValueError:
        data.fail(f"the text {text[:40]!r}", "a number")
    if value >> 63 == 1:
        value -= 1 << 64
    return value


def _text(data: Cursor) -> str:
    return data.take(data.remaining, "text").partition(b"\0")[0].decode("utf-8", "replace")


def _date(options: Options, number: int, data: Cursor) -> None:
    options.date_ns += _shift_ns(_number(data) * 1000, data)


def _offset(options: Options, number: int, data: Cursor) -> None:
    options.offset_ns += _shift_ns(_number(data), data)


def _shift_ns(value: int, data: Cursor) -> int:
    if abs(value) > MAX_OFFSET_NS:
        data.fail(f"{value} ns", "less than 73 years")
    return value


def _cpustat(options: Options, number: int, data: Cursor) -> None:
    options.cpustats.append(_text(data))


def _buffer(options: Options, number: int, data: Cursor) -> None:
    at = data.u64("the offset of a buffer")
    name = data.cstring("the name of an instance")
    if not data.remaining:
        options.buffers.append(Buffer(at, name))
        return
    clock = data.cstring("a clock", 256)
    if number == OptionId.BUFFER_TEXT:
        options.buffers.append(Buffer(at, name, clock, text=True))
        return
    page_size = data.u32("a page size")
    count = data.u32("a number of CPUs")
    if count * 20 > data.remaining:
        data.fail(f"{count} CPUs in {data.remaining} bytes", "20 bytes per CPU")
    cpus = tuple(CpuData(data.u32("a CPU"), data.u64("an offset"), data.u64("a size")) for _ in range(count))
    options.buffers.append(Buffer(at, name, clock, page_size, cpus))


def _traceclock(options: Options, number: int, data: Cursor) -> None:
    options.clocks = _text(data)


def _uname(options: Options, number: int, data: Cursor) -> None:
    options.uname = _text(data)


def _hook(options: Options, number: int, data: Cursor) -> None:
    options.hooks.append(_text(data))


def _cpucount(options: Options, number: int, data: Cursor) -> None:
    options.cpu_count = data.u32("a number of CPUs")


def _version(options: Options, number: int, data: Cursor) -> None:
    options.version = _text(data)


def _procmaps(options: Options, number: int, data: Cursor) -> None:
    options.procmaps.append(_text(data))


def _traceid(options: Options, number: int, data: Cursor) -> None:
    options.trace_id = data.u64("a trace id")


def _time_shift(options: Options, number: int, data: Cursor) -> None:
    peer = data.u64("a trace id")
    flags = data.u32("flags")
    n_cpus = data.u32("a number of CPUs")
    if n_cpus * 4 > data.remaining:
        data.fail(f"{n_cpus} CPUs in {data.remaining} bytes", "at least 4 bytes per CPU")
    columns = []
    for _ in range(n_cpus):
        n = data.u32("a number of samples")
        if n * 24 > data.remaining:
            data.fail(f"{n} samples in {data.remaining} bytes", "24 bytes per sample")
        columns.append([tuple(data.i64("a sample") for _ in range(n)) for _ in range(3)])
    # Fractions came later; files without them mean 0.
    cpus = [
        CpuSamples(
            times, offsets, scalings, tuple(data.i64("a fraction") if data.remaining else 0 for _ in times)
        )
        for times, offsets, scalings in columns
    ]
    options.time_shift = TimeShift(peer, flags, tuple(cpus))


def _guest(options: Options, number: int, data: Cursor) -> None:
    name = data.cstring("a guest's name")
    trace_id = data.u64("a trace id")
    n = data.u32("a number of vCPUs")
    if n * 8 > data.remaining:
        data.fail(f"{n} vCPUs in {data.remaining} bytes", "8 bytes per vCPU")
    tids = {data.u32("a vCPU"): data.u32("a thread id") for _ in range(n)}
    # Guests on the network have no threads here: -1.
    options.guests.append(Guest(name, trace_id, {v: tid for v, tid in tids.items() if tid < 1 << 31}))


def _tsc2nsec(options: Options, number: int, data: Cursor) -> None:
    mult, shift, offset = data.u32("a multiplier"), data.u32("a shift"), data.u64("an offset")
    if shift > 63:
        data.fail(f"a shift of {shift} bits", "less than 64")
    options.tsc2nsec = Tsc2Nsec(mult, shift, offset)


def _section(options: Options, number: int, data: Cursor) -> None:
    options.sections[number] = data.u64("the offset of a section")


def _last_boot(options: Options, number: int, data: Cursor) -> None:
    options.last_boot = _text(data)


_READERS: dict[int, Callable[[Options, int, Cursor], None]] = {
    OptionId.DATE: _date,
    OptionId.CPUSTAT: _cpustat,
    OptionId.BUFFER: _buffer,
    OptionId.TRACECLOCK: _traceclock,
    OptionId.UNAME: _uname,
    OptionId.HOOK: _hook,
    OptionId.OFFSET: _offset,
    OptionId.CPUCOUNT: _cpucount,
    OptionId.VERSION: _version,
    OptionId.PROCMAPS: _procmaps,
    OptionId.TRACEID: _traceid,
    OptionId.TIME_SHIFT: _time_shift,
    OptionId.GUEST: _guest,
    OptionId.TSC2NSEC: _tsc2nsec,
    OptionId.HEADER_INFO: _section,
    OptionId.FTRACE_EVENTS: _section,
    OptionId.EVENT_FORMATS: _section,
    OptionId.KALLSYMS: _section,
    OptionId.PRINTK: _section,
    OptionId.CMDLINES: _section,
    OptionId.BUFFER_TEXT: _buffer,
    OptionId.BTF_FILE: _section,
    OptionId.LAST_BOOT_INFO: _last_boot,
    OptionId.MODULES_FILE: _section,
}
