"""Why a phase took long: what the threads did meanwhile, who had the CPU, and who held the slot.

What is to be said is decided for all lives at once; only the words are put together life by life.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import timeline
from apftrace.model import tracepoints as tp
from apftrace.model.rules.base import LIKELY, POSSIBLE, PROVED, duration, hexed
from apftrace.model.rules.spent import SLOT_PHASES, WORKER_PHASES

if TYPE_CHECKING:
    from apftrace.model.correlate import Case
    from apftrace.model.timeline import Spent

MOSTLY = 0.4
"""Share of a phase that the vCPU must have spent inside the guest for the guest to be the cause."""

Cause = tuple[str, str]
"""The cause in one phrase, and how sure it is."""

_FAULT_IN = "slow fault-in or worker queueing"
_NO_CPU = "runnable but not on a CPU for {took}{who}"
_WHY: dict[str, Cause] = {
    "not started": ("worker queueing: the work item was not started{who}", PROVED),
    "worker blocked": ("slow I/O: the worker slept uninterruptibly for {took}", LIKELY),
    "worker waited": (f"worker queueing: {_NO_CPU}", LIKELY),
    "worker": (_FAULT_IN, POSSIBLE),
    "worker unseen": (f"{_FAULT_IN} (record sched:sched_switch and workqueue:* to tell)", POSSIBLE),
    "vCPU waited": (f"vCPU not scheduled: {_NO_CPU}", LIKELY),
    "vCPU slept": ("vCPU halted or asleep in the host for {took}", LIKELY),
    "vCPU blocked": (
        "vCPU in uninterruptible sleep in the host (a synchronous page-in, a lock) for {took}",
        LIKELY,
    ),
    "vCPU ran": ("vCPU on a CPU, ready not handed over", POSSIBLE),
    "vCPU unseen": ("unknown (record sched:sched_switch)", POSSIBLE),
    "guest unseen": ("unknown (record kvm:kvm_entry and kvm:kvm_exit)", POSSIBLE),
    "host": ("vCPU busy in the host: only {took} inside the guest", LIKELY),
    "handler": ("slow guest handler", LIKELY),
    "interrupts off": ("guest interrupts off", LIKELY),
}
_SLOT = "slot"
_FAULTED_IN = ("p2", "p12")
_SLOT_HELD = re.compile(
    r"slot held .+? by (?:predecessor 0x[0-9a-f]+: (?P<why>.+)|several predecessors)", re.S
)
_OWN = re.compile(r": | for \d| \(")
"""Where a cause goes on with what it says of one life alone: how long, who, where."""
_HALF = pl.when(pl.col("phase") == "p4").then("p4").otherwise("p5")
"""How long P4 or P5 lasted, whichever is the phase."""


def causes_of(
    case: Case, lives: pl.DataFrame, holders: pl.DataFrame | None = None
) -> list[tuple[str, str, int | None]]:
    """Return cause, confidence and the token to which the delay is charged, if it is another's, of each life.

    Args:
        case: the case.
        lives: lives with the ``phase`` that was late and what ``with_spent`` adds.
        holders: the lives that held a slot meanwhile, each with the same for its ``longer_half``.
    """
    held = {} if holders is None else _causes_of_holders(case, holders)
    took = pl.when(pl.col("why") == "host").then("spent_guest").otherwise("did_ns").alias("took")
    told = lives.with_columns(_why(case).alias("why")).select(
        "why", "life", "phase", took, "spent_hog", "slot_busy", "blocker", "blocker_life"
    )
    return [
        _charged(case, busy, token, held.get(holder, "not ACKed"))
        if why == _SLOT
        else (*_worded(case, (life, phase), why, ns, hog), None)
        for why, life, phase, ns, hog, busy, token, holder in told.iter_rows()
    ]


def kind_of(cause: str) -> str:
    """Return what causes of many lives have in common: without how long, who and where."""
    held = _SLOT_HELD.match(cause)
    if held:
        return (
            f"predecessor in the slot: {kind_of(held['why'])}" if held["why"] else "predecessors in the slot"
        )
    kind = _OWN.split(cause, maxsplit=1)[0]
    return cause if kind == "guest" else kind


def _why(case: Case) -> pl.Expr:
    """Return which of ``_WHY`` applies, or ``_SLOT``."""
    phase = pl.col("phase")
    held = (phase == "p3") & (2 * pl.col("slot_busy") >= pl.col("p3")) & pl.col("blocker").is_not_null()
    # What counts is the time inside the guest, not that the vCPU thread was on a CPU.
    inside = pl.col("spent_guest") if case.rec.has(tp.ENTRY, tp.EXIT) else pl.lit(None, pl.Int64)
    asleep = pl.col("did").is_in(["waited", "slept", "blocked"]) & pl.lit(case.rec.has(tp.SWITCH))
    seen = pl.col("did").is_in(["waited", "blocked"])
    return (
        pl.when(phase == "p1")
        .then(pl.lit("not started"))
        .when(phase.is_in(WORKER_PHASES) & pl.lit(not case.rec.has(tp.SWITCH)))
        .then(pl.lit("worker unseen"))
        .when(phase.is_in(WORKER_PHASES) & seen)
        .then(pl.lit("worker ") + pl.col("did"))
        .when(phase.is_in(WORKER_PHASES))
        .then(pl.lit("worker"))
        .when(held)
        .then(pl.lit(_SLOT))
        .when(asleep)
        .then(pl.lit("vCPU ") + pl.col("did"))
        .when((phase == "p3") & (pl.col("did") == "ran") & pl.lit(case.rec.has(tp.SWITCH)))
        .then(pl.lit("vCPU ran"))
        .when(phase == "p3")
        .then(pl.lit("vCPU unseen"))
        .when(inside.is_null())
        .then(pl.lit("guest unseen"))
        .when(inside < MOSTLY * _HALF)
        .then(pl.lit("host"))
        .when(phase == "p5")
        .then(pl.lit("handler"))
        .otherwise(pl.lit("interrupts off"))
    )


def _worded(case: Case, what: tuple[int, str], why: str, ns: int | None, hog: int | None) -> Cause:
    """Return a cause in words; ``what`` is the life and its phase."""
    did = case.close.get(what)
    close = _seen_closely(case, did) if did and what[1] in _FAULTED_IN else None
    if close:
        return close
    cause, confidence = _WHY[why]
    if "{" not in cause:
        return cause, confidence
    who = _who(case, hog) if why != "not started" else ""
    if did and not who and what[1] not in _FAULTED_IN:
        who = _hog(case, did)
    return cause.format(took=duration(case, ns), who=who), confidence


def _charged(case: Case, busy: int, token: int, why: str | None) -> tuple[str, str, int]:
    """Return the cause of a wait for the slot; ``why`` is that of its holder, null where no one held it for long."""
    held = f"slot held {duration(case, busy)} by"
    if why is None:
        return f"{held} several predecessors, longest by {hexed(token)}", PROVED, token
    return f"{held} predecessor {hexed(token)}: {why}", PROVED, token


def _causes_of_holders(case: Case, holders: pl.DataFrame) -> dict[int, str | None]:
    """Return by life why each kept the slot; null where no phase of it was long enough to be asked for its cause."""
    known = holders.filter(_HALF.is_not_null())
    long = known.filter(pl.col("spent_ran").is_not_null() | was_late(case))
    told = zip(long["life"], causes_of(case, long), strict=True)
    return dict.fromkeys(known["life"]) | {life: cause for life, (cause, _, _) in told}


def was_late(case: Case) -> pl.Expr:
    """Say of lives whether their ``phase``, one of SLOT_PHASES, was late."""
    after = {phase: case.late_after[phase] for phase in SLOT_PHASES}
    return pl.col("phase").replace_strict(after, return_dtype=pl.Int64) < _HALF


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


def _who(case: Case, tid: int | None) -> str:
    """Name the thread that had the CPU meanwhile."""
    if not tid:
        return ""
    comm = case.comms.get(tid)
    return f" while {comm} ({tid}) ran" if comm else f" while thread {tid} ran"
