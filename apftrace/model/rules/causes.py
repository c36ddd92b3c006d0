"""Why a phase took long: what the threads did meanwhile, who had the CPU, and who held the slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import timeline
from apftrace.model import tracepoints as tp
from apftrace.model.readings import READINGS, SHARES
from apftrace.model.rules.base import LIKELY, POSSIBLE, PROVED, Row, duration, hexed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apftrace.model.correlate import Case
    from apftrace.model.recording import Recording
    from apftrace.model.timeline import Spent

IRQS_OFF = "guest interrupts off"
_IN_WORKER = "slow fault-in or worker queueing"
MOSTLY = 0.4
"""Share of a phase that the vCPU must have spent inside the guest for the guest to be the cause."""

_ASLEEP = {
    "slept": "vCPU halted or asleep in the host",
    "blocked": "vCPU in uninterruptible sleep in the host (a synchronous page-in, a lock)",
}
_ENDS = {
    "p1": "completed_seq", "p2": "completed_seq", "p12": "completed_seq",
    "p3": "ready_seq", "p4": "inj_seq", "p5": "ack_seq",
}  # fmt: skip
"""The anchor that ends each phase; of P1 and P2 the worker is asked for both at once."""

_IN_WORKERS = ("p1", "p2", "p12")

_BEGINS = {"p3": "completed", "p4": "accepted", "p5": "injected"}
"""The instant at which what the vCPU thread did in a phase begins to count."""

_OFF = 10
"""What a thread did is told of a phase when it was counted from an instant that is off by no more than a tenth."""

Cause = tuple[str, str]
"""The cause in one phrase, and how sure it is."""


def with_spent(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Add to lives what the thread concerned did in the column ``phase`` of each.

    Adds ``spent_from``, ``spent_ran`` and so on for the other ``READINGS[SPENT]``; null where the phase did not
    last, see ``phases.lasting``, or where another life's phase was counted. ``did`` is what it did for most of the
    time, one of SHARES, and ``did_ns`` for how long.
    """
    spent = rec.kind(tp.SPENT).select(
        (pl.col("seq") + 1).alias("ends_seq"),
        pl.col("a").alias("spent_from"),
        *(pl.col(c).alias(f"spent_{c}") for c in READINGS[tp.SPENT]),
    )
    ends, begins, lasted = (
        pl.coalesce(pl.when(pl.col("phase") == phase).then(column) for phase, column in table.items())
        for table in (_ENDS, _BEGINS, {phase: phase for phase in _BEGINS})
    )
    found = lives.with_columns(ends.alias("ends_seq")).join(
        spent, on="ends_seq", how="left", maintain_order="left"
    )
    other = (_OFF * (pl.col("spent_from") - begins).abs() > lasted).fill_null(value=False)
    return _with_most(found.with_columns(pl.when(~other).then(pl.col("^spent_.*$"))).drop("ends_seq"))


def _with_most(lives: pl.DataFrame) -> pl.DataFrame:
    # The worker's sums reach back to its previous life: no more than the phase itself can count, and no sleep.
    worker = pl.col("phase").is_in(_IN_WORKERS)
    ns = {
        share: pl.when(worker)
        .then(pl.min_horizontal("p12", f"spent_{share}") if share != "slept" else None)
        .otherwise(f"spent_{share}")
        for share in SHARES
    }
    lives = lives.with_columns(pl.max_horizontal(ns.values()).alias("did_ns"))
    most = {share: (took == pl.col("did_ns")) & (took > 0) for share, took in ns.items()}
    return lives.with_columns(
        pl.coalesce(pl.when(hit).then(pl.lit(share)) for share, hit in most.items()).alias("did")
    )


def longer_half(lives: pl.DataFrame) -> pl.DataFrame:
    """Add ``phase``, p4 or p5, whichever kept the slot longer; p4 where neither is known."""
    p4_is = pl.col("p4").fill_null(0) >= pl.col("p5").fill_null(0)
    return lives.with_columns(pl.when(p4_is).then(pl.lit("p4")).otherwise(pl.lit("p5")).alias("phase"))


CAUSED_BY = (
    "life", "phase", "p3", "p4", "p5", "slot_busy", "blocker", "blocker_life",
    "spent_ran", "spent_guest", "spent_hog", "did", "did_ns",
)  # fmt: skip
"""Columns from which the cause of a late phase is told."""


def cause_of(case: Case, life: Row, holders: Mapping[object, Row]) -> tuple[str, str, int | None]:
    """Return cause, confidence and the token to which the delay is charged, if it is another's.

    Args:
        case: the case.
        life: row of the late life, with the ``phase`` that was late and what was ``spent`` in it.
        holders: rows of the lives that held a slot, by life, each with the same of its ``longer_half``.
    """
    phase = life["phase"]
    did = case.close.get((life["life"], phase))
    if phase == "p1":
        who = _hog(case, did) if did else ""
        return f"worker queueing: the work item was not started{who}", PROVED, None
    if phase in ("p2", "p12"):
        close = _seen_closely(case, did) if did else None
        return *(close or _cause_in_worker(case, life)), None
    if phase == "p3" and 2 * (life["slot_busy"] or 0) >= life["p3"] and life["blocker"] is not None:
        return _cause_in_predecessor(case, life, holders)
    return *_cause_in_vcpu(case, life), None


def _seen_closely(case: Case, did: Spent) -> Cause | None:
    """Return what held up the worker, as its records tell it one by one."""
    top = did.most
    if top == timeline.BLOCKED:
        slept = did.ns[top]
        told = f"the worker slept uninterruptibly for {duration(case, slept)}"
        if did.device and did.device >= MOSTLY * slept:
            dev, sector, _ = max(did.requests, key=lambda request: request[2])
            where = f"device {timeline.device_name(dev)}, sector {sector}"
            return f"slow I/O: {where}: {duration(case, did.device)} from issue to completion; {told}", LIKELY
        if did.lock >= MOSTLY * slept:
            return f"mmap_lock: waited for it for {duration(case, did.lock)}; {told}", LIKELY
        if did.reclaim >= MOSTLY * slept:
            return f"direct reclaim for {duration(case, did.reclaim)}; {told}", LIKELY
        return f"slow I/O: {told}", LIKELY
    if top == timeline.WAITED:
        waited = duration(case, did.ns[top])
        return f"worker queueing: runnable but not on a CPU for {waited}{_hog(case, did)}", LIKELY
    if top == timeline.SLEPT:
        return f"the worker slept for {duration(case, did.ns[top])}, waiting for someone else", POSSIBLE
    return None


def _hog(case: Case, did: Spent) -> str:
    return "".join(_who(case, tid) for tid, _ in did.others.most_common(1))


def _cause_in_worker(case: Case, life: Row) -> Cause:
    if not case.rec.has(tp.SWITCH):
        return f"{_IN_WORKER} (record sched:sched_switch and workqueue:* to tell)", POSSIBLE
    lasted = duration(case, life["did_ns"])
    if life["did"] == "blocked":
        return f"slow I/O: the worker slept uninterruptibly for {lasted}", LIKELY
    if life["did"] == "waited":
        who = _who(case, life["spent_hog"])
        return f"worker queueing: runnable but not on a CPU for {lasted}{who}", LIKELY
    return _IN_WORKER, POSSIBLE


def _cause_in_predecessor(
    case: Case, life: Row, holders: Mapping[object, Row]
) -> tuple[str, str, int | None]:
    holder = holders.get(life["blocker_life"])
    held, token = duration(case, life["slot_busy"]), hexed(life["blocker"])
    why = "not ACKed"
    if holder is not None and holder[holder["phase"]] is not None:
        if not _lasted(case, holder):
            return f"slot held {held} by several predecessors, longest by {token}", PROVED, life["blocker"]
        why = _cause_in_vcpu(case, holder)[0]
    return f"slot held {held} by predecessor {token}: {why}", PROVED, life["blocker"]


def _lasted(case: Case, holder: Row) -> bool:
    """Say whether a phase of a slot's holder was long enough to be asked for its cause."""
    return holder["spent_ran"] is not None or holder[holder["phase"]] > case.late_after[holder["phase"]]


def _cause_in_vcpu(case: Case, life: Row) -> Cause:
    phase = life["phase"]
    top = life["did"] if case.rec.has(tp.SWITCH) else None
    if top == "waited":
        close = case.close.get((life["life"], phase))
        who = _who(case, life["spent_hog"]) or (_hog(case, close) if close else "")
        return (
            f"vCPU not scheduled: runnable but not on a CPU for {duration(case, life['did_ns'])}{who}",
            LIKELY,
        )
    if top in _ASLEEP:
        return f"{_ASLEEP[top]} for {duration(case, life['did_ns'])}", LIKELY
    return _cause_while_running(case, life, ran=top == "ran")


def _cause_while_running(case: Case, life: Row, *, ran: bool) -> Cause:
    phase = life["phase"]
    if phase == "p3":
        return (
            "vCPU on a CPU, ready not handed over" if ran else "unknown (record sched:sched_switch)"
        ), POSSIBLE
    # What counts is the time inside the guest, not that the vCPU thread was on a CPU.
    inside = life["spent_guest"]
    if not case.rec.has(tp.ENTRY, tp.EXIT) or inside is None:
        return "unknown (record kvm:kvm_entry and kvm:kvm_exit)", POSSIBLE
    if inside < MOSTLY * life[phase]:
        return f"vCPU busy in the host: only {duration(case, inside)} inside the guest", LIKELY
    if phase == "p5":
        return "slow guest handler", LIKELY
    return IRQS_OFF, LIKELY


def _who(case: Case, tid: int | None) -> str:
    """Name the thread that had the CPU meanwhile."""
    if not tid:
        return ""
    comm = case.comms.get(tid)
    return f" while {comm} ({tid}) ran" if comm else f" while thread {tid} ran"
