"""in-flight and left-truncated: lives that the record cuts off at its end or its beginning."""

from __future__ import annotations

import pytest

from tests.builders.story import ANSWER, MSR_EN, Story
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
    lines,
    rules,
)


class TestInFlight:
    def test_found(self) -> None:
        analysis = analyse(histories.in_flight())
        (finding,) = found(analysis, "in-flight")
        assert (finding["severity"], finding["confidence"]) == ("info", "proved")
        assert finding["cause"] == "the trace ends first"
        assert lines(analysis.faults, "token completed ready acked outcome")[-1] == "0x15000 - - - in_flight"
        assert analysis.verdict == "clean"

    def test_found_as_a_warning_when_the_worker_takes_far_too_long(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=UNDONE)
        story.progress(start=LATER + MS, end=LATER + STUCK_FOR)
        (finding,) = found(analyse(story), "in-flight")
        assert (finding["severity"], finding["confidence"]) == ("warning", "possible")
        assert finding["cause"] == "the worker has not answered"

    @pytest.mark.parametrize(
        "off", [("kvm_msr",), ("kvm_msr", "kvm_apic_accept_irq", "kvm_inj_exception", "kvm_inj_virq")]
    )
    def test_found_as_a_warning_where_nothing_tells_whether_the_slot_was_free(
        self, off: tuple[str, ...]
    ) -> None:
        """A delivery that was never ACKed may keep them all back, or they are lost: quiet is wrong for both."""
        story = Story()
        calm(story)
        tokens = [story.pv_life(at=LATER + n * MS, without=ANSWER) for n in range(5)]
        story.progress(start=LATER + 10 * MS, end=LATER + STUCK_FOR)
        analysis = analyse(story, off=off)
        findings = found(analysis, "in-flight")
        assert [f["token"] for f in findings] == tokens
        assert {(f["severity"], f["confidence"]) for f in findings} == {("warning", "possible")}
        assert {f["cause"] for f in findings} == {"not handed over"}
        assert all("record kvm:kvm_msr" in f["not_ruled_out"][0] for f in findings)
        assert analysis.verdict == "warnings"
        assert not rules(analysis, "error")

    def test_quiet_there_about_a_young_one(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ANSWER)
        story.progress(start=LATER + MS, end=LATER + 8 * MS, every=100 * US)
        (finding,) = found(analyse(story, off=["kvm_msr"]), "in-flight")
        assert (finding["severity"], finding["cause"]) == ("info", "the trace ends first")

    def test_found_for_every_vcpu(self) -> None:
        story = Story()
        calm(story)
        for vcpu in (0, 1):
            story.pv_life(at=LATER, vcpu=vcpu, without=ANSWER)
        assert sorted(f["vcpu"] for f in found(analyse(story), "in-flight")) == [0, 1]

    def test_quiet_when_answered(self) -> None:
        story = Story()
        calm(story)
        assert not found(analyse(story), "in-flight")

    def test_quiet_when_cancelled(self) -> None:
        assert not found(analyse(histories.apf_disabled()), "in-flight")

    def test_undecided_when_records_were_lost_at_the_end(self) -> None:
        story = histories.in_flight().lost(at=LATER + MS, cpu=0, count=2)
        story.progress(start=LATER + MS, end=LATER + 3 * MS)
        analysis = analyse(story)
        assert not found(analysis, "in-flight")
        assert life(analysis, STUCK)["outcome"] == "undecided"


def stray_ready(story: Story, token: int, *, at: int = START, vcpu: int = 0) -> None:
    story.event(at, "kvm_async_pf_ready", story.tid(vcpu), vcpu, token=token, gva=PAGE)


class TestLeftTruncated:
    def test_found(self) -> None:
        analysis = analyse(histories.left_truncated())
        (finding,) = found(analysis, "left-truncated")
        assert (finding["severity"], finding["confidence"], finding["token"]) == ("info", "proved", 0x5000)
        assert lines(analysis.accounting, "ready answered left_truncated balanced")[-1] == "2 1 1 true"

    def test_found_across_the_wrap_of_ids(self) -> None:
        story = Story()
        stray_ready(story, 0xFFFFF000)
        story.pv_life(at=START + MS, token=0x1000)
        assert [f["token"] for f in found(analyse(story), "left-truncated")] == [0xFFFFF000]

    def test_found_on_a_vcpu_without_any_fault_of_its_own(self) -> None:
        story = Story()
        calm(story)
        stray_ready(story, 0x7001, vcpu=1)
        assert [f["token"] for f in found(analyse(story), "left-truncated")] == [0x7001]

    def test_found_with_its_delivery(self) -> None:
        story = Story()
        story.pv_life(
            at=START, token=0x5000, without={"exit", "page_fault", "try", "not_present", "inj_exception"}
        )
        story.pv_life(at=START + 10 * MS, token=0x6000)
        analysis = analyse(story)
        assert rules(analysis) == {"left-truncated"}
        assert (
            lines(analysis.accounting, "ready left_truncated delivered acks balanced")[-1] == "2 1 2 2 true"
        )

    def test_not_proved_when_records_were_lost_before_it(self) -> None:
        analysis = analyse(histories.left_truncated().lost(at=START - 1, cpu=0, count=1))
        (finding,) = found(analysis, "left-truncated")
        assert (finding["severity"], finding["confidence"]) == ("info", "likely")
        assert finding["not_ruled_out"] == ["a not_present among the lost records"]

    def test_quiet_when_its_id_is_newer(self) -> None:
        analysis = analyse(histories.spurious_ready())
        assert not found(analysis, "left-truncated")

    def test_quiet_for_a_broadcast(self) -> None:
        assert not found(analyse(histories.wake_all()), "left-truncated")

    def test_no_more_than_a_vcpu_can_have_outstanding(self) -> None:
        story = Story()
        for n in range(66):
            stray_ready(story, 0x5000 + (n << 12), at=START + n * MS)
        story.pv_life(at=START + S, token=0x100000)
        analysis = analyse(story)
        assert len(found(analysis, "left-truncated")) == 64
        assert len(found(analysis, "spurious-ready")) == 2

    def test_an_enable_is_no_ready_of_a_fault(self) -> None:
        story = Story()
        story.event(START, "kvm_msr", story.tid(0), 0, write=1, ecx=MSR_EN, data=9)
        stray_ready(story, 0xFFFFFFFF, at=START + US)
        assert rules(analyse(story)) == {"wake-all"}
