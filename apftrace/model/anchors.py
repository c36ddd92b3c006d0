"""The anchors of a trace as frames: the rows that the odometer keeps, by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from apftrace.model.ledger import EVENT, NARROW
from apftrace.model.readings import READINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.ledger import Ledger


class Anchors:
    """Anchors by kind: columns ``seq ts cpu tid kind a b c`` and the reading that their kind carries.

    ``seq`` is the row among all anchors, which is the order of time.
    """

    def __init__(self, ledger: Ledger) -> None:
        frames = {kind: _frame(kind, ledger.take(kind)) for kind in ledger.kinds()}
        self._by_kind = {kind: frame for kind, frame in frames.items() if frame.height}

    def kind(self, *kinds: int) -> pl.DataFrame:
        """Return the anchors of these kinds in time order, with the readings that any of them carries."""
        found = [self._by_kind[k] for k in kinds if k in self._by_kind]
        if len(kinds) == len(found) == 1:
            return found[0]
        names = dict.fromkeys((*EVENT, "kind", *(c for k in kinds for c in READINGS.get(k, ()))))
        none = pl.DataFrame(schema={n: _dtype(n) for n in names})
        return pl.concat([none, *found], how="diagonal").sort("seq")

    def at(self, seqs: Iterable[int]) -> pl.DataFrame:
        """Return the event columns of the anchors with these ``seq``."""
        names = (*EVENT[:4], "kind", *EVENT[4:])
        wanted = pl.Series("wanted", sorted(set(seqs)), pl.Int64)
        found = [pl.DataFrame(schema={n: _dtype(n) for n in names})]
        for part in self._by_kind.values():
            at = part["seq"].search_sorted(wanted)
            near = at < part.height
            at = at.filter(near)
            at = at.filter(part["seq"][at] == wanted.filter(near))
            if len(at):
                found.append(part[at].select(names))
        return pl.concat(found).sort("seq")


def _dtype(name: str) -> type[pl.DataType]:
    return pl.Int32 if name in NARROW or name == "kind" else pl.Int64


def _frame(kind: int, columns: dict[str, memoryview]) -> pl.DataFrame:
    arrays = []
    for name, column in columns.items():
        dtype = pa.int32() if name in NARROW else pa.int64()
        arrays.append(pa.Array.from_buffers(dtype, len(column), [None, pa.py_buffer(column)]))
    frame = pl.from_arrow(pa.RecordBatch.from_arrays(arrays, names=list(columns)))
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col("seq").set_sorted(), pl.lit(kind, pl.Int32).alias("kind"))
