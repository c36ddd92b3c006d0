"""Several tracepoints as one Arrow table: the union of their fields under the kernel's own names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pyarrow as pa

from apftrace_parsers.base import EventFormat, PassResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apftrace_parsers.base import Source

_LEAD = ("ts", "cpu", "tid", "comm", "event")


def reader(source: Source, events: Sequence[str], result: PassResult | None = None) -> pa.RecordBatchReader:
    """Return the events of a source as one stream of batches; see :func:`apftrace.scan_events`.

    Raises:
        KeyError: a name without wildcard that the source does not describe.
    """
    names = known(source, events)
    chosen = [f for f in source.formats() if any(matches(f, n) for n in names)]
    schema, fields = union(chosen)
    batches = _batches(source, names, schema, fields, result if result is not None else PassResult())
    return pa.RecordBatchReader.from_batches(schema, batches)


def known(source: Source, events: Sequence[str]) -> list[str]:
    """Return the names with the old name of a renamed tracepoint where the source has only that.

    Raises:
        KeyError: a name without wildcard that the source does not describe.
    """
    formats = source.formats()
    out = []
    for name in events:
        if any(matches(f, name) for f in formats) or any(c in name for c in "*?["):
            out.append(name)
            continue
        old = _RENAMED.get(name.split(":")[-1])
        if old is None or not any(matches(f, old) for f in formats):
            raise KeyError(name)
        out.append(old)
    return out


_RENAMED = {"kvm_async_pf_repeated_fault": "kvm_async_pf_doublefault"}
"""Newest name to the name before 1685c0f32554 (Linux 6.0)."""


def matches(form: EventFormat, name: str) -> bool:
    """Say whether ``name`` (``event``, ``system:event``, or a glob of either) means this tracepoint."""
    return fnmatchcase(f"{form.system}:{form.name}" if ":" in name else form.name, name)


def union(formats: Sequence[EventFormat]) -> tuple[pa.Schema, dict[int, dict[str, str]]]:
    """Return one schema for several tracepoints, and per event id how its fields are named there.

    Fields of one name and of types that widen into one another share a column; other clashes carry the
    event's name (``event.field``).
    """
    columns: dict[str, pa.DataType] = {
        "ts": pa.int64(), "cpu": pa.int32(), "tid": pa.int32(), "comm": pa.string(), "event": pa.string(),
        "instance": pa.string(),
    }  # fmt: skip
    named: dict[int, dict[str, str]] = {}
    for form in formats:
        mine = named.setdefault(form.id, {})
        for field in form.schema:
            if field.name in ("ts", "cpu", "tid", "instance"):
                continue
            widened = _widened(columns.get(field.name), field.type)
            name = (
                field.name if widened is not None and field.name not in _LEAD else f"{form.name}.{field.name}"
            )
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
    fields: dict[int, dict[str, str]],
    result: PassResult,
) -> Iterator[pa.RecordBatch]:
    comms = _Comms(source.info.comms)
    for form, batch in source.tables(list(events), result):
        yield _widen(form, batch, schema, fields[form.id], comms)


class _Comms:
    # tid to comm as an Arrow lookup: one dictionary index for each batch instead of one Python string a row.
    def __init__(self, comms: dict[int, str]) -> None:
        self.tids = pa.array(list(comms), pa.int32())
        self.names = pa.array(list(comms.values()), pa.string())

    def of(self, tids: pa.Array) -> pa.Array:
        import pyarrow.compute as pc

        return self.names.take(pc.index_in(tids, self.tids))


def _widen(
    form: EventFormat, batch: pa.RecordBatch, schema: pa.Schema, named: dict[str, str], comms: _Comms
) -> pa.RecordBatch:
    have = {named.get(n, n): batch.column(n) for n in batch.schema.names}
    have["comm"] = comms.of(batch.column("tid"))
    have["event"] = pa.repeat(pa.scalar(form.name, pa.string()), batch.num_rows)
    columns = [
        have[f.name].cast(f.type) if f.name in have else pa.nulls(batch.num_rows, f.type) for f in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def in_time_order(stream: pa.RecordBatchReader) -> pa.Table:
    """Return the whole stream as a table sorted by ts, equal stamps by CPU; memory is that of the rows."""
    import pyarrow.compute as pc

    table = stream.read_all()
    return table.take(pc.sort_indices(table, [("ts", "ascending"), ("cpu", "ascending")]))
