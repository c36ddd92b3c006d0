"""What a guest's own trace shows: wakeups lost in the guest, wakes without a wait, handlers that never ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.guest.evidence import WAIT_SEQS, shown
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from apftrace.model.correlate import Case
    from apftrace.model.guest.join import GuestSide

SKEW_NS = 20_000_000
"""Most that the clocks of two CPUs of one guest may disagree."""

REUSED_NS = 60_000_000_000
"""A token comes back after 2^20 faults of its vCPU; no guest has those in a minute."""

_HYPERVISORS = ("/KVM", "qemu", "fc_vcpu", "vcpu")


def _about(case: Case, side: GuestSide, row: Row, life: Row | None, **stated: Any) -> Finding:
    """Return a finding about a wait or a wake of a guest, and the life that it belongs to."""
    own = [row.get(c) for c in WAIT_SEQS]
    start = row.get("wait") if row.get("wait") is not None else row.get("wake")
    return finding(
        machine=side.rec.machine,
        tid=life["tid"] if life else None,
        token=_token(row, life),
        gva=life["gva"] if life else None,
        ts=min(life["not_present"], start) if life and start is not None else start,
        end=stated.pop("end", None) or side.last,
        seqs=[life[c] for c in ("life", "ready_seq", "acc_seq", "inj_seq", "ack_seq")] if life else [],
        seen=shown(side, own),
        **stated,
    )


def _lives(case: Case, frame: pl.DataFrame) -> dict[int, Row]:
    wanted = frame["life"].drop_nulls().unique()
    return {r["life"]: r for r in rows(case.lives.filter(pl.col("life").is_in(wanted.implode())))}


def _token(row: Row, life: Row | None) -> int | None:
    token = row["token"] if row["token"] is not None or life is None else life["token"]
    return None if token is None else int(token)


def _who(side: GuestSide, row: Row) -> str:
    tid = row["guest_tid"]
    if tid is None or tid < 0:
        return "a guest thread"
    comm = side.rec.comms.get(tid)
    return f"guest thread {comm}-{tid}" if comm else f"guest thread {tid}"


def _asleep(case: Case, side: GuestSide) -> Iterator[tuple[Row, Row | None, int | None]]:
    """Yield the waits that never end, with their life and when the wakeup was due in the guest (null: never)."""
    stuck = side.waits.filter(pl.col("state") == "asleep")
    lives = _lives(case, stuck)
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
            yield _about(
                case,
                side,
                wait,
                life,
                severity=ERROR if runnable_shown else WARNING,
                confidence=POSSIBLE if not runnable_shown else PROVED if woken and life else LIKELY,
                cause="woken, and never made runnable" if woken else "acknowledged, and never woken",
                message=f"{_who(side, wait)} sleeps on in {side.rec.machine} with token "
                f"{hexed(_token(wait, life))}: "
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
            yield _about(
                case,
                side,
                wait,
                life,
                severity=WARNING if alone else INFO,
                confidence=POSSIBLE,
                cause="in flight at the end of the guest's record" if not old else None,
                message=f"{_who(side, wait)} has waited for token {hexed(wait['token'])} for "
                f"{duration(case, age)} when the record of {side.rec.machine} ends: {why}",
                not_ruled_out=["lost on the host: record the host too"] if life is None else [],
            )


def _is_for_handler(side: GuestSide, life: Row, age: int) -> bool:
    # missing-guest-handler, and the host's own rules, tell of it.
    told, acked = life["accepted"], life["acked"]
    return told is not None and acked is None and side.last - int(told) > age


def _wake_before_wait(case: Case) -> Iterable[Finding]:
    for side in case.guests:
        early = side.waits.filter("early")
        lives = _lives(case, early)
        for wait in rows(early):
            apart = wait["wait"] - wait["wake"]
            same_cpu = wait["wake_cpu"] == wait["guest_cpu"]
            in_ns = side.rec.clock_unit == "ns"
            if (not same_cpu and (not in_ns or apart < SKEW_NS)) or (in_ns and apart > REUSED_NS):
                continue
            if side.is_blind(wait["wake"], wait["wait"]):
                continue
            comm = side.rec.comms.get(wait["guest_tid"], "")
            nested = any(name in comm for name in _HYPERVISORS)
            yield _about(
                case,
                side,
                wait,
                lives.get(wait["life"]),
                end=wait["wait"],
                severity=INFO if nested else WARNING,
                confidence=PROVED if same_cpu else LIKELY,
                cause="the waiter is a vCPU of a nested guest" if nested else None,
                message=f"token {hexed(wait['token'])} was woken {duration(case, apart)} before {_who(side, wait)} "
                "began to wait for it: the guest keeps a dummy for it until then",
                ruled_out=[
                    "clock skew between CPUs: same CPU"
                    if same_cpu
                    else "clock skew between CPUs: too far apart"
                ],
                not_ruled_out=[]
                if nested
                else ["the waiter is a hypervisor's vCPU, where this order is legal"],
            )


def _orphan_wake(case: Case) -> Iterable[Finding]:
    for side in case.guests:
        if not side.rec.has("wait"):
            continue
        strays = side.wakes.filter(pl.col("wait_seq").is_null() & pl.col("token").is_not_null())
        # A record kept twice is not a second wake.
        same = side.wakes.filter(pl.struct("wake", "wake_cpu", "token").is_duplicated())["wake_seq"]
        strays = strays.filter(~pl.col("wake_seq").is_in(same.implode()))
        firsts = _first_tokens(side)
        lives = _lives(case, strays)
        for wake in rows(strays):
            life = lives.get(wake["life"])
            begun = _begun(side, wake, life, firsts)
            if begun is None or side.is_blind(begun, wake["wake"]):
                continue
            told = life is not None and life["kind"] == "pv"
            yield _about(
                case,
                side,
                {**wake, "guest_tid": None},
                life,
                end=wake["wake"],
                severity=WARNING,
                confidence=POSSIBLE if told else LIKELY,
                cause="page-ready for a fault that was never injected: legacy host"
                if life and not told
                else None,
                message=f"kvm_async_pf_task_wake of token {hexed(wake['token'])} in {side.rec.machine}, and nobody "
                "waits for it: the guest allocates a dummy that stays until a wait of this token",
                ruled_out=[
                    "its wait lies before the guest's record",
                    "record loss in the guest: none meanwhile",
                ],
                not_ruled_out=[
                    "the wait was made and its record is missing: a kprobe can miss, see its profile"
                ]
                if told
                else [],
            )


def _first_tokens(side: GuestSide) -> dict[int, tuple[int, int]]:
    """Return per vCPU id the first token that was waited for, and when: ids only grow."""
    mask = (1 << tp.VCPU_BITS) - 1
    known = side.waits.filter(pl.col("token").is_not_null())
    table = known.group_by(pl.col("token") & mask).agg(
        pl.col("token").first().alias("of"), pl.col("wait").first()
    )
    return {vcpu: (first, at) for vcpu, first, at in table.iter_rows()}


def _begun(side: GuestSide, wake: Row, life: Row | None, firsts: dict[int, tuple[int, int]]) -> int | None:
    """Return when the wait of a wake must have begun; null when that may lie before the guest's record."""
    if life is not None:
        told = life["pf_injected"] if life["pf_injected"] is not None else life["not_present"]
        return int(told) if told >= side.first else None
    token = wake["token"]
    first, at = firsts.get(token & ((1 << tp.VCPU_BITS) - 1), (token, 0))
    return at if token > first and wake["wake"] > at else None


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
        lives = _lives(case, only)
        for wait in rows(only):
            life = lives.get(wait["life"])
            answered = life is not None and life["ready"] is not None and life["ready"] < wait["woken_all"]
            blind = side.is_blind(wait["wait"], wait["woken_all"])
            yield _about(
                case,
                side,
                wait,
                life,
                end=wait["woken_all"],
                severity=WARNING if answered and not blind else INFO,
                confidence=POSSIBLE if blind else LIKELY,
                cause="its own wakeup came and woke nobody" if answered else "resume, restore or enable",
                message=f"{_who(side, wait)} waited {duration(case, wait['woken_all'] - wait['wait'])} for token "
                f"{hexed(wait['token'])} until apf_task_wake_all on its CPU woke it",
            )


def _clock_contradiction(case: Case) -> Iterable[Finding]:
    for side in case.guests:
        a = side.alignment
        if not (a.refused and case.rec.counts) and not a.broken:
            continue
        yield finding(
            machine=side.rec.machine,
            severity=WARNING,
            confidence=PROVED,
            ts=side.first if side.is_joined else None,
            end=side.last if side.is_joined else None,
            message=(
                f"{side.rec.machine} is not on the host's clock: {a.refused}"
                if a.refused
                else f"{a.broken} of {a.bounds + a.broken} waits and wakes of {side.rec.machine} are out of order"
            )
            + "".join(f"; {text}" for text in a.contradictions),
            cause=None if a.refused else "a record with a wrong time, or a token that means two faults",
            seqs=[],
            seen=[],
        )


LOST_IN_GUEST = Rule(
    id="lost-in-guest",
    severities=(ERROR, WARNING),
    title="Wakeup lost in the guest",
    means="The task stays in state D for ever, although the host did its part.",
    shown_by="A wait that neither returns nor is made runnable, long after its wake, or after the ACK of its token.",
    look_alikes="A record of the wake that is missing: then the thread runs again, and nothing is reported. A thread "
    "that is runnable and starved. A life that the host never handed over: lost-wakeup.",
    needs=(),
    guest=("wait", "wake"),
    find=_lost_in_guest,
    remedy="Look at the guest's hash of sleepers: kvm_async_pf_task_wake, duplicate tokens, a corrupted list.",
    bugs=("95cc9e7cf03d: x86/kvm: Avoid freeing stack-allocated node in kvm_async_pf_queue_task",),
    times=True,
)
MISSING_HANDLER = Rule(
    id="missing-guest-handler",
    severities=(ERROR,),
    title="Page-ready interrupt not handled",
    means="The guest got the interrupt and did nothing: its task sleeps on, and later readies pile up behind it.",
    shown_by="ready, accept and injection on the host; in the guest, which was recorded, neither the handler on that "
    "vCPU nor a wake of the token; no ACK.",
    look_alikes="A guest with interrupts off; a guest whose record ends earlier; lost records.",
    needs=(tp.READY, tp.ACCEPT, tp.MSR),
    guest=("wait",),
    find=_missing_handler,
    times=True,
)
ORPHAN_WAKE = Rule(
    id="orphan-wake",
    severities=(WARNING,),
    title="Wake without a wait",
    means="The guest allocates a dummy that leaks, and that a later fault with this token takes for its own wakeup.",
    shown_by="kvm_async_pf_task_wake of a token that nobody waits for.",
    look_alikes="A wait before the guest's record began; lost records; a probe that missed the wait.",
    needs=(),
    guest=("wait", "wake"),
    find=_orphan_wake,
    bugs=("2a18b7e7cd88: KVM: async_pf: Inject 'page ready' event only if 'page not present' was injected",),
)
WAKE_BEFORE_WAIT = Rule(
    id="wake-before-wait",
    severities=(WARNING, INFO),
    title="Woken before it waited",
    means="The guest remembers the wake in a dummy, and the wait returns at once: nothing is lost.",
    shown_by="kvm_async_pf_task_wake before kvm_async_pf_task_wait_schedule of one token, in the guest's own order.",
    look_alikes="Clock skew between two CPUs; legal in an L1 hypervisor and on hosts before 5.8.",
    needs=(),
    guest=("wait", "wake"),
    find=_wake_before_wait,
)
WOKEN_ONLY_BY_ALL = Rule(
    id="woken-only-by-all",
    severities=(WARNING, INFO),
    title="Woken only by a wake-all",
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
CLOCK_CONTRADICTION = Rule(
    id="clock-contradiction",
    severities=(WARNING,),
    title="Host and guest clocks disagree",
    means="Nothing for the guest: what is said of its side rests on a clock that not all records agree with.",
    shown_by="injected <= wait, accepted <= wake and wake <= ACK of one token, which no offset fulfils together.",
    look_alikes="A token used twice; a record with a wrong time; a guest that is not of this host.",
    needs=(),
    guest=("wait",),
    find=_clock_contradiction,
    remedy="Record with trace-cmd record -A, or both with trace clock x86-tsc.",
)

RULES = (
    LOST_IN_GUEST,
    MISSING_HANDLER,
    ORPHAN_WAKE,
    WAKE_BEFORE_WAIT,
    WOKEN_ONLY_BY_ALL,
    OPEN_WAIT,
    CLOCK_CONTRADICTION,
)
