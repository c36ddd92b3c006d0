"""A guest's hits as evidence of a finding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.guest.join import GuestSide

WAIT_SEQS = ("wait_seq", "out_seq", "irq_seq", "wake_seq", "wakeup_seq", "in_seq", "return_seq", "all_seq")
"""Columns of a guest's waits that name hits, in the usual order."""


def shown(side: GuestSide, seqs: Iterable[int | None]) -> list[dict[str, object]]:
    """Return the evidence row of each hit, in their order."""
    return list(events(side, seqs).values())


def events(side: GuestSide, seqs: Iterable[int | None]) -> dict[int, dict[str, object]]:
    """Return by seq the evidence row (ts, cpu, tid, event, text) of each hit, the guest's name before the event."""
    wanted = sorted({s for s in seqs if s is not None})
    rows = side.rec.hits.filter(pl.col("seq").is_in(wanted))
    return {
        row["seq"]: {
            "ts": side.at(row["ts"]),
            "cpu": row["cpu"],
            "tid": row["tid"] if row["tid"] >= 0 else None,
            "event": f"{side.rec.machine}:{_name(side, row['kind'])}",
            "text": _text(row),
        }
        for row in rows.iter_rows(named=True)
    }


def _name(side: GuestSide, kind: str) -> str:
    names = side.rec.hooks.get(kind, ())
    return names[0].rpartition(":")[2] if len(names) == 1 else kind


def _text(row: dict[str, Any]) -> str:
    kind, a, b = row["kind"], row["a"], row["b"]
    if kind == "switch":
        return f"prev_pid={row['tid']} prev_state={a:#x} ==> next_pid={b}"
    if kind in ("waking", "wakeup"):
        return f"pid={a} target_cpu={b:03d}" if b is not None else f"pid={a}"
    return "" if row["token"] is None else f"token={row['token']:#x}"
