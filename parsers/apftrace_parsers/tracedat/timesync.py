"""The clock of a file from its options."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from apftrace_parsers.clock import Clock, Piece

if TYPE_CHECKING:
    from apftrace_parsers.importlog import ImportLog
    from apftrace_parsers.tracedat.options import CpuSamples, Options

INTERPOLATE = 1
NS_CLOCKS = frozenset({"local", "global", "perf", "mono", "mono_raw", "boot", "tai"})
"""Clocks that tick in ns (trace_clocks[] in kernel/trace/trace.c); counter, uptime and x86-tsc do not."""


def clock_of(options: Options, log: ImportLog) -> Clock:
    """Return how stamps become the times that trace-cmd report prints.

    As libtracecmd does, a guest's file is brought to its host's clock as soon as it says how (option
    TIME_SHIFT); without the host's file too.
    """
    tsc = options.tsc2nsec
    return Clock(
        mult=tsc.mult if tsc else 0,
        shift=tsc.shift if tsc else 0,
        offset=options.date_ns + options.offset_ns,
        pieces=_pieces(options, log),
    )


def _pieces(options: Options, log: ImportLog) -> tuple[tuple[Piece, ...], ...]:
    shift = options.time_shift
    if shift is None:
        return ()
    per_cpu = []
    for cpu, samples in enumerate(shift.cpus):
        pieces = cpu_pieces(samples, interpolate=bool(shift.flags & INTERPOLATE))
        if not all(p.is_sane() for p in pieces):
            log.note(
                "damaged options", f"option TIME_SHIFT: samples of CPU {cpu} are out of range, not applied"
            )
            pieces = ()
        per_cpu.append(pieces)
    return tuple(per_cpu)


def cpu_pieces(samples: CpuSamples, *, interpolate: bool) -> tuple[Piece, ...]:
    """Return the pieces between the samples of a CPU, as timestamp_host_sync() of libtracecmd picks them.

    A stamp before the first or after the last sample goes with the first or last pair; with one sample
    libtracecmd adds its offset and leaves the scaling out.
    """
    rows = sorted(zip(samples.times, samples.offsets, samples.scalings, samples.fractions, strict=True))
    rows = [row for i, row in enumerate(rows) if i == 0 or row[0] != rows[i - 1][0]]
    if len(rows) == 1:
        return (Piece(rows[0][0], rows[0][0], rows[0][1]),)
    pieces = []
    for (at, offset, scaling, fraction), (until, later, _, _) in pairwise(rows):
        rise = later - offset if interpolate else 0
        pieces.append(Piece(at, at, offset, rise, until - at, scaling, fraction))
    return tuple(pieces)
