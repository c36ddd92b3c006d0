"""Typed tables: the payload fields of whole events as Arrow columns."""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

import pyarrow as pa

from apftrace_parsers import gather, subbuf
from apftrace_parsers.eventformat import Kind


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apftrace_parsers.base import EventFormat
    from apftrace_parsers.eventformat import Field
    from apftrace_parsers.walk import Pass

HEAP_BYTES = 4 << 20
"""Payloads collected before batches are made; no record is larger than a page, so any record fits."""
HEAP_ROWS = 1 << 16
TID_BYTES = 4


class Heap:
    """Payloads of wanted records, waiting to become batches."""

    def __init__(self, run: Pass) -> None:
        self.run = run
        self.swap = run.ring.big != (sys.byteorder == "big")
        self.data = memoryview(bytearray(HEAP_BYTES))
        self.ts = subbuf.zeros("q", HEAP_ROWS)
        self.lane = subbuf.zeros("i", HEAP_ROWS)
        self.pick = subbuf.zeros("i", HEAP_ROWS)
        self.at = subbuf.zeros("q", HEAP_ROWS)
        self.size = subbuf.zeros("i", HEAP_ROWS)
        self.rows = subbuf.zeros("i", HEAP_ROWS)
        self.n = 0
        self.short = 0
        self.astray = 0
        self._cpus = memoryview(array("i", [lane.cpu for lane in run.ring.lanes]))
        self._instances = memoryview(array("i", run.instance_of))

    def collect(self, lane: int) -> bool:
        """Take a lane's records; say whether its window is used up (else the heap is full)."""
        used = self.at[self.n - 1] + self.size[self.n - 1] if self.n else 0
        walker = self.run.walker
        self.n = walker.collect(
            lane, self.data, used, self.n, self.ts, self.lane, self.pick, self.at, self.size
        )
        self.run.take_losses()
        return walker.hungry == lane

    def select(self, pick: int, fields: Sequence[Field]) -> int:
        """Turn to the rows of one event that are long enough for its fields; return how many there are."""
        least = max((field.offset + field.size for field in fields), default=0)
        least = max(least, self.run.ring.tid_at + TID_BYTES)
        return gather.select(self.pick, self.size, self.n, pick, least, self.rows)

    def leading(self, n: int) -> list[pa.Array]:
        """Return ts, cpu, tid and instance of the selected rows."""
        ts = pa.allocate_buffer(8 * n)
        gather.longs(self.ts, self.rows, n, memoryview(ts).cast("B").cast("q"))
        cpu = self._mapped(self._cpus, n)
        tid = self._values(n, self.run.ring.tid_at, TID_BYTES, 1)
        return [
            pa.Array.from_buffers(pa.int64(), n, [None, ts]),
            pa.Array.from_buffers(pa.int32(), n, [None, cpu]),
            pa.Array.from_buffers(pa.int32(), n, [None, tid]),
            self._instance(n),
        ]

    def column(self, field: Field, n: int) -> pa.Array:
        """Return a payload field of the selected rows."""
        if field.kind in (Kind.TEXT, Kind.LOC_TEXT, Kind.LOC_ARRAY):
            return self._lists(field, n)
        if field.kind is Kind.ARRAY:
            count = field.size // field.width
            buffer = self._values(n, field.offset, field.width, count)
            flat = pa.Array.from_buffers(field.type.value_type, n * count, [None, buffer])
            return pa.FixedSizeListArray.from_arrays(flat, type=field.type)
        if field.kind is Kind.BYTES:
            return pa.Array.from_buffers(field.type, n, [None, self._values(n, field.offset, 1, field.size)])
        buffer = self._values(n, field.offset, field.size, 1)
        if pa.types.is_boolean(field.type):
            return pa.Array.from_buffers(pa.uint8(), n, [None, buffer]).cast(pa.bool_())
        if field.type.bit_width != 8 * field.size:
            return pa.Array.from_buffers(pa.uint32(), n, [None, buffer]).cast(field.type)
        return pa.Array.from_buffers(field.type, n, [None, buffer])

    def _values(self, n: int, offset: int, width: int, count: int) -> pa.Buffer:
        out = pa.allocate_buffer(n * width * count)
        view = memoryview(out).cast("B")
        swap = self.swap and width > 1
        gather.values(self.data, self.at, self.rows, n, offset, width, count, swap, view)
        return out

    def _mapped(self, values: memoryview, n: int) -> pa.Buffer:
        out = pa.allocate_buffer(4 * n)
        gather.mapped(self.lane, values, self.rows, n, memoryview(out).cast("B").cast("i"))
        return out

    def _instance(self, n: int) -> pa.Array:
        names = self.run.ring.instances
        if len(names) == 1:
            return pa.repeat(pa.scalar(names[0], pa.string()), n)
        index = pa.Array.from_buffers(pa.int32(), n, [None, self._mapped(self._instances, n)])
        return pa.DictionaryArray.from_arrays(index, pa.array(names, pa.string())).dictionary_decode()

    def _lists(self, field: Field, n: int) -> pa.Array:
        text = field.kind is not Kind.LOC_ARRAY
        ends = pa.allocate_buffer(4 * (n + 1))
        out = pa.allocate_buffer(self.at[self.n - 1] + self.size[self.n - 1])
        ends_view = memoryview(ends).cast("B").cast("i")
        self.astray += gather.lists(
            self.data,
            self.at,
            self.size,
            self.rows,
            n,
            field.offset,
            field.size,
            field.kind is not Kind.TEXT,
            field.relative,
            text,
            field.width,
            self.run.ring.big,
            self.swap and field.width > 1,
            ends_view,
            memoryview(out).cast("B"),
        )
        if text:
            return _strings(ends, ends_view, out, n)
        flat = pa.Array.from_buffers(field.type.value_type, ends_view[n], [None, out])
        return pa.ListArray.from_arrays(pa.Array.from_buffers(pa.int32(), n + 1, [None, ends]), flat)


def tabulated(
    run: Pass, events: Sequence[tuple[EventFormat, tuple[Field, ...]]]
) -> Iterator[tuple[EventFormat, pa.RecordBatch]]:
    """Yield the records of a pass as typed batches.

    Args:
        run: its walker looks for the events in the order of ``events``.
        events: what to make of each; none only counts.
    """
    heap = Heap(run)
    for lane in range(len(run.ring.lanes)):
        while run.refill(lane):
            while not heap.collect(lane):
                yield from _batches(heap, events)
    yield from _batches(heap, events)
    run.log.count("records shorter than their format, left out", heap.short)
    run.log.count("variable fields that lead out of their record, left empty", heap.astray)


def _batches(
    heap: Heap, events: Sequence[tuple[EventFormat, tuple[Field, ...]]]
) -> Iterator[tuple[EventFormat, pa.RecordBatch]]:
    selected = 0
    for pick, (event, fields) in enumerate(events):
        n = heap.select(pick, fields)
        selected += n
        if n:
            columns = [*heap.leading(n), *(heap.column(field, n) for field in fields)]
            yield event, pa.RecordBatch.from_arrays(columns, schema=event.schema)
    heap.short += heap.n - selected
    heap.n = 0


def _strings(ends: pa.Buffer, ends_view: memoryview, out: pa.Buffer, n: int) -> pa.Array:
    if bytes(memoryview(out)[: ends_view[n]]).isascii():
        return pa.Array.from_buffers(pa.string(), n, [None, ends, out])
    raw = pa.Array.from_buffers(pa.binary(), n, [None, ends, out])
    return pa.array([value.decode("utf-8", "replace") for value in raw.to_pylist()], pa.string())
