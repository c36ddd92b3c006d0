"""vcpu-reset, vm-ended, vm-stopped: what ends faults without an answer, and what only looks so."""

from __future__ import annotations

from tests.builders.story import ANSWER, Story
from tests.model import histories
from tests.model.support import LATER, MS, START, S, analyse, calm, found, outcomes, rules


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

    def test_quiet_at_boot(self) -> None:
        assert not found(analyse(histories.wake_all()), "vcpu-reset")

    def test_quiet_where_the_cpu_was_offline(self) -> None:
        story = Story()
        calm(story)
        story.disable(at=LATER).enable(at=LATER + MS)
        assert not found(analyse(story), "vcpu-reset")


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

    def test_quiet_where_the_threads_live_on(self) -> None:
        assert not found(analyse(histories.vm_stopped()), "vm-ended")


class TestVmStopped:
    def test_found(self) -> None:
        (finding,) = found(analyse(histories.vm_stopped()), "vm-stopped")
        assert (finding["severity"], finding["confidence"]) == ("info", "possible")
        assert finding["vm"] == "vm-101"
        assert any("live migration" in text for text in finding["not_ruled_out"])

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
