"""lost-interrupt, missing-ack, lost-work: handed over, or queued, and then nothing."""

from __future__ import annotations

import pytest

from tests.builders.story import ACK, ANSWER, DELIVERY, Story
from tests.model import histories
from tests.model.histories import PAGE, STUCK_FOR, never_started, take_interrupts
from tests.model.support import (
    BLIND,
    LATER,
    MS,
    US,
    S,
    analyse,
    analyse_blind,
    calm,
    found,
    life,
    lines,
    outcomes,
    rover,
    rules,
    total,
)

STUCK = 0x15000
UNTAKEN = ACK | {"injected"}


class TestLostInterrupt:
    def test_found(self) -> None:
        analysis = analyse(histories.lost_interrupt())
        (finding,) = found(analysis, "lost-interrupt")
        assert (finding["severity"], finding["confidence"]) == ("error", "proved")
        assert (finding["token"], finding["gva"], finding["ts"]) == (STUCK, PAGE, LATER + 520 * US)
        assert finding["cause"] == "accepted by the APIC, never injected"
        assert [e["event"] for e in finding["evidence"]] == [
            "kvm_async_pf_not_present",
            "kvm_async_pf_completed",
            "kvm_async_pf_ready",
            "kvm_apic_accept_irq",
        ]
        assert lines(analysis.faults, "token ready injected acked outcome")[-1] == (
            f"0x15000 {LATER + 520 * US} - - lost"
        )

    def test_found_once_although_later_faults_wait_behind_it(self) -> None:
        story = histories.lost_interrupt()
        victim = story.pv_life(at=LATER + 10 * MS + 100 * US, without=ANSWER)
        analysis = analyse(story)
        assert [f["token"] for f in found(analysis, "lost-interrupt")] == [STUCK]
        assert life(analysis, victim)["outcome"] == "in_flight"

    def test_quiet_while_guest_interrupts_are_off(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=UNTAKEN)
        story.progress(start=LATER + MS, end=LATER + STUCK_FOR)
        assert not rules(analyse(story), "error")

    def test_quiet_when_a_later_delivery_proves_the_ack(self) -> None:
        story = histories.lost_interrupt()
        calm(story, lives=1, start=LATER + S)
        assert not rules(analyse(story), "error")

    def test_quiet_right_at_the_end_of_the_trace(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=UNTAKEN)
        story.interrupt(at=LATER + MS)
        assert not rules(analyse(story), "error")

    def test_quiet_after_the_guest_disabled(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=UNTAKEN)
        story.disable(at=LATER + 2 * MS)
        for n in range(40):
            story.interrupt(at=LATER + (n + 1) * 5 * MS)
        assert not rules(analyse(story), "error")

    @pytest.mark.parametrize("told", [frozenset(), frozenset({"injected"})], ids=["injected", "accepted"])
    def test_quiet_after_the_vcpu_was_reset(self, told: frozenset[str]) -> None:
        """What boots then knows nothing of the interrupt, and takes others for long before it enables."""
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ACK | told)
        story.event(LATER + 2 * MS, "kvm_entry", story.tid(0), 0, vcpu_id=0, rip=0xFFF0)
        take_interrupts(story)
        analysis = analyse(story)
        assert rules(analysis) == {"vcpu-reset"}

    def test_quiet_where_posted_interrupts_need_no_injection(self) -> None:
        # Under APICv no kvm_inj_virq is ever traced, and an ACK is all that can come.
        story = Story()
        for n in range(20):
            story.pv_life(at=LATER - S + n * 2 * MS, without={"injected"})
        analysis = analyse(story)
        assert not rules(analysis, "error")
        assert total(analysis)["balanced"]

    def test_found_with_less_confidence_beside_posted_interrupts(self) -> None:
        story = histories.lost_interrupt()
        story.event(LATER + 521 * US, "kvm_apicv_accept_irq", story.tid(0), 0, apicid=0, vec=0xF3)
        assert [f["confidence"] for f in found(analyse(story), "lost-interrupt")] == ["likely"]

    @BLIND
    def test_undecided_when_records_were_lost_since(self, blind: str) -> None:
        analysis = analyse_blind(histories.lost_interrupt(), blind, at=LATER + 50 * MS)
        assert not rules(analysis, "error")

    def test_undecided_where_a_cpu_of_the_thread_ends_early(self) -> None:
        assert not rules(analyse(_on_a_rover(UNTAKEN)), "error")


class TestMissingAck:
    def test_found(self) -> None:
        analysis = analyse(histories.missing_ack())
        (finding,) = found(analysis, "missing-ack")
        assert (finding["severity"], finding["confidence"], finding["token"]) == ("error", "proved", STUCK)
        assert finding["cause"] == "the guest's handler did not finish"
        assert finding["evidence"][-1]["event"] == "kvm_inj_virq"
        assert lines(analysis.faults, "token acked outcome")[-1] == "0x15000 - answered"

    def test_found_counts_the_faults_that_wait_behind_it(self) -> None:
        story = histories.missing_ack()
        for n in range(3):
            story.pv_life(at=LATER + 12 * MS + n * 5 * MS, without=ANSWER)
        analysis = analyse(story)
        (finding,) = found(analysis, "missing-ack")
        assert "; 3 later faults of this vCPU wait behind it" in finding["message"]
        assert outcomes(analysis) == {"answered": 21, "in_flight": 3}

    def test_quiet_where_nothing_shows_that_the_guest_took_interrupts(self) -> None:
        assert not found(analyse(histories.missing_ack(), off=["kvm_inj_virq"]), "missing-ack")

    def test_found_with_less_confidence_where_injections_are_not_traced(self) -> None:
        # A further async page fault needs IF=1 in the guest.
        story = histories.missing_ack()
        story.pv_life(at=LATER + 100 * MS, without=ANSWER)
        (finding,) = found(analyse(story, off=["kvm_inj_virq"]), "missing-ack")
        assert finding["confidence"] == "likely"
        assert finding["not_ruled_out"] == ["an interrupt lost before the guest: record kvm:kvm_inj_virq"]

    def test_quiet_when_the_ack_is_late(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, acked=LATER + 300 * MS)
        for n in range(40):
            story.interrupt(at=LATER + (n + 1) * 5 * MS)
        analysis = analyse(story)
        assert rules(analysis) == {"late-wakeup"}
        assert life(analysis, STUCK)["acked"] == LATER + 300 * MS

    def test_quiet_when_the_vcpu_is_not_scheduled(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ACK)
        story.progress(vcpu=1, start=LATER, end=LATER + STUCK_FOR)
        assert not rules(analyse(story), "error")

    def test_quiet_for_halt_lives_which_have_no_ack(self) -> None:
        story = Story()
        calm(story, halt=True)
        story.progress(start=LATER, end=LATER + STUCK_FOR)
        assert not rules(analyse(story))

    def test_quiet_for_a_broadcast_in_early_boot(self) -> None:
        story = Story().enable(at=LATER, acked=LATER + 2 * S + 500 * MS)
        story.progress(start=LATER + MS, end=LATER + 2 * S)
        calm(story, start=LATER + 3 * S)
        assert rules(analyse(story)) == {"wake-all"}

    @pytest.mark.parametrize("injected", [True, False])
    def test_found_for_a_broadcast_that_is_never_acked(self, injected: bool) -> None:
        story = Story()
        calm(story)
        tid = story.tid(0)
        story.event(LATER, "kvm_async_pf_ready", tid, 0, token=0xFFFFFFFF, gva=0)
        story.event(LATER + 100, "kvm_apic_accept_irq", tid, 0, apicid=0, vec=0xF3)
        if injected:
            story.event(LATER + 200, "kvm_inj_virq", tid, 0, vector=0xF3)
        for n in range(40):
            story.interrupt(at=LATER + (n + 1) * 5 * MS)
        rule = "missing-ack" if injected else "lost-interrupt"
        assert [f["token"] for f in found(analyse(story), rule)] == [0xFFFFFFFF]

    @BLIND
    def test_undecided_when_records_were_lost_since(self, blind: str) -> None:
        analysis = analyse_blind(histories.missing_ack(), blind, at=LATER + 52 * MS)
        assert not rules(analysis, "error")

    def test_undecided_where_a_cpu_of_the_thread_ends_early(self) -> None:
        assert not rules(analyse(_on_a_rover(ACK)), "error")

    def test_quiet_when_the_trace_ends_before_the_ack(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ACK)
        for n in range(4):
            story.interrupt(at=LATER + MS + n * MS)
        assert not rules(analyse(story), "error")

    def test_found_when_records_were_lost_only_before(self) -> None:
        story = histories.missing_ack().lost(at=LATER - 100 * MS, cpu=0)
        story.progress(start=LATER - 100 * MS, end=LATER - 90 * MS)
        assert found(analyse(story), "missing-ack")


def _on_a_rover(without: frozenset[str]) -> Story:
    """Hand a page over where the ACK may be on a CPU whose data end."""
    story = rover()
    story.pv_life(at=LATER, cpu=0, without=without)
    take_interrupts(story)
    return story


class TestLostWork:
    def test_found(self) -> None:
        analysis = analyse(histories.lost_work())
        (finding,) = found(analysis, "lost-work")
        assert (finding["severity"], finding["confidence"], finding["token"]) == ("error", "likely", STUCK)
        assert finding["cause"] == "the work item was queued and never started"
        assert lines(analysis.faults, "token started completed outcome")[20] == "0x15000 - - lost"

    @pytest.mark.parametrize("later", [0, 1, 2])
    def test_quiet_in_a_starved_pool(self, later: int) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=never_started())
        calm(story, lives=later, start=LATER + 50 * MS)
        story.progress(start=LATER + S, end=LATER + S + STUCK_FOR)
        analysis = analyse(story)
        assert life(analysis, STUCK)["outcome"] == "in_flight"
        assert not found(analysis, "lost-work")

    def test_quiet_when_only_another_cpus_pool_goes_on(self) -> None:
        story = Story()
        calm(story)
        calm(story, vcpu=1)
        story.pv_life(at=LATER, without=never_started())
        calm(story, vcpu=1, start=LATER + 50 * MS)
        assert not found(analyse(story), "lost-work")

    def test_quiet_when_it_started_and_is_slow(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ANSWER | {"completed", "finished", "worker_back", "from_worker"})
        calm(story, lives=5, start=LATER + 50 * MS, vcpu=0)
        assert not found(analyse(story), "lost-work")

    def test_quiet_when_it_was_cancelled(self) -> None:
        story = histories.lost_work().disable(at=LATER + 2 * MS)
        analysis = analyse(story)
        assert not found(analysis, "lost-work")
        assert life(analysis, STUCK)["outcome"] == "cancelled"

    @BLIND
    def test_undecided_when_records_were_lost_meanwhile(self, blind: str) -> None:
        analysis = analyse_blind(histories.lost_work(), blind, at=LATER + 10 * MS)
        assert not rules(analysis, "error")
        assert life(analysis, STUCK)["outcome"] == "undecided"


def test_a_delivery_without_any_trace_of_it_is_not_blamed() -> None:
    story = Story()
    calm(story)
    story.pv_life(at=LATER, without=DELIVERY)
    story.progress(start=LATER + MS, end=LATER + STUCK_FOR)
    analysis = analyse(story)
    assert life(analysis, STUCK)["outcome"] == "answered"
    assert not rules(analysis, "error")
