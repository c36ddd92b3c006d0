"""Rows for the odometer, and what it makes of them."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from apftrace.model import ledger, readings
from apftrace.model import tracepoints as tp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

Row = tuple[int, int, int, int, int, int, int]
"""ts, cpu, tid, kind, and the fields a, b, c."""

VCPU, OTHER_VCPU, WORKER, HOG = 101, 102, 50, 900
PAGE = 0x7F008
TOKEN = 0x1000
ASYNC_PF_EXECUTE = 0xC0A51230
VECTOR = 0xF3


def row(ts: int, kind: int, a: int = 0, b: int = 0, c: int = 0, *, tid: int = VCPU, cpu: int = 0) -> Row:
    return ts, cpu, tid, kind, a, b, c


def fed(engine: ModuleType, batches: Sequence[Sequence[Row]], *, lasting: int = 1) -> Any:
    """Return an odometer that took these batches."""
    meter = engine.Odometer(lasting)
    for rows in batches:
        meter.feed(
            *(array(code, values) for code, values in zip("qiiiqqq", zip(*rows, strict=True), strict=True))
        )
    meter.finish()
    return meter


def taken(meter: Any) -> list[dict[str, int]]:
    """Return its anchors in the order of their rows."""
    found = []
    for kind in meter.ledger.kinds():
        columns = meter.ledger.take(kind)
        assert tuple(columns) == (*ledger.EVENT, *readings.READINGS.get(kind, ()))
        found += [
            {"kind": kind, **dict(zip(columns, values, strict=True))}
            for values in zip(*columns.values(), strict=True)
        ]
    return sorted(found, key=lambda anchor: anchor["seq"])


def anchors(engine: ModuleType, *rows: Row) -> list[dict[str, int]]:
    return taken(fed(engine, [rows]))


def spent(engine: ModuleType, *rows: Row, lasting: int = 1, worker: bool = False) -> list[dict[str, Any]]:
    """Return what the phases of vCPUs, or of workers, had that lasted, each with the event that ``ends`` it."""
    found = taken(fed(engine, [rows], lasting=lasting))
    after = {a["seq"] - 1: (a["ts"], a["kind"]) for a in found}
    phases = [{**a, "ends": after[a["seq"]]} for a in found if a["kind"] == tp.SPENT]
    return [phase for phase in phases if (phase["ends"][1] == tp.COMPLETED) is worker]


def kinds(engine: ModuleType, *rows: Row) -> list[int]:
    return [anchor["kind"] for anchor in anchors(engine, *rows)]


def switch(ts: int, before: int, after: int, state: int = 0, *, cpu: int = 0) -> Row:
    return row(ts, tp.SWITCH, before, state, after, tid=before, cpu=cpu)
