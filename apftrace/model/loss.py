"""Where the trace is blind: which records could have been there and are not.

A life is *tainted* when records were lost while it was open, on a CPU that its vCPU thread may have
used: one where it was ever seen, or any while it was seen too seldom to know. A missing event of a
tainted life proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.readings import NEVER
from apftrace_parsers.base import Loss

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from apftrace.model.recording import Recording

SETTLED = 50
"""Sightings of a thread after which the CPUs where it was seen are taken for all that it uses."""

DUE = 10
"""Records that were due of a CPU in its silence, and that the others had meanwhile: fewer may be chance."""

_EARLIEST, _LATEST = -(2**62), 2**62
_OFTEN = (tp.TRY, tp.NOT_PRESENT, tp.READY, tp.COMPLETED, tp.MSR, tp.ACCEPT)


def settled_threads(rec: Recording) -> frozenset[int]:
    """Return the threads that were seen so often that a CPU without them is one that they do not use."""
    seen = pl.concat([rec.kind(k).select("tid") for k in (tp.NOT_PRESENT, tp.READY)])
    often = seen.group_by("tid").len().filter(pl.col("len") >= SETTLED)["tid"]
    entered = rec.threads.filter(pl.col("entries") >= SETTLED)["tid"]
    return frozenset([*often.to_list(), *entered.to_list()])


def busy_cpus(rec: Recording) -> frozenset[int]:
    """Return the CPUs where any thread may have been while they are silent: by many records, or as sleeps show."""
    rows = _per_cpu([rec.kind(k) for k in _OFTEN])
    shown = (gap.cpu for gap in unrecorded_ends(rec))
    return frozenset([*rows.filter(pl.col("len") >= SETTLED)["cpu"].to_list(), *shown])


def _per_cpu(kept: list[pl.DataFrame]) -> pl.DataFrame:
    """Return cpu and len: rows of all frames on each CPU."""
    counts = pl.concat(frame.group_by("cpu").len() for frame in kept)
    return counts.group_by("cpu").agg(pl.col("len").sum())


def silent_ends(rec: Recording) -> tuple[Loss, ...]:
    """Return the silences of CPUs at either end of the trace that are too long to be chance, or shown to be none.

    A CPU's data may begin later or end earlier than those of the others, and nothing in the file tells:
    a buffer that was cut, overwritten, or full. Such a CPU had many records a second as long as it had any, and
    never again for so long none: the others left as many meanwhile, or it took twice the time.
    """
    return (*unrecorded_ends(rec), *_silent_ends(rec)) if len(rec.cpu_spans) > 1 else ()


def unrecorded_ends(rec: Recording) -> tuple[Loss, ...]:
    """Return the silences of CPUs at either end while threads came back from sleeps that nobody ended.

    Who wakes a thread leaves a record, on his own CPU or on that of the thread. Where it is missing though no CPU
    tells of a loss, it was on one that is silent. Only of traces in which that happens at no other time: sched
    events may be filtered, and clocks disagree.
    """
    if not rec.unwoken:
        return ()
    begun = max(first for first, _ in rec.cpu_spans.values())
    ended = min(last for _, last in rec.cpu_spans.values())
    if any(since >= begun and until <= ended for since, until in rec.unwoken):
        return ()
    since, until = min(s for s, _ in rec.unwoken), max(s for _, s in rec.unwoken)
    late = (Loss(cpu, "", None, None, first) for cpu, (first, _) in rec.cpu_spans.items() if since < first)
    early = (Loss(cpu, "", None, last, None) for cpu, (_, last) in rec.cpu_spans.items() if until > last)
    return (*late, *early)


def _silent_ends(rec: Recording) -> Iterator[Loss]:
    # A try that became a life has no row of its own.
    tries = (
        rec.kind(tp.NOT_PRESENT).filter(pl.col("tried") > NEVER).select(pl.col("tried").alias("ts"), "cpu")
    )
    kept = [tries, *(rec.kind(k).select("ts", "cpu") for k in _OFTEN)]
    suspects = []
    for cpu, n in sorted(_per_cpu(kept).iter_rows()):
        first, last = rec.cpu_spans.get(cpu, (rec.first_ns, rec.last_ns))
        per_ns = n / max(last - first, 1)
        if per_ns * max(first - rec.first_ns, rec.last_ns - last) >= DUE:
            suspects.append((cpu, first, last, per_ns))
    if not suspects:
        return
    rows = pl.concat(kept).sort("ts").with_row_index("at")
    for cpu, first, last, per_ns in suspects:
        own = rows.filter(pl.col("cpu") == cpu)
        alone = int(own["at"].cast(pl.Int64).diff().max() or 1) - 1  # type: ignore[arg-type]
        pause = int(own["ts"].diff().max() or 0)  # type: ignore[arg-type]
        ends = (
            (first - rec.first_ns, (rows["ts"] < first).sum(), Loss(cpu, "", None, None, first)),
            (rec.last_ns - last, (rows["ts"] > last).sum(), Loss(cpu, "", None, last, None)),
        )
        for silence, others, gap in ends:
            if per_ns * silence >= DUE and others >= DUE and (others >= alone / 2 or silence >= 2 * pause):
                yield gap


def blind_spans(rec: Recording, tid: int, *, silences: bool = True) -> list[tuple[int, int]]:
    """Return the disjoint spans in ns, in order, during which a thread may have left records that are not there.

    Lost records count on the CPUs that the thread may have used; where the record does not even tell who ran
    on the CPU, because it has no record at all, they count for every thread, and so does a CPU without records.

    Args:
        rec: the recording.
        tid: the thread.
        silences: count also the silences at the ends of CPUs: what a thread used outside of one tells nothing
            of what it used meanwhile.
    """
    cpus = rec.cpus_of.get(tid, frozenset())
    everywhere = tid not in rec.settled
    silent = {gap.cpu for gap in rec.uncovered}
    # A loss without an end may be of any size: a cut file, statistics that the pages do not account for.
    concern = (x for x in rec.losses if everywhere or x.cpu in cpus or x.cpu in silent or x.before_ns is None)
    quiet = (x for x in rec.silences if x.cpu in cpus or x.cpu in rec.busy_cpus) if silences else ()
    return _merged([*concern, *rec.uncovered, *quiet])


def silent_spans(rec: Recording, tid: int, *, anywhere: bool) -> list[tuple[int, int]]:
    """Return the spans of ``blind_spans`` of which no loss tells, only the silence of a CPU.

    Args:
        rec: the recording.
        tid: the thread.
        anywhere: count also the busy CPUs where it was never seen.
    """
    cpus = rec.cpus_of.get(tid, frozenset())
    return _merged(x for x in rec.silences if x.cpu in cpus or (anywhere and x.cpu in rec.busy_cpus))


def _merged(gaps: Iterable[Loss]) -> list[tuple[int, int]]:
    spans = sorted(
        (
            gap.after_ns if gap.after_ns is not None else _EARLIEST,
            gap.before_ns if gap.before_ns is not None else _LATEST,
        )
        for gap in gaps
    )
    merged: list[tuple[int, int]] = []
    for start, stop in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def overlaps_blind(
    rec: Recording, frame: pl.DataFrame, start: str, stop: str, name: str, *, silences: bool = True
) -> pl.DataFrame:
    """Add the boolean column ``name``: a CPU of row's ``tid`` was blind at some time in [start, stop].

    Args:
        rec: the recording.
        frame: has ``tid`` and the columns ``start`` and ``stop`` in ns.
        start: column with the first instant.
        stop: column with the last instant.
        name: column to add.
        silences: see ``blind_spans``.
    """
    if not frame.height or not (rec.losses or rec.uncovered or (silences and rec.silences)):
        return frame.with_columns(pl.lit(value=False).alias(name))
    parts = []
    for (tid,), rows in frame.with_row_index("_row").group_by("tid"):
        spans = blind_spans(rec, int(tid), silences=silences)
        if not spans:
            parts.append(rows.select("_row", pl.lit(value=False).alias(name)))
            continue
        starts = pl.Series([*(s for s, _ in spans), _LATEST], dtype=pl.Int64)
        stops = pl.Series([s for _, s in spans], dtype=pl.Int64)
        # The spans are disjoint and in order: only the first that ends at or after ``start`` can matter.
        at = stops.search_sorted(rows[start], side="left")
        parts.append(rows.select("_row", (starts.gather(at) <= pl.col(stop)).alias(name)))
    return frame.with_columns(pl.concat(parts).sort("_row")[name])


def blind_within(rec: Recording, tid: int, start: int, stop: int) -> bool:
    """Say whether a CPU of thread ``tid`` was blind at any time in [start, stop]."""
    spans = blind_spans(rec, tid)
    return any(begin <= stop and end >= start for begin, end in spans)
