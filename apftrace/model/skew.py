"""ACKs whose ready seems to come after them, or before the ACK of the one before: two CPUs' clocks disagree.

Both are of one thread, which moved to another CPU in between. A clock that is behind there puts the ACK
before its ready; one that is ahead puts the next ready before it. Then an ACK is left over, and near it
a delivery without one.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model.lives import SKEW_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

_Step = tuple[int, int]
"""An ACK by its place among those of its thread, and a delivery likewise."""


def acks_across_cpus(delivered: pl.DataFrame, matched: pl.DataFrame) -> pl.DataFrame:
    """Return ``matched`` ACKs with ``delivery`` and ``extra`` put right where only the clocks are in the way.

    Args:
        delivered: deliveries with seq, cpu, tid and start.
        matched: ACKs in the order of time, with seq, cpu, tid, acked, delivery and extra.
    """
    taken = matched.filter(~pl.col("extra"))["delivery"].implode()
    loose = delivered.filter(~pl.col("seq").is_in(taken))["tid"].unique()
    doubtful = matched.filter(pl.col("extra") & pl.col("tid").is_in(loose.implode()))["tid"].unique()
    moved: dict[int, int] = {}
    for tid in doubtful.to_list():
        thread = _thread(delivered.filter(pl.col("tid") == tid), matched.filter(pl.col("tid") == tid))
        moved |= thread.settle()
    if not moved:
        return matched
    new = pl.DataFrame(list(moved.items()), schema={"seq": pl.Int64, "moved": pl.Int64}, orient="row")
    found = matched.join(new, on="seq", how="left", maintain_order="left")
    return found.with_columns(
        pl.coalesce("moved", "delivery").alias("delivery"),
        (pl.col("extra") & pl.col("moved").is_null()).alias("extra"),
    ).drop("moved")


def _thread(delivered: pl.DataFrame, acks: pl.DataFrame) -> _Thread:
    delivered, acks = (
        delivered.sort("start", "seq"),
        acks.with_columns(pl.coalesce("acked", "ts").alias("at")),
    )
    acks = acks.sort("at", "seq")
    place = {seq: n for n, seq in enumerate(delivered["seq"])}
    owners = {
        place[delivery]: n
        for n, (delivery, extra) in enumerate(acks.select("delivery", "extra").iter_rows())
        if not extra and delivery in place
    }
    lasts = [place.get(delivery) for delivery in acks["delivery"]]
    return _Thread(
        delivered["seq"].to_list(), delivered["start"].to_list(), delivered["cpu"].to_list(),
        acks["seq"].to_list(), acks["at"].to_list(), acks["cpu"].to_list(), lasts, acks["extra"].to_list(), owners,
    )  # fmt: skip


@dataclass
class _Thread:
    """Deliveries and ACKs of one thread, each in the order of time, and which ACK each delivery has."""

    seqs: Sequence[int]
    starts: Sequence[int]
    cpus: Sequence[int]
    ack_seqs: Sequence[int]
    acked: Sequence[int]
    ack_cpus: Sequence[int]
    lasts: Sequence[int | None]
    extra: Sequence[bool]
    owners: dict[int, int] = field(default_factory=dict)

    def settle(self) -> dict[int, int]:
        """Return the ACKs that are for another delivery than they seemed, by their rows."""
        moved: dict[int, int] = {}
        for ack, extra in enumerate(self.extra):
            if not extra:
                continue
            for step, delivery in self._ahead(ack) or self._behind(ack):
                self.owners[delivery] = step
                moved[self.ack_seqs[step]] = self.seqs[delivery]
        return moved

    def _ahead(self, ack: int) -> list[_Step]:
        """Give an ACK the delivery that follows it, the ACK of that one the next, until a delivery has none."""
        path: list[_Step] = []
        before = -1
        while True:
            following = bisect_right(self.starts, self.acked[ack])
            # An ACK that seems to lie before its own delivery leads back to it, as where many stamps are equal.
            if following == len(self.starts) or following <= before or not self._near(ack, following):
                return []
            before = following
            path.append((ack, following))
            if following not in self.owners:
                return path
            ack = self.owners[following]

    def _behind(self, ack: int) -> list[_Step]:
        """Give an ACK the delivery that it is the second of, the first one the delivery before."""
        path: list[_Step] = []
        last = self.lasts[ack]
        while last is not None:
            path.append((ack, last))
            if last not in self.owners:
                return path
            ack = self.owners[last]
            if last == 0 or not self._near(ack, last):
                return []
            last -= 1
        return []

    def _near(self, ack: int, delivery: int) -> bool:
        apart = abs(self.starts[delivery] - self.acked[ack])
        return apart <= SKEW_NS and self.cpus[delivery] != self.ack_cpus[ack]
