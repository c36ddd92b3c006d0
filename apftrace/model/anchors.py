"""The anchors of a trace: the rows that the odometer hands out, kept by kind and no wider than needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from apftrace.model import tracepoints as tp
from apftrace.model.odometer import COLUMNS, Odometer

if TYPE_CHECKING:
    from collections.abc import Iterable

EVENT = ("seq", "ts", "cpu", "tid", "kind", "a", "b", "c")
"""Columns of every anchor: ``seq`` is its row among all anchors, which is the order of time."""

SHARES = ("ran", "waited", "slept", "blocked")
"""What a thread did with its time: see the odometer."""

READINGS: dict[int, tuple[str, ...]] = {
    tp.TRY: ("entries", "exit_ts"),
    tp.REPEATED: ("entries", "exit_ts"),
    tp.NOT_PRESENT: ("entries", "exit_ts"),
    tp.READY: ("hlts", *SHARES, "hog"),
    tp.COMPLETED: (*SHARES, "hog"),
    tp.READING: ("entries", "hlts", *SHARES),
    tp.MSR: ("entries", "exit_ts", *SHARES, "hog", "guest"),
    tp.INJ_EXCEPTION: ("entries",),
    tp.ACCEPT: ("entries", "virqs", *SHARES, "guest"),
    tp.INJ_VIRQ: ("entries", "virqs", *SHARES, "hog", "guest"),
}
"""Columns of the reading that the model needs of each kind of anchor."""

_SPLIT_AT = 400_000
"""Anchors that are collected before they are split by kind: fewer, larger pieces."""


class Anchors:
    """Anchors by kind."""

    def __init__(self) -> None:
        self._n = 0
        self._pieces: dict[int, list[pl.DataFrame]] = {}
        self._by_kind: dict[int, pl.DataFrame] = {}

    def add(self, odometer: Odometer, waiting: int) -> None:
        """Take over the anchors that wait in the odometer, once they are worth it."""
        if waiting >= _SPLIT_AT:
            self._split(odometer)

    def finish(self, odometer: Odometer) -> None:
        """Take over the rest and make the anchors ready to be read; nothing is added after this."""
        self._split(odometer)
        self._by_kind = {kind: pl.concat(pieces, rechunk=True) for kind, pieces in self._pieces.items()}
        self._pieces = {}

    def kind(self, *kinds: int) -> pl.DataFrame:
        """Return the anchors of these kinds in time order, with the readings that any of them carries."""
        found = [self._by_kind[k] for k in kinds if k in self._by_kind]
        if len(found) == 1:
            return found[0]
        if not found:
            names = dict.fromkeys((*EVENT, *(c for k in kinds for c in READINGS.get(k, ()))))
            return pl.DataFrame(schema={n: _DTYPES[n] for n in names})
        return pl.concat(found, how="diagonal").sort("seq")

    def at(self, seqs: Iterable[int]) -> pl.DataFrame:
        """Return the event columns of the anchors with these ``seq``."""
        wanted = pl.DataFrame({"seq": sorted(set(seqs))}, schema={"seq": pl.Int64})
        found = [part.select(EVENT).join(wanted, on="seq", how="semi") for part in self._by_kind.values()]
        return pl.concat(found).sort("seq") if found else pl.DataFrame(schema={n: _DTYPES[n] for n in EVENT})

    def _split(self, odometer: Odometer) -> None:
        rows = _frame(odometer)
        rows = rows.with_columns(pl.int_range(self._n, self._n + rows.height).alias("seq"))
        self._n += rows.height
        numbers = pl.int_range(pl.len(), dtype=pl.UInt32).alias("at")
        groups = rows.select("kind", numbers).group_by("kind").agg("at")
        for kind, at in zip(groups["kind"].to_list(), groups["at"], strict=True):
            # gather copies: the odometer writes its next anchors where these are.
            part = rows.select(pl.col(*EVENT, *READINGS.get(kind, ())).gather(at))
            self._pieces.setdefault(kind, []).append(part)


_DTYPES: dict[str, type[pl.DataType]] = {
    "seq": pl.Int64,
    **{name: pl.Int64 if code == "q" else pl.Int32 for name, code in COLUMNS},
}


def _frame(odometer: Odometer) -> pl.DataFrame:
    taken = odometer.take()
    arrays = [
        pa.Array.from_buffers(
            pa.int64() if code == "q" else pa.int32(),
            len(taken[name]),
            [None, pa.py_buffer(taken[name])],
        )
        for name, code in COLUMNS
    ]
    frame = pl.from_arrow(pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in COLUMNS]))
    assert isinstance(frame, pl.DataFrame)
    return frame
