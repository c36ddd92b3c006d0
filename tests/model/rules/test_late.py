"""late-wakeup: the phase that took long, its cause, and the token that the delay is charged to."""

from __future__ import annotations

import pytest

from apftrace.schema import PHASES
from tests.builders.story import Story
from tests.model import histories
from tests.model.support import (
    LATER,
    MS,
    SCHED_EVENTS,
    START,
    US,
    WORKQUEUE_EVENTS,
    S,
    analyse,
    calm,
    found,
    life,
    lines,
    rules,
)

LATE = 0x15000
NOT_OTHERS = "phase cause confidence"
OTHER = 900
"""A host thread that has nothing to do with the VM."""


def switch(story: Story, at: int, before: int, after: int, *, state: int = 0, cpu: int = 0) -> None:
    """Add a context switch with a thread that has a name."""
    story.comms[OTHER] = "stress"
    story.switch(at, before, after, state=state, cpu=cpu)


def away(story: Story, start: int, stop: int, *, state: int = 0, vcpu: int = 0) -> None:
    """Take the vCPU off its CPU for a while; a sleeper is woken just before it comes back."""
    tid = story.tid(vcpu)
    switch(story, start, tid, OTHER, state=state, cpu=vcpu)
    if state:
        story.event(stop - US, "sched_wakeup", OTHER, vcpu, pid=tid, comm="CPU 0/KVM", target_cpu=vcpu)
    switch(story, stop, OTHER, tid, cpu=vcpu)


class TestLateWakeup:
    def test_found_in_p2_as_slow_io(self) -> None:
        analysis = analyse(histories.late_wakeup())
        (finding,) = found(analysis, "late-wakeup")
        assert (finding["severity"], finding["confidence"]) == ("warning", "likely")
        assert (finding["token"], finding["phase"], finding["blocker"]) == (LATE, "p2", None)
        assert finding["cause"] == "slow I/O: the worker slept uninterruptibly for 300 ms"
        assert finding["ruled_out"] == ["lost: it was answered"]
        assert analysis.verdict == "warnings"

    def test_found_in_p1_as_a_worker_that_starts_late(self) -> None:
        story = Story()
        calm(story)
        late = {"to_worker", "started", "worker_sleeps", "worker_back"}
        story.pv_life(at=LATER, completed=LATER + 80 * MS, without=late)
        story.switch(LATER + 79 * MS - US, story.tid(0), 50)
        story.event(
            LATER + 79 * MS, "workqueue_execute_start", 50, 0,
            work=0xFFFF888000000000 + (101 << 20 | 0x15 << 8), function=0xFFFFFFFFC0A51230,
        )  # fmt: skip
        analysis = analyse(story)
        assert lines(analysis.findings, NOT_OTHERS) == [
            "p1 worker queueing: the work item was not started while CPU 0/KVM (101) ran proved"
        ]
        assert life(analysis, LATE)["p1"] == 79 * MS

    def test_found_in_p12_where_workqueue_events_are_off(self) -> None:
        (finding,) = found(analyse(histories.late_wakeup(), off=WORKQUEUE_EVENTS), "late-wakeup")
        assert finding["phase"] == "p12"
        assert (
            "whether the worker started late or the page came late: record workqueue:*"
            in finding["not_ruled_out"]
        )

    def test_found_without_a_cause_where_sched_events_are_off(self) -> None:
        (finding,) = found(analyse(histories.late_wakeup(), off=SCHED_EVENTS), "late-wakeup")
        assert (finding["phase"], finding["confidence"]) == ("p2", "possible")
        assert "record sched:sched_switch" in finding["cause"]
        assert any("sched:sched_waking" in text for text in finding["not_ruled_out"])

    def test_found_in_p2_as_a_worker_that_gets_no_cpu(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, completed=LATER + 80 * MS, without={"worker_sleeps", "worker_back"})
        switch(story, LATER + 2 * US, 50, OTHER)
        switch(story, LATER + 80 * MS - 2 * US, OTHER, 50)
        (finding,) = found(analyse(story), "late-wakeup")
        assert finding["phase"] == "p2"
        assert finding["cause"] == (
            "worker queueing: runnable but not on a CPU for 80 ms while stress (900) ran"
        )

    def test_found_in_p3_behind_a_predecessor_that_is_charged(self) -> None:
        story = Story()
        calm(story)
        on_again = LATER + 600 * MS
        first = story.pv_life(at=LATER, injected=on_again, without={"entry_ready"})
        second = story.pv_life(at=LATER + 2 * MS, ready=on_again + 40 * US)
        story.progress(start=LATER + 5 * MS, end=on_again - MS)
        analysis = analyse(story)
        assert lines(analysis.findings, "token phase blocker") == [
            f"{first:#x} p4 -",
            f"{second:#x} p3 {first:#x}",
        ]
        charged = found(analysis, "late-wakeup")[1]
        assert charged["cause"] == f"slot held 598 ms by predecessor {first:#x}: guest interrupts off"
        assert charged["confidence"] == "proved"
        assert life(analysis, second)["blocker"] == first

    @pytest.mark.parametrize(
        ("state", "cause"),
        [
            (0, "vCPU not scheduled: runnable but not on a CPU for 60.4 ms while stress (900) ran"),
            (1, "vCPU halted or asleep in the host for 60.4 ms"),
            (2, "vCPU in uninterruptible sleep in the host (a synchronous page-in, a lock) for 60.4 ms"),
        ],
    )
    def test_found_in_p3_by_what_the_vcpu_did(self, state: int, cause: str) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, ready=LATER + 61 * MS)
        away(story, LATER + 550 * US, LATER + 61 * MS - 10 * US, state=state)
        (finding,) = found(analyse(story), "late-wakeup")
        assert (finding["phase"], finding["cause"], finding["confidence"]) == ("p3", cause, "likely")

    def test_found_in_p3_on_a_vcpu_that_runs(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, ready=LATER + 61 * MS)
        assert lines(analyse(story).findings, NOT_OTHERS) == [
            "p3 vCPU on a CPU, ready not handed over possible"
        ]

    def test_found_in_p4_as_guest_interrupts_off(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, injected=LATER + 600 * MS)
        story.progress(start=LATER + 2 * MS, end=LATER + 590 * MS, in_guest=False)
        assert lines(analyse(story).findings, NOT_OTHERS) == ["p4 guest interrupts off likely"]

    def test_found_in_p4_as_guest_interrupts_off_by_its_entries_alone(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, injected=LATER + 600 * MS)
        story.progress(start=LATER + 2 * MS, end=LATER + 590 * MS, in_guest=False)
        analysis = analyse(story, off=SCHED_EVENTS)
        assert lines(analysis.findings, NOT_OTHERS) == ["p4 guest interrupts off likely"]

    def test_found_in_p4_as_a_vcpu_that_gets_no_cpu(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, injected=LATER + 90 * MS)
        away(story, LATER + 530 * US, LATER + 89 * MS)
        (finding,) = found(analyse(story), "late-wakeup")
        assert (finding["phase"], finding["cause"]) == (
            "p4",
            "vCPU not scheduled: runnable but not on a CPU for 88.5 ms while stress (900) ran",
        )

    def test_found_in_p5_as_a_slow_handler(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, acked=LATER + 90 * MS)
        assert lines(analyse(story).findings, NOT_OTHERS) == ["p5 slow guest handler likely"]

    def test_found_in_p5_as_a_vcpu_that_gets_no_cpu(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, acked=LATER + 90 * MS)
        away(story, LATER + 530 * US, LATER + 89 * MS)
        (finding,) = found(analyse(story), "late-wakeup")
        assert finding["phase"] == "p5"
        assert finding["cause"].startswith("vCPU not scheduled")

    def test_found_worst_first_by_what_is_above_the_threshold(self) -> None:
        story = Story()
        calm(story)
        tokens = [
            story.pv_life(at=LATER + n * S, completed=LATER + n * S + took * MS)
            for n, took in enumerate((30, 90, 60))
        ]
        assert analyse(story).findings["token"].to_list() == [tokens[1], tokens[2], tokens[0]]

    def test_found_after_the_users_own_threshold(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, completed=LATER + 3 * MS)
        assert not rules(analyse(story))
        analysis = analyse(story, late_after=2 * MS)
        assert [f["token"] for f in found(analysis, "late-wakeup")] == [LATE]
        assert set(analysis.late_after.values()) == {2 * MS}

    def test_a_threshold_is_told_of_phases_alone(self) -> None:
        """No rule holds a whole life against one: in a clean trace it may last longer."""
        story = Story()
        calm(story)
        story.pv_life(at=LATER, completed=LATER + 15 * MS, acked=LATER + 30 * MS)
        analysis = analyse(story, late_after=20 * MS)
        assert analysis.verdict == "clean"
        assert analysis.faults["total"].max() > 20 * MS
        assert set(analysis.late_after) <= set(PHASES)

    def test_quiet_below_the_users_threshold(self) -> None:
        assert not rules(analyse(histories.late_wakeup(), late_after=400 * MS))

    def test_quiet_below_ten_medians(self) -> None:
        story = Story()
        for n in range(20):
            story.pv_life(at=START + n * S, completed=START + n * S + 20 * MS)
        story.pv_life(at=START + 30 * S, completed=START + 30 * S + 150 * MS)
        analysis = analyse(story)
        assert analysis.late_after["p2"] == pytest.approx(200 * MS, rel=0.001)
        assert not rules(analysis)

    def test_quiet_when_completed_is_traced_after_the_ready(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, completed=LATER + 5 * MS, ready=LATER + MS)
        analysis = analyse(story)
        assert not rules(analysis)
        assert life(analysis, LATE)["p3"] == 0

    def test_quiet_when_the_next_ready_is_printed_inside_the_exit_of_the_ack(self) -> None:
        # R13: the ACK happens at its kvm_exit, so the slot is free when the next ready comes.
        story = Story()
        calm(story)
        first = story.pv_life(at=LATER, acked=LATER + MS, without={"ack"})
        second = story.pv_life(at=LATER + 100 * US, ready=LATER + MS + 200, without={"kick_exit"})
        story.event(LATER + MS + 900, "kvm_msr", story.tid(0), 0, write=1, ecx=0x4B564D07, data=1)
        analysis = analyse(story)
        assert not rules(analysis)
        assert life(analysis, first)["acked"] == LATER + MS
        assert life(analysis, second)["ready"] == LATER + MS + 200

    def test_quiet_for_a_life_that_was_not_answered(self) -> None:
        assert not found(analyse(histories.lost_wakeup()), "late-wakeup")

    def test_quiet_with_nothing_but_lives_of_one_length(self) -> None:
        story = Story()
        story.pv_life(at=START, completed=START + 9 * MS)
        assert not rules(analyse(story))


def test_the_slot_is_not_charged_for_what_came_before_completed() -> None:
    story = Story()
    calm(story)
    story.pv_life(at=LATER, acked=LATER + 40 * MS)
    victim = story.pv_life(at=LATER + 50 * MS, completed=LATER + 90 * MS)
    assert life(analyse(story), victim)["blocker"] is None
