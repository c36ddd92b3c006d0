"""Several tracepoints as one Arrow table: the union of their fields under the kernel's own names."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import pyarrow as pa

from apftrace import unmerge
from apftrace_parsers.base import MISSED, EventFormat, PassResult, Pick, is_glob, matches
from apftrace_parsers.stream import MAX_STREAM_FIELDS, view

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apftrace_parsers.base import Source

_LEAD = ("ts", "cpu", "tid", "comm", "event")
_FRAME = ("ts", "cpu", "tid", "instance")
"""Columns that every table of a source begins with; the rest are the event's own fields."""
_NAME = pa.dictionary(pa.int32(), pa.string())
_TIDS = 1 << 31
"""Thread ids are below this."""


def reader(source: Source, events: Sequence[str], result: PassResult | None = None) -> pa.RecordBatchReader:
    """Return the events of a source as one stream of batches; see :func:`apftrace.scan_events`.

    Raises:
        KeyError: a name without wildcard that the source does not describe.
    """
    names = known(source, events)
    chosen = [f for f in source.formats() if any(matches(f, n) for n in names)]
    schema, fields = union(chosen)
    label = {form.id: name for form, name in zip(chosen, labels(chosen), strict=True)}
    batches = _batches(source, names, schema, (fields, label), result or PassResult())
    return pa.RecordBatchReader.from_batches(schema, batches)


def known(source: Source, events: Sequence[str]) -> list[str]:
    """Return the names with the old name of a renamed tracepoint where the source has only that.

    Raises:
        KeyError: a name without wildcard that the source does not describe.
    """
    formats = source.formats()
    out = []
    for name in events:
        if any(matches(f, name) for f in formats) or is_glob(name):
            out.append(name)
            continue
        system, colon, bare = name.rpartition(":")
        old = f"{system}{colon}{RENAMED.get(bare)}"
        if bare not in RENAMED or not any(matches(f, old) for f in formats):
            raise KeyError(name)
        out.append(old)
    return out


RENAMED = {"kvm_async_pf_repeated_fault": "kvm_async_pf_doublefault"}
"""Newest name to the name before 1685c0f32554 (Linux 6.0)."""


def systems_of(formats: Iterable[EventFormat]) -> dict[str, set[str]]:
    """Return the systems that have a tracepoint, by its name."""
    systems: dict[str, set[str]] = {}
    for form in formats:
        systems.setdefault(form.name, set()).add(form.system)
    return systems


def labels(formats: Sequence[EventFormat]) -> list[str]:
    """Return what tracepoints are called beside one another: by name, with the system where two share it."""
    systems = systems_of(formats)
    return [f"{f.system}:{f.name}" if len(systems[f.name]) > 1 else f.name for f in formats]


def union(formats: Sequence[EventFormat]) -> tuple[pa.Schema, dict[int, dict[str, str]]]:
    """Return one schema for several tracepoints, and per event id how its fields are named there.

    Fields of one name and of types that widen into one another share a column; other clashes carry the
    event's name (``event.field``).
    """
    columns: dict[str, pa.DataType] = {
        "ts": pa.int64(), "cpu": pa.int32(), "tid": pa.int32(), "comm": _NAME, "event": _NAME, "instance": _NAME,
    }  # fmt: skip
    named: dict[int, dict[str, str]] = {}
    for form, label in zip(formats, labels(formats), strict=True):
        mine = named.setdefault(form.id, {})
        for field in form.schema:
            if field.name in _FRAME:
                continue
            widened = _widened(columns.get(field.name), field.type)
            name = field.name if widened is not None and field.name not in _LEAD else f"{label}.{field.name}"
            columns[name] = widened if name == field.name and widened is not None else field.type
            mine[field.name] = name
    return pa.schema([pa.field(n, t) for n, t in columns.items()]), named


def _widened(have: pa.DataType | None, new: pa.DataType) -> pa.DataType | None:
    if have is None or have.equals(new):
        return new
    if pa.types.is_integer(have) and pa.types.is_integer(new):
        signed = pa.types.is_signed_integer(have) == pa.types.is_signed_integer(new)
        if signed:
            return have if have.bit_width >= new.bit_width else new
        widest = max(have.bit_width, new.bit_width)
        return pa.int64() if widest < 64 else None
    return None


def _batches(
    source: Source,
    events: Sequence[str],
    schema: pa.Schema,
    words: tuple[dict[int, dict[str, str]], dict[int, str]],
    result: PassResult,
) -> Iterator[pa.RecordBatch]:
    comms = _Names(source.info.comms)
    fields, label = words
    for form, batch in source.tables(list(events), result):
        yield _widen(label[form.id], batch, schema, fields[form.id], comms)


class _Names:
    # Thread ids to comms: an index a row into one dictionary, no Python string.
    def __init__(self, comms: dict[int, str]) -> None:
        # A name of several threads stands there once: Parquet takes no other dictionary as it is.
        number = {name: n for n, name in enumerate(dict.fromkeys(comms.values()))}
        # What a damaged file names beside these no record can carry.
        tids = sorted(tid for tid in comms if abs(tid) < _TIDS)
        self._tids = memoryview(array("i", tids))
        self._numbers = memoryview(array("i", [number[comms[tid]] for tid in tids]))
        self._names = pa.array(list(number), pa.string())

    def of(self, tids: pa.Array) -> pa.Array:
        indices = _Made(pa.int32(), len(tids))
        unmerge.look_up(view(tids), self._tids, self._numbers, indices.values, indices.valid)
        return pa.DictionaryArray.from_arrays(indices.array(), self._names)


class _Made:
    # An Arrow array of integers that is about to be written.
    def __init__(self, kind: pa.DataType, rows: int) -> None:
        self._kind = kind
        self._rows = rows
        self._buffers = (
            pa.py_buffer(bytearray((rows + 7) // 8)),
            pa.allocate_buffer(kind.bit_width // 8 * rows),
        )
        self.valid, values = (memoryview(buffer).cast("B") for buffer in self._buffers)
        self.values = values.cast("q" if kind.bit_width == 64 else "i")

    def array(self) -> pa.Array:
        return pa.Array.from_buffers(self._kind, self._rows, list(self._buffers))


def _widen(
    label: str, batch: pa.RecordBatch, schema: pa.Schema, named: dict[str, str], comms: _Names
) -> pa.RecordBatch:
    have = {named.get(n, n): batch.column(n) for n in batch.schema.names}
    have["comm"] = comms.of(batch.column("tid"))
    names = pa.array([label], pa.string())
    have["event"] = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows), names)
    columns = [
        have[f.name].cast(f.type) if f.name in have else pa.nulls(batch.num_rows, f.type) for f in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def in_time_order(source: Source, events: Sequence[str], result: PassResult) -> pa.RecordBatchReader:
    """Return the events like :func:`reader`, rows in order of ts.

    Events of up to three integer fields come out of the merged stream, in bounded memory. Others are
    sorted, equal stamps by CPU and there as recorded, which takes the memory of their rows. Between the buffers of
    several instances nothing tells which of two records at one instant was the first.

    Raises:
        KeyError: a name without wildcard that the source does not describe.
    """
    names = known(source, events)
    chosen = [f for f in source.formats() if any(matches(f, n) for n in names)]
    if len(source.info.instances) <= 1 and all(_is_narrow(form) for form in chosen):
        schema, fields = union(chosen)
        return pa.RecordBatchReader.from_batches(schema, _merged(source, chosen, schema, fields, result))
    import pyarrow.compute as pc

    table = reader(source, names, result).read_all().unify_dictionaries()
    table = table.take(pc.sort_indices(table, [("ts", "ascending"), ("cpu", "ascending")]))
    if len(source.info.instances) <= 1 and _has_ties(table):
        table = table.take(_as_recorded(source, chosen, table))
    return table.to_reader()


def _has_ties(table: pa.Table) -> bool:
    """Say whether two events of one CPU bear one stamp."""
    import pyarrow.compute as pc

    if table.num_rows < 2:
        return False
    columns = [table.column(name).combine_chunks() for name in ("ts", "cpu")]
    names = table.column("event").combine_chunks().indices
    ts, cpu = (pc.equal(c.slice(1), c.slice(0, len(c) - 1)) for c in columns)
    other = pc.not_equal(names.slice(1), names.slice(0, len(names) - 1))
    return bool(pc.any(pc.and_(pc.and_(ts, cpu), other)).as_py())


def _as_recorded(source: Source, chosen: Sequence[EventFormat], table: pa.Table) -> pa.Array:
    """Return the rows' places in the order in which the merged stream has them, equal stamps by CPU.

    The n-th row of an event on a CPU is the n-th there too.
    """
    import polars as pl

    names = pl.Series("event", labels(chosen), pl.String)
    nth = pl.int_range(pl.len()).over("cpu", "event").alias("nth")
    picks = [Pick((f"{form.system}:{form.name}",), ()) for form in chosen]
    batches = map(_without_gaps, source.stream(picks, PassResult()))
    seen = pl.from_arrow(pa.Table.from_batches([batch.select(["cpu", "pick"]) for batch in batches]))
    assert isinstance(seen, pl.DataFrame)
    seen = seen.select("cpu", names.gather(seen["pick"]), pl.int_range(pl.len()).alias("place"))
    own = pl.from_arrow(table.select(["ts", "cpu", "event"]))
    assert isinstance(own, pl.DataFrame)
    own = own.with_columns(pl.col("event").cast(pl.String)).with_row_index("at").with_columns(nth)
    found = own.join(seen.with_columns(nth), on=["cpu", "event", "nth"], how="left", maintain_order="left")
    return found.sort("ts", "cpu", "place", "at", maintain_order=True)["at"].to_arrow()


def _own_fields(form: EventFormat) -> list[pa.Field]:
    return [field for field in form.schema if field.name not in _FRAME]


def _is_narrow(form: EventFormat) -> bool:
    own = _own_fields(form)
    return len(own) <= MAX_STREAM_FIELDS and all(pa.types.is_integer(field.type) for field in own)


def _merged(
    source: Source,
    chosen: Sequence[EventFormat],
    schema: pa.Schema,
    named: dict[int, dict[str, str]],
    result: PassResult,
) -> Iterator[pa.RecordBatch]:
    picks = [Pick((f"{f.system}:{f.name}",), tuple((g.name,) for g in _own_fields(f))) for f in chosen]
    letters = _letters(chosen, named)
    comms = _Names(source.info.comms)
    names = pa.array(labels(chosen), pa.string())
    for batch in source.stream(picks, result):
        yield _unmerge(_without_gaps(batch), schema, letters, comms, names)


def _letters(chosen: Sequence[EventFormat], named: dict[int, dict[str, str]]) -> dict[str, memoryview]:
    """Return per column which of a, b, c holds it, by number: of each event in turn, -1 for none."""
    held: dict[str, array[int]] = {}
    for number, form in enumerate(chosen):
        for letter, field in enumerate(_own_fields(form)):
            own = held.setdefault(named[form.id][field.name], array("i", [-1] * len(chosen)))
            own[number] = letter
    return {column: memoryview(own) for column, own in held.items()}


def _without_gaps(batch: pa.RecordBatch) -> pa.RecordBatch:
    if not unmerge.count(view(batch.column("pick")), MISSED):
        return batch
    import pyarrow.compute as pc

    return batch.filter(pc.not_equal(batch.column("pick"), MISSED))


def _unmerge(
    batch: pa.RecordBatch,
    schema: pa.Schema,
    letters: dict[str, memoryview],
    comms: _Names,
    names: pa.Array,
) -> pa.RecordBatch:
    pick, a, b, c = (view(batch.column(name)) for name in ("pick", "a", "b", "c"))
    have = {
        "ts": batch.column("ts"),
        "cpu": batch.column("cpu"),
        "tid": batch.column("tid"),
        "comm": comms.of(batch.column("tid")),
        "event": pa.DictionaryArray.from_arrays(batch.column("pick"), names),
        "instance": pa.DictionaryArray.from_arrays(
            pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows), pa.array([""], pa.string())
        ),
    }
    for column, letter_of in letters.items():
        kind = schema.field(column).type
        # The stream carries uint64 as its bit pattern.
        made = _Made(pa.int64(), batch.num_rows)
        unmerge.column(pick, letter_of, a, b, c, made.values, made.valid)
        values = made.array()
        have[column] = values.view(kind) if kind.bit_width == 64 else values.cast(kind, safe=False)
    return pa.RecordBatch.from_arrays([have[f.name] for f in schema], schema=schema)
