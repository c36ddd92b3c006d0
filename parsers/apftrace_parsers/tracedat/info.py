"""Facts of a trace.dat for people."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from apftrace_parsers.base import SourceInfo, TickRate
from apftrace_parsers.tracedat.timesync import NS_CLOCKS

if TYPE_CHECKING:
    from apftrace_parsers.tracedat.meta import Meta
    from apftrace_parsers.tracedat.options import Options

_ACTIVE = re.compile(r"\[(.+?)\]")
MAX_COMMS = 1 << 16
"""Names that are kept; the kernel saves no more than PID_MAX_DEFAULT, 32768 (tracing_saved_cmdlines_size_write)."""

_CMDLINE = re.compile(rb"^\s*(\d+) (.*)$", re.MULTILINE)


def info_of(meta: Meta, path: str) -> SourceInfo:
    """Return the facts that every source gives."""
    options = meta.options
    clock = clock_name(options)
    version = f"trace.dat v{meta.header.version}"
    in_ns = clock in NS_CLOCKS or (options.tsc2nsec is not None and options.tsc2nsec.mult > 0)
    return SourceInfo(
        path=path,
        format=version if meta.header.version == 6 else f"{version} ({meta.header.codec})",
        clock=clock,
        clock_unit="ns" if in_ns else "ticks",
        cpus=_count_cpus(options),
        kernel=options.uname,
        instances=tuple(dict.fromkeys(["", *(b.name for b in options.buffers)])),
        comms=comms_of(meta.cmdlines),
        trace_id=options.trace_id,
        peer=_peer(options),
        ticks=_tick_rate(options),
        guests=tuple(options.guests),
        options=_further(options),
    )


def _peer(options: Options) -> int | None:
    shift = options.time_shift
    return shift.peer if shift is not None and any(cpu.times for cpu in shift.cpus) else None


def _tick_rate(options: Options) -> TickRate | None:
    tsc = options.tsc2nsec
    if tsc is None or not tsc.mult:
        return None
    return TickRate(tsc.mult, tsc.shift, options.date_ns + options.offset_ns)


def clock_name(options: Options) -> str:
    """Return the trace clock: of the top buffer, else the bracketed one of option TRACECLOCK, else local."""
    if options.buffers and options.buffers[0].clock:
        return options.buffers[0].clock
    active = _ACTIVE.search(options.clocks or "")
    return active[1] if active else "local"


def comms_of(cmdlines: bytes) -> dict[int, str]:
    """Return the lines of saved_cmdlines, thread id and comm, the first MAX_COMMS of them."""
    lines = islice(_CMDLINE.finditer(cmdlines), MAX_COMMS)
    return {int(line[1]): line[2].decode("utf-8", "replace") for line in lines}


def _count_cpus(options: Options) -> int:
    if options.cpu_count is not None:
        return options.cpu_count
    return max((data.cpu + 1 for buffer in options.buffers for data in buffer.cpus), default=0)


def _further(options: Options) -> dict[str, str]:
    facts = {"trace-cmd version": options.version, "last boot": options.last_boot}
    facts["buffer statistics"] = "\n".join(text.strip() for text in options.cpustats)
    facts["hooks"] = "\n".join(options.hooks)
    facts["process maps"] = "\n".join(options.procmaps)
    if options.time_shift:
        facts["peer trace id"] = f"{options.time_shift.peer:#x}"
    if options.tsc2nsec:
        facts["tsc to ns"] = f"mult {options.tsc2nsec.mult} shift {options.tsc2nsec.shift}"
    if options.date_ns or options.offset_ns:
        facts["offset"] = f"{options.date_ns + options.offset_ns} ns"
    return {name: text for name, text in facts.items() if text}
