"""Write trace.dat files, versions 6 and 7, as trace-cmd lays them out (trace-cmd.dat.v6(5), .v7(5)).

    dat = TraceDat(version=7, compression="zstd", cmdlines={101: "CPU 0/KVM"})
    dat.add(Event(1_000, cpu=0, tid=101, name="kvm_entry", fields={"vcpu_id": 0, "rip": 0x401000}))
    dat.write(path)

Records of a CPU are stored in order of their time stamps; ``sort=False`` keeps the order given.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import zstandard

from . import options as opt
from .formats import Format, Value, formats
from .subbuf import Layout, Stamp, SubbufWriter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAGIC = b"\x17\x08\x44tracing"
PAGES_IN_CHUNK = 10
CLOCKS = "local global counter uptime perf mono mono_raw boot tai x86-tsc"

Compression = Literal["none", "zlib", "zstd"]


@dataclass(frozen=True)
class Event:
    """A record given by tracepoint name and field values; absent fields are zero."""

    ts: int
    cpu: int
    tid: int
    name: str
    fields: dict[str, Value] = field(default_factory=dict)
    flags: int = 0
    preempt: int = 0
    stamp: Stamp = "auto"
    long_form: bool = False


@dataclass(frozen=True)
class Raw:
    """A record given by its payload, common fields included."""

    ts: int
    cpu: int
    payload: bytes


@dataclass(frozen=True)
class Missed:
    """A loss: the next record of this CPU opens a sub-buffer that says so (and how many, if known)."""

    ts: int
    cpu: int
    count: int | None = None


@dataclass(frozen=True)
class Discarded:
    """A record that the kernel wrote and took back."""

    ts: int
    cpu: int
    size: int = 16


@dataclass(frozen=True)
class PageEnd:
    """Close the sub-buffer of this CPU here, with a padding record if asked."""

    ts: int
    cpu: int
    padding: bool = False


Record = Event | Raw | Missed | Discarded | PageEnd


@dataclass
class TraceDat:
    """A trace.dat to be.

    Attributes:
        version: 6 or 7.
        compression: of a version 7 file.
        layout: byte order, word size and sub-buffer size of the top instance.
        formats: tracepoints that the file describes; null takes all of ``builders.formats``.
        cpus: null takes what the records need.
        clock: trace clock; null leaves the option out.
        options: further options, made by ``builders.options``.
        page_sizes: sub-buffer sizes of instances that differ from the top one (version 7).
        always_long: records with separate lengths throughout.
        chunk_pages: pages per compressed chunk.
    """

    version: Literal[6, 7] = 7
    compression: Compression = "none"
    layout: Layout = field(default_factory=Layout)
    formats: tuple[Format, ...] | None = None
    cmdlines: dict[int, str] = field(default_factory=dict)
    cpus: int | None = None
    clock: str | None = "local"
    options: list[opt.Option] = field(default_factory=list)
    kallsyms: str = ""
    printk: str = ""
    page_sizes: dict[str, int] = field(default_factory=dict)
    always_long: bool = False
    chunk_pages: int = PAGES_IN_CHUNK
    sort: bool = True
    _records: dict[str, list[Record]] = field(default_factory=lambda: {"": []})

    def add(self, *records: Record, instance: str = "") -> TraceDat:
        """Append records to an instance; an instance exists once it was named here."""
        self._records.setdefault(instance, []).extend(records)
        return self

    def write(self, path: Path) -> Path:
        """Write the file and return its path."""
        path.write_bytes(self.to_bytes())
        return path

    def to_bytes(self) -> bytes:
        """Return the whole file."""
        return _write_v6(self) if self.version == 6 else _write_v7(self)

    def subbufs(self, instance: str = "") -> dict[int, bytes]:
        """Return the sub-buffers of an instance by CPU, uncompressed, as trace_pipe_raw gives them."""
        layout = self.layout_of(instance)
        writers = {cpu: SubbufWriter(layout, always_long=self.always_long) for cpu in range(self.n_cpus)}
        by_name = {f.name: f for f in self.known_formats}
        records: Iterable[Record] = self._records[instance]
        for record in sorted(records, key=lambda r: r.ts) if self.sort else records:
            _put(writers[record.cpu], record, by_name)
        return {cpu: w.finish() for cpu, w in writers.items()}

    @property
    def known_formats(self) -> tuple[Format, ...]:
        """Formats that the file describes."""
        return self.formats if self.formats is not None else formats(long_size=self.layout.long_size)

    @property
    def n_cpus(self) -> int:
        """CPUs that the file speaks of."""
        used = [r.cpu for records in self._records.values() for r in records]
        return self.cpus if self.cpus is not None else max(used, default=0) + 1

    @property
    def instances(self) -> tuple[str, ...]:
        """Instances, the top one first."""
        return tuple(self._records)

    def layout_of(self, instance: str) -> Layout:
        """Return the layout of an instance."""
        size = self.page_sizes.get(instance, self.layout.page_size)
        return Layout(self.layout.byte_order, self.layout.long_size, size)


def _put(writer: SubbufWriter, record: Record, by_name: dict[str, Format]) -> None:
    match record:
        case Event():
            payload = by_name[record.name].pack(
                writer.layout, record.fields, flags=record.flags, preempt_count=record.preempt, pid=record.tid
            )
            writer.data(record.ts, payload, stamp=record.stamp, long_form=record.long_form)
        case Raw():
            writer.data(record.ts, record.payload)
        case Missed():
            writer.missed(record.count)
        case Discarded():
            writer.discard(record.ts, record.size)
        case PageEnd():
            writer.end_page(padding=record.padding)


def _start(dat: TraceDat) -> bytes:
    layout = dat.layout
    head = MAGIC + f"{dat.version}\0".encode()
    return head + bytes([layout.byte_order == ">", layout.long_size]) + layout.u32(layout.page_size)


def _headers(layout: Layout) -> bytes:
    long = layout.long_size
    page = (
        "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
        f"\tfield: local_t commit;\toffset:8;\tsize:{long};\tsigned:1;\n"
        f"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
        f"\tfield: char data;\toffset:{layout.header_size};\tsize:{layout.data_size};\tsigned:1;\n"
    )
    event = (
        "# compressed entry header\n"
        "\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\tarray       :   32 bits\n"
        "\n\tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n"
        "\tdata max type_len  == 28\n"
    )
    return b"header_page\0" + _sized(layout, page) + b"header_event\0" + _sized(layout, event)


def _sized(layout: Layout, text: str) -> bytes:
    data = text.encode()
    return layout.u64(len(data)) + data


def _sized32(layout: Layout, text: str) -> bytes:
    data = text.encode()
    return layout.u32(len(data)) + data


def _ftrace_formats(dat: TraceDat) -> bytes:
    """Return the formats of ftrace's own events, which have a part of their own."""
    own = [fmt for fmt in dat.known_formats if fmt.system == "ftrace"]
    return dat.layout.u32(len(own)) + b"".join(_sized(dat.layout, f.text) for f in own)


def _event_formats(dat: TraceDat) -> bytes:
    systems: dict[str, list[Format]] = {}
    for fmt in dat.known_formats:
        if fmt.system != "ftrace":
            systems.setdefault(fmt.system, []).append(fmt)
    out = dat.layout.u32(len(systems))
    for system, members in systems.items():
        out += system.encode() + b"\0" + dat.layout.u32(len(members))
        out += b"".join(_sized(dat.layout, f.text) for f in members)
    return out


def _cmdlines(dat: TraceDat) -> bytes:
    return _sized(dat.layout, "".join(f"{tid} {comm}\n" for tid, comm in dat.cmdlines.items()))


def _clock_text(clock: str) -> str:
    names = CLOCKS.split()
    active = clock if clock in names else "x86-tsc"
    return " ".join(f"[{n}]" if n == active else n for n in names) + "\n"


def _write_v6(dat: TraceDat) -> bytes:
    layout = dat.layout
    out = bytearray(_start(dat) + _headers(layout) + _ftrace_formats(dat) + _event_formats(dat))
    out += _sized32(layout, dat.kallsyms) + _sized32(layout, dat.printk) + _cmdlines(dat)
    out += layout.u32(dat.n_cpus) + b"options  \0"
    if dat.clock:
        out += opt.clock("").pack(layout)
    out += b"".join(o.pack(layout) for o in dat.options)
    places = []
    for name in dat.instances[1:]:
        option = opt.buffer_v6(name)
        places.append(len(out) + 6)
        out += option.pack(layout)
    out += layout.u16(0)
    _flyrecord(out, dat, "")
    for name, place in zip(dat.instances[1:], places, strict=True):
        out[place : place + 8] = layout.u64(len(out))
        _flyrecord(out, dat, name)
    return bytes(out)


def _flyrecord(out: bytearray, dat: TraceDat, instance: str) -> None:
    """Append the CPU table of an instance, the clock, and the sub-buffers on page boundaries."""
    out += b"flyrecord\0"
    table = len(out)
    out += bytes(16 * dat.n_cpus)
    if dat.clock and not instance:
        out += _sized(dat.layout, _clock_text(dat.clock))
    for cpu, pages in dat.subbufs(instance).items():
        _align(out, dat.layout.page_size)
        out[table + 16 * cpu : table + 16 * cpu + 16] = dat.layout.u64(len(out)) + dat.layout.u64(len(pages))
        out += pages


def _align(out: bytearray, size: int) -> None:
    out += bytes(-len(out) % size)


def _write_v7(dat: TraceDat) -> bytes:
    layout = dat.layout
    out = bytearray(_start(dat) + f"{dat.compression}\0".encode())
    out += b"\0" if dat.compression == "none" else b"1.0\0"
    first_options = len(out)
    out += bytes(8)
    names = _Strings()
    done: list[opt.Option] = []
    for number, label, payload in (
        (opt.HEADER_INFO, "headers", _headers(layout)),
        (opt.FTRACE_EVENTS, "ftrace events", _ftrace_formats(dat)),
        (opt.EVENT_FORMATS, "events format", _event_formats(dat)),
        (opt.KALLSYMS, "kallsyms", _sized32(layout, dat.kallsyms)),
        (opt.PRINTK, "printk", _sized32(layout, dat.printk)),
        (opt.CMDLINES, "command lines", _cmdlines(dat)),
    ):
        done.append(opt.section(number, len(out)))
        _section(out, dat, number, names.add(label), payload)
    if dat.clock:
        done.append(opt.clock(_clock_text(dat.clock)))
    done += [opt.cpu_count(dat.n_cpus), *dat.options]
    done += [_buffer(out, dat, name, names) for name in dat.instances]
    out[first_options : first_options + 8] = layout.u64(len(out))
    body = b"".join(o.pack(layout) for o in done) + opt.done(0).pack(layout)
    out += _section_head(layout, 0, 0, names.add("options"), len(body)) + body
    out += _section_head(layout, opt.STRINGS, 0, names.add("strings"), len(names.data)) + names.data
    return bytes(out)


class _Strings:
    """The strings section: names of sections, found by offset."""

    def __init__(self) -> None:
        self.data = b""

    def add(self, name: str) -> int:
        where = len(self.data)
        self.data += name.encode() + b"\0"
        return where


def _section_head(layout: Layout, number: int, flags: int, name: int, size: int) -> bytes:
    return layout.u16(number) + layout.u16(flags) + layout.u32(name) + layout.u64(size)


def _section(out: bytearray, dat: TraceDat, number: int, name: int, payload: bytes) -> None:
    packed = dat.compression != "none"
    body = _block(dat, payload) if packed else payload
    out += _section_head(dat.layout, number, packed, name, len(body)) + body


def _block(dat: TraceDat, payload: bytes) -> bytes:
    data = compress(dat.compression, payload)
    return dat.layout.u32(len(data)) + dat.layout.u32(len(payload)) + data


def compress(method: Compression, data: bytes) -> bytes:
    """Compress as libtracecmd does: zlib level 9, zstd frames without a content size."""
    if method == "zlib":
        return zlib.compress(data, 9)
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


def _buffer(out: bytearray, dat: TraceDat, instance: str, names: _Strings) -> opt.Option:
    """Append the section of an instance's records and return the option that points at it."""
    layout = dat.layout_of(instance)
    start = len(out)
    packed = dat.compression != "none"
    name = names.add(f"buffer flyrecord {instance}")
    out += bytes(16)
    cpus = []
    for cpu, pages in dat.subbufs(instance).items():
        if not pages:
            continue
        _align(out, layout.page_size)
        where = len(out)
        out += _chunks(dat, pages, layout.page_size) if packed else pages
        cpus.append((cpu, where, len(out) - where))
    out[start : start + 16] = _section_head(layout, opt.BUFFER, packed, name, len(out) - start - 16)
    return opt.buffer_v7(layout, start, instance, dat.clock or "local", layout.page_size, cpus)


def _chunks(dat: TraceDat, pages: bytes, page_size: int) -> bytes:
    step = dat.chunk_pages * page_size
    parts = [_block(dat, pages[at : at + step]) for at in range(0, len(pages), step)]
    return dat.layout.u32(len(parts)) + b"".join(parts)
