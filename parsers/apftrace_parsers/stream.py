"""The narrow stream: few integers of the picked events, all lanes merged in time order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal

    from apftrace_parsers.walk import Pass

SCHEMA = pa.schema(
    [
        pa.field("ts", pa.int64(), nullable=False),
        pa.field("cpu", pa.int32(), nullable=False),
        pa.field("tid", pa.int32(), nullable=False),
        pa.field("pick", pa.int32(), nullable=False),
        pa.field("a", pa.int64(), nullable=False),
        pa.field("b", pa.int64(), nullable=False),
        pa.field("c", pa.int64(), nullable=False),
    ]
)
MAX_STREAM_FIELDS = 3
"""Fields of an event that its rows carry: a, b and c."""
LEAST_ROWS, MOST_ROWS = 1 << 16, 1 << 17
"""Rows of a batch, 2.9 to 5.8 MB: to hand one to another thread costs half a millisecond, to fill new memory too."""

_CODES: dict[pa.DataType, Literal["q", "i"]] = {pa.int64(): "q", pa.int32(): "i"}


class Columns:
    """Arrow buffers to be, seen as arrays of integers."""

    def __init__(self, types: Sequence[pa.DataType], rows: int) -> None:
        self._types = types
        self._buffers = [pa.allocate_buffer(rows * t.bit_width // 8) for t in types]
        self.views = [
            memoryview(b).cast("B").cast(_CODES[t]) for b, t in zip(self._buffers, types, strict=True)
        ]

    def arrays(self, rows: int) -> list[pa.Array]:
        """Return the first rows as Arrow arrays; the buffers are theirs from now on."""
        return [
            pa.Array.from_buffers(t, rows, [None, b]) for t, b in zip(self._types, self._buffers, strict=True)
        ]


def view(column: pa.Array) -> memoryview:
    """Return a column of a narrow batch as an array of integers, in place."""
    whole = memoryview(column.buffers()[1]).cast("B").cast(_CODES[column.type])
    return whole[column.offset : column.offset + len(column)]


def merged(run: Pass, n_picks: int) -> Iterator[pa.RecordBatch]:
    """Yield the merged rows of a pass whose walker knows its picks."""
    walker = run.walker
    for lane in range(len(run.ring.lanes)):
        _join(run, lane)
    total = n = 0
    columns = _output(run, total, n_picks)
    while walker.live:
        n = walker.merge(n)
        run.take_losses()
        if walker.hungry >= 0:
            _join(run, walker.hungry)
        if n > walker.rows.room:
            yield pa.RecordBatch.from_arrays(columns.arrays(n), schema=SCHEMA)
            total, n = total + n, 0
            columns = _output(run, total, n_picks)
    if n:
        yield pa.RecordBatch.from_arrays(columns.arrays(n), schema=SCHEMA)


def _output(run: Pass, total: int, n_picks: int) -> Columns:
    # Room for the next batch, which is the larger the more rows there were, and for a record that is all picks'.
    rows = min(max(total // 16, LEAST_ROWS), MOST_ROWS)
    columns = Columns([field.type for field in SCHEMA], rows + max(n_picks, 1))
    run.walker.rows.set_output(columns.views)
    return columns


def _join(run: Pass, lane: int) -> None:
    while run.refill(lane):
        if run.walker.join(lane):
            return
