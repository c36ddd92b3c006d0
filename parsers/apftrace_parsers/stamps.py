# cython: annotation_typing=False, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Raw stamps of a ring buffer made ns of the trace: a counter scaled, a guest's clock brought to its host's.

One source, two engines, as `subbuf`. All times are below 2^62, so that no arithmetic here can leave 64 bits and
both engines agree on hostile stamps too.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from apftrace_parsers import integers as _integers

try:
    import cython
except ImportError:
    from apftrace_parsers import uncompiled as cython

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPILED: bool = cython.compiled

WORD = _integers.WORD
LONG_MASK = (1 << 64) - 1
SCALED_MASK = (1 << 62) - 1
PIECE_WIDTH = 7


class Stamps:
    """The clock of each lane.

    Args:
        n: number of lanes.
    """

    def __init__(self, n: int) -> None:
        self.pieces = _integers.zeros("q", PIECE_WIDTH)
        self.piece_from = _integers.zeros("q", n)
        self.piece_upto = _integers.zeros("q", n)
        self.set_clock(0, 0, 0)

    def set_clock(self, mult: int, shift: int, offset: int) -> None:
        """Make ns of raw stamps: ``(raw * mult >> shift) + offset``; mult 0 leaves them as they are."""
        self.mult = mult
        self.shift = shift
        self.offset = offset
        self.are_ns = mult == 0 and not max(self.piece_upto, default=0)

    def set_pieces(self, pieces: Sequence[tuple[int, ...]], spans: Sequence[tuple[int, int]]) -> None:
        """Bring raw stamps of guests to the host's clock, before anything else is done to them.

        Args:
            pieces: the numbers of ``clock.Piece`` in its order.
            spans: per lane, the slice of ``pieces`` that is its own; ascending.
        """
        self.pieces = memoryview(array("q", [n for piece in pieces for n in piece]))
        for lane, (first, last) in enumerate(spans):
            self.piece_from[lane] = first
            self.piece_upto[lane] = last
        self.are_ns = self.are_ns and not pieces

    def ns(self, lane: int, raw: int) -> int:
        """Return ns of a lane's raw stamp."""
        return raw + self.offset if self.are_ns else self._converted(lane, raw)

    def _converted(self, lane: int, raw: int) -> int:
        if self.piece_upto[lane] > self.piece_from[lane]:
            raw = self._shifted(lane, raw)
        if self.mult == 0:
            return raw + self.offset
        # 62 by 32 bits in two halves: neither product leaves 64 bits.
        high = (raw >> 32) * self.mult
        low = (raw & (WORD - 1)) * self.mult
        if self.shift <= 32:
            scaled = (high << (32 - self.shift)) + (low >> self.shift)
        else:
            scaled = (high + (low >> 32)) >> (self.shift - 32)
        return scaled + self.offset

    def _shifted(self, lane: int, raw: int) -> int:
        piece = self.piece_from[lane]
        while piece + 1 < self.piece_upto[lane] and raw >= self.pieces[(piece + 1) * PIECE_WIDTH]:
            piece += 1
        slot = piece * PIECE_WIDTH
        run = self.pieces[slot + 4]
        lift = (raw - self.pieces[slot + 1]) * self.pieces[slot + 3] + (run >> 1)
        # Towards zero, as the C of libtracecmd (timestamp_correction_calc) divides.
        lift = -(-lift // run) if lift < 0 else lift // run
        return self._scaled(raw, self.pieces[slot + 5], self.pieces[slot + 6]) + self.pieces[slot + 2] + lift

    def _scaled(self, raw: int, scaling: int, fraction: int) -> int:
        # 62 by 62 bits, word by word; the caller has seen to it that the result stays below 2^62.
        if scaling == 1 and fraction == 0:
            return raw
        low = (raw & (WORD - 1)) * (scaling & (WORD - 1))
        middle = (raw >> 32) * (scaling & (WORD - 1)) + (low >> 32)
        other = (raw & (WORD - 1)) * (scaling >> 32) + (middle & (WORD - 1))
        high = (raw >> 32) * (scaling >> 32) + (middle >> 32) + (other >> 32)
        low = (other << 32 | low & (WORD - 1)) & LONG_MASK
        if fraction == 0:
            return low
        return (high << (64 - fraction) | low >> fraction) & SCALED_MASK
