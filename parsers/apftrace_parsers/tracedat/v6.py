"""Version 6: one part after the other (trace-cmd.dat.v6(5))."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from apftrace.errors import TraceFormatError
from apftrace_parsers.cursor import Cursor
from apftrace_parsers.tracedat.header import read_header_pages
from apftrace_parsers.tracedat.meta import Meta, read_event_formats, read_ftrace_events
from apftrace_parsers.tracedat.options import Buffer, CpuData, read_option

if TYPE_CHECKING:
    from apftrace_parsers.cursor import FileCursor
    from apftrace_parsers.importlog import ImportLog
    from apftrace_parsers.tracedat.header import Header

MARK = 10
OPTIONS, LATENCY, FLYRECORD = b"options  \0", b"latency  \0", b"flyrecord\0"


def read_v6(cursor: FileCursor, header: Header, log: ImportLog) -> Meta:
    """Read everything up to the tables of CPU data.

    Raises:
        TraceFormatError: a part is missing or cut off.
    """
    meta = Meta(header, read_header_pages(cursor, header.long_size))
    read_ftrace_events(cursor, meta)
    read_event_formats(cursor, meta)
    size, at = cursor.u32("the length of kallsyms"), cursor.offset
    cursor.skip(size, "kallsyms")
    meta.kallsyms = lambda: cursor.copy(at).take(size, "kallsyms")
    cursor.skip(cursor.u32("the length of printk formats"), "printk formats")
    meta.cmdlines = cursor.take(cursor.u64("the length of the saved command lines"), "saved command lines")
    n_cpus = cursor.u32("a number of CPUs")
    mark = _read_mark(cursor, meta, log)
    instances = [b for b in meta.options.buffers if b.name]
    if mark == LATENCY:
        meta.options.buffers = [Buffer(cursor.offset, "", text=True)]
        return meta
    n_cpus = n_cpus if meta.options.cpu_count is None else meta.options.cpu_count
    top = Buffer(0, "", page_size=header.page_size, cpus=_read_cpu_table(cursor, n_cpus))
    if meta.options.clocks is not None:
        meta.options.clocks = _read_clock(cursor, log)
    meta.options.buffers = [top, *(_read_instance(cursor, meta, b, n_cpus, log) for b in instances)]
    return meta


def _read_mark(cursor: FileCursor, meta: Meta, log: ImportLog) -> bytes:
    mark = cursor.take(MARK, "a mark")
    if mark == OPTIONS:
        while number := cursor.u16("an option"):
            at = cursor.offset
            size = cursor.u32("the length of an option")
            data = cursor.take(size, "an option")
            read_option(
                meta.options, number, Cursor(data, path=cursor.path, base=at + 4, big=cursor.big), log
            )
        mark = cursor.take(MARK, "a mark")
    if mark not in (LATENCY, FLYRECORD):
        cursor.fail(repr(mark), "latency or flyrecord")
    return mark


def _read_cpu_table(cursor: FileCursor, n_cpus: int) -> tuple[CpuData, ...]:
    if n_cpus * 16 > cursor.remaining:
        cursor.fail(f"{n_cpus} CPUs and {cursor.remaining} bytes", "16 bytes per CPU")
    return tuple(CpuData(cpu, cursor.u64("an offset"), cursor.u64("a size")) for cpu in range(n_cpus))


def _read_clock(cursor: FileCursor, log: ImportLog) -> str | None:
    # Some writers spoilt this part (trace-input.c, init_data_v6: "trace_clock bug"); the clock is then local.
    try:
        size = cursor.u64("the length of the clock")
        return cursor.take(min(size, 4096), "the trace clock").decode("utf-8", "replace")
    except TraceFormatError as error:
        log.note("unreadable clocks", f"trace clock: {error.problem}; taken as local")
        return None


def _read_instance(cursor: FileCursor, meta: Meta, buffer: Buffer, n_cpus: int, log: ImportLog) -> Buffer:
    cursor.seek(buffer.offset)
    size = meta.header.page_size
    try:
        if _read_mark(cursor, meta, log) == LATENCY:
            return replace(buffer, text=True)
        return replace(buffer, page_size=size, cpus=_read_cpu_table(cursor, n_cpus))
    except TraceFormatError as error:
        log.note("unreadable instances", f"instance {buffer.name}: {error.problem}")
        return replace(buffer, page_size=size)
