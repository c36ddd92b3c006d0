"""Tracepoints that are described and never hit: on or off, as the other events show."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

import apftrace
from tests.builders.formats import COMMON, parse
from tests.builders.story import ACK, ANSWER, Story
from tests.builders.tracedat import Event
from tests.model import histories
from tests.model.support import (
    FIVE,
    LATER,
    MS,
    START,
    S,
    analyse,
    calm,
    found,
    known_formats,
    life,
    only,
    outcomes,
    rules,
)

GOES_ON = 1500 * MS


def unanswered(*, halt: bool = False, lives: int = 8) -> Story:
    """Not one fault is answered, and the vCPU goes on for a second and a half, taking other interrupts."""
    story = Story()
    for n in range(lives):
        write = story.halt_life if halt else story.pv_life
        write(at=START + n * 3 * MS, without=ANSWER)
    for n in range(20):
        story.interrupt(at=START + 100 * MS + n * MS)
    story.event(START + 200 * MS, "kvm_msr", story.tid(0), 0, write=1, ecx=0x80B, data=0)
    return story.progress(start=START + S // 4, end=START + GOES_ON)


def hide(story: Story, *names: str) -> Story:
    """Take the records away and leave the descriptions: the tracepoints were off, or never hit."""
    story.records = [r for r in story.records if not isinstance(r, Event) or r.name not in names]
    return story


class TestReadyNeverHit:
    def test_told_guests_without_any_interrupt_are_lost(self) -> None:
        analysis = analyse(unanswered())
        lost = found(analysis, "lost-wakeup")
        assert {(f["severity"], f["confidence"]) for f in lost} == {("error", "likely")}
        assert "no fault of this trace was ever answered" in lost[0]["message"]
        assert analysis.verdict == "anomaly"
        # The last faults have no later one that would show that the guest's interrupts were on.
        assert len(lost) == outcomes(analysis)["lost"] == 7

    def test_told_guests_need_no_description_of_the_tracepoint(self) -> None:
        assert rules(analyse(unanswered(), off=["kvm_async_pf_ready"]), "error") == {"lost-wakeup"}

    @pytest.mark.parametrize("halt", [False, True])
    def test_without_the_interrupts_events_it_is_loud_and_undecided(self, halt: bool) -> None:
        story = hide(unanswered(halt=halt), "kvm_msr", "kvm_apic_accept_irq", "kvm_inj_exception")
        analysis = analyse(story)
        lost = found(analysis, "lost-wakeup")
        assert {(f["severity"], f["confidence"]) for f in lost} == {("warning", "possible")}
        assert "kvm_async_pf_ready was off: it was never hit" in lost[0]["not_ruled_out"]
        assert analysis.verdict == "undecided"
        assert "kvm_async_pf_ready was never hit: it was off, or no fault was answered" in analysis.unsafe

    def test_deliveries_show_that_it_was_off(self) -> None:
        story = Story()
        calm(story)
        analysis = analyse(hide(story.progress(start=LATER, end=LATER + GOES_ON), "kvm_async_pf_ready"))
        assert not rules(analysis, "error")
        assert analysis.verdict == "unusable"

    def test_a_page_that_faults_anew_shows_that_it_was_off(self) -> None:
        story = Story()
        for n in range(3):
            story.halt_life(at=START + n * 5 * MS, gva=0x7F008)
        story.progress(start=LATER, end=LATER + GOES_ON)
        analysis = analyse(hide(story, "kvm_async_pf_ready"))
        assert not rules(analysis, "error", "warning") - {"events-lost"}

    def test_more_faults_than_a_vcpu_may_have_show_that_it_was_off(self) -> None:
        story = Story()
        calm(story, lives=80, halt=True)
        story.progress(start=LATER, end=LATER + GOES_ON)
        assert not rules(analyse(hide(story, "kvm_async_pf_ready")), "error", "warning") - {"events-lost"}

    def test_a_short_trace_proves_nothing(self) -> None:
        story = Story()
        story.pv_life(at=START, without=ANSWER)
        analysis = analyse(story.progress(start=START + MS, end=START + 300 * MS))
        assert not rules(analysis, "error")
        assert outcomes(analysis) == {"undecided": 1}


class TestExceptionsNeverHit:
    def test_deliveries_show_that_they_were_off(self) -> None:
        story = Story()
        calm(story)
        token = story.pv_life(at=LATER, without=ANSWER)
        story.progress(start=LATER + MS, end=LATER + 200 * MS)
        analysis = analyse(hide(story, "kvm_inj_exception"))
        assert life(analysis, token)["kind"] == "unknown"

    def test_without_deliveries_no_guest_was_told(self) -> None:
        story = Story()
        calm(story, halt=True)
        story.interrupt(at=LATER)
        assert set(analyse(hide(story, "kvm_inj_exception")).faults["kind"]) == {"halt"}


def test_a_lost_wakeup_is_found_where_exceptions_were_off() -> None:
    # Who was told must then not be guessed from what is missing: a later delivery would be taken for its own.
    story = histories.lost_wakeup()
    calm(story, start=LATER + S)
    assert rules(analyse(hide(story, "kvm_inj_exception")), "error") == {"lost-wakeup"}


def test_a_fault_in_a_nested_guest_is_not_called_halted_for_want_of_an_exception() -> None:
    story = Story()
    calm(story)
    token = story.pv_life(at=LATER, without=ANSWER | {"inj_exception"})
    story.interrupt(at=LATER + MS)
    assert life(analyse(story), token)["kind"] == "halt"
    nested = parse("kvm", _NESTED)
    story.event(LATER + 2 * MS, "kvm_nested_vmexit_inject", story.tid(0), 0, exit_code=0x4E)
    with tempfile.TemporaryDirectory() as directory:
        path = story.write(Path(directory) / "trace.dat", formats=(*known_formats(), nested))
        assert life(apftrace.analyze(path), token)["kind"] == "unknown"


_NESTED = f"""name: kvm_nested_vmexit_inject
ID: 398
format:
{COMMON}\tfield:__u32 exit_code;\toffset:8;\tsize:4;\tsigned:0;

print fmt: "reason: 0x%x", REC->exit_code
"""


class TestDeliveriesThatNothingTells:
    """Without kvm_apic_accept_irq and kvm_inj_exception no ready is known to be a delivery, no ACK to be of one."""

    def test_a_wakeup_passed_by_is_loud_and_undecided(self) -> None:
        story = histories.lost_wakeup()
        calm(story, start=LATER + S)
        (finding,) = found(analyse(story, off=["kvm_apic_accept_irq", "kvm_inj_exception"]), "lost-wakeup")
        assert (finding["severity"], finding["confidence"]) == ("warning", "possible")
        assert any("an ACK that is for it" in text for text in finding["not_ruled_out"])

    def test_lives_behind_a_delivery_without_an_ack_are_not_lost(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ACK)
        for n in range(5):
            story.pv_life(at=LATER + (n + 1) * 3 * MS, without=ANSWER)
        story.progress(start=LATER + 20 * MS, end=LATER + 600 * MS)
        for off in ((), ("kvm_msr",)):
            hidden = ["kvm_apic_accept_irq", "kvm_inj_exception", *off]
            assert not rules(analyse(story, off=hidden), "error"), off


def test_vector_0_is_wrong_where_exceptions_were_off() -> None:
    assert rules(analyse(hide(histories.wrong_vector(), "kvm_inj_exception")), "error") == {"wrong-vector"}


def test_a_missing_ack_shows_without_accepts() -> None:
    assert rules(analyse(histories.missing_ack(), off=["kvm_apic_accept_irq"]), "error") == {"missing-ack"}


class TestReadyHeldWhileInterruptsAreOff:
    """Hosts before 5.8 deliver a ready only while the guest's interrupts are on."""

    def test_no_loss_where_no_interrupt_delivery_was_seen_and_no_fault_followed(self) -> None:
        story = Story()
        calm(story, halt=True)
        token = story.halt_life(at=LATER, without=ANSWER)
        story.interrupt(at=START - MS)
        analysis = analyse(story.progress(start=LATER + MS, end=LATER + 400 * MS))
        assert life(analysis, token)["outcome"] == "in_flight"

    def test_lost_where_a_later_fault_shows_them_on(self) -> None:
        story = Story()
        calm(story, halt=True)
        token = story.halt_life(at=LATER, without=ANSWER)
        story.halt_life(at=LATER + 50 * MS)
        story.interrupt(at=START - MS)
        analysis = analyse(story.progress(start=LATER + 60 * MS, end=LATER + 400 * MS))
        assert life(analysis, token)["outcome"] == "lost"

    def test_lost_where_the_host_delivers_by_interrupt(self) -> None:
        analysis = analyse(histories.lost_wakeup())
        assert outcomes(analysis)["lost"] == 1


def test_with_the_five_events_only_silence_is_said_aloud() -> None:
    story = unanswered(halt=True)
    story.halt_life(at=START + GOES_ON, without=ANSWER)
    analysis = analyse(story, off=only(*FIVE))
    assert analysis.unsafe
    assert analysis.verdict != "clean"
