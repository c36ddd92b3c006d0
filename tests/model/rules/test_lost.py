"""lost-wakeup: a claim only on proof of progress."""

from __future__ import annotations

import pytest

from apftrace.model import judge
from tests.builders.story import ACK, ANSWER, Story
from tests.model import histories
from tests.model.histories import PAGE, STUCK_FOR
from tests.model.support import (
    LATER,
    MS,
    START,
    STUCK,
    UNDONE,
    US,
    S,
    analyse,
    calm,
    found,
    life,
    outcomes,
    rules,
)


class TestLostWakeup:
    def test_found(self) -> None:
        analysis = analyse(histories.lost_wakeup())
        (finding,) = found(analysis, "lost-wakeup")
        assert (finding["severity"], finding["confidence"]) == ("error", "likely")
        assert (finding["token"], finding["gva"], finding["vcpu"], finding["tid"]) == (STUCK, PAGE, 0, 101)
        assert finding["cause"] == "not handed over by KVM"
        assert [(e["event"], e["ts"] - LATER) for e in finding["evidence"]] == [
            ("kvm_async_pf_not_present", 0),
            ("kvm_async_pf_completed", 500_000),
        ]
        assert analysis.verdict == "anomaly"
        assert life(analysis, STUCK)["outcome"] == "lost"

    def test_found_names_what_it_excludes_and_what_it_cannot(self) -> None:
        (finding,) = found(analyse(histories.lost_wakeup()), "lost-wakeup")
        excluded = " | ".join(finding["ruled_out"])
        for confounder in (
            "in flight",
            "record loss",
            "vCPU not running",
            "slot taken",
            "cleared by the guest",
        ):
            assert confounder in excluded
        assert finding["not_ruled_out"] == [
            "queue cleared by a reset of the VMM, which leaves no kvm_msr",
            "queue cleared by KVM: probe kvm_clear_async_pf_completion_queue",
        ]

    def test_found_in_halt_form(self) -> None:
        story = Story()
        calm(story)
        story.halt_life(at=LATER, without={"ready"})
        story.progress(start=LATER + MS, end=LATER + STUCK_FOR)
        (finding,) = found(analyse(story), "lost-wakeup")
        assert (finding["token"], finding["confidence"]) == (STUCK, "likely")
        assert "its vCPU halts" in finding["message"]

    @pytest.mark.parametrize(
        ("event", "fields", "on"),
        [
            ("kvm_smm_transition", {"entering": 1}, "SMM"),
            ("kvm_cr", {"rw": 1, "cr": 0, "val": 0x10}, "CR0.PG"),
        ],
    )
    def test_found_as_lost_by_clear_where_later_faults_are_answered(
        self, event: str, fields: dict[str, int], on: str
    ) -> None:
        story = histories.lost_wakeup()
        story.event(LATER + 700 * US, event, story.tid(0), 0, **fields)
        calm(story, start=LATER + S)
        (finding,) = found(analyse(story), "lost-wakeup")
        assert (finding["severity"], finding["confidence"]) == ("error", "likely")
        assert finding["cause"] == f"lost by clear: KVM dropped the queue on {on} (fixed by ab4e41eb9fab)"
        assert finding["not_ruled_out"] == [
            "another reason than the clear: probe kvm_clear_async_pf_completion_queue"
        ]

    @pytest.mark.parametrize("event", ["kvm_smm_transition", "kvm_cr"])
    def test_undecided_where_the_guest_may_be_on_its_way_through_a_reset(self, event: str) -> None:
        story = histories.lost_wakeup()
        fields = {"rw": 1, "val": 0x10} if event == "kvm_cr" else {"entering": 1}
        story.event(LATER + 700 * US, event, story.tid(0), 0, **fields)
        analysis = analyse(story)
        (finding,) = found(analysis, "lost-wakeup")
        assert (finding["severity"], finding["confidence"]) == ("warning", "possible")
        assert outcomes(analysis)["undecided"] == 1
        assert any("on its way through a reset" in text for text in finding["not_ruled_out"])

    @pytest.mark.parametrize(
        ("event", "fields", "at"),
        [
            ("kvm_cr", {"rw": 1, "cr": 0, "val": 0x80050033}, 700 * US),  # CR0.TS comes and goes
            ("kvm_cr", {"rw": 1, "cr": 4, "val": 0x10}, 700 * US),
            ("kvm_cr", {"rw": 0, "cr": 0, "val": 0x10}, 700 * US),
            ("kvm_smm_transition", {"entering": 1}, -700 * US),  # before it began
            ("kvm_smm_transition", {"entering": 1}, 150 * MS),  # when it was stuck for long
        ],
    )
    def test_found_without_that_cause_where_nothing_cleared_the_queue(
        self, event: str, fields: dict[str, int], at: int
    ) -> None:
        story = histories.lost_wakeup()
        story.event(LATER + at, event, story.tid(0), 0, **fields)
        (finding,) = found(analyse(story), "lost-wakeup")
        assert finding["cause"] == "not handed over by KVM"

    def test_quiet_when_the_vcpu_was_reset_meanwhile(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ANSWER)
        story.progress(start=LATER + MS, end=LATER + 5 * MS)
        story.event(LATER + 6 * MS, "kvm_entry", story.tid(0), 0, vcpu_id=0, rip=0xFFF0)
        story.progress(start=LATER + 7 * MS, end=LATER + STUCK_FOR)
        analysis = analyse(story)
        assert rules(analysis) == {"vcpu-reset"}
        assert outcomes(analysis) == {"answered": 20, "cancelled": 1}

    def test_found_when_it_was_stuck_for_long_before_the_reset(self) -> None:
        story = histories.lost_wakeup()
        story.event(LATER + STUCK_FOR + MS, "kvm_entry", story.tid(0), 0, vcpu_id=0, rip=0xFFF0)
        assert [f["token"] for f in found(analyse(story), "lost-wakeup")] == [STUCK]

    def test_found_when_only_the_end_of_the_work_was_traced(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ANSWER | {"completed"})
        story.progress(start=LATER + MS, end=LATER + STUCK_FOR)
        # How often the vCPU had entered by the end of the work is not told before its next fault.
        (finding,) = found(analyse(story), "in-flight")
        assert (finding["severity"], finding["confidence"]) == ("warning", "possible")
        assert "record kvm:kvm_async_pf_completed" in finding["not_ruled_out"][0]
        story.pv_life(at=LATER + 20 * MS)
        assert [f["token"] for f in found(analyse(story), "lost-wakeup")] == [STUCK]

    @pytest.mark.parametrize("off", ["kvm_apic_accept_irq", "kvm_entry"])
    def test_found_with_less_confidence_where_tracepoints_miss(self, off: str) -> None:
        story = histories.lost_wakeup()
        calm(story, start=LATER + S)
        (finding,) = found(analyse(story, off=[off]), "lost-wakeup")
        assert (finding["token"], finding["confidence"]) == (STUCK, "possible")
        assert any("record kvm:" in text and f"kvm:{off}" in text for text in finding["not_ruled_out"])

    def test_found_where_no_ack_was_traced_but_later_faults_went_past_it(self) -> None:
        story = histories.lost_wakeup()
        calm(story, start=LATER + S)
        (finding,) = found(analyse(story, off=["kvm_msr"]), "lost-wakeup")
        assert (finding["token"], finding["confidence"]) == (STUCK, "possible")

    def test_quiet_where_no_ack_can_show_that_the_slot_is_free(self) -> None:
        assert not rules(analyse(histories.lost_wakeup(), off=["kvm_msr"]), "error")

    def test_found_although_another_cpu_lost_records(self) -> None:
        story = histories.lost_wakeup().lost(at=LATER + 50 * MS, cpu=1, count=9)
        story.progress(vcpu=1, start=LATER, end=LATER + STUCK_FOR)
        assert [f["token"] for f in found(analyse(story), "lost-wakeup")] == [STUCK]

    def test_found_although_records_were_lost_before_it(self) -> None:
        story = histories.lost_wakeup().lost(at=START + 30 * MS + 900 * US, cpu=0, count=1)
        assert [f["token"] for f in found(analyse(story), "lost-wakeup")] == [STUCK]

    def test_found_where_only_the_end_of_the_work_tells_that_it_was_completed(self) -> None:
        story = histories.lost_wakeup()
        story.pv_life(at=LATER + 20 * MS)
        analysis = analyse(story, off=["kvm_async_pf_completed"])
        assert [f["token"] for f in found(analysis, "lost-wakeup")] == [STUCK]
        assert analysis.verdict == "anomaly"

    def test_quiet_where_the_vcpu_ran_only_before_the_end_of_the_work(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, completed=LATER + 300 * MS, without=ANSWER | {"entry_ready"})
        story.progress(start=LATER + MS, end=LATER + 290 * MS)
        story.progress(start=LATER + 330 * MS, end=LATER + 340 * MS, every=5 * MS)
        assert not rules(analyse(story, off=["kvm_async_pf_completed"]), "error")

    @pytest.mark.parametrize(
        "off", ["workqueue_queue_work", "workqueue_execute_start", "workqueue_execute_end"]
    )
    def test_nothing_is_stuck_where_the_rule_cannot_look(self, off: str) -> None:
        """Without any sign that the page was there, the life is open, neither lost nor among the cancelled."""
        story = histories.lost_wakeup()
        story.pv_life(at=LATER + 20 * MS)
        analysis = analyse(story, off=["kvm_async_pf_completed", off])
        assert "lost-wakeup" in {missing.rule for missing in analysis.not_run}
        assert life(analysis, STUCK)["outcome"] == "in_flight"
        assert analysis.verdict == "warnings"
        assert "1 in flight" in analysis.headline
        assert "cancelled" not in analysis.headline

    def test_a_stuck_life_without_a_finding_is_undecided(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No trace gets here while the rule looks wherever a life can be stuck. Should it not, nothing is clean."""
        monkeypatch.setattr(judge, "CATALOGUE", [r for r in judge.CATALOGUE if r.id != "lost-wakeup"])
        analysis = analyse(histories.lost_wakeup())
        assert analysis.verdict == "undecided"
        assert "1 stuck" in analysis.headline
        assert "cancelled" not in analysis.headline

    def test_quiet_when_the_vcpu_hardly_ran(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ANSWER)
        story.progress(start=LATER + MS, end=LATER + STUCK_FOR, every=40 * MS)
        assert life(analyse(story), STUCK)["outcome"] == "in_flight"

    def test_quiet_when_the_life_is_young(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ANSWER)
        story.progress(start=LATER + MS, end=LATER + 8 * MS, every=100 * US)
        assert life(analyse(story), STUCK)["outcome"] == "in_flight"

    def test_quiet_where_handing_over_usually_takes_that_long(self) -> None:
        story = Story()
        for n in range(20):
            at = START + n * 200 * MS
            story.pv_life(at=at, ready=at + 150 * MS)
        story.pv_life(at=START + 5 * S, without=ANSWER)
        story.progress(start=START + 5 * S + MS, end=START + 5 * S + STUCK_FOR)
        assert outcomes(analyse(story)) == {"answered": 20, "in_flight": 1}

    def test_found_where_pages_take_seconds_but_not_what_comes_after(self) -> None:
        """Behind userfaultfd; no later fault was answered."""
        story = _slow_pages()
        story.pv_life(at=START + 50 * S, completed=START + 52 * S, without=ANSWER)
        story.progress(start=START + 52 * S + MS, end=START + 52 * S + STUCK_FOR)
        (finding,) = found(analyse(story), "lost-wakeup")
        assert finding["confidence"] == "likely"
        assert finding["ruled_out"][0].endswith("stuck from 10 ms (20 closed lives)")

    def test_quiet_where_the_page_itself_may_still_come(self) -> None:
        story = _slow_pages()
        story.pv_life(
            at=START + 50 * S, without=ANSWER | {"completed", "finished", "worker_back", "from_worker"}
        )
        story.progress(start=START + 50 * S + MS, end=START + 53 * S, every=10 * MS)
        analysis = analyse(story)
        assert rules(analysis) == {"in-flight"}
        assert not rules(analysis, "warning")

    def test_quiet_where_pages_take_seconds_and_the_slot_was_taken(self) -> None:
        story = _slow_pages()
        story.pv_life(at=START + 50 * S, completed=START + 52 * S, without=ACK | {"injected"})
        story.pv_life(at=START + 50 * S + MS, completed=START + 52 * S + MS, without=ANSWER)
        story.progress(start=START + 52 * S + 2 * MS, end=START + 52 * S + STUCK_FOR)
        assert not rules(analyse(story), "error")

    def test_quiet_when_nothing_is_known_of_other_lives(self) -> None:
        story = Story().enable(at=START)
        story.pv_life(at=START + MS, without=ANSWER)
        story.progress(start=START + 2 * MS, end=START + STUCK_FOR)
        assert outcomes(analyse(story)) == {"in_flight": 1}

    def test_quiet_in_a_trace_of_one_unanswered_fault(self) -> None:
        story = Story()
        story.pv_life(at=START, without=ANSWER)
        story.progress(start=START + MS, end=START + STUCK_FOR)
        analysis = analyse(story)
        assert not rules(analysis, "error")
        assert outcomes(analysis).keys() <= {"in_flight", "undecided"}
        assert analysis.verdict != "clean"

    def test_quiet_when_the_page_never_came(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=UNDONE)
        story.progress(start=LATER + MS, end=LATER + STUCK_FOR)
        assert life(analyse(story), STUCK)["outcome"] == "in_flight"

    def test_quiet_behind_a_delivery_that_is_not_acked(self) -> None:
        story = histories.missing_ack()
        victim = story.pv_life(at=LATER + 2 * MS, without=ANSWER)
        analysis = analyse(story)
        assert rules(analysis, "error") == {"missing-ack"}
        assert life(analysis, victim)["outcome"] == "in_flight"
        (finding,) = found(analysis, "in-flight")
        assert finding["not_ruled_out"] == ["page-ready slot taken by a delivery that was not ACKed"]

    def test_quiet_while_guest_interrupts_are_off(self) -> None:
        story = Story()
        calm(story)
        on_again = LATER + 600 * MS
        story.pv_life(at=LATER, injected=on_again, without={"entry_ready"})
        story.pv_life(at=LATER + 2 * MS, without=ANSWER)
        story.progress(start=LATER + 5 * MS, end=on_again)
        assert not rules(analyse(story), "error")

    def test_quiet_after_the_guest_disabled(self) -> None:
        story = histories.apf_disabled()
        story.progress(start=LATER + 5 * MS, end=LATER + STUCK_FOR)
        assert life(analyse(story), STUCK)["outcome"] == "cancelled"

    def test_quiet_after_a_reset(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ANSWER)
        story.enable(at=LATER + MS)
        story.progress(start=LATER + 2 * MS, end=LATER + STUCK_FOR)
        assert life(analyse(story), STUCK)["outcome"] == "cancelled"

    def test_found_when_the_guest_disabled_only_much_later(self) -> None:
        story = histories.lost_wakeup().disable(at=LATER + STUCK_FOR + MS)
        assert life(analyse(story), STUCK)["outcome"] == "lost"

    def test_quiet_when_the_page_has_a_new_life(self) -> None:
        story = histories.lost_wakeup()
        story.pv_life(at=LATER + 300 * MS, gva=PAGE)
        analysis = analyse(story)
        assert not rules(analysis, "error")
        assert life(analysis, STUCK)["outcome"] == "undecided"

    def test_quiet_when_the_vm_ended(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ANSWER)
        tid = story.tid(0)
        story.event(LATER + MS, "sched_process_exit", tid, 0, pid=tid, comm="CPU 0/KVM")
        story.event(LATER + 2 * MS, "sched_switch", tid, 0, prev_pid=tid, prev_state=0x20, next_pid=0)
        story.progress(vcpu=1, start=LATER, end=LATER + STUCK_FOR)
        assert life(analyse(story), STUCK)["outcome"] == "cancelled"

    def test_undecided_when_records_of_its_cpu_were_lost(self) -> None:
        analysis = analyse(histories.lost_wakeup().lost(at=LATER + 50 * MS, cpu=0, count=3))
        assert not found(analysis, "lost-wakeup")
        assert life(analysis, STUCK)["outcome"] == "undecided"
        assert life(analysis, STUCK)["tainted"]
        assert analysis.verdict == "undecided"

    def test_undecided_when_the_thread_had_been_on_the_cpu_that_lost_records(self) -> None:
        story = Story()
        story.pv_life(at=START, cpu=1)
        calm(story, start=START + MS)
        story.pv_life(at=LATER, without=ANSWER)
        story.progress(start=LATER + MS, end=LATER + STUCK_FOR).lost(at=LATER + 50 * MS, cpu=1)
        story.progress(vcpu=1, start=LATER, end=LATER + STUCK_FOR)
        assert life(analyse(story), 0x16000)["outcome"] == "undecided"

    def test_undecided_with_a_loss_that_has_no_place(self) -> None:
        from tests.builders import options

        story = histories.lost_wakeup()
        analysis = analyse(story, options=[options.cpu_stat(0, dropped=4), options.cpu_stat(1)])
        assert life(analysis, STUCK)["outcome"] == "undecided"


def test_a_lost_wakeup_beside_a_missing_ack_is_not_claimed_twice() -> None:
    story = Story()
    calm(story)
    story.pv_life(at=LATER, without=ACK)
    story.pv_life(at=LATER + 20 * MS, without=ANSWER)
    story.interrupt(at=LATER + 30 * MS)
    story.progress(start=LATER + 50 * MS, end=LATER + STUCK_FOR)
    assert rules(analyse(story), "error") == {"missing-ack"}


def _slow_pages() -> Story:
    """Twenty faults whose pages take two seconds to come, and nothing after that."""
    story = Story()
    for n in range(20):
        story.pv_life(at=START + n * 2100 * MS, completed=START + n * 2100 * MS + 2 * S)
    return story
