"""apf-disabled, send-always, legacy-protocol, vcpu-spin: what the guest set up, and what it does."""

from __future__ import annotations

import pytest

from tests.builders.story import ANSWER, DELIVERY, MSR_EN, Story
from tests.model import histories
from tests.model.histories import PAGE, halts
from tests.model.support import (
    BLIND,
    LATER,
    MS,
    START,
    US,
    analyse,
    analyse_blind,
    calm,
    found,
    lines,
    rover,
    rules,
)

ENABLED, SEND_ALWAYS, AS_VMEXIT, AS_INT = 1, 2, 4, 8
AREA = 0xD938000
TSC_DEADLINE = 0x6E0


def write_en(story: Story, value: int, *, at: int = START, write: int = 1, vcpu: int = 0) -> Story:
    return story.event(at, "kvm_msr", story.tid(vcpu), vcpu, write=write, ecx=MSR_EN, data=value)


class TestApfDisabled:
    def test_found_with_the_lives_that_it_cancels(self) -> None:
        analysis = analyse(histories.apf_disabled())
        (finding,) = found(analysis, "apf-disabled")
        assert (finding["severity"], finding["confidence"], finding["vcpu"]) == ("info", "proved", 0)
        assert finding["message"].endswith("; 1 open lives were cancelled")
        assert lines(analysis.accounting, "not_present answered cancelled balanced")[-1] == "21 20 1 true"
        assert analysis.verdict == "clean"

    def test_found_with_nothing_open(self) -> None:
        story = Story()
        calm(story)
        (finding,) = found(analyse(story.disable(at=LATER)), "apf-disabled")
        assert finding["message"] == "the guest disabled async page faults on this vCPU"

    def test_found_for_the_vcpu_that_goes_offline_only(self) -> None:
        story = Story()
        calm(story)
        calm(story, vcpu=1)
        open_life = story.pv_life(at=LATER, vcpu=0, without=DELIVERY | {"ready"})
        story.disable(at=LATER + MS, vcpu=1)
        analysis = analyse(story)
        assert [f["tid"] for f in found(analysis, "apf-disabled")] == [102]
        assert f"{open_life:#x} in_flight" in lines(analysis.faults, "token outcome")

    def test_quiet_when_the_guest_enables(self) -> None:
        assert not found(analyse(Story().enable(at=START)), "apf-disabled")

    def test_quiet_when_the_register_is_read(self) -> None:
        assert not found(analyse(write_en(Story(), 0, write=0)), "apf-disabled")


class TestSendAlways:
    def test_found(self) -> None:
        analysis = analyse(histories.send_always())
        (finding,) = found(analysis, "send-always")
        assert (finding["severity"], finding["confidence"]) == ("warning", "proved")
        assert "EN = 0xd93800b" in finding["message"]
        assert analysis.protocol.send_always is True

    def test_quiet_for_what_linux_writes(self) -> None:
        analysis = analyse(write_en(Story(), AREA | ENABLED | AS_INT | AS_VMEXIT))
        assert not found(analysis, "send-always")
        assert analysis.protocol.send_always is False

    def test_quiet_when_the_write_does_not_enable(self) -> None:
        assert not found(analyse(write_en(Story(), AREA | SEND_ALWAYS)), "send-always")

    def test_quiet_without_any_write(self) -> None:
        story = Story()
        calm(story)
        analysis = analyse(story)
        assert not found(analysis, "send-always")
        assert analysis.protocol.send_always is None


class TestLegacyProtocol:
    def test_found_by_the_write(self) -> None:
        analysis = analyse(histories.legacy_protocol())
        (finding,) = found(analysis, "legacy-protocol")
        assert (finding["severity"], finding["confidence"]) == ("info", "proved")
        assert analysis.protocol.kind == "legacy"
        assert analysis.protocol.vector is None

    def test_found_by_injections_without_any_accept(self) -> None:
        story = Story()
        for n in range(20):
            story.pv_life(at=START + n * 2 * MS, without=DELIVERY)
        story.interrupt(at=LATER)
        story.event(LATER + MS, "kvm_msr", story.tid(0), 0, write=1, ecx=TSC_DEADLINE, data=1)
        analysis = analyse(story)
        (finding,) = found(analysis, "legacy-protocol")
        assert finding["confidence"] == "likely"
        assert "20 not_present were injected" in finding["message"]
        assert rules(analysis) == {"legacy-protocol"}

    def test_quiet_where_interrupts_are_delivered(self) -> None:
        story = Story()
        calm(story)
        analysis = analyse(story)
        assert not found(analysis, "legacy-protocol")
        assert (analysis.protocol.kind, analysis.protocol.vector) == ("int", 243)

    def test_quiet_where_accepts_are_not_traced(self) -> None:
        story = Story()
        for n in range(20):
            story.pv_life(at=START + n * 2 * MS, without=DELIVERY)
        assert not found(analyse(story, off=["kvm_apic_accept_irq"]), "legacy-protocol")

    def test_quiet_where_only_vcpus_halt(self) -> None:
        story = Story()
        calm(story, halt=True)
        story.interrupt(at=LATER)
        analysis = analyse(story)
        assert not found(analysis, "legacy-protocol")
        assert analysis.protocol.kind == "halt-only"

    @pytest.mark.parametrize("last", ["ready", "not_present"])
    def test_quiet_where_the_trace_ends_before_the_accept(self, last: str) -> None:
        story = Story()
        without = DELIVERY | {"entry_ready", "from_worker"} | ({"ready"} if last == "not_present" else set())
        for n in range(3):
            story.event(
                START - 3 * MS + n * MS, "kvm_msr", story.tid(0), 0, write=1, ecx=TSC_DEADLINE, data=1
            )
        story.interrupt(at=START - MS)
        story.pv_life(at=START, without=without)
        assert not found(analyse(story), "legacy-protocol")

    @BLIND
    def test_quiet_where_records_were_lost_around_the_only_ready(self, blind: str) -> None:
        """Its accept may be among them."""
        story = Story()
        story.interrupt(at=START - MS)
        story.pv_life(at=START, without=DELIVERY)
        story.event(LATER, "kvm_msr", story.tid(0), 0, write=1, ecx=TSC_DEADLINE, data=1)
        assert not found(analyse_blind(story, blind, at=START + 520 * US), "legacy-protocol")


class TestVcpuSpin:
    def test_found(self) -> None:
        (finding,) = found(analyse(histories.vcpu_spin()), "vcpu-spin")
        assert (finding["severity"], finding["confidence"], finding["token"]) == (
            "warning",
            "likely",
            0x15000,
        )
        assert finding["ts"] == LATER + 500 * US
        assert "2000 hlt exits in 14.5 ms" in finding["message"]

    @pytest.mark.parametrize(
        ("count", "every"),
        [pytest.param(900, 5 * US, id="few"), pytest.param(1300, 11 * US, id="slow")],
    )
    def test_quiet_for_a_vcpu_that_idles(self, count: int, every: int) -> None:
        story = Story()
        calm(story)
        story.halt_life(at=LATER, ready=LATER + 17 * MS)
        halts(story, count=count, start=LATER + 2 * MS, every=every)
        assert not found(analyse(story), "vcpu-spin")

    def test_quiet_for_halts_with_nothing_waiting(self) -> None:
        story = Story()
        calm(story)
        halts(story, count=3000, start=LATER, every=5 * US)
        assert not rules(analyse(story))

    def test_quiet_for_halts_before_completed(self) -> None:
        story = Story()
        calm(story)
        story.halt_life(at=LATER, completed=LATER + 9 * MS)
        halts(story, count=1500, start=LATER + 100 * US, every=5 * US)
        assert not found(analyse(story), "vcpu-spin")

    def test_found_until_the_vm_is_killed(self) -> None:
        story = Story()
        calm(story)
        story.halt_life(at=LATER, without={"ready"})
        halts(story, count=2000, start=LATER + MS, every=5 * US)
        tid = story.tid(0)
        story.event(LATER + 20 * MS, "sched_process_exit", tid, 0, comm="CPU 0/KVM", pid=tid, prio=120)
        (finding,) = found(analyse(story), "vcpu-spin")
        assert finding["confidence"] == "likely"

    def test_quiet_for_halts_after_the_queue_was_cleared(self) -> None:
        """The guest took its CPU offline, and idles for three seconds once it is back."""
        story = Story()
        calm(story)
        story.halt_life(at=LATER, without={"ready"})
        story.disable(at=LATER + 2 * MS)
        halts(story, count=3000, start=LATER + 10 * MS, every=MS)
        analysis = analyse(story)
        assert lines(analysis.faults, "outcome")[-1] == "cancelled"
        assert not found(analysis, "vcpu-spin")

    def test_quiet_for_halts_after_a_ready_that_an_accept_implies(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without={"ready"})
        halts(story, count=3000, start=LATER + 10 * MS, every=5 * US)
        assert not rules(analyse(story))

    @BLIND
    def test_only_possible_when_its_ready_may_be_among_the_lost(self, blind: str) -> None:
        story = Story()
        calm(story)
        story.halt_life(at=LATER, gva=PAGE, without={"ready"})
        halts(story, count=3000, start=LATER + 10 * MS, every=5 * US)
        analysis = analyse_blind(story, blind, at=LATER + MS)
        (finding,) = found(analysis, "vcpu-spin")
        assert (finding["severity"], finding["confidence"]) == ("warning", "possible")
        assert finding["not_ruled_out"][0].startswith("handed over by a ready that was not traced")
        assert analysis.verdict == "undecided"

    def test_likely_when_records_were_lost_before_its_ready(self) -> None:
        """Lost records can only hide further halts, not that the ready came late."""
        story = histories.vcpu_spin().lost(at=LATER + 4 * MS, cpu=0, count=5)
        assert [f["confidence"] for f in found(analyse(story), "vcpu-spin")] == ["likely"]

    def test_only_possible_where_a_cpu_of_the_thread_ends_early(self) -> None:
        story = rover()
        story.halt_life(at=LATER, cpu=0, without={"ready"})
        halts(story, count=3000, start=LATER + 10 * MS, every=5 * US)
        (finding,) = found(analyse(story), "vcpu-spin")
        assert finding["confidence"] == "possible"

    def test_only_possible_where_no_ready_was_ever_traced(self) -> None:
        story = Story()
        story.halt_life(at=LATER, without=ANSWER)
        halts(story, count=3000, start=LATER + MS, every=5 * US)
        assert [f["confidence"] for f in found(analyse(story), "vcpu-spin")] == ["possible"]

    def test_quiet_for_other_exits(self) -> None:
        story = Story()
        calm(story)
        story.halt_life(at=LATER, ready=LATER + 9 * MS)
        story.progress(start=LATER + MS, end=LATER + 9 * MS, every=5 * US)
        assert not found(analyse(story), "vcpu-spin")
