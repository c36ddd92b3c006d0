"""From the stamps of the ring buffer to nanoseconds, exactly as libtracecmd's timestamp_calc does it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

STAMP_LIMIT = 1 << 62
"""Stamps and times stay below this, so that no later arithmetic can leave 64 bits. As ns it is 146 years."""
ANY_TIME = (-STAMP_LIMIT, STAMP_LIMIT)


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
        return small and scalable and self.run > 0 and self.at * abs(self.rise) < STAMP_LIMIT


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
        pieces = self.pieces_of(cpu)
        if pieces:
            raw = pieces[max(bisect_right(pieces, raw, key=lambda p: p.first) - 1, 0)].to_host(raw)
        if self.mult:
            raw = raw * self.mult >> self.shift
        return raw + self.offset

    def raw_bounds(self, cpu: int, start_ns: int | None, end_ns: int | None) -> tuple[int, int, int]:
        """Return the raw stamps that bound a span of ns (both inclusive), and the highest sane stamp."""
        stamps = range(STAMP_LIMIT)
        limit = bisect_left(stamps, True, key=lambda raw: not self._is_sane(raw, cpu)) - 1
        first = 0 if start_ns is None else bisect_left(stamps, start_ns, key=lambda raw: self.to_ns(raw, cpu))
        last = limit
        if end_ns is not None:
            last = bisect_right(stamps, end_ns, key=lambda raw: self.to_ns(raw, cpu)) - 1
        return first, min(last, limit), max(limit, 0)

    def _is_sane(self, raw: int, cpu: int) -> bool:
        pieces = self.pieces_of(cpu)
        if pieces:
            last = pieces[-1]
            if (raw - last.at) * abs(last.rise) >= STAMP_LIMIT or last.to_host(raw) >= STAMP_LIMIT:
                return False
        return self.to_ns(raw, cpu) < STAMP_LIMIT
