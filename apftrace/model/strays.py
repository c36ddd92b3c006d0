"""Readies that answer no life: begun before the trace, or not issued at all."""

from __future__ import annotations

from bisect import bisect_left

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.loss import blind_before
from apftrace.model.recording import Recording

_ID_BITS = 20
_HALF = 1 << (_ID_BITS - 1)


def classify(rec: Recording, lives: pl.DataFrame, paired: pl.DataFrame) -> pl.DataFrame:
    """Turn ``answer`` of readies without a life into ``truncated``, ``undecided``, ``spurious`` or ``unissued``.

    A token's id counts up on its vCPU, so a ready whose id precedes the first not_present seen there was
    begun before the trace, at most 64 a vCPU. Beyond that the record is complete or it is not: with a
    loss up to the ready on a CPU of its thread nothing can be said. ``unissued`` is a spurious ready
    whose id is newer than that of every not_present before it: no fault of that id had happened yet.
    """
    strays = paired.filter(pl.col("answer") == "none")
    if not strays.height:
        return paired
    issued = _issued(lives)
    left: dict[int, int] = {}
    verdicts = []
    for seq, tid, token, at in strays.select("seq", "tid", "token", "ready").iter_rows():
        verdict = _judge(seq, token, *issued.get(tid, ([], [])))
        if verdict == "truncated":
            left[tid] = left.get(tid, 0) + 1
            if left[tid] > tp.PER_VCPU:
                verdict = "spurious"
        if verdict != "truncated" and blind_before(rec, tid, at):
            verdict = "undecided"
        verdicts.append((seq, verdict))
    named = pl.DataFrame(verdicts, schema={"seq": pl.Int64, "verdict": pl.String}, orient="row")
    return (
        paired.join(named, on="seq", how="left", maintain_order="left")
        .with_columns(pl.coalesce("verdict", "answer").alias("answer"))
        .drop("verdict")
    )


def _issued(lives: pl.DataFrame) -> dict[int, tuple[list[int], list[int]]]:
    """Return per thread the seqs and the ids of its not_presents, in time order."""
    out: dict[int, tuple[list[int], list[int]]] = {}
    for tid, seq, token in lives.select("tid", "life", "token").iter_rows():
        seqs, ids = out.setdefault(tid, ([], []))
        seqs.append(seq)
        ids.append(_id(token))
    return out


def _id(token: int) -> int:
    return (token & 0xFFFFFFFF) >> tp.VCPU_BITS


def _judge(seq: int, token: int, seqs: list[int], ids: list[int]) -> str:
    if not ids or _precedes(_id(token), ids[0]):
        return "truncated"
    before = bisect_left(seqs, seq)
    if not before or _precedes(ids[before - 1], _id(token)):
        return "unissued"
    return "spurious"


def _precedes(a: int, b: int) -> bool:
    """Say whether id ``a`` was given out before ``b``, across the wrap at 2^20."""
    return 0 < ((b - a) & ((1 << _ID_BITS) - 1)) < _HALF
