"""Readies that answer no life: begun before the trace, or not issued at all."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.loss import blind_within

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

_ID_BITS = 20
_HALF = 1 << (_ID_BITS - 1)


def classify(rec: Recording, lives: pl.DataFrame, paired: pl.DataFrame) -> pl.DataFrame:
    """Turn ``answer`` of readies without a life into ``truncated``, ``undecided``, ``spurious`` or ``unissued``.

    A token's id counts up on its vCPU, so a ready whose id precedes the first not_present seen there was
    begun before the trace, at most 64 a vCPU. Otherwise its not_present lies between those of the ids
    around it: with a loss in that span on a CPU of the thread nothing can be said. ``unissued`` is a
    spurious ready whose id is newer than that of every not_present before it.
    """
    strays = paired.filter(pl.col("answer") == "none")
    if not strays.height:
        return paired
    issued = _issued(lives)
    left: dict[int, int] = {}
    verdicts = []
    for seq, tid, token, at in strays.select("seq", "tid", "token", "ready").iter_rows():
        verdict, since, until = _judge(seq, at, token, issued.get(tid, []))
        if verdict == "truncated":
            left[tid] = left.get(tid, 0) + 1
            if left[tid] > tp.PER_VCPU:
                verdict = "spurious"
        if verdict != "truncated" and blind_within(rec, tid, since, until):
            verdict = "undecided"
        verdicts.append((seq, verdict))
    named = pl.DataFrame(verdicts, schema={"seq": pl.Int64, "verdict": pl.String}, orient="row")
    return (
        paired.join(named, on="seq", how="left", maintain_order="left")
        .with_columns(pl.coalesce("verdict", "answer").alias("answer"))
        .drop("verdict")
    )


def _issued(lives: pl.DataFrame) -> dict[int, list[tuple[int, int, int]]]:
    """Return per thread the seq, instant and id of its not_presents, in time order."""
    out: dict[int, list[tuple[int, int, int]]] = {}
    for tid, seq, at, token in lives.select("tid", "life", "not_present", "token").iter_rows():
        out.setdefault(tid, []).append((seq, at, _id(token)))
    return out


def _id(token: int) -> int:
    return (token & 0xFFFFFFFF) >> tp.VCPU_BITS


def _judge(seq: int, at: int, token: int, issued: list[tuple[int, int, int]]) -> tuple[str, int, int]:
    """Return the verdict, and the span in which the not_present must lie if there was one."""
    ident = _id(token)
    if not issued or _precedes(ident, issued[0][2]):
        return "truncated", at, at
    # Ids only grow along a thread, so the neighbours by id are neighbours in time.
    older = [row for row in issued if _precedes(row[2], ident)]
    newer = [row for row in issued if _precedes(ident, row[2])]
    since = older[-1][1] if older else issued[0][1]
    until = min(at, newer[0][1]) if newer else at
    before = bisect_left(issued, seq, key=lambda row: row[0])
    unissued = not before or _precedes(issued[before - 1][2], ident)
    return "unissued" if unissued else "spurious", since, until


def _precedes(a: int, b: int) -> bool:
    """Say whether id ``a`` was given out before ``b``, across the wrap at 2^20."""
    return 0 < ((b - a) & ((1 << _ID_BITS) - 1)) < _HALF
