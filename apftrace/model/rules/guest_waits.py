"""Waits in a guest that do not end: wakeups lost there, handlers that never ran, waits that are still open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.guest.staleness import guest_staleness
from apftrace.model.rules.base import (
    ERROR,
    INFO,
    LIKELY,
    POSSIBLE,
    PROVED,
    WARNING,
    Finding,
    Row,
    Rule,
    duration,
    finding,
    hexed,
    rows,
)
from apftrace.model.rules.guest_findings import about_guest, lives_by_id, token_of, who

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from apftrace.model.correlate import Case
    from apftrace.model.guest.join import GuestSide


def _asleep(case: Case, side: GuestSide) -> Iterator[tuple[Row, Row | None, int | None]]:
    """Yield the waits that never end, with their life and when the wakeup was due in the guest (null: never)."""
    stuck = side.waits.filter(pl.col("state") == "asleep")
    lives = lives_by_id(case, stuck)
    for wait in rows(stuck):
        life = lives.get(wait["life"])
        yield wait, life, _due(wait, life)


def _due(wait: Row, life: Row | None) -> int | None:
    if wait["wake"] is not None:
        return int(max(wait["wake"], wait["wait"]))
    # An ACK before the wait began was for an earlier use of the token.
    acked = life["acked"] if life else None
    return int(acked) if acked is not None and acked > wait["wait"] else None


def _is_stuck(side: GuestSide, due: int | None, age: int) -> bool:
    return due is not None and side.sees_running() and side.last - due > age


def _lost_in_guest(case: Case) -> Iterable[Finding]:
    for side in case.guests:
        usual = guest_staleness(
            side.waits.filter(~pl.col("early")), "wake", in_ns=side.rec.clock_unit == "ns"
        )
        # Without the scheduler's wakeups a thread that starves looks the same.
        runnable_shown = side.rec.has("switch") and (side.rec.has("waking") or side.rec.has("wakeup"))
        for wait, life, due in _asleep(case, side):
            if due is None or not usual.n or not _is_stuck(side, due, usual.age):
                continue
            if side.is_blind(wait["wait"], side.last):
                continue
            later = side.waits.filter((pl.col("wait") > due) & (pl.col("state") == "ran")).height
            woken = wait["wake"] is not None
            yield about_guest(
                side,
                wait,
                life,
                severity=ERROR if runnable_shown else WARNING,
                confidence=POSSIBLE if not runnable_shown else PROVED if woken and life else LIKELY,
                cause="woken, and never made runnable" if woken else "acknowledged, and never woken",
                message=f"{who(side, wait)} sleeps on in {side.rec.machine} with token "
                f"{hexed(token_of(wait, life))}: "
                + (
                    "kvm_async_pf_task_wake came"
                    if woken
                    else "the host handed it over and the guest acknowledged it, without a wake of this token"
                )
                + f", {duration(case, side.last - due)} before the guest's record ends; "
                f"{later} later waits ended meanwhile",
                ruled_out=_kept_by(case, side, life, usual.age, usual.n),
                not_ruled_out=_unsettled(side, woken=woken),
            )


def _kept_by(case: Case, side: GuestSide, life: Row | None, age: int, n: int) -> list[str]:
    out = [
        f"still about to run: {duration(case, age)} are asked for ({n} waits that ended)",
        "record loss in the guest: none while it waited",
    ]
    if life:
        out.append("lost on the host: it was handed over and acknowledged" if life["acked"] is not None
                   else "lost on the host: the guest woke it")  # fmt: skip
    if side.rec.has("wake_all"):
        out.append("woken by a wake-all: none on its CPU")
    return out


def _unsettled(side: GuestSide, *, woken: bool) -> list[str]:
    out = (
        []
        if woken
        else ["the wake was called and its record is missing, and so is every later one of the thread"]
    )
    if not (side.rec.has("waking") or side.rec.has("wakeup")):
        out.append("runnable and starved: record sched:sched_waking in the guest")
    if not side.rec.has("wake_all"):
        out.append("woken by a wake-all: probe apf_task_wake_all in the guest")
    return out


def _open_wait(case: Case) -> Iterable[Finding]:
    for side in case.guests:
        usual = guest_staleness(side.waits, "wait", in_ns=side.rec.clock_unit == "ns")
        woken = guest_staleness(
            side.waits.filter(~pl.col("early")), "wake", in_ns=side.rec.clock_unit == "ns"
        )
        for wait, life, due in _asleep(case, side):
            if life and (life["outcome"] == "lost" or _is_for_handler(side, life, woken.age)):
                continue
            blind = side.is_blind(wait["wait"], side.last)
            if not blind and woken.n and _is_stuck(side, due, woken.age):
                continue
            age = side.last - wait["wait"]
            old = bool(usual.n) and age > usual.age and not blind and side.sees_running() and due is None
            # Of a life that the host knows, the host's own rules say what became of it.
            alone = old and life is None
            why = (
                "records of the guest were lost while it waited" if blind
                else "the guest's trace alone does not tell whether the host or the guest lost it" if alone
                else "too early to say that it is stuck"
            )  # fmt: skip
            yield about_guest(
                side,
                wait,
                life,
                severity=WARNING if alone else INFO,
                confidence=POSSIBLE,
                cause="in flight at the end of the guest's record" if not old else None,
                message=f"{who(side, wait)} has waited for token {hexed(wait['token'])} for "
                f"{duration(case, age)} when the record of {side.rec.machine} ends: {why}",
                not_ruled_out=["lost on the host: record the host too"] if life is None else [],
            )


def _is_for_handler(side: GuestSide, life: Row, age: int) -> bool:
    # missing-guest-handler, and the host's own rules, tell of it.
    told, acked = life["accepted"], life["acked"]
    return told is not None and acked is None and side.last - int(told) > age


def _missing_handler(case: Case) -> Iterable[Finding]:
    for side in case.guests:
        if not side.is_joined or not (side.rec.has("irq") or side.rec.has("wake")):
            continue
        usual = guest_staleness(
            side.waits.filter(~pl.col("early")), "wake", in_ns=side.rec.clock_unit == "ns"
        )
        due = case.lives.filter(
            (pl.col("vm") == side.alignment.vm)
            & pl.col("accepted").is_not_null()
            & pl.col("acked").is_null()
            & pl.col("wake").is_null()
            & (pl.col("not_present") >= side.first)
        )
        irqs = side.rec.kind("irq")
        taken = irqs.select("cpu", side.instants(irqs["ts"]).alias("at"))
        for life in rows(due):
            since = int(life["accepted"])
            seen = taken.filter((pl.col("cpu") == life["vcpu"]) & (pl.col("at") >= since))
            if seen.height or side.last - since <= usual.age or not side.covers(since, side.last):
                continue
            yield finding(
                machine=side.rec.machine,
                tid=life["tid"],
                token=life["token"],
                gva=life["gva"],
                ts=life["not_present"],
                end=side.last,
                severity=ERROR,
                confidence=LIKELY if life["injected"] is not None else POSSIBLE,
                cause="interrupt injected, handler not entered" if life["injected"] is not None else None,
                message=f"token {hexed(life['token'])}: the page-ready interrupt was "
                f"{'injected' if life['injected'] is not None else 'accepted'}, and in "
                f"{duration(case, side.last - since)} the guest neither entered its handler on vCPU {life['vcpu']} "
                "nor woke the token nor acknowledged",
                seqs=[life[c] for c in ("life", "ready_seq", "acc_seq", "inj_seq")],
                seen=[],
                ruled_out=[
                    "record loss in the guest: none since",
                    "the guest's record ends earlier: it does not",
                ],
                not_ruled_out=["the guest keeps interrupts off: see late-wakeup"],
            )


def _woken_only_by_all(case: Case) -> Iterable[Finding]:
    for side in case.guests:
        only = side.waits.filter(
            pl.col("all_seq").is_not_null() & pl.col("wake_seq").is_null() & (pl.col("state") != "asleep")
        )
        lives = lives_by_id(case, only)
        for wait in rows(only):
            life = lives.get(wait["life"])
            answered = life is not None and life["ready"] is not None and life["ready"] < wait["woken_all"]
            blind = side.is_blind(wait["wait"], wait["woken_all"])
            yield about_guest(
                side,
                wait,
                life,
                end=wait["woken_all"],
                severity=WARNING if answered and not blind else INFO,
                confidence=POSSIBLE if blind else LIKELY,
                cause="its own wakeup came and woke nobody" if answered else "resume, restore or enable",
                message=f"{who(side, wait)} waited {duration(case, wait['woken_all'] - wait['wait'])} for token "
                f"{hexed(wait['token'])} until apf_task_wake_all on its CPU woke it",
            )


LOST_IN_GUEST = Rule(
    id="lost-in-guest",
    severities=(ERROR, WARNING),
    title="Wakeup lost in the guest",
    nouns=("wakeup lost in the guest", "wakeups lost in the guest"),
    means="The task stays in state D for ever, although the host did its part.",
    shown_by="A wait that neither returns nor is made runnable, long after its wake, or after the ACK of its token.",
    look_alikes="A record of the wake that is missing: then the thread runs again, and nothing is reported. A thread "
    "that is runnable and starved. A life that the host never handed over: lost-wakeup.",
    needs=(),
    guest=("wait", "wake"),
    find=_lost_in_guest,
    remedy="Look at the guest's hash of sleepers: kvm_async_pf_task_wake, duplicate tokens, a corrupted list.",
    bugs=(
        "95cc9e7cf03d: x86/kvm: Avoid freeing stack-allocated node in kvm_async_pf_queue_task",
        "9bc1f09f6fa7: nested: the token went to L2, and the task in L1 waits for ever",
    ),
    times=True,
)


MISSING_HANDLER = Rule(
    id="missing-guest-handler",
    severities=(ERROR,),
    title="Page-ready interrupt not handled",
    nouns=("page-ready interrupt not handled", "page-ready interrupts not handled"),
    means="The guest got the interrupt and did nothing: its task sleeps on, and later readies pile up behind it.",
    shown_by="ready, accept and injection on the host; in the guest, which was recorded, neither the handler on that "
    "vCPU nor a wake of the token; no ACK.",
    look_alikes="A guest with interrupts off; a guest whose record ends earlier; lost records.",
    needs=(tp.READY, tp.ACCEPT, tp.MSR),
    guest=("wait",),
    find=_missing_handler,
    times=True,
)


WOKEN_ONLY_BY_ALL = Rule(
    id="woken-only-by-all",
    severities=(WARNING, INFO),
    title="Woken only by a wake-all",
    nouns=("wait ended only by a wake-all", "waits ended only by a wake-all"),
    means="The task slept until all sleepers of its CPU were woken; its own wakeup did not reach it.",
    shown_by="A wait without a wake of its token that ends after apf_task_wake_all on its CPU.",
    look_alikes="Resume and restore, where this is how waits are meant to end.",
    needs=(),
    guest=("wait", "wake", "wake_all"),
    find=_woken_only_by_all,
)


OPEN_WAIT = Rule(
    id="open-wait",
    severities=(WARNING, INFO),
    title="Still waiting in the guest",
    means="A task is in state D when the guest's record ends.",
    shown_by="A wait without return, wakeup or later sign of its thread.",
    look_alikes="In flight; lost-in-guest, which needs the wake or the ACK; lost-wakeup, which needs the host.",
    needs=(),
    guest=("wait",),
    find=_open_wait,
    remedy="Record host and guest together.",
    times=True,
)

RULES = (LOST_IN_GUEST, MISSING_HANDLER, WOKEN_ONLY_BY_ALL, OPEN_WAIT)
