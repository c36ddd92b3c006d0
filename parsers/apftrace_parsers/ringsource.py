"""A source whose records lie in ring-buffer pages: what all parsers of such formats share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace_parsers.base import EventFormat, Loss, PassResult, Pick, Resolved, SourceInfo
from apftrace_parsers.columns import tabulated
from apftrace_parsers.stream import MAX_STREAM_FIELDS, merged
from apftrace_parsers.symbols import no_symbols
from apftrace_parsers.walk import Pass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from apftrace_parsers.base import Symbols
    from apftrace_parsers.eventformat import EventTable, EventText, Field
    from apftrace_parsers.walk import Ring


@dataclass(frozen=True)
class BufferStat:
    """What the statistics of a CPU's buffer say was lost while recording (overrun and dropped events)."""

    cpu: int
    instance: str
    lost: int


class RingSource:
    """An opened trace made of ring-buffer pages; a `base.Source`.

    Args:
        info: facts from the headers.
        ring: where the pages are.
        table: the tracepoints.
        stats: losses that the recorder counted.
        lost: CPUs whose pages cannot be read at all.
        notes: damage found in the headers; every pass repeats it.
        symbols: kallsyms of the kernel; null when the trace has none.
    """

    def __init__(
        self,
        info: SourceInfo,
        ring: Ring,
        table: EventTable,
        *,
        stats: Sequence[BufferStat] = (),
        lost: Sequence[Loss] = (),
        notes: Sequence[str] = (),
        symbols: Symbols | None = None,
    ) -> None:
        self._info = info
        self._ring = ring
        self._table = table
        self._stats = tuple(stats)
        self._lost = tuple(lost)
        self._notes = tuple(notes)
        self._symbols = symbols or no_symbols()

    @property
    def info(self) -> SourceInfo:
        """Facts from the headers."""
        return self._info

    @property
    def machines(self) -> tuple[str, ...]:
        """Tell none: the pages are of one machine."""
        return ()

    def machine(self, name: str) -> RingSource:
        """Refuse: the pages are of one machine.

        Raises:
            KeyError: always.
        """
        raise KeyError(name)

    def formats(self) -> tuple[EventFormat, ...]:
        """Return every tracepoint that the source describes (not all need occur)."""
        return tuple(self._table.format(event) for event in self._table.events)

    def resolve(self, picks: Sequence[Pick]) -> tuple[Resolved | None, ...]:
        """Return per pick what the source offers; null when it knows none of the names."""
        found = []
        for event, fields in map(self._resolve, picks):
            names = tuple(f.name if f else None for f in fields)
            found.append(Resolved(self._table.label(event), names) if event else None)
        return tuple(found)

    def probes(self) -> tuple[EventFormat, ...]:
        """Return the events of dynamic probes."""
        return tuple(map(self._table.format, self._table.containing(b" __probe_")))

    def symbols(self) -> Symbols:
        """Return what tells functions by the addresses in records."""
        return self._symbols

    def stream(
        self,
        picks: Sequence[Pick],
        result: PassResult,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield narrow batches in time order, see `base.Source`.

        An event that several instances recorded comes from one of them only, the one that has most of
        it (the earlier on a tie): the same hit stands in each of their buffers. A note tells of the rest.
        """
        resolved = [self._resolve(pick) for pick in picks]
        ids = {event.id for event, _ in resolved if event}
        owners = self._owners(ids, start_ns, end_ns)
        with Pass(self._ring, start_ns, end_ns) as run:
            wanted = [(owners.get(e.id, (0,)), e.id, i) for i, (e, _) in enumerate(resolved) if e]
            fields = [[(f.offset, f.stream_width) if f else (0, 0) for f in fs] for _, fs in resolved]
            run.walker.set_picks(
                [(instance, event, pick) for held, event, pick in wanted for instance in held[:1]],
                fields,
                self._ring.tid_at,
                [(i, k) for i, (_, fs) in enumerate(resolved) for k, f in enumerate(fs) if f and f.is_tail],
            )
            delivering = {held[0] for held, _, _ in wanted}
            for lane, instance in enumerate(run.instance_of):
                if instance not in delivering:
                    run.walker.mute_gaps(lane)
            yield from merged(run, len(picks))
            self._finish(run, result, {event: held for held, event, _ in wanted})

    def tables(
        self,
        events: Sequence[str],
        result: PassResult,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[tuple[EventFormat, pa.RecordBatch]]:
        """Yield typed batches of the named tracepoints, of all instances, see `base.Source`.

        Raises:
            KeyError: a name without wildcard that the source does not describe.
        """
        chosen = self._table.match(events)
        return self._tables(chosen, result, start_ns, end_ns)

    def close(self) -> None:
        """Release what the source holds; here nothing."""

    def _tables(
        self, chosen: Sequence[EventText], result: PassResult, start_ns: int | None, end_ns: int | None
    ) -> Iterator[tuple[EventFormat, pa.RecordBatch]]:
        with Pass(self._ring, start_ns, end_ns) as run:
            run.walker.set_picks(
                [(n, e.id, i) for n in range(len(self._ring.instances)) for i, e in enumerate(chosen)],
                [[(0, 0)] * MAX_STREAM_FIELDS for _ in chosen],
                self._ring.tid_at,
            )
            yield from tabulated(run, [(self._table.format(e), self._table.payload(e)) for e in chosen])
            self._finish(run, result, {})

    def _resolve(self, pick: Pick) -> tuple[EventText | None, tuple[Field | None, ...]]:
        none = (None,) * MAX_STREAM_FIELDS
        event = next(filter(None, map(self._table.find, pick.events)), None)
        if event is None:
            return None, none
        fields_of = self._table.columns(event) | {f.name: f for f in self._table.fields(event)}
        known = {name: field for name, field in fields_of.items() if field.stream_width}
        fields = [next((known[n] for n in names if n in known), None) for names in pick.fields]
        return event, (*fields, *none)[:MAX_STREAM_FIELDS]

    def _owners(self, ids: set[int], start_ns: int | None, end_ns: int | None) -> dict[int, tuple[int, ...]]:
        # Per event id the instances that hold it, the fullest first. One instance needs no counting.
        if len(self._ring.instances) < 2:
            return {}
        with Pass(self._ring, start_ns, end_ns) as run:
            for _ in tabulated(run, []):
                pass
            hits = run.finish(PassResult())
        owners = {}
        for event in ids:
            held = [(-n, instance) for (instance, i), n in hits.items() if i == event]
            owners[event] = tuple(instance for _, instance in sorted(held)) or (0,)
        return owners

    def _finish(self, run: Pass, result: PassResult, owners: dict[int, tuple[int, ...]]) -> None:
        result.notes += self._notes
        hits = run.finish(result)
        by_id = {event.id: event for event in self._table.events}
        unknown: dict[int, int] = {}
        for (instance, event_id), n in hits.items():
            event = by_id.get(event_id)
            if event is None:
                unknown[event_id] = unknown.get(event_id, 0) + n
                continue
            label = self._table.label(event)
            if instance in owners.get(event_id, (instance,))[1:]:
                owner = self._ring.instances[owners[event_id][0]]
                result.notes.append(
                    f"{label}: {n} records of instance {self._ring.instances[instance] or 'top'!r} left out, "
                    f"taken for doubles of those of instance {owner or 'top'!r}"
                )
            else:
                result.counts[label] = result.counts.get(label, 0) + n
        for event_id, n in unknown.items():
            result.notes.append(
                f"{n} records of event id {event_id}, which no format describes, are not decoded"
            )
        result.losses += self._lost
        if not run.bounded:
            result.losses += self._unplaced(result.losses)

    def _unplaced(self, placed: Sequence[Loss]) -> list[Loss]:
        # What the recorder counted as lost and no page tells of.
        losses = []
        for stat in self._stats:
            own = [loss for loss in placed if (loss.cpu, loss.instance) == (stat.cpu, stat.instance)]
            if any(loss.count is None for loss in own):
                continue
            missing = stat.lost - sum(loss.count or 0 for loss in own)
            if missing > 0:
                losses.append(Loss(stat.cpu, stat.instance, missing, None, None))
        return losses
