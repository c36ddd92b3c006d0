"""One machine's trace, reduced to anchors: the only place where the model touches a source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from apftrace.model import tracepoints as tp
from apftrace.model.odometer import COLUMNS, Odometer
from apftrace_parsers.base import Loss, PassResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apftrace_parsers.base import Source, SourceInfo

_ALWAYS_HIT = frozenset({tp.ENTRY, tp.EXIT, tp.SWITCH, tp.WAKING, tp.WAKEUP, tp.QUEUE_WORK, tp.EXECUTE_START})
"""Tracepoints that a host with running guests hits all the time: no hit means that they were off."""


@dataclass(frozen=True)
class Recording:
    """What the model keeps of a trace.

    Attributes:
        machine: ``host`` or the guest's name.
        anchors: columns of :data:`apftrace.model.odometer.COLUMNS` and ``seq``, in time order.
        threads: final reading per thread: tid, first, last, entries, entry_ts, hlts, virqs, vcpu, gone, comm, tgid.
        cpus_of: CPUs on which each thread was seen.
        losses: gaps in the record.
        counts: hits per tracepoint name, of all tracepoints in the trace.
        recorded: kinds of tracepoint that were on.
        fields: kinds mapped to the field names that the trace has for a, b, c (null where it lacks one).
        vectors: page-ready vectors: 243, and what guests wrote to MSR_KVM_ASYNC_PF_INT.
        seen_vectors: vectors accepted at other times than right after a ready.
        first_ns: first instant; 0 when the trace is empty.
        last_ns: last instant.
        guests: VM name by host thread id, where the trace names its guests.
    """

    machine: str
    anchors: pl.DataFrame
    threads: pl.DataFrame
    cpus_of: dict[int, frozenset[int]]
    losses: tuple[Loss, ...]
    counts: dict[str, int]
    recorded: frozenset[int]
    fields: dict[int, tuple[str | None, ...]]
    vectors: frozenset[int]
    seen_vectors: frozenset[int]
    first_ns: int
    last_ns: int
    guests: dict[int, str] = field(default_factory=dict)

    def kind(self, *kinds: int) -> pl.DataFrame:
        """Return the anchors of these kinds."""
        return self.anchors.filter(pl.col("kind").is_in(list(kinds)))

    def has(self, *kinds: int) -> bool:
        """Say whether all these tracepoints were on."""
        return self.recorded.issuperset(kinds)


def record(source: Source, machine: str = "host") -> tuple[Recording, PassResult]:
    """Reduce a whole source to a Recording, in bounded memory."""
    odometer = Odometer()
    result = PassResult()
    chunks = [_chunk(odometer, batch) for batch in source.stream(tp.PICKS, result)]
    return assemble(odometer, chunks, result, machine, source), result


def _chunk(odometer: Odometer, batch: pa.RecordBatch) -> pl.DataFrame:
    views = [memoryview(batch.column(i).buffers()[1]).cast("B") for i in range(7)]
    codes = "qiiiqqq"
    offset = batch.column(0).offset
    odometer.feed(
        *(
            view[: (offset + batch.num_rows) * (8 if code == "q" else 4)].cast(code)[offset:]
            for view, code in zip(views, codes, strict=True)
        )
    )
    return _frame(odometer)


def _frame(odometer: Odometer) -> pl.DataFrame:
    taken = odometer.take()
    arrays = [
        pa.Array.from_buffers(
            pa.int64() if code == "q" else pa.int32(), len(taken[name]), [None, pa.py_buffer(bytes(taken[name]))]
        )
        for name, code in COLUMNS
    ]
    frame = pl.from_arrow(pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in COLUMNS]))
    assert isinstance(frame, pl.DataFrame)
    return frame


def assemble(
    odometer: Odometer,
    chunks: Sequence[pl.DataFrame],
    result: PassResult,
    machine: str,
    source: Source,
) -> Recording:
    """Put the chunks of one pass and what the pass counted together."""
    anchors = pl.concat([_frame(odometer).clear(), *(c for c in chunks if c.height)])
    recorded, fields = recorded_kinds(source, result)
    return Recording(
        machine=machine,
        anchors=anchors.with_row_index("seq").with_columns(pl.col("seq").cast(pl.Int64)),
        threads=_threads(odometer, source.info),
        cpus_of={tid: frozenset(cpus) for tid, cpus in odometer.cpus_of.items()},
        losses=tuple(result.losses),
        counts=dict(result.counts),
        recorded=recorded,
        fields=fields,
        vectors=frozenset(odometer.vectors),
        seen_vectors=frozenset(odometer.seen_vectors),
        first_ns=result.first_ns or 0,
        last_ns=result.last_ns or 0,
        guests={tid: g.name for g in source.info.guests for tid in g.vcpu_tids.values()},
    )


def recorded_kinds(source: Source, result: PassResult) -> tuple[frozenset[int], dict[int, tuple[str | None, ...]]]:
    """Return the kinds of tracepoint that were on during a whole pass, and the fields that each has."""
    recorded = set()
    fields: dict[int, tuple[str | None, ...]] = {}
    for kind, found in enumerate(source.resolve(tp.PICKS)):
        if found is None:
            continue
        fields[kind] = found.fields
        if _count(result.counts, found.event) or kind not in _ALWAYS_HIT:
            recorded.add(kind)
    return frozenset(recorded), fields


def _count(counts: dict[str, int], event: str) -> int:
    return counts.get(event, 0) or counts.get(event.split(":")[-1], 0)


def _threads(odometer: Odometer, info: SourceInfo) -> pl.DataFrame:
    table = pl.DataFrame(odometer.threads(), schema_overrides={"tid": pl.Int32})
    tids = table["tid"].to_list()
    return table.with_columns(
        pl.Series("comm", _looked_up(tids, info.comms), pl.String),
        pl.Series("tgid", _looked_up(tids, info.tgids), pl.Int64),
    )


def _looked_up(tids: Iterable[int], table: dict[int, object]) -> list[object]:
    return [table.get(tid) for tid in tids]
