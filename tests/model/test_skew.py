"""Clocks of CPUs that disagree: an ACK that seems to come before its ready is its ACK all the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apftrace.model.skew import _Thread
from tests.builders.story import ACK, ANSWER, MSR_ACK, Story
from tests.model.support import LATER, MS, US, analyse, calm, found, life, rules, total

READY = LATER + 520 * US
"""When the ready of a life at LATER comes."""


def ack(story: Story, *, at: int, cpu: int = 1) -> None:
    """Add an ACK of vCPU 0 as a CPU stamped it."""
    tid = story.tid(0)
    story.event(at, "kvm_exit", tid, cpu, exit_reason=0x7C, isa=2)
    story.event(at + 400, "kvm_msr", tid, cpu, write=1, ecx=MSR_ACK, data=1)
    story.event(at + 600, "kvm_entry", tid, cpu, vcpu_id=0)


def goes_on(story: Story) -> Story:
    """Let the vCPU take interrupts for long."""
    for n in range(40):
        story.interrupt(at=LATER + (n + 2) * 5 * MS)
    return story


def test_an_ack_of_a_cpu_that_is_behind_is_for_the_ready_after_it() -> None:
    story = Story()
    calm(story)
    token = story.pv_life(at=LATER, without=ACK)
    ack(story, at=READY - 3 * MS)
    analysis = analyse(goes_on(story))
    assert not rules(analysis)
    assert life(analysis, token)["acked"] == READY
    sums = total(analysis)
    assert (sums["delivered"], sums["acks"], sums["balanced"]) == (21, 21, True)


@pytest.mark.parametrize(("ahead", "cpu"), [(30 * MS, 1), (3 * MS, 0)])
def test_missing_where_it_came_too_early_or_on_the_same_cpu(ahead: int, cpu: int) -> None:
    story = Story()
    calm(story)
    token = story.pv_life(at=LATER, without=ACK)
    ack(story, at=READY - ahead, cpu=cpu)
    assert [f["token"] for f in found(analyse(goes_on(story)), "missing-ack")] == [token]


def test_every_ack_of_a_row_moves_on_by_one() -> None:
    story = Story()
    calm(story)
    tokens = [story.pv_life(at=LATER + n * MS, without=ACK) for n in range(3)]
    for n in range(3):
        ack(story, at=READY + n * MS - 300 * US)
    analysis = analyse(goes_on(story))
    assert not rules(analysis)
    assert [life(analysis, t)["acked"] for t in tokens] == [READY + n * MS for n in range(3)]


def test_a_ready_of_a_cpu_that_is_behind_comes_before_the_ack_of_the_one_before() -> None:
    story = Story()
    calm(story)
    tokens = [story.pv_life(at=LATER, without=ACK), story.pv_life(at=LATER + 600 * US, without=ACK)]
    for n in range(2):
        ack(story, at=READY + 2 * MS + n * MS)
    analysis = analyse(goes_on(story))
    assert not rules(analysis)
    assert [life(analysis, t)["acked"] for t in tokens] == [READY + 2 * MS, READY + 3 * MS]


def test_found_a_lost_wakeup_is_not_repaired_by_such_an_ack() -> None:
    story = Story()
    calm(story)
    lost = story.pv_life(at=LATER - 5 * MS, without=ANSWER)
    token = story.pv_life(at=LATER, without=ACK)
    ack(story, at=READY - 3 * MS)
    calm(story, vcpu=1, lives=600)  # the other CPU has its records all the time
    analysis = analyse(goes_on(story))
    assert [f["token"] for f in found(analysis, "lost-wakeup")] == [lost]
    assert life(analysis, token)["outcome"] == "answered"


def test_an_ack_before_its_own_delivery_leads_nowhere() -> None:
    """Of stamps that are equal by the dozen, as jiffies in a text, the order is lost."""
    thread = _Thread([10], [5], [0], [1, 2], [3, 3], [1, 1], [None, 0], [True, False], {0: 1})
    assert thread.settle() == {}


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=8), st.data())
def test_no_order_of_stamps_leads_in_a_circle(made: list[tuple[int, bool]], data: st.DataObject) -> None:
    starts = sorted(at for at, _ in made)
    acked = sorted(data.draw(st.lists(st.integers(0, 4), min_size=len(made), max_size=len(made) + 3)))
    owned = data.draw(st.permutations(range(len(acked))))[: len(starts)]
    owners = {delivery: ack for delivery, (ack, (_, has)) in enumerate(zip(owned, made, strict=True)) if has}
    extra = [n not in owners.values() for n in range(len(acked))]
    lasts = [data.draw(st.none() | st.integers(0, len(starts) - 1)) for _ in acked]
    acks = list(range(100, 100 + len(acked)))
    moved = _Thread(
        list(range(len(starts))),
        starts,
        [0] * len(starts),
        acks,
        acked,
        [1] * len(acked),
        lasts,
        extra,
        owners,
    ).settle()
    assert moved.keys() <= set(acks)
    assert len(set(moved.values())) == len(moved)
