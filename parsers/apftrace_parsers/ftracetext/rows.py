"""The second pass: rows of the wanted events, as a merged stream or as typed tables."""

from __future__ import annotations

import heapq
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from apftrace_parsers.base import MISSED
from apftrace_parsers.eventformat import LEADING
from apftrace_parsers.ftracetext.fields import MASK, decoder
from apftrace_parsers.ftracetext.lines import whole_lines
from apftrace_parsers.ftracetext.survey import FUNCTION, event_keys, event_name
from apftrace_parsers.importlog import ImportLog
from apftrace_parsers.stream import LEAST_ROWS, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from apftrace_parsers.base import EventFormat, PassResult, Resolved
    from apftrace_parsers.ftracetext.fields import Decoder
    from apftrace_parsers.ftracetext.lines import Columns
    from apftrace_parsers.ftracetext.survey import Survey

SPARSE = 8
"""When less than one record in so many is wanted, its lines are searched for before they are read."""
LEAST = -(1 << 63)
Row = tuple[int, int, int, int, int, int, int]


@dataclass(frozen=True)
class Bounds:
    """A span of time, both ends inclusive; null is open."""

    start: int | None
    end: int | None

    @property
    def is_open(self) -> bool:
        """Say whether both ends are open."""
        return self.start is None and self.end is None

    def holds(self, stamp: int) -> bool:
        """Say whether an instant lies within."""
        return (self.start is None or self.start <= stamp) and (self.end is None or stamp <= self.end)

    def touches(self, span: tuple[int, int]) -> bool:
        """Say whether a span overlaps this one."""
        return (self.start is None or self.start <= span[1]) and (self.end is None or span[0] <= self.end)


def streamed(
    found: Survey, wanted: Sequence[Resolved | None], bounds: Bounds, result: PassResult
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a narrow stream in time order."""
    batches = _narrow(found, wanted, bounds, result)
    if found.is_sorted:
        yield from batches
        return
    # Out of order in the text: all rows at once, gaps before the records at their instant.
    gaps = _batch(_gaps(found, bounds))
    table = pa.Table.from_batches([gaps, *batches], SCHEMA)
    import pyarrow.compute as pc

    order = pc.sort_indices(table, [("ts", "ascending")])
    yield from table.take(order).combine_chunks().to_batches(LEAST_ROWS)


def _narrow(
    found: Survey, wanted: Sequence[Resolved | None], bounds: Bounds, result: PassResult
) -> Iterator[pa.RecordBatch]:
    plans: dict[bytes, list[tuple[int, Decoder]]] = {}
    for pick, resolved in enumerate(wanted):
        if resolved:
            plan = (pick, decoder(resolved.event, resolved.fields))
            for key in event_keys(resolved.event):
                plans.setdefault(key, []).append(plan)
    owners = found.owners()
    gaps = _gaps(found, bounds) if found.is_sorted else []
    for columns in _blocks(found, plans, bounds, result):
        kept = [
            event in plans and (not owners or found.instance_of(task) == owners[event])
            for event, task in zip(columns.events, columns.tasks, strict=True)
        ]
        last = columns.stamps[-1]
        rows = _rows(columns if all(kept) else columns.where(kept), plans)
        if gaps:
            rows, gaps = _with_gaps(rows, gaps, last)
        if rows:
            yield _batch(rows)
    if gaps:
        yield _batch(gaps)


def _rows(columns: Columns, plans: Mapping[bytes, list[tuple[int, Decoder]]]) -> list[Row]:
    # Texts of one event are decoded together, and their fields put back in order of time.
    n = len(columns.stamps)
    picks = [MISSED] * n
    fields = ([0] * n, [0] * n, [0] * n)
    further: list[Row] = []
    cpus, tids = list(map(int, columns.cpus)), list(map(int, columns.tids))
    for event, places in _places(columns.events).items():
        texts = [columns.texts[i] for i in places]
        for nth, (pick, decode) in enumerate(plans[event]):
            shown = decode(texts)
            if nth:
                further += [
                    (columns.stamps[i], cpus[i], tids[i], pick, a or 0, b or 0, c or 0)
                    for i, a, b, c in zip(places, *shown, strict=True)
                ]
                continue
            for i in places:
                picks[i] = pick
            for field, values in zip(fields, shown, strict=True):
                for i, value in zip(places, values, strict=True):
                    field[i] = value or 0
    rows = list(zip(columns.stamps, cpus, tids, picks, *fields, strict=True))
    return sorted(rows + further, key=lambda row: row[0]) if further else rows


def _places(events: Sequence[bytes]) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    for i, event in enumerate(events):
        found.setdefault(event, []).append(i)
    return found


def tabulated(
    found: Survey, chosen: Mapping[str, EventFormat], bounds: Bounds, result: PassResult
) -> Iterator[tuple[EventFormat, pa.RecordBatch]]:
    """Yield the records of the chosen events as typed batches, block by block."""
    plans: dict[bytes, tuple[EventFormat, Decoder]] = {}
    for name, form in chosen.items():
        plan = (form, decoder(name, tuple(found.columns(name).values())))
        plans |= dict.fromkeys(event_keys(name), plan)
    for columns in _blocks(found, plans, bounds, result):
        for event, places in _places(columns.events).items():
            if event in plans:
                form, decode = plans[event]
                yield form, _typed(form, decode, found, columns.at(places))


def _typed(form: EventFormat, decode: Decoder, found: Survey, columns: Columns) -> pa.RecordBatch:
    texts = [text.rstrip() for text in columns.texts]
    arrays = [
        pa.array(columns.stamps, pa.int64()),
        pa.array(map(int, columns.cpus), pa.int32()),
        pa.array(map(int, columns.tids), pa.int32()),
        pa.array(map(found.instance_of, columns.tasks), pa.string()),
    ]
    fields = list(form.schema)[len(LEADING) : -1]
    for field, column in zip(fields, decode(texts), strict=True):
        mask = MASK if field.type == pa.uint64() else -1
        arrays.append(pa.array([None if value is None else value & mask for value in column], field.type))
    arrays.append(pa.array([text.decode("utf-8", "replace") for text in texts], pa.string()))
    return pa.RecordBatch.from_arrays(arrays, schema=form.schema)


def _blocks(found: Survey, wanted: Container[bytes], bounds: Bounds, result: PassResult) -> Iterator[Columns]:
    # The records of each block that matters; other records may stand between the wanted ones.
    hits = {name: n for name, n in found.events().items() if event_keys(name)[0] in wanted}
    if bounds.is_open:
        if hits:
            # Records of the function tracer have no name to search for.
            few = sum(hits.values()) * SPARSE < found.records and FUNCTION not in hits
            yield from found.kept or _read(found, bounds, _searcher(hits) if few else None)
        return
    seen: Counter[bytes] = Counter()
    for columns in found.kept or _read(found, bounds, None):
        within = _within(columns, bounds, result, is_sorted=found.is_sorted)
        if within.stamps:
            seen.update(within.events)
            yield within
    for event, n in seen.items():
        name = event_name(event)
        result.counts[name] = result.counts.get(name, 0) + n


def _read(found: Survey, bounds: Bounds, search: re.Pattern[bytes] | None) -> Iterator[Columns]:
    touched = [span is not None and bounds.touches(span) for span in found.spans]
    # Damage was noted by the first pass.
    log = ImportLog()
    left = sum(touched)
    for block, matters in zip(whole_lines(found.text.pieces(log), log), touched, strict=False):
        if matters:
            columns = found.grammar.columns(_hit_lines(block, search) if search else block)
            if columns:
                yield columns
            left -= 1
        if not left:
            return


def _searcher(names: Iterable[str]) -> re.Pattern[bytes]:
    alternatives = b"|".join(re.escape(key) for name in names for key in event_keys(name))
    return re.compile(rb" (?:" + alternatives + rb"):(?=\s)")


def _hit_lines(block: bytes, search: re.Pattern[bytes]) -> bytes:
    lines, end = [], 0
    while found := search.search(block, end):
        start = block.rfind(b"\n", end, found.start()) + 1 or end
        end = block.index(b"\n", found.end() - 1) + 1
        lines.append(block[start:end])
    return b"".join(lines)


def _within(columns: Columns, bounds: Bounds, result: PassResult, *, is_sorted: bool) -> Columns:
    stamps = columns.stamps
    if is_sorted:
        first = 0 if bounds.start is None else bisect_left(stamps, bounds.start)
        end = len(stamps) if bounds.end is None else bisect_right(stamps, bounds.end)
        columns = columns.part(first, end)
    else:
        columns = columns.where([bounds.holds(stamp) for stamp in stamps])
    for cpu_text, stamp in zip(columns.cpus, columns.stamps, strict=True):
        cpu = int(cpu_text)
        result.cpu_first_ns[cpu] = min(result.cpu_first_ns.get(cpu, stamp), stamp)
        result.cpu_last_ns[cpu] = max(result.cpu_last_ns.get(cpu, stamp), stamp)
    return columns


def _gaps(found: Survey, bounds: Bounds) -> list[Row]:
    return [
        (
            loss.before_ns,
            loss.cpu,
            0,
            MISSED,
            -1 if loss.count is None else loss.count,
            LEAST if loss.after_ns is None else loss.after_ns,
            0,
        )
        for loss in found.losses
        if loss.before_ns is not None and bounds.holds(loss.before_ns)
    ]


def _with_gaps(rows: list[Row], gaps: list[Row], last: int) -> tuple[list[Row], list[Row]]:
    # Gaps up to an instant, put before the rows of the instant after them; and the gaps that are left.
    due = bisect_right(gaps, last, key=lambda gap: gap[0])
    if due:
        rows = list(heapq.merge(gaps[:due], rows, key=lambda row: row[0]))
    return rows, gaps[due:]


def _batch(rows: Sequence[Row]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else ((),) * len(SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
