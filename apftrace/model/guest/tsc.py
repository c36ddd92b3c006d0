"""Clocks that count the TSC: a guest's is its host's times a ratio plus an offset, both known to KVM.

``guest_tsc = host_tsc * ratio + offset``: KVM traces the offset when it sets it (kvm_write_tsc_offset), and
shows it in debugfs (/sys/kernel/debug/kvm/PID-FD/vcpuN/tsc-offset, tsc-scaling-ratio).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model.guest.clock import ClockMap
from apftrace_parsers.base import PassResult

if TYPE_CHECKING:
    from apftrace_parsers.base import Source, SourceInfo, TickRate

EVENT = "kvm:kvm_write_tsc_offset"

TSC_CLOCKS = frozenset({"x86-tsc", "tsc2nsec"})
"""Trace clocks of the host that are the TSC itself, or made of it with a known rate."""


@dataclass(frozen=True)
class TscOffset:
    """How a guest's TSC relates to its host's.

    Attributes:
        offset: ticks to add to the host's TSC; negative for a guest that booted later.
        ratio: guest ticks per host tick.
    """

    offset: int
    ratio: Fraction = Fraction(1)


def offsets_of(source: Source) -> dict[int, int]:
    """Return the last TSC offset that was written in each vCPU's thread, by thread id."""
    if not any(f.name == "kvm_write_tsc_offset" for f in source.formats()):
        return {}
    last: dict[int, tuple[int, int]] = {}
    for _, batch in source.tables([EVENT], PassResult()):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        if "next_tsc_offset" not in frame.columns:
            continue
        value = pl.col("next_tsc_offset").cast(pl.UInt64, wrap_numerical=True).reinterpret(signed=True)
        for ts, tid, offset in frame.select("ts", "tid", value).iter_rows():
            if ts >= last.get(tid, (ts, 0))[0]:
                last[tid] = (ts, offset)
    return {tid: offset for tid, (_, offset) in last.items()}


def tsc_map(host: SourceInfo, guest: SourceInfo, tsc: TscOffset, first: int) -> ClockMap | None:
    """Return the clock map of a pair of TSC clocks; null where one of them is none.

    Args:
        host: facts of the host's trace.
        guest: facts of the guest's trace.
        tsc: how the TSCs relate.
        first: an instant of the guest's clock near its trace.
    """
    host_ticks = host.clock in TSC_CLOCKS or (host.clock_unit == "ticks" and host.clock == "not stated")
    if not host_ticks or (host.clock_unit == "ns" and host.ticks is None):
        return None
    if guest.clock_unit == "ns" and guest.ticks is None:
        return None
    ticks = _ticks(guest.ticks, first)
    at = _units(host.ticks, (ticks - tsc.offset) / tsc.ratio)
    per_tick = _scale(host.ticks) / _scale(guest.ticks) / tsc.ratio
    return ClockMap(first, round(at), float(per_tick))


def _scale(rate: TickRate | None) -> Fraction:
    return Fraction(1) if rate is None else Fraction(rate.mult, 1 << rate.shift)


def _ticks(rate: TickRate | None, unit: int) -> Fraction:
    return Fraction(unit) if rate is None else (unit - rate.offset) / _scale(rate)


def _units(rate: TickRate | None, ticks: Fraction) -> Fraction:
    return ticks if rate is None else ticks * _scale(rate) + rate.offset
