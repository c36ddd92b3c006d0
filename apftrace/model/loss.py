"""Where the trace is blind: which records could have been there and are not.

A life is *tainted* when records were lost while it was open, on a CPU that its vCPU thread was ever
seen on. A missing event of a tainted life proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

_EARLIEST, _LATEST = -(2**62), 2**62


def blind_spans(rec: Recording, tid: int) -> list[tuple[int, int]]:
    """Return the disjoint spans in ns, in order, during which a thread may have left records that are not there.

    Lost records count on the CPUs where the thread was seen; where the record does not even tell who ran on
    the CPU, because it has no record at all, they count for every thread, and so does a CPU without records.
    """
    cpus = rec.cpus_of.get(tid, frozenset())
    silent = {gap.cpu for gap in rec.uncovered}
    # A loss without an end may be of any size: a cut file, statistics that the pages do not account for.
    concern = (x for x in rec.losses if x.cpu in cpus or x.cpu in silent or x.before_ns is None)
    gaps = [*concern, *rec.uncovered]
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


def overlaps_blind(rec: Recording, frame: pl.DataFrame, start: str, stop: str, name: str) -> pl.DataFrame:
    """Add the boolean column ``name``: a CPU of row's ``tid`` was blind at some time in [start, stop].

    Args:
        rec: the recording.
        frame: has ``tid`` and the columns ``start`` and ``stop`` in ns.
        start: column with the first instant.
        stop: column with the last instant.
        name: column to add.
    """
    if not (rec.losses or rec.uncovered) or not frame.height:
        return frame.with_columns(pl.lit(value=False).alias(name))
    parts = []
    for (tid,), rows in frame.with_row_index("_row").group_by("tid"):
        spans = blind_spans(rec, int(tid))
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
