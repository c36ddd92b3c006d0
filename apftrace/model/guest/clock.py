"""From a guest's clock to its host's: the map, and what is known of how good it is."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from apftrace.analysis import ClockFit

SYNCHRONISED, TSC, GIVEN, INFERRED, NONE = "synchronised", "tsc", "given", "inferred", "none"

METHODS: dict[str, str] = {
    SYNCHRONISED: "trace-cmd synchronised the clocks while it recorded (record -A)",
    TSC: "both count the TSC; the offset is the last kvm_write_tsc_offset of each vCPU",
    GIVEN: "both count the TSC; the offset was given",
    INFERRED: "inferred from causality: tokens in common, injected <= wait, accepted <= wake <= ACK",
    NONE: "the clocks could not be brought together",
}
"""Ways in which a guest's clock is brought to its host's."""


@dataclass(frozen=True)
class ClockMap:
    """``host = host_at + (guest - guest_at) * rate``, plus a drift interpolated between knots.

    Attributes:
        guest_at: an instant of the guest's clock; near the trace, so that floats stay exact.
        host_at: the same instant on the host's clock.
        rate: host units per guest unit.
        knots: guest instants in order, and what to add there; empty without drift.
    """

    guest_at: int = 0
    host_at: int = 0
    rate: float = 1.0
    knots: tuple[tuple[int, float], ...] = ()

    def to_host(self, ts: pl.Series) -> pl.Series:
        """Return instants of the guest on the host's clock."""
        since = ts - self.guest_at
        if self.rate != 1.0:
            since = (since.cast(pl.Float64) * self.rate).round().cast(pl.Int64)
        if self.knots:
            since = since + self._lift(ts).round().cast(pl.Int64)
        return (since + self.host_at).alias(ts.name)

    def one(self, ts: int) -> int:
        """Return one instant of the guest on the host's clock."""
        return int(self.to_host(pl.Series([ts], dtype=pl.Int64))[0])

    def _lift(self, ts: pl.Series) -> pl.Series:
        at = pl.Series([at for at, _ in self.knots], dtype=pl.Int64)
        lift = pl.Series([lift for _, lift in self.knots], dtype=pl.Float64)
        if len(at) == 1:
            return pl.repeat(lift[0], len(ts), dtype=pl.Float64, eager=True)
        right = at.search_sorted(ts, side="right").clip(1, len(at) - 1)
        left = right - 1
        share = (ts - at.gather(left)) / (at.gather(right) - at.gather(left))
        if len(at) > 2:
            # Outside the knots the nearest one holds; a line of two goes on.
            share = share.clip(0.0, 1.0)
        return lift.gather(left) + share * (lift.gather(right) - lift.gather(left))


@dataclass(frozen=True)
class Alignment(ClockFit):
    """A `ClockFit` with the map itself. Its ``method`` is a key of ``METHODS``.

    Attributes:
        also: further groups of vCPU threads that turned out to be of this VM.
        clock: the map; null when there is none.
        tokens: lives of the VM with a wait or wake in the guest, on which this rests.
    """

    also: tuple[str, ...] = ()
    clock: ClockMap | None = None
    tokens: int = 0
