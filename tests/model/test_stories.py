"""The slowest lives, looked at closely: who had the CPU, what the disk did, who held the slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apftrace.model import timeline
from apftrace.model.timeline import (
    BLOCKED,
    COMPLETE,
    EXIT,
    ISSUE,
    LOCK,
    LOCKED,
    RAN,
    RECLAIM,
    RECLAIMED,
    SLEPT,
    SWITCH,
    WAITED,
    WAKING,
    Close,
)
from tests.builders.story import Story
from tests.model import histories
from tests.model.support import LATER, MS, SCHED_EVENTS, STUCK, US, analyse, calm, found

if TYPE_CHECKING:
    from apftrace import Analysis

ME, OTHER, THIRD = 7, 8, 9
SDA = 8 << 20


def switch(ts: int, prev: int, state: int, following: int, cpu: int = 0) -> timeline.Record:
    return (ts, cpu, prev, SWITCH, prev, state, following)


class TestSpent:
    def test_every_state(self) -> None:
        close = Close(
            [
                switch(100, OTHER, 0, ME),
                switch(130, ME, 2, OTHER),
                (180, 1, OTHER, WAKING, ME, 0, 0),
                switch(250, OTHER, 0, ME),
                switch(260, ME, 1, 0),
            ]
        )
        did = close.spent(ME, 100, 300)
        assert did.ns == {RAN: 40, BLOCKED: 50, WAITED: 70, SLEPT: 40}
        assert did.most == WAITED
        assert did.others == {OTHER: 70}

    def test_only_what_lies_between_the_two_instants(self) -> None:
        close = Close([switch(100, OTHER, 0, ME), switch(200, ME, 0, OTHER), switch(900, OTHER, 0, ME)])
        assert close.spent(ME, 150, 250).ns == {RAN: 50, WAITED: 50}

    def test_several_had_the_cpu(self) -> None:
        close = Close(
            [
                switch(10, ME, 0, OTHER),
                switch(40, OTHER, 0, THIRD),
                switch(90, THIRD, 0, ME),
            ]
        )
        assert close.spent(ME, 10, 60).others == {OTHER: 30, THIRD: 20}

    def test_requests_match_by_device_and_sector(self) -> None:
        close = Close(
            [
                (10, 0, ME, ISSUE, SDA, 100, 8),
                (12, 0, OTHER, ISSUE, SDA, 500, 8),
                (20, 0, ME, ISSUE, SDA, 108, 8),
                (50, 1, 0, COMPLETE, SDA, 500, 8),
                (60, 1, 0, COMPLETE, SDA, 100, 8),
                (80, 1, 0, COMPLETE, SDA, 108, 8),
                (90, 0, ME, ISSUE, SDA, 116, 8),
            ]
        )
        did = close.spent(ME, 30, 70)
        # Two requests that overlap are one busy time, of which only the part in the span counts.
        assert (did.device, did.requests) == (40, [(SDA, 100, 50), (SDA, 108, 60)])

    def test_requests_of_the_vcpu_that_began_the_io(self) -> None:
        close = Close([(10, 0, OTHER, ISSUE, SDA, 100, 8), (60, 1, 0, COMPLETE, SDA, 100, 8)])
        assert close.spent(ME, 20, 70).device is None
        assert close.spent(ME, 20, 70, also={OTHER}).device == 40

    def test_reclaim_locks_and_exits(self) -> None:
        close = Close(
            [
                (10, 0, ME, RECLAIM, 0, 0, 0),
                (30, 0, ME, RECLAIMED, 0, 0, 0),
                (40, 0, ME, LOCK, 0, 0, 0),
                (45, 0, ME, LOCKED, 0, 0, 0),
                (50, 0, ME, EXIT, 0x64, 2, 0),
                (60, 0, ME, EXIT, 7, 1, 0),
                (70, 0, ME, EXIT, 7, 2, 0),
            ]
        )
        did = close.spent(ME, 20, 100)
        assert (did.reclaim, did.lock, did.exits, did.window_exits) == (10, 5, 3, 2)


def test_a_device_has_its_number_in_the_kernels_way() -> None:
    assert timeline.device_name(254 << 20 | 16) == "254:16"


def told(analysis: Analysis, token: int) -> dict[str | None, str]:
    (story,) = [one for one in analysis.stories if one.token == token]
    return {step.phase: step.text for step in story.steps}


def slow_page() -> tuple[Story, int]:
    story = Story()
    calm(story)
    return story, story.pv_life(at=LATER, completed=LATER + 100 * MS)


def test_the_five_slowest_are_told_the_slowest_first() -> None:
    story, token = slow_page()
    analysis = analyse(story)
    assert len(analysis.stories) == 5
    assert analysis.stories[0].token == token
    assert [s.total for s in analysis.stories] == sorted((s.total for s in analysis.stories), reverse=True)
    assert [s.phase for s in analysis.stories[0].steps] == [None, "p1", "p2", "p3", "p4", "p5"]


def test_the_first_lost_ones_are_told_before_the_slowest() -> None:
    analysis = analyse(histories.lost_wakeup())
    first = analysis.stories[0]
    assert (first.token, first.outcome) == (STUCK, "lost")
    life = analysis.faults.filter(analysis.faults["token"] == STUCK)
    assert first.total == life["end"][0] - life["not_present"][0]
    last = first.steps[-1]
    assert (last.ts, last.phase) == (life["end"][0], None)
    assert last.text.startswith("no ready by here, after ")
    assert last.text.endswith(" entries into the guest")
    assert [one.outcome for one in analysis.stories[1:]] == ["answered"] * 5


def test_a_worker_that_sleeps_for_its_page() -> None:
    story, token = slow_page()
    assert told(analyse(story), token)["p2"].startswith(
        "completed after 100 ms: worker slept uninterruptibly 100 ms"
    )


def test_a_phase_that_takes_no_time_is_told_in_four_words() -> None:
    story, token = slow_page()
    assert told(analyse(story), token)["p4"] == "interrupt injected after 4.9 µs"


def test_who_had_the_cpu_of_the_vcpu() -> None:
    story = Story()
    calm(story)
    token = story.pv_life(at=LATER, ready=LATER + 80 * MS)
    tid, hog = story.tid(0), 900
    story.comms[hog] = "make"
    for at, prev, following in ((LATER + 510 * US, tid, hog), (LATER + 79 * MS, hog, tid)):
        story.event(
            at, "sched_switch", prev, 0,
            prev_comm=story.comms[prev], prev_pid=prev, prev_prio=120, prev_state=0,
            next_comm=story.comms[following], next_pid=following, next_prio=120,
        )  # fmt: skip
    analysis = analyse(story)
    assert "no CPU for 78.5 ms, while make (900) ran 78.5 ms" in told(analysis, token)["p3"]
    (finding,) = [f for f in found(analysis, "late-wakeup") if f["token"] == token]
    assert finding["cause"].endswith("while make (900) ran")


def test_who_held_the_slot() -> None:
    story = Story()
    calm(story)
    holder = story.pv_life(at=LATER, acked=LATER + 60 * MS)
    token = story.pv_life(at=LATER + MS, ready=LATER + 61 * MS)
    text = told(analyse(story), token)["p3"]
    assert f"slot taken for 58.5 ms: {holder:#x} held it 58.5 ms" in text


@pytest.mark.parametrize("off", [SCHED_EVENTS, ()])
def test_without_sched_events_the_phases_are_told_all_the_same(off: tuple[str, ...]) -> None:
    story, token = slow_page()
    assert told(analyse(story, off=off), token)["p2"].startswith("completed after 100 ms")


def test_no_life_no_story() -> None:
    assert analyse(Story().progress(start=LATER, end=LATER + 10 * MS)).stories == ()
