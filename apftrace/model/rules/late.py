"""late-wakeup: which phase took long, why, and to which token the delay is charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.rules.base import (
    LIKELY,
    POSSIBLE,
    PROVED,
    WARNING,
    Finding,
    Row,
    Rule,
    about,
    duration,
    hexed,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case

_PHASES = ("p1", "p2", "p12", "p3", "p4", "p5")
_LABEL = {
    "p1": "the worker started late",
    "p2": "the page came late",
    "p12": "the page came late",
    "p3": "KVM handed the page-ready over late",
    "p4": "the guest took the interrupt late",
    "p5": "the guest's handler was slow to ACK",
}
_ASLEEP = {
    "slept": "vCPU halted or asleep in the host",
    "blocked": "vCPU in uninterruptible sleep in the host (a synchronous page-in, a lock)",
}
IRQS_OFF = "guest interrupts off"


def _late_wakeup(case: Case) -> Iterable[Finding]:
    lives = case.lives
    phases = _phases(case)
    answered = lives.filter(pl.col("outcome") == "answered")
    excess = [
        pl.when(pl.col(p) > case.late_after[p]).then(pl.col(p) - case.late_after[p]).otherwise(0).fill_null(0)
        for p in phases
    ]
    late = answered.with_columns(pl.max_horizontal(excess).alias("excess")).filter(pl.col("excess") > 0)
    by_life = {
        r["life"]: r
        for r in rows(
            lives.filter(pl.col("life").is_in(late["blocker_life"].drop_nulls().unique().implode()))
        )
    }
    for life in rows(late.sort("excess", "life", descending=[True, False])):
        phase = max(phases, key=lambda p: (life[p] or 0) - case.late_after[p])
        cause, confidence, blocker = _cause(case, life, phase, by_life)
        yield about(
            life,
            severity=WARNING,
            confidence=confidence,
            phase=phase,
            cause=cause,
            blocker=blocker,
            message=(
                f"token {hexed(life['token'])}: {_LABEL[phase]}, "
                f"{duration(case, life[phase])} in {phase.upper()}"
                f" (late after {duration(case, case.late_after[phase])})"
            ),
            ruled_out=["lost: it was answered"],
            not_ruled_out=_unsettled(case, phase),
        )


def _phases(case: Case) -> tuple[str, ...]:
    split = case.lives["p1"].count() > 0
    return tuple(p for p in _PHASES if (p != "p12" if split else p not in ("p1", "p2")))


def _cause(case: Case, life: Row, phase: str, by_life: dict[object, Row]) -> tuple[str, str, int | None]:
    if phase == "p3":
        return _cause_of_p3(case, life, by_life)
    cause, confidence = _CAUSES[phase](case, life)
    return cause, confidence, None


def _shares(life: Row, start: str, stop: str) -> dict[str, int]:
    """Return what the vCPU thread did between two readings, in ns: ran, waited, slept, blocked."""
    if life[f"{start}_ran"] is None or life[f"{stop}_ran"] is None:
        return {}
    return {
        c: max(0, int(life[f"{stop}_{c}"]) - int(life[f"{start}_{c}"]))
        for c in ("ran", "waited", "slept", "blocked")
    }


def _main(shares: dict[str, int]) -> str | None:
    return max(shares, key=lambda c: shares[c]) if any(shares.values()) else None


def _cause_of_worker(case: Case, life: Row) -> tuple[str, str]:
    """P1 and P2: what the kworker did, by its own sums since its previous life."""
    if not case.rec.has(tp.SWITCH) or life["work_ran"] is None:
        return (
            "slow fault-in or worker queueing (record sched:sched_switch and workqueue:* to tell)",
            POSSIBLE,
        )
    span = int(life["p12"])
    did = {c: min(span, int(life[f"work_{c}"])) for c in ("ran", "waited", "blocked")}
    top = _main(did)
    if top == "blocked":
        return f"slow I/O: the worker slept uninterruptibly for {duration(case, did['blocked'])}", LIKELY
    if top == "waited":
        return (
            f"worker queueing: the worker was runnable but not on a CPU for {duration(case, did['waited'])}",
            LIKELY,
        )
    return "slow fault-in or worker queueing", POSSIBLE


def _cause_of_p1(case: Case, life: Row) -> tuple[str, str]:
    return "worker queueing: the work item was not started", PROVED


def _cause_of_p3(case: Case, life: Row, by_life: dict[object, Row]) -> tuple[str, str, int | None]:
    p3, busy = int(life["p3"]), int(life["slot_busy"] or 0)
    if 2 * busy >= p3 and life["blocker"] is not None:
        holder = by_life.get(life["blocker_life"])
        why = _why_held(case, holder) if holder else "not ACKed"
        blocker = int(life["blocker"])
        text = f"slot held {duration(case, busy)} by predecessor {hexed(blocker)}: {why}"
        return text, PROVED, blocker
    did = _shares(life, "comp", "ready") if case.rec.has(tp.SWITCH) else {}
    top = _main(did)
    if top == "waited":
        return (
            f"vCPU not scheduled: runnable but not on a CPU for {duration(case, did['waited'])}",
            LIKELY,
            None,
        )
    if top in _ASLEEP:
        return f"{_ASLEEP[top]} for {duration(case, did[top])}", LIKELY, None
    if top == "ran":
        return "vCPU on a CPU, ready not handed over", POSSIBLE, None
    return "unknown (record sched:sched_switch)", POSSIBLE, None


def _why_held(case: Case, holder: Row) -> str:
    phase = "p4" if (holder["p4"] or 0) >= (holder["p5"] or 0) else "p5"
    if holder["p4"] is None and holder["acked"] is None:
        return "not ACKed"
    return _CAUSES[phase](case, holder)[0]


def _cause_of_p4(case: Case, life: Row) -> tuple[str, str]:
    """P4: with the vCPU on a CPU and no injection, the guest had interrupts off; 0xf3 is the top class."""
    did = _shares(life, "acc", "inj") if case.rec.has(tp.SWITCH) else {}
    top = _main(did)
    if top == "waited":
        return f"vCPU not scheduled: runnable but not on a CPU for {duration(case, did['waited'])}", LIKELY
    if top in _ASLEEP:
        return f"{_ASLEEP[top]} for {duration(case, did[top])}", LIKELY
    entered = int(life["inj_entries"] or 0) - int(life["acc_entries"] or 0)
    if top == "ran" or entered > 1:
        return IRQS_OFF, LIKELY
    return "unknown (record sched:sched_switch and kvm:kvm_entry)", POSSIBLE


def _cause_of_p5(case: Case, life: Row) -> tuple[str, str]:
    did = _shares(life, "inj", "ack") if case.rec.has(tp.SWITCH) else {}
    top = _main(did)
    if top == "waited":
        return f"vCPU not scheduled: runnable but not on a CPU for {duration(case, did['waited'])}", LIKELY
    if top in _ASLEEP:
        return f"{_ASLEEP[top]} for {duration(case, did[top])}", LIKELY
    return "slow guest handler", POSSIBLE


_CAUSES = {
    "p1": _cause_of_p1,
    "p2": _cause_of_worker,
    "p12": _cause_of_worker,
    "p4": _cause_of_p4,
    "p5": _cause_of_p5,
}


def _unsettled(case: Case, phase: str) -> list[str]:
    out = []
    if phase == "p12":
        out.append("P1 or P2: record workqueue:* to split them")
    if not case.rec.has(tp.SWITCH):
        out.append("who had the CPU: record sched:sched_switch and sched:sched_waking")
    return out


LATE_WAKEUP = Rule(
    id="late-wakeup",
    title="Answered, but late",
    means="The task or the vCPU waited far longer than others did.",
    shown_by="A phase longer than --late-after, or without that option longer than 10 ms and ten medians of the "
    "phase. The cause comes from what the threads did meanwhile (sched events), from the slot's holder, and from "
    "entries into the guest without the injection.",
    look_alikes="A victim of a busy slot: its P3 is the P4 and P5 of the token before it, to which it is charged.",
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
    remedy="P2: the swap device, the memory backend. P1 and P3: host CPU pressure. P4: what runs in the guest with "
    "interrupts off. P5: steal time, the guest's handler.",
    bugs=("2020 SEND_ALWAYS thread: 10 s of IF=0 made the ready 10 s late, and nothing was lost",),
    find=_late_wakeup,
)

RULES = (LATE_WAKEUP,)
