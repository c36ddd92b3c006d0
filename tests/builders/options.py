"""Options of trace.dat: numbered facts about the recording, each a number and some bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .subbuf import Layout

DONE, DATE, CPUSTAT, BUFFER, TRACECLOCK, UNAME, HOOK, OFFSET, CPUCOUNT, VERSION = range(10)
PROCMAPS, TRACEID, TIME_SHIFT, GUEST, TSC2NSEC, STRINGS, HEADER_INFO, FTRACE_EVENTS = range(10, 18)
EVENT_FORMATS, KALLSYMS, PRINTK, CMDLINES = range(18, 22)


@dataclass(frozen=True)
class Option:
    """An option; its bytes depend on the byte order of the file."""

    number: int
    data: Callable[[Layout], bytes]

    def pack(self, layout: Layout) -> bytes:
        """Return number, size and bytes."""
        data = self.data(layout)
        return layout.u16(self.number) + layout.u32(len(data)) + data


def text(number: int, value: str) -> Option:
    """Return an option that holds a string with its closing zero."""
    return Option(number, lambda _: value.encode() + b"\0")


def uname(value: str) -> Option:
    """Return UNAME, for example ``Linux host 6.12.0 x86_64``."""
    return text(UNAME, value)


def version(value: str) -> Option:
    """Return VERSION, of trace-cmd."""
    return text(VERSION, value)


def date(microseconds: int) -> Option:
    """Return DATE: microseconds to add to every time stamp."""
    return text(DATE, f"{microseconds:#x}")


def offset(nanoseconds: int) -> Option:
    """Return OFFSET: nanoseconds to add to every time stamp."""
    return text(OFFSET, str(nanoseconds))


def clock(value: str) -> Option:
    """Return TRACECLOCK: the content of trace_clock, brackets round the active one."""
    return Option(TRACECLOCK, lambda _: value.encode() + b"\0" if value else b"")


def cpu_stat(
    cpu: int, *, entries: int = 0, overrun: int = 0, commit_overrun: int = 0, dropped: int = 0
) -> Option:
    """Return CPUSTAT: the kernel's per_cpu/cpuN/stats."""
    lines = (
        f"CPU: {cpu}\nentries: {entries}\noverrun: {overrun}\ncommit overrun: {commit_overrun}\nbytes: 0\n"
        f"oldest event ts:     0.000000\nnow ts:     0.000000\ndropped events: {dropped}\nread events: 0\n\n"
    )
    return text(CPUSTAT, lines)


def tsc2nsec(mult: int, shift: int, offset_ns: int = 0) -> Option:
    """Return TSC2NSEC: ns = ts * mult >> shift."""
    return Option(TSC2NSEC, lambda w: w.u32(mult) + w.u32(shift) + w.u64(offset_ns))


def trace_id(value: int) -> Option:
    """Return TRACEID: the number that joins host and guest files."""
    return Option(TRACEID, lambda w: w.u64(value))


def guest(name: str, guest_trace_id: int, vcpu_tids: Sequence[int]) -> Option:
    """Return GUEST: a guest of this host, with the thread of each vCPU."""

    def data(layout: Layout) -> bytes:
        head = name.encode() + b"\0" + layout.u64(guest_trace_id) + layout.u32(len(vcpu_tids))
        return head + b"".join(
            layout.u32(n) + layout.u32(tid & 0xFFFFFFFF) for n, tid in enumerate(vcpu_tids)
        )

    return Option(GUEST, data)


def time_shift(
    peer: int, samples: Sequence[Sequence[tuple[int, int]]], *, interpolate: bool = False
) -> Option:
    """Return TIME_SHIFT of a guest file.

    Args:
        peer: trace id of the host file.
        samples: per CPU of the guest, pairs of time and offset to add.
        interpolate: between two samples.
    """

    def data(layout: Layout) -> bytes:
        out = layout.u64(peer) + layout.u32(interpolate) + layout.u32(len(samples))
        for cpu in samples:
            out += layout.u32(len(cpu)) + b"".join(layout.u64(at) for at, _ in cpu)
            out += b"".join(layout.u64(shift & (1 << 64) - 1) for _, shift in cpu) + layout.u64(1) * len(cpu)
        return out + b"".join(layout.u64(0) for cpu in samples for _ in cpu)

    return Option(TIME_SHIFT, data)


def cpu_count(count: int) -> Option:
    """Return CPUCOUNT."""
    return Option(CPUCOUNT, lambda w: w.u32(count))


def proc_maps(pid: int, comm: str, maps: Sequence[tuple[int, int, str]]) -> Option:
    """Return PROCMAPS: libraries of a traced process, as start, end and path."""
    lines = "".join(f"{start:x} {end:x} {path}\n" for start, end, path in maps)
    return text(PROCMAPS, f"{pid:x} {len(maps):x} {comm}\n{lines}")


def section(number: int, where: int) -> Option:
    """Return the option that points at a section of the same number (version 7)."""
    return Option(number, lambda w: w.u64(where))


def done(following: int) -> Option:
    """Return DONE: the offset of the next options section, 0 for none (version 7)."""
    return Option(DONE, lambda w: w.u64(following))


def buffer_v6(name: str) -> Option:
    """Return BUFFER of version 6; its first 8 bytes, the offset, are filled in later."""
    return Option(BUFFER, lambda _: bytes(8) + name.encode() + b"\0")


def buffer_v7(
    layout: Layout,
    where: int,
    name: str,
    clock_name: str,
    page_size: int,
    cpus: Sequence[tuple[int, int, int]],
) -> Option:
    """Return BUFFER of version 7: section, instance, clock, and per CPU its number, offset and size."""
    data = layout.u64(where) + name.encode() + b"\0" + clock_name.encode() + b"\0"
    data += layout.u32(page_size) + layout.u32(len(cpus))
    data += b"".join(layout.u32(c) + layout.u64(at) + layout.u64(size) for c, at, size in cpus)
    return Option(BUFFER, lambda _: data)
