"""Why a phase took long: what the threads did meanwhile, who had the CPU, and who held the slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.model import timeline
from apftrace.model import tracepoints as tp
from apftrace.model.readings import SHARES
from apftrace.model.rules.base import LIKELY, POSSIBLE, PROVED, Row, duration, hexed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apftrace.model.correlate import Case
    from apftrace.model.timeline import Spent

IRQS_OFF = "guest interrupts off"
MOSTLY = 0.4
"""Share of a phase that the vCPU must have spent inside the guest for the guest to be the cause."""

_ASLEEP = {
    "slept": "vCPU halted or asleep in the host",
    "blocked": "vCPU in uninterruptible sleep in the host (a synchronous page-in, a lock)",
}
_VCPU_SPANS = {"p3": ("comp", "ready"), "p4": ("acc", "inj"), "p5": ("inj", "ack")}
"""Readings of the vCPU thread that begin and end each phase."""

Cause = tuple[str, str]
"""The cause in one phrase, and how sure it is."""


def cause_of(case: Case, life: Row, phase: str, holders: Mapping[object, Row]) -> tuple[str, str, int | None]:
    """Return cause, confidence and the token to which the delay is charged, if it is another's.

    Args:
        case: the case.
        life: row of the late life.
        phase: the phase that was late.
        holders: rows of the lives that held a slot, by life.
    """
    did = case.close.get((life["life"], phase))
    if phase == "p1":
        who = _hog(case, did) if did else ""
        return f"worker queueing: the work item was not started{who}", PROVED, None
    if phase in ("p2", "p12"):
        close = _seen_closely(case, did) if did else None
        return *(close or _cause_in_worker(case, life)), None
    if phase == "p3" and 2 * (life["slot_busy"] or 0) >= life["p3"] and life["blocker"] is not None:
        return _cause_in_predecessor(case, life, holders)
    return *_cause_in_vcpu(case, life, phase), None


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
    if not case.rec.has(tp.SWITCH) or life["work_ran"] is None:
        return (
            "slow fault-in or worker queueing (record sched:sched_switch and workqueue:* to tell)",
            POSSIBLE,
        )
    # The worker's sums reach back to its previous life; no more than the phase itself can count.
    did = {c: min(life["p12"], life[f"work_{c}"]) for c in ("ran", "waited", "blocked")}
    top = _most(did)
    if top == "blocked":
        return f"slow I/O: the worker slept uninterruptibly for {duration(case, did[top])}", LIKELY
    if top == "waited":
        who = _who(case, life["work_hog"])
        return f"worker queueing: runnable but not on a CPU for {duration(case, did[top])}{who}", LIKELY
    return "slow fault-in or worker queueing", POSSIBLE


def _cause_in_predecessor(
    case: Case, life: Row, holders: Mapping[object, Row]
) -> tuple[str, str, int | None]:
    holder = holders.get(life["blocker_life"])
    why = _why_held(case, holder) if holder else "not ACKed"
    held = duration(case, life["slot_busy"])
    return f"slot held {held} by predecessor {hexed(life['blocker'])}: {why}", PROVED, life["blocker"]


def _why_held(case: Case, holder: Row) -> str:
    if holder["p4"] is None and holder["p5"] is None:
        return "not ACKed"
    phase = "p4" if (holder["p4"] or 0) >= (holder["p5"] or 0) else "p5"
    return _cause_in_vcpu(case, holder, phase)[0]


def _cause_in_vcpu(case: Case, life: Row, phase: str) -> Cause:
    start, stop = _VCPU_SPANS[phase]
    did = _shares(life, start, stop) if case.rec.has(tp.SWITCH) else {}
    top = _most(did)
    if top == "waited":
        close = case.close.get((life["life"], phase))
        who = _who(case, life[f"{stop}_hog"]) or (_hog(case, close) if close else "")
        return f"vCPU not scheduled: runnable but not on a CPU for {duration(case, did[top])}{who}", LIKELY
    if top in _ASLEEP:
        return f"{_ASLEEP[top]} for {duration(case, did[top])}", LIKELY
    return _cause_while_running(case, life, phase, ran=top == "ran")


def _cause_while_running(case: Case, life: Row, phase: str, *, ran: bool) -> Cause:
    if phase == "p3":
        return (
            "vCPU on a CPU, ready not handed over" if ran else "unknown (record sched:sched_switch)"
        ), POSSIBLE
    start, stop = _VCPU_SPANS[phase]
    if not case.rec.has(tp.ENTRY, tp.EXIT) or life[f"{start}_guest"] is None or life[f"{stop}_guest"] is None:
        return "unknown (record kvm:kvm_entry and kvm:kvm_exit)", POSSIBLE
    # What counts is the time inside the guest, not that the vCPU thread was on a CPU.
    inside = life[f"{stop}_guest"] - life[f"{start}_guest"]
    if inside < MOSTLY * life[phase]:
        return f"vCPU busy in the host: only {duration(case, inside)} inside the guest", LIKELY
    if phase == "p5":
        return "slow guest handler", LIKELY
    return IRQS_OFF, LIKELY


def _shares(life: Row, start: str, stop: str) -> dict[str, int]:
    """Return what the vCPU thread did between two readings, in ns: ran, waited, slept, blocked."""
    if life[f"{start}_ran"] is None or life[f"{stop}_ran"] is None:
        return {}
    return {c: max(0, life[f"{stop}_{c}"] - life[f"{start}_{c}"]) for c in SHARES}


def _most(did: Mapping[str, int]) -> str | None:
    return max(did, key=lambda c: did[c]) if any(did.values()) else None


def _who(case: Case, tid: int | None) -> str:
    """Name the thread that had the CPU meanwhile."""
    if not tid:
        return ""
    comm = case.comms.get(tid)
    return f" while {comm} ({tid}) ran" if comm else f" while thread {tid} ran"
