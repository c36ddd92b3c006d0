"""Wakes in a guest that do not fit: without a wait, before it, or against the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.rules.base import (
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
from apftrace.model.rules.guest_findings import about_guest, lives_by_id, who

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case
    from apftrace.model.guest.join import GuestSide

SKEW_NS = 20_000_000
"""Most that the clocks of two CPUs of one guest may disagree."""

REUSED_NS = 60_000_000_000
"""A token comes back after 2^20 faults of its vCPU; no guest has those in a minute."""

_HYPERVISORS = ("/KVM", "qemu", "fc_vcpu", "vcpu")


def _wake_before_wait(case: Case) -> Iterable[Finding]:
    for side in case.guests:
        early = side.waits.filter("early")
        lives = lives_by_id(case, early)
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
            yield about_guest(
                side,
                wait,
                lives.get(wait["life"]),
                end=wait["wait"],
                severity=INFO if nested else WARNING,
                confidence=PROVED if same_cpu else LIKELY,
                cause="the waiter is a vCPU of a nested guest" if nested else None,
                message=f"token {hexed(wait['token'])} was woken {duration(case, apart)} before {who(side, wait)} "
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
        lives = lives_by_id(case, strays)
        for wake in rows(strays):
            life = lives.get(wake["life"])
            begun = _begun(side, wake, life, firsts)
            if begun is None or side.is_blind(begun, wake["wake"]):
                continue
            told = life is not None and life["kind"] == "pv"
            yield about_guest(
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
    nouns=("wake before its wait", "wakes before their waits"),
    means="The guest remembers the wake in a dummy, and the wait returns at once: nothing is lost.",
    shown_by="kvm_async_pf_task_wake before kvm_async_pf_task_wait_schedule of one token, in the guest's own order.",
    look_alikes="Clock skew between two CPUs; legal in an L1 hypervisor and on hosts before 5.8.",
    needs=(),
    guest=("wait", "wake"),
    find=_wake_before_wait,
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

RULES = (ORPHAN_WAKE, WAKE_BEFORE_WAIT, CLOCK_CONTRADICTION)
