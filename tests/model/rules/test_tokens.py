"""token-reuse and token-zero: tokens given out wrongly."""

from __future__ import annotations

from tests.builders.story import ANSWER, Story
from tests.builders.tracedat import Event
from tests.model import histories
from tests.model.histories import PAGE, STUCK_FOR
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
    life,
    lines,
    rover,
    rules,
)

TOKEN = 0x80000


def _restored() -> Story:
    """A VM that is restored while a fault is open: its guest enables anew, and its ids begin anew."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, token=TOKEN, gva=PAGE, without=ANSWER)
    story.enable(at=LATER + MS)
    story.pv_life(at=LATER + 2 * MS, token=TOKEN, gva=PAGE + 0x1000)
    return story


class TestTokenReuse:
    def test_found(self) -> None:
        analysis = analyse(histories.token_reuse())
        (finding,) = found(analysis, "token-reuse")
        assert (finding["severity"], finding["confidence"]) == ("error", "proved")
        assert (finding["token"], finding["gva"], finding["ts"]) == (TOKEN, PAGE + 0x1000, LATER + MS)
        assert [e["text"] for e in finding["evidence"]] == [
            "token 0x80000 gva 0x7f008",
            "token 0x80000 gva 0x80008",
        ]

    def test_found_with_both_lives_told_apart(self) -> None:
        analysis = analyse(histories.token_reuse())
        reused = analysis.faults.filter(analysis.faults["token"] == TOKEN)
        assert lines(reused, "token use gva ready") == [
            f"0x80000 1 0x7f008 {LATER + 5 * MS + 20_000}",
            f"0x80000 2 0x80008 {LATER + 8 * MS + 20_000}",
        ]

    def test_found_when_the_earlier_life_is_never_answered(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, token=TOKEN, gva=PAGE, without=ANSWER)
        story.pv_life(at=LATER + MS, token=TOKEN, gva=PAGE + 0x1000)
        assert [f["ts"] for f in found(analyse(story), "token-reuse")] == [LATER + MS]

    def test_quiet_when_a_broadcast_lies_between(self) -> None:
        """A restored VM, whose MSR writes were not recorded: its ids begin anew, and who slept was woken."""
        assert not found(analyse(_restored(), off=["kvm_msr"]), "token-reuse")

    def test_found_with_doubt_where_a_record_may_stand_there_twice(self) -> None:
        story = histories.token_reuse()
        story.records = [r for r in story.records if not (isinstance(r, Event) and r.ts >= LATER + MS)]
        story.records += [r for r in story.records if isinstance(r, Event) and r.fields.get("token") == TOKEN]
        (finding,) = found(analyse(story), "token-reuse")
        assert (finding["severity"], finding["confidence"]) == ("error", "likely")
        assert finding["not_ruled_out"] == [
            "one record that stands in the trace twice: both bear the same stamp"
        ]

    def test_quiet_after_the_wrap_of_ids(self) -> None:
        story = Story()
        story.pv_life(at=START, token=TOKEN, gva=PAGE)
        calm(story, start=START + 2 * MS)
        story.pv_life(at=START + 105 * S, token=TOKEN, gva=PAGE + 0x1000)
        analysis = analyse(story)
        assert not found(analysis, "token-reuse")
        assert life(analysis, TOKEN, use=2)["outcome"] == "answered"

    def test_quiet_when_another_vm_has_the_token(self) -> None:
        story = Story()
        for vm in (0, 1):
            calm(story, lives=5, vm=vm)
            story.pv_life(at=LATER + vm * MS, vm=vm, completed=LATER + 5 * MS, token=TOKEN, gva=PAGE)
        analysis = analyse(story)
        assert not rules(analysis)
        assert [row["use"] for row in analysis.faults.to_dicts()] == [1] * 12

    def test_quiet_when_the_first_life_was_cancelled_by_a_restore(self) -> None:
        assert not rules(analyse(_restored()), "error")

    def test_quiet_when_an_ack_implies_the_ready_of_the_first(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, token=TOKEN, gva=PAGE, without={"ready"})
        story.pv_life(at=LATER + 2 * MS, token=TOKEN, gva=PAGE + 0x1000)
        assert not rules(analyse(story), "error")

    @BLIND
    def test_undecided_when_records_were_lost_between_the_two(self, blind: str) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, token=TOKEN, gva=PAGE, without=ANSWER)
        story.pv_life(at=LATER + 3 * MS, token=TOKEN, gva=PAGE + 0x1000)
        assert not rules(analyse_blind(story, blind, at=LATER + 2 * MS), "error")

    def test_found_when_records_were_lost_only_after_both(self) -> None:
        story = histories.token_reuse().lost(at=LATER + 20 * MS, cpu=0, count=1)
        story.progress(start=LATER + 20 * MS, end=LATER + 30 * MS)
        assert len(found(analyse(story), "token-reuse")) == 1


class TestTokenZero:
    def test_found(self) -> None:
        (finding,) = found(analyse(histories.token_zero()), "token-zero")
        assert (finding["severity"], finding["confidence"], finding["token"]) == ("warning", "proved", 0)
        assert finding["cause"] == "host without 6f3c1fc"

    def test_found_as_an_error_when_its_wakeup_is_lost(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, token=0, gva=PAGE, without=ANSWER)
        story.progress(start=LATER + MS, end=LATER + STUCK_FOR)
        (finding,) = found(analyse(story), "token-zero")
        assert (finding["severity"], finding["confidence"]) == ("error", "likely")

    @BLIND
    def test_a_warning_only_when_its_ready_may_be_among_the_lost(self, blind: str) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, token=0, gva=PAGE, without=ANSWER)
        story.progress(start=LATER + MS, end=LATER + STUCK_FOR)
        analysis = analyse_blind(story, blind, at=LATER + 50 * MS)
        (finding,) = found(analysis, "token-zero")
        assert (finding["severity"], finding["confidence"]) == ("warning", "proved")
        assert life(analysis, 0)["outcome"] == "undecided"
        assert not rules(analysis, "error")

    def test_a_warning_only_where_a_cpu_of_the_thread_ends_early(self) -> None:
        story = rover()
        story.pv_life(at=LATER, token=0, gva=PAGE, cpu=0, without=ANSWER)
        story.progress(start=LATER + MS, end=LATER + STUCK_FOR)
        analysis = analyse(story)
        assert [f["severity"] for f in found(analysis, "token-zero")] == ["warning"]
        assert not rules(analysis, "error")

    def test_a_warning_only_when_the_trace_ends_with_it(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, token=0, gva=PAGE, without=ANSWER)
        analysis = analyse(story)
        assert [f["severity"] for f in found(analysis, "token-zero")] == ["warning"]
        assert life(analysis, 0)["outcome"] == "in_flight"

    def test_quiet_when_only_its_ready_is_in_the_trace(self) -> None:
        """The life began before the trace: nobody knows which host gave the token out."""
        story = Story()
        story.event(START - MS, "kvm_async_pf_ready", story.tid(0), 0, token=0, gva=PAGE)
        calm(story)
        assert rules(analyse(story)) == {"left-truncated"}

    def test_quiet_for_the_first_token_of_a_fixed_host(self) -> None:
        story = Story()
        story.pv_life(at=START, token=0x1000)
        assert not rules(analyse(story))

    def test_quiet_for_vcpu_one_whose_first_token_is_one(self) -> None:
        story = Story()
        story.pv_life(at=START, vcpu=1, token=0x1)
        assert not found(analyse(story), "token-zero")
