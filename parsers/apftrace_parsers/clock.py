"""From the stamps of the ring buffer to nanoseconds, exactly as libtracecmd's timestamp_calc does it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import NamedTuple

STAMP_LIMIT = 1 << 62
"""Stamps and times stay below this, so that no later arithmetic can leave 64 bits. As ns it is 146 years."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a guest's clock between two comparisons with the host's: option TIME_SHIFT.

    Attributes:
        first: raw stamp from which on it holds; the first piece holds before that too.
        at: raw stamp of the earlier comparison.
        offset: host minus guest at that stamp.
        rise: by how much that changed up to the next comparison.
        run: raw stamps between the two.
        scaling: ratio of host to guest ticks, as ``scaling / 2^fraction``.
        fraction: see scaling.
    """

    first: int
    at: int
    offset: int
    rise: int = 0
    run: int = 1
    scaling: int = 1
    fraction: int = 0

    def to_host(self, raw: int) -> int:
        """Return the host's stamp for a stamp of the guest."""
        lift = (raw - self.at) * self.rise + self.run // 2
        # C divides towards zero.
        lift = -(-lift // self.run) if lift < 0 else lift // self.run
        return (raw * self.scaling >> self.fraction) + self.offset + lift

    def is_sane(self) -> bool:
        """Say whether the walker can do this arithmetic in 64 bits around the comparison."""
        small = abs(self.offset) < STAMP_LIMIT // 2 and 0 <= self.at < STAMP_LIMIT // 2
        scalable = 0 < self.scaling < STAMP_LIMIT and 0 <= self.fraction < 64
        return small and scalable and self.run > 0 and max(self.at, self.run) * abs(self.rise) < STAMP_LIMIT


class Bounds(NamedTuple):
    """Raw stamps of one CPU: the first and last wanted, and the lowest and highest that are sane."""

    first: int
    last: int
    floor: int
    limit: int


@dataclass(frozen=True)
class Clock:
    """How raw stamps become ns: the pieces of the CPU, then mult and shift, then the offset.

    Attributes:
        mult: option TSC2NSEC, 0 for clocks that tick in ns or at an unknown rate.
        shift: same.
        offset: options DATE and OFFSET, ns.
        pieces: per CPU; CPUs without pieces are left as they are.
    """

    mult: int = 0
    shift: int = 0
    offset: int = 0
    pieces: tuple[tuple[Piece, ...], ...] = ()

    def pieces_of(self, cpu: int) -> tuple[Piece, ...]:
        """Return the pieces that hold for a CPU."""
        return self.pieces[cpu] if cpu < len(self.pieces) else ()

    def to_ns(self, raw: int, cpu: int = 0) -> int:
        """Convert one stamp."""
        raw = self._to_host(raw, cpu)
        if self.mult:
            raw = raw * self.mult >> self.shift
        return raw + self.offset

    def raw_bounds(self, cpu: int, start_ns: int | None, end_ns: int | None) -> Bounds:
        """Return the raw stamps that bound a span of ns, both ends inclusive."""
        stamps = range(STAMP_LIMIT)
        floor = bisect_left(stamps, 0, key=lambda raw: self._to_host(raw, cpu))
        limit = bisect_left(stamps, True, key=lambda raw: self._is_too_late(raw, cpu)) - 1
        first, last = floor, limit
        if start_ns is not None:
            first = max(floor, bisect_left(stamps, start_ns, key=lambda raw: self.to_ns(raw, cpu)))
        if end_ns is not None:
            last = min(limit, bisect_right(stamps, end_ns, key=lambda raw: self.to_ns(raw, cpu)) - 1)
        return Bounds(first, last, floor, limit)

    def _to_host(self, raw: int, cpu: int) -> int:
        pieces = self.pieces_of(cpu)
        if not pieces:
            return raw
        return pieces[max(bisect_right(pieces, raw, key=lambda p: p.first) - 1, 0)].to_host(raw)

    def _is_too_late(self, raw: int, cpu: int) -> bool:
        pieces = self.pieces_of(cpu)
        if pieces and (raw - pieces[-1].at) * abs(pieces[-1].rise) >= STAMP_LIMIT:
            return True
        return self._to_host(raw, cpu) >= STAMP_LIMIT or self.to_ns(raw, cpu) >= STAMP_LIMIT
