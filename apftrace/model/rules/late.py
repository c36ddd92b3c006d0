"""late-wakeup: which phase took long, why, and to which token the delay is charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.rules.base import (
    EVIDENCE_PER_RULE,
    LIFE_SEQS,
    WARNING,
    Rule,
    duration,
    hexed,
    listed,
)
from apftrace.model.rules.causes import causes_of
from apftrace.model.rules.guest_causes import GUEST_PHASES, causes_in_guest, seen_in_guest
from apftrace.model.rules.spent import longer_half, with_spent

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

_IN_HOST = ("completed", "accepted", "injected", "slot_busy", "blocker", "blocker_life")
_IN_GUEST = ("guest", "guest_tid", "steal", "running", "retry")


def late_lives(case: Case) -> pl.DataFrame:
    """Return the answered lives of which a phase was late, the latest first, with the columns that findings need.

    ``phase`` is the one that was the most over its threshold, by ``excess``.
    """
    over = {p: pl.col(p).fill_null(0) - case.late_after[p] for p in _phases(case)}
    excess = pl.max_horizontal(over.values())
    late = (
        _told(case.lives)
        .filter((case.lives["outcome"] == "answered") & (excess > 0))
        .with_columns(
            excess.alias("excess"),
            pl.coalesce(pl.when(this == excess).then(pl.lit(p)) for p, this in over.items()).alias("phase"),
        )
    )
    return late.sort("excess", "life", descending=[True, False])


def _late_wakeup(case: Case) -> pl.DataFrame:
    late = with_spent(case.rec, late_lives(case))
    in_guest = pl.col("phase").is_in(GUEST_PHASES)
    ran = pl.coalesce(c for c in ("retry", "running", "end") if c in late.columns)
    return late.select(
        pl.lit(WARNING).alias("severity"),
        *_causes(case, late),
        "tid",
        "token",
        "gva",
        pl.col("not_present").alias("ts"),
        pl.when(in_guest).then(ran).otherwise("end").alias("end"),
        "phase",
        _messages(case, late),
        pl.concat_list(LIFE_SEQS).alias("seqs"),
        *_seen(case, late),
        pl.lit(["lost: it was answered"]).alias("ruled_out"),
        _not_ruled_out(case, late),
    )


def _told(lives: pl.DataFrame) -> pl.DataFrame:
    """Return the columns from which a finding, its cause and the cause of its slot's holder are told."""
    of_life = ("tid", "token", "gva", "not_present", "end")
    # The lives have twice as many columns, and all would be filtered.
    names = {*LIFE_SEQS, *_PHASES, *of_life, *_IN_HOST, *_IN_GUEST}
    return lives.select(c for c in lives.columns if c in names)


def _causes(case: Case, late: pl.DataFrame) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Return cause, confidence and blocker of each."""
    holders = _told(case.lives).filter(
        pl.col("life").is_in(late["blocker_life"].drop_nulls().unique().implode())
    )
    in_guest = pl.col("phase").is_in(GUEST_PHASES)
    own = late.filter(~in_guest)
    told = dict(
        zip(own["life"], causes_of(case, own, with_spent(case.rec, longer_half(holders))), strict=True)
    )
    theirs = causes_in_guest(case, late.filter(in_guest)) if own.height < late.height else {}
    stated = [told[life] if life in told else (*theirs[life], None) for life in late["life"]]
    causes, confidences, blockers = zip(*stated, strict=True) if stated else ((), (), ())
    return (
        pl.Series("cause", causes, pl.String),
        pl.Series("confidence", confidences, pl.String),
        pl.Series("blocker", blockers, pl.Int64),
    )


def _messages(case: Case, late: pl.DataFrame) -> pl.Series:
    """Return the message of each: what was late, by how much, and against what."""
    said = {p: f"{_SPAN[p]}; late after {duration(case, case.late_after[p])})" for p in _phases(case)}
    lasted = pl.coalesce(pl.when(pl.col("phase") == p).then(p) for p in said)
    told = [
        f"token {hexed(token)}: {_LABEL[phase]}, {duration(case, ns)} {said[phase]}"
        for token, phase, ns in late.select("token", "phase", lasted.alias("lasted")).iter_rows()
    ]
    return pl.Series("message", told, pl.String)


def _seen(case: Case, late: pl.DataFrame) -> Iterable[pl.Series]:
    """Return the events in the guest's trace of the first ones, where the phase of any was one of the guest."""
    own = late.head(EVIDENCE_PER_RULE).filter(pl.col("phase").is_in(GUEST_PHASES))
    if own.height:
        seen = seen_in_guest(case, own)
        yield listed("evidence", [seen.get(life, []) for life in late["life"]]).alias("seen")


def _not_ruled_out(case: Case, late: pl.DataFrame) -> pl.Series:
    """Return what each may still be due to; a device only where the close look saw none at work."""
    unsettled = {
        (p, device): _unsettled(case, p, device=device) for p in _phases(case) for device in (True, False)
    }
    seen = {key for key, did in case.close.items() if did.device is not None}
    told = [unsettled[key[1], key not in seen] for key in late.select("life", "phase").iter_rows()]
    return listed("not_ruled_out", told)


def _phases(case: Case) -> tuple[str, ...]:
    split = case.lives["p1"].count() > 0
    there = (p for p in _PHASES if p in case.lives.columns)
    return tuple(p for p in there if (p != "p12" if split else p not in ("p1", "p2")))


def _unsettled(case: Case, phase: str, *, device: bool) -> list[str]:
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
