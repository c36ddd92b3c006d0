"""vcpu-reset, vm-ended, vm-stopped: what ends faults without an answer, and what only looks so."""

from __future__ import annotations

import pytest

from tests.builders.story import ANSWER, Story
from tests.model import histories
from tests.model.support import (
    BLIND,
    LATER,
    MS,
    START,
    S,
    analyse,
    analyse_blind,
    calm,
    found,
    outcomes,
    rules,
)


class TestVcpuReset:
    def test_found(self) -> None:
        (finding,) = found(analyse(histories.vcpu_reset()), "vcpu-reset")
        assert (finding["severity"], finding["confidence"]) == ("info", "likely")
        assert "lives that were open and got no ready: 1" in finding["message"]
        assert [e["event"] for e in finding["evidence"]] == ["kvm_async_pf_not_present", "kvm_msr"]

    def test_found_where_a_delivery_shows_that_they_were_on(self) -> None:
        story = Story()
        calm(story)
        assert found(analyse(story.enable(at=LATER)), "vcpu-reset")

    def test_found_once_at_the_reset_vector(self) -> None:
        story = Story().enable(at=START - 10 * MS)
        calm(story)
        story.pv_life(at=LATER, without=ANSWER)
        for n in range(3):  # an interrupt of the host comes before its first instruction
            story.event(LATER + MS + n * 1000, "kvm_entry", story.tid(0), 0, vcpu_id=0, rip=0xFFF0)
        story.enable(at=LATER + 5 * MS)
        analysis = analyse(story)
        (finding,) = found(analysis, "vcpu-reset")
        assert (finding["confidence"], finding["cause"]) == ("proved", "reset of the VM, or INIT")
        assert "at the reset vector with async page faults on" in finding["message"]
        assert finding["message"].endswith("got no ready: 1; they were enabled anew later")
        assert [e["text"] for e in finding["evidence"]][1:] == [
            "vcpu 0, rip 0xfff0",
            "msr_write 4b564d02 = 0xd938009",
        ]
        assert outcomes(analysis)["cancelled"] == 1

    def test_found_where_another_vcpu_sent_an_init(self) -> None:
        analysis = analyse(_with_init(vcpu=1))
        (finding,) = found(analysis, "vcpu-reset")
        assert (finding["vcpu"], finding["confidence"]) == (1, "proved")
        assert finding["cause"] == "INIT, sent by vCPU 0"
        assert [(e["event"], e["text"]) for e in finding["evidence"]][-1] == (
            "kvm_apic_accept_irq",
            "apicid 1 vec 0 (INIT)",
        )
        assert outcomes(analysis)["cancelled"] == 1
        assert not rules(analysis, "error", "warning")

    @BLIND
    def test_only_possible_when_the_write_that_disabled_may_be_lost(self, blind: str) -> None:
        """A CPU that goes offline and comes back: nothing was reset."""
        story = Story().enable(at=START - 10 * MS)
        calm(story)
        analysis = analyse_blind(story.enable(at=LATER), blind, at=LATER - 100 * MS)
        (finding,) = found(analysis, "vcpu-reset")
        assert (finding["severity"], finding["confidence"]) == ("info", "possible")
        assert finding["not_ruled_out"][0].startswith("CPU offline and online again")
        assert not finding["ruled_out"]

    def test_likely_when_records_were_lost_before_it_was_last_seen_on(self) -> None:
        story = Story().enable(at=START - 10 * MS)
        calm(story)
        story.lost(at=START + 10 * MS + MS, cpu=0, count=1)
        assert [f["confidence"] for f in found(analyse(story.enable(at=LATER)), "vcpu-reset")] == ["likely"]

    def test_quiet_where_the_init_is_for_another(self) -> None:
        assert not found(analyse(_with_init(vcpu=2)), "vcpu-reset")

    def test_quiet_where_the_init_is_of_another_vm(self) -> None:
        assert not found(analyse(_with_init(vcpu=1, sender_vm=1)), "vcpu-reset")

    def test_quiet_at_a_sipi_alone(self) -> None:
        assert not found(analyse(_with_init(vcpu=1, mode=0x600)), "vcpu-reset")

    def test_quiet_when_a_cpu_comes_online(self) -> None:
        story = Story()
        calm(story)
        calm(story, vcpu=1, start=START + 300_000)
        story.disable(at=LATER, vcpu=1)
        _init(story, at=LATER + MS)
        story.enable(at=LATER + 2 * MS, vcpu=1)
        assert rules(analyse(story)) == {"apf-disabled", "wake-all"}

    def test_quiet_when_a_vm_boots(self) -> None:
        story = Story()
        story.event(START - 20 * MS, "kvm_entry", story.tid(0), 0, vcpu_id=0, rip=0xFFF0)
        calm(story)
        _init(story, at=START - 15 * MS)
        calm(story, vcpu=1, start=START + 300_000)
        assert not rules(analyse(story))

    def test_quiet_at_boot(self) -> None:
        assert not found(analyse(histories.wake_all()), "vcpu-reset")

    def test_quiet_where_the_cpu_was_offline(self) -> None:
        story = Story()
        calm(story)
        story.disable(at=LATER).enable(at=LATER + MS)
        assert not found(analyse(story), "vcpu-reset")


def _init(story: Story, *, at: int, vcpu: int = 1, sender_vm: int = 0, mode: int = 0x500) -> None:
    """Let vCPU 0 send an INIT, and the SIPI that starts the other."""
    sender = story.tid(0, sender_vm)
    for n, dm in enumerate((mode, 0x600)):
        story.event(at + n * 1000, "kvm_apic_accept_irq", sender, 0, apicid=vcpu, dm=dm, vec=n * 0x9A)


def _with_init(*, vcpu: int, sender_vm: int = 0, mode: int = 0x500) -> Story:
    story = Story().enable(at=START - 10 * MS, vcpu=1)
    calm(story)
    calm(story, vcpu=1, start=START + 300_000)
    calm(story, vm=1, start=START + 600_000)
    story.pv_life(at=LATER, vcpu=1, without=ANSWER)
    _init(story, at=LATER + MS, vcpu=vcpu, sender_vm=sender_vm, mode=mode)
    return story.progress(vcpu=1, start=LATER + 2 * MS, end=LATER + 3 * MS)


class TestVmEnded:
    def test_found(self) -> None:
        analysis = analyse(histories.vm_ended())
        (finding,) = found(analysis, "vm-ended")
        assert (finding["confidence"], finding["cause"]) == ("proved", "the VM ended")
        assert "lives that ended with them: 1" in finding["message"]
        assert outcomes(analysis)["cancelled"] == 1

    def test_found_for_a_vcpu_that_was_removed(self) -> None:
        story = histories.vm_ended()
        calm(story, vcpu=1, start=START + 300_000)
        (finding,) = found(analyse(story), "vm-ended")
        assert finding["cause"] == "vCPUs were removed"
        assert finding["message"].startswith("1 of 2 vCPU threads of vm-101")

    def test_the_end_of_the_vm_is_told_where_the_trace_ends_before_its_last_thread(self) -> None:
        story = histories.vm_ended()
        calm(story, vcpu=1, start=START + 300_000)
        story.records = [r for r in story.records if r.ts <= LATER + MS]
        (finding,) = found(analyse(story), "vm-ended")
        assert finding["cause"] == "the VM is about to end"
        assert finding["not_ruled_out"] == ["vCPUs that were removed: no other thread left a record since"]

    @BLIND
    def test_found_whatever_was_lost_besides(self, blind: str) -> None:
        analysis = analyse_blind(histories.vm_ended(), blind, at=LATER + 500_000)
        assert [f["confidence"] for f in found(analysis, "vm-ended")] == ["proved"]
        assert not rules(analysis, "error")

    def test_quiet_where_the_threads_live_on(self) -> None:
        assert not found(analyse(histories.vm_stopped()), "vm-ended")


class TestVmStopped:
    def test_found(self) -> None:
        (finding,) = found(analyse(histories.vm_stopped()), "vm-stopped")
        assert (finding["severity"], finding["confidence"]) == ("info", "possible")
        assert finding["vm"] == "vm-101"
        assert any("live migration" in text for text in finding["not_ruled_out"])

    @BLIND
    def test_says_so_where_the_vm_may_go_on_unseen(self, blind: str) -> None:
        story = histories.vm_stopped()
        story.event(LATER + 2 * S, "kvm_entry", story.tid(1, 1), 0, vcpu_id=1)
        (finding,) = found(analyse_blind(story, blind, at=LATER + S), "vm-stopped")
        assert finding["confidence"] == "possible"
        assert finding["not_ruled_out"][0].startswith("a guest that goes on where records were lost")

    def test_quiet_without_open_lives(self) -> None:
        story = Story()
        calm(story)
        story.progress(vm=1, vcpu=1, start=START, end=LATER + 2 * S)
        assert not rules(analyse(story))

    def test_quiet_at_the_end_of_the_trace(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ANSWER)
        assert rules(analyse(story)) == {"in-flight"}


class TestEvidence:
    @pytest.mark.parametrize("rule", ["vcpu-reset", "vm-ended", "vm-stopped"])
    @pytest.mark.parametrize(("open_lives", "told"), [(16, "16 (evidence: 8 of 16)"), (8, "8")])
    def test_of_many_lives_the_finding_says_how_many_it_shows(
        self, rule: str, open_lives: int, told: str
    ) -> None:
        story = histories.HISTORIES[rule]()
        for n in range(1, open_lives):
            story.pv_life(at=LATER + n * 10_000, gva=0x5000_0000 + n * 0x1000, without=ANSWER)
        (finding,) = found(analyse(story), rule)
        shown = [e for e in finding["evidence"] if e["event"] == "kvm_async_pf_not_present"]
        assert len(shown) == 8
        assert finding["message"].endswith(f": {told}")
