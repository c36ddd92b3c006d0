"""spurious-ready, duplicate-ready, wake-all, wrong-vector: readies that should not be, or not so."""

from __future__ import annotations

import polars as pl
import pytest

from tests.builders.story import ACK, MSR_EN, MSR_INT, Story
from tests.builders.tracedat import Event
from tests.model import histories
from tests.model.histories import PAGE, take_interrupts
from tests.model.support import (
    BLIND,
    LATER,
    MS,
    START,
    US,
    S,
    analyse,
    analyse_blind,
    calm,
    found,
    life,
    lines,
    rover,
    rules,
    total,
)

FIRST_LIFE = 0x1000
AREA = 0xD938009
"""What Linux writes to MSR_KVM_ASYNC_PF_EN."""
LAST = 0x15000


def ready(story: Story, *, at: int, token: int, gva: int = PAGE, vcpu: int = 0, cpu: int = 0) -> Story:
    return story.event(at, "kvm_async_pf_ready", story.tid(vcpu), cpu, token=token, gva=gva)


class TestSpuriousReady:
    def test_found_with_proof_when_its_id_was_not_issued_yet(self) -> None:
        (finding,) = found(analyse(histories.spurious_ready()), "spurious-ready")
        assert (finding["severity"], finding["confidence"]) == ("error", "proved")
        assert (finding["token"], finding["gva"], finding["ts"]) == (0x99000, PAGE, LATER)
        assert [e["text"] for e in finding["evidence"]] == ["token 0x99000 gva 0x7f008"]

    def test_found_without_proof_when_its_id_falls_between_others(self) -> None:
        story = Story()
        for n, token in enumerate((0x1000, 0x2000, 0x4000, 0x5000)):
            story.pv_life(at=START + n * 2 * MS, token=token)
        ready(story, at=LATER, token=0x3000)
        (finding,) = found(analyse(story), "spurious-ready")
        assert (finding["severity"], finding["confidence"]) == ("warning", "likely")
        assert finding["not_ruled_out"] == ["a not_present that was filtered out while recording"]

    def test_found_when_the_life_of_its_token_waits_for_another_page(self) -> None:
        # One bit of an address is enough; the vCPU goes on long after.
        story = Story()
        calm(story)
        token = story.pv_life(at=LATER, gva=PAGE, without={"ready"})
        ready(story, at=LATER + 520 * US, token=token, gva=PAGE ^ 0x40000000)
        story.progress(start=LATER + MS, end=LATER + 300 * MS)
        analysis = analyse(story)
        (finding,) = found(analysis, "spurious-ready")
        assert finding["severity"] == "warning"
        assert finding["message"] == f"ready of token {token:#x}, for another page than its not_present"
        assert life(analysis, token)["outcome"] == "answered"
        assert life(analysis, token)["repaired"] == "ready of its token for another page"
        assert "lost-wakeup" not in rules(analysis)

    def test_found_when_the_page_waits_under_another_token(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, gva=PAGE, without={"ready", *ACK, "accepted", "injected"})
        ready(story, at=LATER + 520 * US, token=0x99000)
        analysis = analyse(story)
        (finding,) = found(analysis, "spurious-ready")
        assert finding["cause"] == "a life of the same page waits under another token"
        assert lines(analysis.faults, "token outcome repaired")[-1] == (
            "0x15000 answered ready of its page under another token"
        )

    def test_found_on_the_vcpu_to_which_it_came(self) -> None:
        story = Story()
        calm(story)
        calm(story, vcpu=1)
        ready(story, at=LATER, token=0x99001, vcpu=1, cpu=1)
        assert [(f["vcpu"], f["tid"]) for f in found(analyse(story), "spurious-ready")] == [(1, 102)]

    def test_quiet_when_it_began_before_the_trace(self) -> None:
        assert not found(analyse(histories.left_truncated()), "spurious-ready")

    def test_quiet_for_a_broadcast(self) -> None:
        assert not found(analyse(histories.wake_all()), "spurious-ready")

    def test_quiet_when_another_vm_has_the_token(self) -> None:
        story = Story()
        calm(story, lives=3)
        calm(story, vm=1)
        assert not rules(analyse(story))

    @BLIND
    def test_undecided_when_records_were_lost_before_it(self, blind: str) -> None:
        story = histories.spurious_ready()
        story.progress(start=LATER - 100 * MS, end=LATER - 90 * MS)
        analysis = analyse_blind(story, blind, at=LATER - 100 * MS)
        assert not found(analysis, "spurious-ready")
        assert "0x99000 possible" in lines(analysis.findings, "token confidence")

    def test_found_although_another_cpu_lost_records(self) -> None:
        story = histories.spurious_ready().lost(at=LATER - 100 * MS, cpu=1, count=5)
        story.progress(vcpu=1, start=START, end=LATER)
        assert [f["confidence"] for f in found(analyse(story), "spurious-ready")] == ["proved"]


class TestDuplicateReady:
    def test_found(self) -> None:
        analysis = analyse(histories.duplicate_ready())
        (finding,) = found(analysis, "duplicate-ready")
        assert (finding["severity"], finding["confidence"], finding["token"]) == ("error", "proved", LAST)
        assert [(e["event"], e["ts"] - LATER) for e in finding["evidence"]] == [
            ("kvm_async_pf_not_present", 0),
            ("kvm_async_pf_ready", 520_000),
            ("kvm_async_pf_ready", 2_000_000),
        ]
        assert lines(analysis.accounting, "ready answered stray balanced")[-1] == "22 21 1 true"

    def test_found_each_time(self) -> None:
        story = histories.duplicate_ready()
        ready(story, at=LATER + 3 * MS, token=LAST)
        assert len(found(analyse(story), "duplicate-ready")) == 2

    def test_found_with_doubt_where_a_record_may_stand_there_twice(self) -> None:
        story = Story()
        token = story.pv_life(at=START)
        story.records += [r for r in story.records if isinstance(r, Event) and r.name == "kvm_async_pf_ready"]
        (finding,) = found(analyse(story), "duplicate-ready")
        assert (finding["token"], finding["confidence"]) == (token, "likely")
        assert finding["not_ruled_out"] == [
            "one record that stands in the trace twice: both bear the same stamp"
        ]

    def test_quiet_when_the_token_has_a_new_life(self) -> None:
        story = Story()
        story.pv_life(at=START, token=0x1000, gva=PAGE)
        calm(story, start=START + 2 * MS)
        story.pv_life(at=LATER, token=0x1000, gva=PAGE)
        analysis = analyse(story)
        assert not found(analysis, "duplicate-ready")
        assert lines(analysis.faults.filter(analysis.faults["token"] == 0x1000), "use outcome")[-1] == (
            "3 answered"
        )

    def test_quiet_for_an_equal_token_of_another_vm(self) -> None:
        story = Story()
        calm(story)
        calm(story, vm=1, start=START + MS)
        assert not rules(analyse(story))

    @BLIND
    def test_undecided_when_records_were_lost_between_the_two(self, blind: str) -> None:
        story = histories.duplicate_ready()
        story.progress(start=LATER + MS, end=LATER + MS + 600 * US, every=200 * US)
        analysis = analyse_blind(story, blind, at=LATER + MS)
        assert not found(analysis, "duplicate-ready")

    def test_found_when_records_were_lost_only_before_both(self) -> None:
        story = histories.duplicate_ready().lost(at=LATER - 100 * MS, cpu=0, count=1)
        story.progress(start=LATER - 100 * MS, end=LATER - 90 * MS)
        assert len(found(analyse(story), "duplicate-ready")) == 1


class TestWakeAll:
    def test_found(self) -> None:
        analysis = analyse(histories.wake_all())
        (finding,) = found(analysis, "wake-all")
        assert (finding["severity"], finding["confidence"]) == ("info", "proved")
        assert (finding["token"], finding["gva"], finding["vcpu"]) == (0xFFFFFFFF, 0, 0)
        assert analysis.verdict == "clean"
        assert lines(analysis.accounting, "ready wake_all delivered acks balanced")[-1] == "20 1 21 21 true"

    def test_found_once_per_vcpu(self) -> None:
        story = Story().enable(at=START).enable(at=START + MS, vcpu=1)
        assert sorted((f["vcpu"], f["tid"]) for f in found(analyse(story), "wake-all")) == [
            (0, 101),
            (1, 102),
        ]

    def test_quiet_without_one(self) -> None:
        story = Story()
        calm(story)
        assert not found(analyse(story), "wake-all")

    def test_quiet_for_the_write_alone(self) -> None:
        story = Story()
        calm(story)
        story.event(LATER, "kvm_msr", story.tid(0), 0, write=1, ecx=MSR_EN, data=0x9)
        assert not found(analyse(story), "wake-all")


class TestWrongVector:
    def test_found_when_the_vector_was_never_set(self) -> None:
        (finding,) = found(analyse(histories.wrong_vector()), "wrong-vector")
        assert (finding["severity"], finding["confidence"], finding["token"]) == ("error", "proved", LAST)
        assert finding["cause"] == "MSR_KVM_ASYNC_PF_INT was never set"
        assert [e["event"] for e in finding["evidence"]] == ["kvm_async_pf_ready", "kvm_apic_accept_irq"]

    @pytest.mark.parametrize("vector", [0, 0x51])
    def test_says_all_that_there_is_to_say_of_a_fault_that_hangs_for_it(self, vector: int) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, vector=vector, without=ACK | {"injected"})
        take_interrupts(story)
        analysis = analyse(story)
        errors = analysis.findings.filter(pl.col("severity") == "error")
        assert errors.select("rule", "token").rows() == [("wrong-vector", LAST)]
        assert analysis.faults.filter(pl.col("token") == LAST)["outcome"].to_list() == ["lost"]

    def test_found_with_less_confidence_for_a_vector_of_its_own(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, vector=0x51, without=ACK | {"injected"})
        (finding,) = found(analyse(story), "wrong-vector")
        assert (finding["confidence"], finding["token"]) == ("likely", LAST)
        assert "vector 81 instead of 243" in finding["message"]

    def test_found_for_a_broadcast_after_a_restore(self) -> None:
        story = Story()
        calm(story)
        tid = story.tid(0)
        story.event(LATER, "kvm_async_pf_ready", tid, 0, token=0xFFFFFFFF, gva=0)
        story.event(LATER + 100, "kvm_apic_accept_irq", tid, 0, apicid=0, vec=0)
        assert [f["token"] for f in found(analyse(story), "wrong-vector")] == [0xFFFFFFFF]

    def test_found_when_enabled_before_a_vector_was_set(self) -> None:
        story = Story()
        for at, ecx, data in ((START - 2 * MS, MSR_EN, 0xD938009), (START - MS, MSR_INT, 0xF3)):
            story.event(at, "kvm_msr", story.tid(0), 0, write=1, ecx=ecx, data=data)
        calm(story)
        (finding,) = found(analyse(story), "wrong-vector")
        assert (finding["severity"], finding["cause"]) == ("warning", "EN was written before INT")

    def test_quiet_when_the_guest_began_before_the_trace_and_begins_anew(self) -> None:
        story = Story()
        writes = ((START, MSR_EN, AREA), (LATER, MSR_INT, 0xF3), (LATER + US, MSR_EN, AREA))
        for at, ecx, data in writes:
            story.event(at, "kvm_msr", story.tid(0), 0, write=1, ecx=ecx, data=data)
        calm(story, start=START + MS)
        assert not found(analyse(story), "wrong-vector")

    @BLIND
    def test_only_possible_when_an_earlier_write_of_the_vector_may_be_lost(self, blind: str) -> None:
        story = Story()
        for at, ecx, data in ((START, MSR_EN, AREA), (LATER, MSR_INT, 0xF3)):
            story.event(at, "kvm_msr", story.tid(0), 0, write=1, ecx=ecx, data=data)
        calm(story, start=START + MS)
        (finding,) = found(analyse_blind(story, blind, at=START + 100 * MS), "wrong-vector")
        assert (finding["severity"], finding["confidence"]) == ("warning", "possible")
        assert finding["not_ruled_out"] == ["an INT write before the trace began, or among the lost records"]

    @BLIND
    def test_quiet_when_the_accept_may_be_among_the_lost(self, blind: str) -> None:
        """What follows the ready after the loss is the accept of any interrupt."""
        story = Story()
        calm(story)
        story.pv_life(at=LATER, vector=0x51, without=ACK | {"injected"})
        analysis = analyse_blind(story, blind, at=LATER + 520 * US + 50)
        assert not found(analysis, "wrong-vector")
        assert not rules(analysis, "error")

    @BLIND
    def test_not_proved_when_records_were_lost_before_an_accept_of_vector_zero(self, blind: str) -> None:
        """No other interrupt has that vector, but it may be another ready that raised it."""
        analysis = analyse_blind(histories.wrong_vector(), blind, at=LATER + 520 * US + 50)
        (finding,) = found(analysis, "wrong-vector")
        assert (finding["severity"], finding["confidence"]) == ("error", "likely")
        assert finding["not_ruled_out"] == ["the accept of another ready, lost with the records between"]

    def test_proved_when_records_were_lost_right_before_the_ready_or_after_the_accept(self) -> None:
        story = histories.wrong_vector()
        story.lost(at=LATER + 520 * US - 1, cpu=0, count=1).lost(at=LATER + 520 * US + 101, cpu=0, count=1)
        assert [f["confidence"] for f in found(analyse(story), "wrong-vector")] == ["proved"]

    @BLIND
    def test_quiet_when_the_write_of_another_vector_may_be_among_the_lost(self, blind: str) -> None:
        """Another guest kernel was booted meanwhile, and has a vector of its own."""
        story = Story()
        calm(story)
        for n in range(3):
            story.pv_life(at=LATER + S + n * 2 * MS, vector=0x51)
        analysis = analyse_blind(story, blind, at=LATER)
        assert not found(analysis, "wrong-vector")
        assert not rules(analysis, "error")

    def test_found_of_a_handler_that_runs_where_no_such_write_was_lost(self) -> None:
        story = Story()
        calm(story)
        for n in range(3):
            story.pv_life(at=LATER + S + n * 2 * MS, vector=0x51)
        assert [f["confidence"] for f in found(analyse(story), "wrong-vector")] == ["likely"] * 3

    def test_quiet_where_the_guest_chose_the_usual_vector_only_later(self) -> None:
        story = Story()
        for n in range(2):
            story.pv_life(at=START + n * 2 * MS, vector=0x51)
        story.enable(at=LATER)
        calm(story, start=LATER + MS)
        assert not found(analyse(story), "wrong-vector")

    def test_found_of_a_fault_that_hangs_though_such_a_write_may_be_lost(self) -> None:
        story = Story()
        calm(story)
        story.lost(at=START + 100 * MS, cpu=0, count=1)
        story.progress(start=START + 100 * MS, end=START + 110 * MS)
        story.pv_life(at=LATER, vector=0x51, without=ACK | {"injected"})
        take_interrupts(story)
        (finding,) = found(analyse(story), "wrong-vector")
        assert (finding["severity"], finding["confidence"]) == ("error", "likely")
        assert finding["not_ruled_out"] == [
            "a guest that had another vector meanwhile: the INT write is lost, or lies before the trace"
        ]

    def test_quiet_where_a_cpu_of_the_thread_ends_early(self) -> None:
        story = rover()
        story.pv_life(at=LATER + S, cpu=0, vector=0x51)
        assert not found(analyse(story), "wrong-vector")

    def test_quiet_when_the_trace_ends_with_the_ready(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without={"accepted", "injected", "entry_ready", "from_worker", *ACK})
        assert not found(analyse(story), "wrong-vector")

    def test_quiet_when_the_vector_was_set_first(self) -> None:
        story = Story()
        writes = ((MSR_INT, 0xF3), (MSR_EN, 0xD938009), (MSR_INT, 0xF3), (MSR_EN, 0xD938009))
        for step, (ecx, data) in enumerate(writes):
            story.event(START - MS + step * 1000, "kvm_msr", story.tid(0), 0, write=1, ecx=ecx, data=data)
        calm(story)
        assert not found(analyse(story), "wrong-vector")

    def test_quiet_when_the_guest_chose_the_vector(self) -> None:
        story = Story()
        story.event(START - MS, "kvm_msr", story.tid(0), 0, write=1, ecx=MSR_INT, data=0x51)
        for n in range(5):
            story.pv_life(at=START + n * 2 * MS, vector=0x51)
        assert not rules(analyse(story))

    def test_quiet_when_all_deliveries_use_the_vector(self) -> None:
        story = Story()
        for n in range(20):
            story.pv_life(at=START + n * 2 * MS, vector=0x51)
        analysis = analyse(story)
        assert not rules(analysis)
        assert life(analysis, FIRST_LIFE)["acked"] is not None
        assert total(analysis)["delivered"] == 20

    @pytest.mark.parametrize("vector", [0xEC, 0xFD])
    def test_quiet_for_another_interrupt_after_a_halt_ready(self, vector: int) -> None:
        story = Story()
        calm(story)
        story.interrupt(at=LATER - MS, vector=vector)
        story.halt_life(at=LATER, without={"entry_ready"})
        story.event(LATER + 521 * US, "kvm_apic_accept_irq", story.tid(0), 0, apicid=0, vec=vector)
        analysis = analyse(story)
        assert not found(analysis, "wrong-vector")
        assert life(analysis, LAST)["kind"] == "halt"

    def test_quiet_for_a_timer_interrupt_after_a_told_ready(self) -> None:
        story = Story()
        calm(story)
        story.interrupt(at=LATER - MS, vector=0xEC)
        story.pv_life(at=LATER, vector=0xEC, without=ACK | {"injected"})
        assert not found(analyse(story), "wrong-vector")
