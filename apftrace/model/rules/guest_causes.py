"""Why a task that was woken ran late: the guest's run queue, or the host that kept its vCPU off the CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model.guest.evidence import WAIT_SEQS, events
from apftrace.model.rules.base import LIKELY, POSSIBLE, Row, duration, rows

if TYPE_CHECKING:
    from apftrace.model.correlate import Case
    from apftrace.model.guest.join import GuestSide

MOSTLY = 0.4
"""Share of P6 that the host must have stolen to be the cause."""

GUEST_PHASES = ("p6", "p7")


def causes_in_guest(case: Case, late: pl.DataFrame) -> dict[int, tuple[str, str]]:
    """Return by life why P6 or P7 took long, in one phrase, and how sure that is.

    Args:
        case: the case.
        late: lives with the ``phase`` that was late, one of GUEST_PHASES.
    """
    had = _who_had_it(case, late)
    return {life["life"]: _cause(case, life, had.get(life["life"])) for life in rows(late)}


def _cause(case: Case, life: Row, had: str | None) -> tuple[str, str]:
    if life["phase"] == "p7":
        return "guest: the wait returned late, after the task ran", POSSIBLE
    steal = life["steal"]
    if steal is None:
        return "guest run queue or steal (record sched:sched_switch on the host to tell)", POSSIBLE
    if steal >= MOSTLY * life["p6"]:
        return f"steal: the host kept the vCPU off its CPUs for {duration(case, steal)}", LIKELY
    return f"guest run queue: guest thread {had} had the CPU" if had else "guest run queue", LIKELY


def seen_in_guest(case: Case, late: pl.DataFrame) -> dict[int, list[dict[str, object]]]:
    """Return by life what the guest recorded of it, as evidence."""
    seen: dict[int, list[dict[str, object]]] = {}
    for side in case.guests:
        waits = _waits_of(side, late).unique("life", keep="first", maintain_order=True)
        told = waits.select("life", *WAIT_SEQS).rows()
        found = events(side, (seq for _, *seqs in told for seq in seqs))
        seen |= {life: [found[seq] for seq in sorted({*seqs} & found.keys())] for life, *seqs in told}
    return seen


def _waits_of(side: GuestSide, lives: pl.DataFrame) -> pl.DataFrame:
    """Return the waits of a guest that belong to lives followed into it."""
    own = lives.filter(pl.col("guest") == side.rec.machine)["life"]
    return side.waits.filter(pl.col("life").is_in(own.implode()))


def _who_had_it(case: Case, lives: pl.DataFrame) -> dict[int, str]:
    """Name by life the guest thread that had the CPU when the waiter became runnable, where a switch told it."""
    had: dict[int, str] = {}
    for side in case.guests:
        waits = _waits_of(side, lives).select("life", "guest_tid", pl.col("wakeup_seq").alias("seq"))
        woken = side.rec.hits.select("seq", "c").join(waits, on="seq", how="inner", maintain_order="left")
        for life, tid, waiter in woken.drop_nulls("c").select("life", "c", "guest_tid").iter_rows():
            comm = side.rec.comms.get(tid)
            if tid not in (0, waiter):
                had.setdefault(life, f"{comm}-{tid}" if comm else str(tid))
    return had
