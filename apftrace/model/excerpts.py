"""The raw records around the worst findings: what a maintainer wants to see before believing a verdict.

A second look at the trace, only at the time of a few findings. Lines show what the vCPU thread and the
worker did, in the order of time; long runs of entries and exits are folded into one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.evidence import text_of
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
_NOISE = frozenset({tp.ENTRY, tp.EXIT, tp.PAGE_FAULT, tp.MSR, tp.INJ_VIRQ, tp.ACCEPT})
"""Kinds that are folded when nothing about async page faults happens between them."""

Line = tuple[int, int, int, int, int, int, int]
"""A record: ts, cpu, tid, kind, a, b, c."""


def excerpts(source: Source, case: Case, findings: pl.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return, by finding id, the raw lines around the worst findings that are about a thread and a time."""
    told = findings.filter(
        pl.col("severity").is_in(["error", "warning"])
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
        vectors = case.vectors
        shown = _records(source, {tid, worker} - {None}, start - _PADDING_NS, end + _PADDING_NS)
        out[ident] = tuple(_lines(case, shown, vectors))
    return out


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


def _lines(case: Case, records: Sequence[Line], vectors: frozenset[int]) -> Iterable[str]:
    groups = _folded(records, vectors)
    if len(groups) > LINES:
        head, tail = groups[: LINES - 15], groups[-14:]
        left = sum(len(g) for g in groups[LINES - 15 : -14])
        yield from (_line(case, g) for g in head)
        yield f"... {left} more records ..."
        yield from (_line(case, g) for g in tail)
    else:
        yield from (_line(case, g) for g in groups)


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
