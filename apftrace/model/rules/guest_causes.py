"""Why a task that was woken ran late: the guest's run queue, or the host that kept its vCPU off the CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model.guest.evidence import WAIT_SEQS, shown
from apftrace.model.rules.base import LIKELY, POSSIBLE, Row, duration

if TYPE_CHECKING:
    from apftrace.model.correlate import Case
    from apftrace.model.guest.join import GuestSide

MOSTLY = 0.4
"""Share of P6 that the host must have stolen to be the cause."""

GUEST_PHASES = ("p6", "p7")


def cause_in_guest(case: Case, life: Row, phase: str) -> tuple[str, str]:
    """Return why P6 or P7 of a life took long, in one phrase, and how sure that is."""
    if phase == "p7":
        return "guest: the wait returned late, after the task ran", POSSIBLE
    steal = life["steal"]
    if steal is None:
        return "guest run queue or steal (record sched:sched_switch on the host to tell)", POSSIBLE
    if steal >= MOSTLY * life["p6"]:
        return f"steal: the host kept the vCPU off its CPUs for {duration(case, steal)}", LIKELY
    return f"guest run queue{_who_had_it(_side(case, life), life)}", LIKELY


def seen_in_guest(case: Case, life: Row) -> list[dict[str, object]]:
    """Return what the guest recorded of a life, as evidence."""
    side = _side(case, life)
    own = side.waits.filter(pl.col("life") == life["life"])
    return shown(side, own.select(WAIT_SEQS).row(0)) if own.height else []


def _side(case: Case, life: Row) -> GuestSide:
    return next(side for side in case.guests if side.rec.machine == life["guest"])


def _who_had_it(side: GuestSide, life: Row) -> str:
    """Name the guest thread that had the CPU when the waiter became runnable, where a switch told it."""
    wakeups = side.waits.filter(pl.col("life") == life["life"])["wakeup_seq"].drop_nulls()
    had = side.rec.hits.filter(pl.col("seq").is_in(wakeups.implode()))["c"].drop_nulls()
    if not len(had) or had[0] in (0, life["guest_tid"]):
        return ""
    comm = side.rec.comms.get(had[0])
    return f": guest thread {f'{comm}-' if comm else ''}{had[0]} had the CPU"
