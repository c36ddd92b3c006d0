"""Repair before blame: one event that was not traced does not make a lost wakeup."""

from __future__ import annotations

import pytest

from tests.builders.story import ACK, ANSWER, WORKQUEUE, Story
from tests.model.histories import PAGE, STUCK_FOR
from tests.model.support import LATER, MS, US, analyse, calm, found, life, lines, outcomes, rules, total

LATE = 0x15000


def after_calm(without: set[str] | frozenset[str], **times: int) -> Story:
    """A calm host, a life that lacks some events, and then 200 ms of progress."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, gva=PAGE, without=without, **times)
    return story.progress(start=LATER + 2 * MS, end=LATER + STUCK_FOR)


def test_an_accept_implies_the_ready() -> None:
    analysis = analyse(after_calm({"ready"}))
    row = life(analysis, LATE)
    assert (row["outcome"], row["repaired"]) == ("answered", "ready implied by accept")
    assert (row["ready"], row["accepted"]) == (None, LATER + 520_100)
    assert not rules(analysis)
    assert lines(analysis.accounting, "ready answered repaired balanced")[-1] == "20 21 1 true"


def test_an_ack_implies_the_ready() -> None:
    analysis = analyse(after_calm({"ready", "accepted", "injected"}))
    row = life(analysis, LATE)
    assert (row["outcome"], row["repaired"]) == ("answered", "ready implied by ack")
    assert not rules(analysis, "error")


def test_a_new_life_of_the_page_implies_the_end_of_the_old() -> None:
    # R14: a gfn is outstanding once per vCPU.
    story = after_calm(ANSWER)
    story.pv_life(at=LATER + 300 * MS, gva=PAGE)
    analysis = analyse(story.lost(at=LATER + 2 * MS, cpu=0, count=4))
    row = life(analysis, LATE)
    assert (row["outcome"], row["repaired"]) == ("answered", "ended before the next life of its gfn")
    assert row["end"] <= LATER + 300 * MS
    assert not rules(analysis, "error")


def test_how_it_ended_is_undecided_where_no_record_was_lost() -> None:
    """Either its ready was not recorded all the same, or KVM dropped it: R20, which hosts did on SMM."""
    story = after_calm(ANSWER)
    story.pv_life(at=LATER + 300 * MS, gva=PAGE)
    analysis = analyse(story)
    row = life(analysis, LATE)
    assert (row["outcome"], row["repaired"], row["end"]) == ("undecided", None, LATER + 300 * MS)
    assert not rules(analysis, "error")
    assert analysis.verdict == "undecided"
    (finding,) = found(analysis, "events-lost")
    assert finding["cause"] == "over for KVM without a ready"
    assert "a lost wakeup: KVM dropped it with its queue" in finding["not_ruled_out"]
    assert total(analysis)["balanced"]


def test_a_life_that_the_guest_gave_up_was_cancelled_whatever_came_later() -> None:
    story = after_calm(ANSWER)
    story.disable(at=LATER + 250 * MS).enable(at=LATER + 260 * MS)
    story.pv_life(at=LATER + 300 * MS, gva=PAGE)
    analysis = analyse(story)
    assert (life(analysis, LATE)["outcome"], life(analysis, LATE)["repaired"]) == ("cancelled", None)
    assert total(analysis)["balanced"]


def test_a_new_life_of_the_page_on_another_vcpu_implies_nothing() -> None:
    story = after_calm(ANSWER)
    story.pv_life(at=LATER + 300 * MS, gva=PAGE, vcpu=1)
    assert life(analyse(story), LATE)["outcome"] == "lost"


def test_a_new_life_of_the_page_in_another_vm_implies_nothing() -> None:
    story = after_calm(ANSWER)
    calm(story, vm=1, start=LATER)
    story.pv_life(at=LATER + 300 * MS, gva=PAGE, vm=1)
    assert life(analyse(story), LATE, tid=101)["outcome"] == "lost"


def test_the_end_of_the_work_implies_completed() -> None:
    analysis = analyse(after_calm(frozenset({"completed"})))
    assert life(analysis, LATE)["outcome"] == "answered"
    assert not rules(analysis)


@pytest.mark.parametrize(
    "gone",
    [
        {"accepted"}, {"injected"}, {"ack"}, {"ack", "ack_exit"}, {"completed"}, {"try"}, {"inj_exception"},
        {"started"}, {"queued"}, {"finished"}, WORKQUEUE, {"accepted", "injected"}, {"entry_ready"},
        {"to_worker", "worker_sleeps"}, {"page_fault"}, {"waking"},
    ],
    ids=lambda gone: "-".join(sorted(gone)),
)  # fmt: skip
def test_one_event_that_was_not_traced_blames_nobody(gone: set[str]) -> None:
    story = after_calm(gone)
    calm(story, start=LATER + 300 * MS)
    analysis = analyse(story)
    assert life(analysis, LATE)["outcome"] == "answered"
    assert not rules(analysis, "error")
    assert not rules(analysis) & {"late-wakeup", "in-flight", "missing-ack", "lost-interrupt"}


def test_a_repaired_life_keeps_what_was_traced_of_it() -> None:
    row = life(analyse(after_calm({"ready"})), LATE)
    assert row["completed"] == LATER + 500 * US
    assert (row["injected"], row["acked"]) == (LATER + 525 * US, LATER + 555 * US)
    assert row["p3"] is None


def test_the_implied_ready_goes_to_the_life_that_was_completed_first() -> None:
    story = Story()
    calm(story)
    first = story.pv_life(at=LATER, completed=LATER + 5 * MS, without={"ready"})
    second = story.pv_life(at=LATER + MS, completed=LATER + 9 * MS, without=ANSWER)
    analysis = analyse(story)
    assert life(analysis, first)["outcome"] == "answered"
    assert life(analysis, second)["outcome"] == "in_flight"


def test_the_implied_ready_never_goes_to_a_life_that_was_not_completed_yet() -> None:
    story = Story()
    calm(story)
    slow = story.pv_life(at=LATER, completed=LATER + 50 * MS, without=ANSWER)
    quick = story.pv_life(at=LATER + MS, completed=LATER + 3 * MS, without={"ready"})
    analysis = analyse(story)
    assert life(analysis, quick)["repaired"] == "ready implied by accept"
    assert life(analysis, slow)["outcome"] == "in_flight"


def test_a_later_delivery_proves_an_ack_that_was_not_traced() -> None:
    # R11: KVM hands nothing over while the slot is taken.
    story = Story()
    calm(story)
    story.pv_life(at=LATER, without=ACK)
    story.progress(start=LATER + 2 * MS, end=LATER + STUCK_FOR)
    calm(story, lives=3, start=LATER + 300 * MS)
    analysis = analyse(story)
    assert outcomes(analysis) == {"answered": 24}
    assert not rules(analysis, "error")
    assert total(analysis)["balanced"]


def test_two_deliveries_without_their_ready_are_told_apart() -> None:
    story = Story()
    calm(story)
    tokens = [story.pv_life(at=LATER + n * 2 * MS, without={"ready"}) for n in range(2)]
    analysis = analyse(story)
    rows = [life(analysis, token) for token in tokens]
    assert [row["repaired"] for row in rows] == ["ready implied by accept"] * 2
    assert rows[0]["acked"] < rows[1]["accepted"]
