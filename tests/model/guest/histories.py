"""For each rule about guests the shortest history of host and guest that shows it, with nothing else wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.builders.guest_story import RAN, WAIT, WAKE, WOKEN, GuestStory
from tests.builders.story import ACK
from tests.model.guest.pairs import EVERY, Pair
from tests.model.support import LATER, MS, START, S

if TYPE_CHECKING:
    from collections.abc import Callable

END = LATER + S


def lost_in_guest() -> Pair:
    """Woken by its token, and never made runnable."""
    pair = Pair().calm()
    pair.life(at=LATER, tid=300, unseen=RAN | {"waking"})
    return pair.until(END)


def missing_guest_handler() -> Pair:
    """The interrupt is injected, and the guest neither handles nor acknowledges it."""
    pair = Pair().calm()
    pair.life(at=LATER, tid=300, without=ACK, unseen=WOKEN | RAN)
    return pair.until(END)


def orphan_wake() -> Pair:
    """A wake of a token that nobody waits for, in a guest that was recorded from before it."""
    pair = Pair().calm()
    pair.life(at=LATER, tid=300, unseen={"wait", "out", "waking"} | RAN)
    return pair.until(END)


def wake_before_wait() -> Pair:
    """The wake comes first, on the same CPU."""
    pair = Pair().calm()
    pair.life(at=LATER, tid=300, slept=False, waited=LATER + 600_000, runs=LATER + 601_000)
    return pair.until(END)


def woken_only_by_all() -> Pair:
    """A thread sleeps until its CPU's sleepers are all woken, although its wakeup had come."""
    pair = Pair().calm()
    pair.life(at=LATER, tid=300, unseen={"wake", "waking"}, runs=LATER + 100 * MS)
    pair.guest.wake_all(LATER + 99 * MS, 0)
    return pair.until(END)


def open_wait() -> Pair:
    """The guest's record ends while a thread waits, as does the host's."""
    pair = Pair().calm()
    answer = {"ready", "accepted", "injected", "ack_exit", "ack", "completed", "finished", "entry_ready"}
    pair.life(at=LATER, tid=300, without=answer, unseen=WOKEN | RAN)
    pair.guest.tick(LATER + 300_000, 1)
    return pair


def clock_contradiction() -> Pair:
    """One wake is recorded 40 ms after its ACK."""
    pair = Pair().calm(60)
    token = pair.host.pv_life(at=LATER)
    pair.guest.life(at=LATER, token=token, tid=300, irq=LATER + 40 * MS)
    return pair.until(END)


def two_vms() -> tuple[Pair, GuestStory]:
    """Two VMs on one host that count the same tokens; returns the first with its host, and the second's guest."""
    pair = Pair().calm()
    other = GuestStory(booted=6 * S)
    for n in range(30):
        for vcpu in range(2):
            at = START + 1_300_000 + n * (EVERY + 170_000) + vcpu * MS
            token = pair.host.pv_life(at=at, vcpu=vcpu, vm=1, cpu=vcpu)
            other.life(at=at, token=token, vcpu=vcpu, tid=400 + vcpu)
    pair.until(END)
    for vcpu in range(2):
        other.tick(END - 1000, vcpu)
    return pair, other


GUEST_HISTORIES: dict[str, Callable[[], Pair]] = {
    "lost-in-guest": lost_in_guest,
    "missing-guest-handler": missing_guest_handler,
    "orphan-wake": orphan_wake,
    "wake-before-wait": wake_before_wait,
    "woken-only-by-all": woken_only_by_all,
    "open-wait": open_wait,
    "clock-contradiction": clock_contradiction,
}

__all__ = ["END", "GUEST_HISTORIES", "WAIT", "WAKE", "two_vms"]
