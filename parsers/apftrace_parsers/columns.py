"""Typed tables: the payload fields of whole events as Arrow columns."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import pyarrow as pa

from apftrace_parsers import gather
from apftrace_parsers.eventformat import Kind
from apftrace_parsers.integers import zeros

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
        self.ts = zeros("q", HEAP_ROWS)
        self.lane = zeros("i", HEAP_ROWS)
        self.pick = zeros("i", HEAP_ROWS)
        self.starts = zeros("q", HEAP_ROWS)
        self.lengths = zeros("i", HEAP_ROWS)
        self.n = 0
        self.short = 0
        self.astray = 0
        payloads = memoryview(bytearray(HEAP_BYTES))
        rows = zeros("i", HEAP_ROWS)
        run.walker.set_heap(payloads, (self.ts, self.lane, self.pick, self.starts, self.lengths))
        self.gatherer = gather.Gatherer(payloads, self.starts, self.lengths, rows, big=run.ring.big)
        self._cpus = memoryview(array("i", [lane.cpu for lane in run.ring.lanes]))
        self._instances = memoryview(array("i", run.instance_of))

    @property
    def used(self) -> int:
        """Bytes of payloads."""
        return self.starts[self.n - 1] + self.lengths[self.n - 1] if self.n else 0

    def collect(self, lane: int) -> bool:
        """Take a lane's records; say whether its window is used up (else the heap is full)."""
        self.n = self.run.walker.collect(lane, self.n, self.used)
        self.run.take_losses()
        return self.run.walker.hungry == lane

    def select(self, pick: int, fields: Sequence[Field]) -> int:
        """Turn to the rows of one event that are long enough for its fields; return how many there are."""
        least = max((field.offset + field.size for field in fields), default=0)
        least = max(least, self.run.ring.tid_at + TID_BYTES)
        return self.gatherer.select(self.pick, self.n, pick, least)

    def leading(self, n: int) -> list[pa.Array]:
        """Return ts, cpu, tid and instance of the selected rows."""
        ts = pa.allocate_buffer(8 * n)
        self.gatherer.longs(self.ts, memoryview(ts).cast("B").cast("q"))
        tid = self._values(n, self.run.ring.tid_at, TID_BYTES, TID_BYTES)
        return [
            pa.Array.from_buffers(pa.int64(), n, [None, ts]),
            self._mapped(self._cpus, n),
            pa.Array.from_buffers(pa.int32(), n, [None, tid]),
            self._instance(n),
        ]

    def column(self, field: Field, n: int) -> pa.Array:
        """Return a payload field of the selected rows."""
        if field.kind in (Kind.TEXT, Kind.LOC_TEXT, Kind.TAIL_TEXT):
            return _strings(*self._lists(field, n), n)
        if field.kind in (Kind.LOC_ARRAY, Kind.TAIL_ARRAY):
            ends, out = self._lists(field, n)
            ends_array = pa.Array.from_buffers(pa.int32(), n + 1, [None, ends])
            count = ends_array[n].as_py()
            return pa.ListArray.from_arrays(
                ends_array, pa.Array.from_buffers(field.type.value_type, count, [None, out])
            )
        width = 1 if field.kind is Kind.BYTES else field.width
        buffer = self._values(n, field.offset, field.size, width)
        if field.kind is Kind.ARRAY:
            flat = pa.Array.from_buffers(field.type.value_type, n * field.type.list_size, [None, buffer])
            return pa.FixedSizeListArray.from_arrays(flat, type=field.type)
        if field.kind is Kind.SCALAR and pa.types.is_boolean(field.type):
            return pa.Array.from_buffers(pa.uint8(), n, [None, buffer]).cast(pa.bool_())
        if field.kind is Kind.SCALAR and field.type.bit_width != 8 * field.size:
            return pa.Array.from_buffers(pa.uint32(), n, [None, buffer]).cast(field.type)
        return pa.Array.from_buffers(field.type, n, [None, buffer])

    def _values(self, n: int, offset: int, length: int, width: int) -> pa.Buffer:
        out = pa.allocate_buffer(n * length)
        self.gatherer.values(offset, length, width, memoryview(out).cast("B"))
        return out

    def _mapped(self, values: memoryview, n: int) -> pa.Array:
        out = pa.allocate_buffer(4 * n)
        self.gatherer.mapped(self.lane, values, memoryview(out).cast("B").cast("i"))
        return pa.Array.from_buffers(pa.int32(), n, [None, out])

    def _instance(self, n: int) -> pa.Array:
        names = self.run.ring.instances
        if len(names) == 1:
            return pa.repeat(pa.scalar(names[0], pa.string()), n)
        index = self._mapped(self._instances, n)
        return pa.DictionaryArray.from_arrays(index, pa.array(names, pa.string())).dictionary_decode()

    def _lists(self, field: Field, n: int) -> tuple[pa.Buffer, pa.Buffer]:
        ends = pa.allocate_buffer(4 * (n + 1))
        out = pa.allocate_buffer(self.used)
        ends_view, out_view = memoryview(ends).cast("B").cast("i"), memoryview(out).cast("B")
        if field.kind is Kind.TEXT:
            self.gatherer.texts(field.offset, field.size, ends_view, out_view)
            return ends, out
        if field.is_tail:
            width = 0 if field.kind is Kind.TAIL_TEXT else field.width
            self.gatherer.tails(field.offset, width, ends_view, out_view)
            return ends, out
        base = field.offset + field.size if field.relative else 0
        width = 0 if field.kind is Kind.LOC_TEXT else field.width
        self.astray += self.gatherer.located(field.offset, base, width, ends_view, out_view)
        return ends, out


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


def _strings(ends: pa.Buffer, out: pa.Buffer, n: int) -> pa.Array:
    used = memoryview(ends).cast("B").cast("i")[n]
    if bytes(memoryview(out)[:used]).isascii():
        return pa.Array.from_buffers(pa.string(), n, [None, ends, out])
    raw = pa.Array.from_buffers(pa.binary(), n, [None, ends, out])
    return pa.array([value.decode("utf-8", "replace") for value in raw.to_pylist()], pa.string())
