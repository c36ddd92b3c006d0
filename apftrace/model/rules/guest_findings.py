"""How rules about a guest state what they find: the wait or the wake, and the life on the host that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from apftrace.model.guest.evidence import WAIT_SEQS, shown
from apftrace.model.rules.base import (
    Finding,
    Row,
    finding,
    rows,
)

if TYPE_CHECKING:
    from apftrace.model.correlate import Case
    from apftrace.model.guest.join import GuestSide


def about_guest(side: GuestSide, row: Row, life: Row | None, **stated: Any) -> Finding:
    """Return a finding about a wait or a wake of a guest, and the life that it belongs to."""
    own = [row.get(c) for c in WAIT_SEQS]
    start = row.get("wait") if row.get("wait") is not None else row.get("wake")
    return finding(
        machine=side.rec.machine,
        tid=life["tid"] if life else None,
        token=token_of(row, life),
        gva=life["gva"] if life else None,
        ts=min(life["not_present"], start) if life and start is not None else start,
        end=stated.pop("end", None) or side.last,
        seqs=[life[c] for c in ("life", "ready_seq", "acc_seq", "inj_seq", "ack_seq")] if life else [],
        seen=shown(side, own),
        **stated,
    )


def lives_by_id(case: Case, frame: pl.DataFrame) -> dict[int, Row]:
    """Return the lives that the rows of a frame belong to, by life."""
    wanted = frame["life"].drop_nulls().unique()
    return {r["life"]: r for r in rows(case.lives.filter(pl.col("life").is_in(wanted.implode())))}


def token_of(row: Row, life: Row | None) -> int | None:
    """Return the token of a wait or wake, from its life where the guest's tracer gives none."""
    token = row["token"] if row["token"] is not None or life is None else life["token"]
    return None if token is None else int(token)


def who(side: GuestSide, row: Row) -> str:
    """Name the guest's thread that waits."""
    tid = row["guest_tid"]
    if tid is None or tid < 0:
        return "a guest thread"
    comm = side.rec.comms.get(tid)
    return f"guest thread {comm}-{tid}" if comm else f"guest thread {tid}"
