"""late-wakeup: which phase took long, why, and to which token the delay is charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.rules.base import (
    LIFE_SEQS,
    WARNING,
    Finding,
    Row,
    Rule,
    about,
    duration,
    hexed,
    rows,
)
from apftrace.model.rules.causes import cause_of, longer_half, with_spent
from apftrace.model.rules.guest_causes import GUEST_PHASES, cause_in_guest, seen_in_guest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case

_PHASES = ("p1", "p2", "p12", "p3", "p4", "p5", *GUEST_PHASES)
_LABEL = {
    "p1": "the worker started late",
    "p2": "the page came late",
    "p12": "the page came late",
    "p3": "KVM handed the page-ready over late",
    "p4": "the guest took the interrupt late",
    "p5": "the guest's handler was slow to ACK",
    "p6": "the guest let its task wait for a CPU",
    "p7": "the guest's task was slow to return from its wait",
}

_SPAN = {
    "p1": "from not_present to the start of the work (P1",
    "p2": "from the start of the work to completed (P2",
    "p12": "from not_present to completed (P1+P2",
    "p3": "from completed to ready (P3",
    "p4": "from accepted to injected (P4",
    "p5": "from injected to ACK (P5",
    "p6": "from woken to running (P6",
    "p7": "from running to its return (P7",
}

_COLUMNS = frozenset(
    {
        *LIFE_SEQS, *_PHASES, "phase", "tid", "token", "gva", "not_present", "completed", "accepted", "injected", "end",
        "slot_busy", "blocker", "blocker_life", "guest", "guest_tid", "steal", "running", "retry",
    }
)  # fmt: skip
"""What a finding, its cause and the cause of its slot's holder are told from."""


def late_lives(case: Case) -> pl.DataFrame:
    """Return the answered lives of which a phase was late, the latest first.

    ``phase`` is the one that was the most over its threshold, by ``excess``.
    """
    over = {p: pl.col(p).fill_null(0) - case.late_after[p] for p in _phases(case)}
    excess = pl.max_horizontal(over.values())
    late = case.lives.filter((pl.col("outcome") == "answered") & (excess > 0)).with_columns(
        excess.alias("excess"),
        pl.coalesce(pl.when(this == excess).then(pl.lit(p)) for p, this in over.items()).alias("phase"),
    )
    return late.sort("excess", "life", descending=[True, False])


def _late_wakeup(case: Case) -> Iterable[Finding]:
    late = with_spent(case.rec, _told(late_lives(case)))
    holders = _told(case.lives).filter(
        pl.col("life").is_in(late["blocker_life"].drop_nulls().unique().implode())
    )
    by_life = {r["life"]: r for r in rows(with_spent(case.rec, longer_half(holders)))}
    said = {p: f"{_SPAN[p]}; late after {duration(case, case.late_after[p])})" for p in _phases(case)}
    unsettled = {p: _unsettled(case, p) for p in said}
    for life in rows(late):
        phase = life["phase"]
        if phase in GUEST_PHASES:
            (cause, confidence), blocker = cause_in_guest(case, life, phase), None
        else:
            cause, confidence, blocker = cause_of(case, life, by_life)
        found = about(
            life,
            severity=WARNING,
            confidence=confidence,
            phase=phase,
            cause=cause,
            blocker=blocker,
            message=(
                f"token {hexed(life['token'])}: {_LABEL[phase]}, {duration(case, life[phase])} {said[phase]}"
            ),
            ruled_out=["lost: it was answered"],
            not_ruled_out=_unsettled(case, phase, device=False)
            if _device_seen(case, life, phase)
            else unsettled[phase],
        )
        if phase in GUEST_PHASES:
            found["end"] = life["retry"] if life["retry"] is not None else life["running"]
            found["seen"] = seen_in_guest(case, life)
        yield found


def _told(lives: pl.DataFrame) -> pl.DataFrame:
    # A row of all columns takes as long to make as the finding itself.
    return lives.select(c for c in lives.columns if c in _COLUMNS)


def _phases(case: Case) -> tuple[str, ...]:
    split = case.lives["p1"].count() > 0
    there = (p for p in _PHASES if p in case.lives.columns)
    return tuple(p for p in there if (p != "p12" if split else p not in ("p1", "p2")))


def _device_seen(case: Case, life: Row, phase: str) -> bool:
    did = case.close.get((life["life"], phase))
    return did is not None and did.device is not None


def _unsettled(case: Case, phase: str, *, device: bool = True) -> list[str]:
    """Return what a late phase may still be due to; ``device`` says whether that may be one."""
    out = []
    if device and phase in ("p2", "p12"):
        out.append("device or queue: record block:block_rq_issue and block:block_rq_complete")
    if phase == "p4":
        out.append("a higher task priority in the guest (TPR), which holds the interrupt back as IF=0 does")
    if phase == "p12":
        out.append("whether the worker started late or the page came late: record workqueue:*")
    if not case.rec.has(tp.SWITCH):
        out.append("who had the CPU: record sched:sched_switch and sched:sched_waking")
    return out


LATE_WAKEUP = Rule(
    id="late-wakeup",
    severities=(WARNING,),
    title="Answered, but late",
    means="The task or the vCPU waited far longer than others did.",
    shown_by="A phase longer than --late-after, or without that option longer than 10 ms and ten medians of the "
    "phase. The cause comes from what the threads did meanwhile (sched events), from the slot's holder, and from "
    "entries into the guest without the injection.",
    look_alikes="A victim of a busy slot: its wait for the slot is the interrupt and handler time of the token before "
    "it, to which it is charged.",
    needs=(tp.NOT_PRESENT, tp.READY),
    helps=(
        tp.COMPLETED,
        tp.SWITCH,
        tp.WAKING,
        tp.QUEUE_WORK,
        tp.EXECUTE_START,
        tp.ACCEPT,
        tp.INJ_VIRQ,
        tp.MSR,
    ),
    remedy="A late page: the swap device, the memory backend. A late worker or hand-over: host CPU pressure. A late "
    "interrupt: what runs in the guest with interrupts off. A late ACK: steal time, the guest's handler.",
    bugs=("2020 SEND_ALWAYS thread: 10 s of IF=0 made the ready 10 s late, and nothing was lost",),
    find=_late_wakeup,
    times=True,
)

RULES = (LATE_WAKEUP,)
