"""Readies that answer no life: begun before the trace, or not issued at all."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.holes import holes
from apftrace.model.loss import blind_within

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

_ID_BITS = 20
_HALF = 1 << (_ID_BITS - 1)


def classify(
    rec: Recording, lives: pl.DataFrame, paired: pl.DataFrame, delivered: pl.DataFrame
) -> pl.DataFrame:
    """Turn ``answer`` of readies without a life into ``truncated``, ``undecided``, ``spurious`` or ``unissued``.

    A token's id counts up on its vCPU, so a ready whose id precedes the first not_present seen there was
    begun before the trace, at most 64 a vCPU. Otherwise its not_present lies between those of the ids
    around it: with a loss in that span on a CPU of the thread, or a delivery that shows a record to be missing
    there, nothing can be said. ``unissued`` is a spurious ready whose id is newer than that of every not_present
    before it.
    """
    strays = paired.filter(pl.col("answer") == "none")
    if not strays.height:
        return paired
    issued = _issued(lives.join(strays.select("tid").unique(), on="tid", how="semi", maintain_order="left"))
    shown = holes(rec, delivered, strays["tid"].unique())
    left: dict[int, int] = {}
    verdicts = []
    for seq, tid, token, at in strays.select("seq", "tid", "token", "ready").iter_rows():
        verdict, since, until = _judge(seq, at, token, issued.get(tid, _NONE))
        if verdict == "truncated":
            left[tid] = left.get(tid, 0) + 1
            if left[tid] > tp.PER_VCPU:
                verdict = "spurious"
        hole = any(start < until and stop > since for start, stop in shown.get(tid, ()))
        if verdict != "truncated" and (hole or blind_within(rec, tid, since, until)):
            verdict = "undecided"
        verdicts.append((seq, verdict))
    named = pl.DataFrame(verdicts, schema={"seq": pl.Int64, "verdict": pl.String}, orient="row")
    return (
        paired.join(named, on="seq", how="left", maintain_order="left")
        .with_columns(pl.coalesce("verdict", "answer").alias("answer"))
        .drop("verdict")
    )


@dataclass(frozen=True)
class _Issued:
    """The not_presents of a thread: seq and instant in time order, ids unrolled across the wrap, in order too."""

    seqs: list[int]
    at: list[int]
    ids: list[int]
    sorted_ids: list[int]
    order: list[int]


_NONE = _Issued([], [], [], [], [])


def _issued(lives: pl.DataFrame) -> dict[int, _Issued]:
    """Return per thread its not_presents, so that neighbours by time and by id are found by bisection."""
    out = {}
    for (tid,), rows in lives.group_by("tid", maintain_order=True):
        ids: list[int] = []
        for token in rows["token"]:
            ids.append(_unrolled(_id(token), ids[-1]) if ids else _id(token))
        order = sorted(range(len(ids)), key=ids.__getitem__)
        out[int(tid)] = _Issued(
            rows["life"].to_list(), rows["not_present"].to_list(), ids, [ids[i] for i in order], order
        )
    return out


def _unrolled(ident: int, near: int) -> int:
    """Return the number that is ``ident`` modulo 2^20 and nearest to ``near``."""
    ahead = (ident - near) & ((1 << _ID_BITS) - 1)
    return near + ahead - ((1 << _ID_BITS) if ahead >= _HALF else 0)


def _id(token: int) -> int:
    return (token & 0xFFFFFFFF) >> tp.VCPU_BITS


def _judge(seq: int, at: int, token: int, issued: _Issued) -> tuple[str, int, int]:
    """Return the verdict, and the span in which the not_present must lie if there was one."""
    if not issued.ids:
        return "truncated", at, at
    before = bisect_left(issued.seqs, seq)
    ident = _unrolled(_id(token), issued.ids[max(before - 1, 0)])
    if ident < issued.ids[0]:
        return "truncated", at, at
    # Ids only grow along a thread, so the neighbours by id are neighbours in time.
    older = bisect_left(issued.sorted_ids, ident)
    newer = bisect_right(issued.sorted_ids, ident)
    since = issued.at[issued.order[older - 1]] if older else issued.at[0]
    until = min(at, issued.at[issued.order[newer]]) if newer < len(issued.order) else at
    unissued = not before or issued.ids[before - 1] < ident
    return "unissued" if unissued else "spurious", since, until
