"""The raw records around the worst findings: what a maintainer wants to see before believing a verdict.

A second look at the trace, only at the time of a few findings. Lines show what the vCPU thread and the
worker did, in the order of time; long runs of entries and exits are folded into one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.amounts import plural
from apftrace.model import tracepoints as tp
from apftrace.model.evidence import text_of
from apftrace.model.rules.base import ERROR, WARNING
from apftrace_parsers.base import PassResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apftrace.model.correlate import Case
    from apftrace_parsers.base import Source

WORST = 5
"""Findings that get an excerpt."""

LINES = 40
"""Most lines of an excerpt."""

_PADDING_NS = 50_000
_BEGIN_NS = 1_000_000_000
_END_NS = 100_000_000
_NOISE = frozenset({tp.ENTRY, tp.EXIT, tp.PAGE_FAULT, tp.MSR, tp.INJ_VIRQ, tp.ACCEPT})
"""Kinds that are folded when nothing about async page faults happens between them."""

Line = tuple[int, int, int, int, int, int, int]
"""A record: ts, cpu, tid, kind, a, b, c."""


def excerpts(source: Source, case: Case, findings: pl.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return, by finding id, the raw lines around the worst findings that are about a thread and a time."""
    told = findings.filter(
        pl.col("severity").is_in([ERROR, WARNING])
        & pl.col("tid").is_not_null()
        & pl.col("ts").is_not_null()
        & pl.col("end").is_not_null()
        & pl.col("token").is_not_null()
    ).head(WORST)
    out = {}
    for ident, tid, token, start, end in told.select("id", "tid", "token", "ts", "end").iter_rows():
        life = case.lives.filter(
            (pl.col("tid") == tid) & (pl.col("token") == token) & pl.col("not_present").is_between(start, end)
        )
        worker = life["worker"][0] if life.height else None
        gva = life["gva"][0] if life.height else None
        shown = [
            record
            for since, until in _spans(start, end)
            for record in _records(source, {tid, worker} - {None}, since, until)
        ]
        out[ident] = tuple(_lines(case, shown, token, gva))
    return out


def _spans(start: int, end: int) -> list[tuple[int, int]]:
    """Return what to look at: a life that stays open for long, only where it begins and where it ends."""
    if end - start <= _BEGIN_NS + _END_NS:
        return [(start - _PADDING_NS, end + _PADDING_NS)]
    return [(start - _PADDING_NS, start + _BEGIN_NS), (end - _END_NS, end + _PADDING_NS)]


def _records(source: Source, tids: set[int], start: int, end: int) -> list[Line]:
    """Return the records of these threads, and the switches and wakeups that concern them."""
    wanted = sorted(tids)
    own = pl.col("tid").is_in(wanted)
    concerns = (
        (pl.col("pick") == tp.SWITCH) & (pl.col("a").is_in(wanted) | pl.col("c").is_in(wanted))
        | pl.col("pick").is_in([tp.WAKING, tp.WAKEUP]) & pl.col("a").is_in(wanted)
    )  # fmt: skip
    other_sched = pl.col("pick").is_in([tp.SWITCH, tp.WAKING, tp.WAKEUP])
    found: list[Line] = []
    for batch in source.stream(tp.PICKS, PassResult(), start_ns=start, end_ns=end):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        kept = frame.filter((own & ~other_sched) | concerns | (pl.col("pick") == tp.LOST))
        found += kept.select("ts", "cpu", "tid", "pick", "a", "b", "c").iter_rows()
    return found


def _lines(case: Case, records: Sequence[Line], token: int, gva: int | None) -> Iterable[str]:
    groups = _folded(records, case.vectors.all)
    last = -1
    for at in _chosen(groups, token, gva):
        left = sum(len(group) for group in groups[last + 1 : at])
        if left:
            yield _left_out(left)
        yield _line(case, groups[at])
        last = at
    left = sum(len(group) for group in groups[last + 1 :])
    if left:
        yield _left_out(left)


def _left_out(records: int) -> str:
    return f"... {plural(records, 'more record')} ..."


def _chosen(groups: Sequence[Sequence[Line]], token: int, gva: int | None) -> list[int]:
    """Return which groups to show: those of the life itself, then the first, then the last ones."""
    if len(groups) <= LINES:
        return list(range(len(groups)))
    own = [i for i, group in enumerate(groups) if any(_is_of(record, token, gva) for record in group)]
    around = [i + step for i in own for step in (0, 1)]
    order = dict.fromkeys([*around[:LINES], *range(LINES // 2), *range(len(groups) - 1, 0, -1)])
    return sorted([i for i in order if i < len(groups)][:LINES])


def _is_of(record: Line, token: int, gva: int | None) -> bool:
    _, _, _, kind, a, b, _ = record
    if kind in (tp.NOT_PRESENT, tp.READY):
        return a == token
    if kind == tp.COMPLETED:
        return a == gva
    return kind == tp.MSR and b == tp.MSR_ACK


def _folded(records: Sequence[Line], vectors: frozenset[int]) -> list[list[Line]]:
    """Group runs of records that tell nothing; every other record stands alone."""
    groups: list[list[Line]] = []
    for record in records:
        quiet = _is_noise(record, vectors)
        if quiet and groups and _is_noise(groups[-1][-1], vectors) and groups[-1][-1][2] == record[2]:
            groups[-1].append(record)
        else:
            groups.append([record])
    return groups


def _is_noise(record: Line, vectors: frozenset[int]) -> bool:
    _, _, _, kind, a, b, _ = record
    if kind in (tp.ACCEPT, tp.INJ_VIRQ):
        return a not in vectors
    if kind == tp.MSR:
        return b not in (tp.MSR_EN, tp.MSR_INT, tp.MSR_ACK)
    return kind in _NOISE


def _line(case: Case, group: Sequence[Line]) -> str:
    ts, cpu, tid, kind, a, b, c = group[0]
    if kind == tp.LOST:
        return f"CPU:{cpu} [LOST {f'{a} ' if a >= 0 else ''}EVENTS]"
    who = f"{case.comms.get(tid, '<...>')}-{tid}"
    when = f"{ts // 1_000_000_000}.{ts % 1_000_000_000:09d}" if case.clock_is_ns else str(ts)
    if len(group) > 2:
        entries = sum(record[3] == tp.ENTRY for record in group)
        return f"{who} [{cpu:03d}] {when}: ... {len(group)} records, {entries} entries into the guest ..."
    line = f"{who} [{cpu:03d}] {when}: {tp.NAMES[kind]}: {text_of(kind, a, b, c)}"
    return line if len(group) == 1 else f"{line}; {_line(case, group[1:]).split(': ', 1)[1]}"
