"""refault-loop, page-malfunction, fatal-fault: pages that do not stay, or cannot be had."""

from __future__ import annotations

import pytest

from tests.builders.story import ANSWER, Story
from tests.model import histories
from tests.model.histories import PAGE
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
    rover,
    rules,
)


class TestRefaultLoop:
    def test_found(self) -> None:
        (finding,) = found(analyse(histories.refault_loop()), "refault-loop")
        assert (finding["severity"], finding["confidence"]) == ("warning", "likely")
        assert (finding["gva"], finding["ts"]) == (PAGE, LATER)
        assert finding["end"] == LATER + 3 * MS + 555 * US
        assert "4 async page faults in a row on gfn 0x7f" in finding["message"]

    def test_found_once_per_loop(self) -> None:
        story = histories.refault_loop()
        for n in range(3):
            story.pv_life(at=LATER + S + n * MS, gva=PAGE)
        messages = [f["message"][:1] for f in found(analyse(story), "refault-loop")]
        assert messages == ["4", "3"]

    def test_found_in_halt_form(self) -> None:
        story = Story()
        calm(story, halt=True)
        for n in range(3):
            story.halt_life(at=LATER + n * MS, gva=PAGE)
        assert len(found(analyse(story), "refault-loop")) == 1

    def test_quiet_for_two_in_a_row(self) -> None:
        story = Story()
        calm(story)
        for n in range(2):
            story.pv_life(at=LATER + n * MS, gva=PAGE)
        assert not rules(analyse(story))

    def test_quiet_when_the_page_was_reclaimed_in_between(self) -> None:
        story = Story()
        calm(story)
        for n in range(5):
            story.pv_life(at=LATER + n * 100 * MS, gva=PAGE)
        assert not rules(analyse(story))

    def test_quiet_for_neighbouring_pages(self) -> None:
        story = Story()
        calm(story)
        for n in range(5):
            story.pv_life(at=LATER + n * MS, gva=PAGE + n * 0x1000)
        assert not rules(analyse(story))

    def test_quiet_when_two_vcpus_fault_on_the_page_in_turn(self) -> None:
        story = Story()
        calm(story)
        for n in range(4):
            story.pv_life(at=LATER + n * MS, gva=PAGE, vcpu=n % 2)
        assert not found(analyse(story), "refault-loop")

    def test_quiet_when_each_life_is_slow(self) -> None:
        story = Story()
        calm(story)
        for n in range(4):
            at = LATER + n * 60 * MS
            story.pv_life(at=at, gva=PAGE, completed=at + 50 * MS)
        assert not found(analyse(story), "refault-loop")

    @BLIND
    def test_only_possible_when_records_were_lost_among_its_lives(self, blind: str) -> None:
        (finding,) = found(analyse_blind(histories.refault_loop(), blind, at=LATER + 2 * MS), "refault-loop")
        assert finding["confidence"] == "possible"
        assert finding["not_ruled_out"][0] == "slower lives than they seem: records were lost among them"

    def test_likely_when_records_were_lost_only_before(self) -> None:
        story = histories.refault_loop().lost(at=LATER - 100 * MS, cpu=0, count=1)
        story.progress(start=LATER - 100 * MS, end=LATER - 90 * MS)
        assert [f["confidence"] for f in found(analyse(story), "refault-loop")] == ["likely"]

    def test_only_possible_where_a_cpu_of_the_thread_ends_early(self) -> None:
        story = rover()
        for n in range(4):
            story.pv_life(at=LATER + n * MS, cpu=0, gva=PAGE)
        (finding,) = found(analyse(story), "refault-loop")
        assert finding["confidence"] == "possible"

    def test_quiet_when_the_trace_ends_in_its_third_life(self) -> None:
        story = Story()
        calm(story)
        for n in range(2):
            story.pv_life(at=LATER + n * MS, gva=PAGE)
        story.pv_life(at=LATER + 200 * MS, gva=PAGE, without=ANSWER)
        assert rules(analyse(story)) == {"in-flight"}


class TestPageMalfunction:
    def test_found_by_the_signal_to_the_vcpu(self) -> None:
        analysis = analyse(histories.page_malfunction())
        (finding,) = found(analysis, "page-malfunction")
        assert (finding["severity"], finding["confidence"]) == ("error", "proved")
        assert (finding["tid"], finding["vcpu"], finding["ts"]) == (101, 0, LATER + MS)
        assert [e["text"] for e in finding["evidence"]] == ["sig=7 code=4 pid=101"]

    def test_found_as_a_warning_by_the_memory_failure(self) -> None:
        story = Story()
        calm(story)
        story.event(LATER, "memory_failure_event", 999, 1, pfn=0x1234, type=12, result=3)
        (finding,) = found(analyse(story), "page-malfunction")
        assert (finding["severity"], finding["tid"]) == ("warning", None)
        assert "host pfn 0x1234" in finding["message"]

    def test_found_as_a_warning_by_the_machine_check(self) -> None:
        story = Story()
        calm(story)
        story.event(LATER, "kvm_inj_exception", story.tid(0), 0, exception=18)
        (finding,) = found(analyse(story), "page-malfunction")
        assert (finding["severity"], finding["vcpu"]) == ("warning", 0)

    def test_found_of_a_vcpu_without_any_async_page_fault(self) -> None:
        """A poisoned page is none: KVM sees at once that it cannot be had."""
        story = Story()
        calm(story)
        tid = story.tid(1)
        story.event(LATER, "kvm_entry", tid, 1, vcpu_id=1)
        story.event(LATER + MS, "signal_generate", tid, 1, sig=7, code=4, pid=tid, comm="CPU 1/KVM")
        analysis = analyse(story)
        (finding,) = found(analysis, "page-malfunction")
        assert (finding["severity"], finding["confidence"], finding["tid"]) == ("error", "proved", tid)
        assert (finding["vcpu"], finding["vm"]) == (1, None)
        assert f"proved, vCPU 1, tid {tid}, at" in " ".join(analysis.text().split())

    def test_found_once_for_a_machine_check_that_is_injected_again(self) -> None:
        story = Story()
        calm(story)
        for n in range(3):
            story.event(LATER + n * US, "kvm_inj_exception", story.tid(0), 0, exception=18, reinjected=n > 0)
        assert len(found(analyse(story), "page-malfunction")) == 1

    def test_found_where_the_trace_begins_with_a_reinjection(self) -> None:
        story = Story()
        calm(story)
        story.event(START - MS, "kvm_inj_exception", story.tid(0), 0, exception=18, reinjected=True)
        assert len(found(analyse(story), "page-malfunction")) == 1

    @BLIND
    def test_found_as_a_warning_only_when_the_signal_is_among_the_lost(self, blind: str) -> None:
        story = Story()
        calm(story)
        story.event(LATER, "memory_failure_event", 999, 1, pfn=0x1234, type=12, result=3)
        story.progress(start=LATER + MS, end=LATER + 9 * MS)
        analysis = analyse_blind(story, blind, at=LATER + 2 * MS)
        assert [f["severity"] for f in found(analysis, "page-malfunction")] == ["warning"]
        assert not rules(analysis, "error")

    @BLIND
    def test_found_whatever_was_lost_besides(self, blind: str) -> None:
        """The signal names its thread and its code: no other record could make it another."""
        analysis = analyse_blind(histories.page_malfunction(), blind, at=LATER + MS)
        assert [(f["severity"], f["confidence"]) for f in found(analysis, "page-malfunction")] == [
            ("error", "proved")
        ]

    @pytest.mark.parametrize(
        ("sig", "code", "to_vcpu"),
        [
            pytest.param(7, 5, True, id="action optional, for the VMM"),
            pytest.param(7, 4, False, id="another process"),
            pytest.param(7, 2, True, id="BUS_ADRERR"),
            pytest.param(11, 4, True, id="another signal"),
        ],
    )
    def test_quiet_for_other_signals(self, sig: int, code: int, to_vcpu: bool) -> None:
        story = Story()
        calm(story)
        tid = story.tid(0) if to_vcpu else 4711
        story.event(LATER, "signal_generate", tid, 0, sig=sig, code=code, pid=tid, comm="qemu")
        assert not rules(analyse(story))

    def test_quiet_for_the_page_fault_of_a_not_present(self) -> None:
        story = Story()
        calm(story)
        assert not found(analyse(story), "page-malfunction")


class TestFatalFault:
    def test_found(self) -> None:
        (finding,) = found(analyse(histories.fatal_fault()), "fatal-fault")
        assert (finding["severity"], finding["confidence"]) == ("error", "proved")
        assert (finding["gva"], finding["tid"]) == (PAGE, 101)
        assert [e["event"] for e in finding["evidence"]] == ["kvm_page_fault", "kvm_userspace_exit"]

    def test_found_with_less_confidence_without_the_refault(self) -> None:
        story = Story()
        calm(story)
        story.event(LATER, "kvm_userspace_exit", story.tid(0), 0, reason=0, errno=-14)
        (finding,) = found(analyse(story), "fatal-fault")
        assert (finding["confidence"], finding["gva"]) == ("likely", None)
        assert finding["not_ruled_out"] == ["an MMIO or read-only memslot exit"]

    def test_found_with_less_confidence_after_a_fault_on_another_page(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, gva=PAGE)
        tid = story.tid(0)
        story.event(LATER + MS, "kvm_page_fault", tid, 0, fault_address=PAGE + 0x5000, error_code=4)
        story.event(LATER + MS + 9 * US, "kvm_userspace_exit", tid, 0, reason=0, errno=-14)
        assert [f["confidence"] for f in found(analyse(story), "fatal-fault")] == ["likely"]

    def test_found_with_less_confidence_when_the_vcpu_was_in_the_guest_since(self) -> None:
        """The fault was served; what ended the run came later, and was of another page."""
        story = Story()
        calm(story)
        story.pv_life(at=LATER, gva=PAGE)
        tid = story.tid(0)
        story.event(LATER + MS, "kvm_page_fault", tid, 0, fault_address=PAGE, error_code=4)
        story.progress(start=LATER + 2 * MS, end=LATER + 20 * MS, in_guest=False)
        story.event(LATER + 20 * MS, "kvm_exit", tid, 0, exit_reason=0x400, isa=2)
        story.event(LATER + 20 * MS + US, "kvm_userspace_exit", tid, 0, reason=0, errno=-14)
        (finding,) = found(analyse(story), "fatal-fault")
        assert (finding["confidence"], finding["gva"]) == ("likely", None)
        assert [e["event"] for e in finding["evidence"]] == ["kvm_userspace_exit"]
        assert not finding["ruled_out"]

    @BLIND
    def test_not_proved_when_records_were_lost_since_the_fault(self, blind: str) -> None:
        """Among them may be the entry, and a fault on another page."""
        analysis = analyse_blind(histories.fatal_fault(), blind, at=LATER + MS + 5 * US)
        (finding,) = found(analysis, "fatal-fault")
        assert (finding["severity"], finding["confidence"]) == ("error", "likely")
        assert finding["not_ruled_out"] == ["a fault on another page since, among the lost records"]
        assert not finding["ruled_out"]

    def test_not_proved_where_exits_were_not_traced(self) -> None:
        (finding,) = found(analyse(histories.fatal_fault(), off=["kvm_exit"]), "fatal-fault")
        assert finding["confidence"] == "likely"
        assert finding["not_ruled_out"] == ["a fault on another page since: record kvm:kvm_exit"]

    def test_not_proved_where_a_cpu_of_the_thread_ends_early(self) -> None:
        story = rover()
        story.pv_life(at=LATER, gva=PAGE, cpu=0)
        tid = story.tid(0)
        story.event(LATER + MS, "kvm_page_fault", tid, 0, fault_address=PAGE, error_code=4)
        story.event(LATER + S, "kvm_userspace_exit", tid, 0, reason=0, errno=-14)
        (finding,) = found(analyse(story), "fatal-fault")
        assert finding["confidence"] == "likely"

    def test_quiet_when_the_trace_ends_with_the_fault(self) -> None:
        story = histories.fatal_fault()
        story.records.pop()
        assert not rules(analyse(story))

    @pytest.mark.parametrize("errno", [0, -4, -11])
    def test_quiet_for_other_ends_of_a_run(self, errno: int) -> None:
        story = Story()
        calm(story)
        story.event(LATER, "kvm_userspace_exit", story.tid(0), 0, reason=2, errno=errno)
        assert not rules(analyse(story))
