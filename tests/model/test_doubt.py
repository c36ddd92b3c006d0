"""Lives that look lost while a delivery shows that a record of their vCPU is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.builders.story import ACK, ANSWER, Story
from tests.model.support import LATER, MS, analyse, calm, found, life, outcomes, rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.analysis import Analysis

PAGE = 0x7F008
AFTER = 300 * MS


def _analysed(
    *, other: int, without: Iterable[str], vcpu: int = 0, followed: bool = True
) -> tuple[Analysis, int]:
    """Return an analysis in which a completed life has no ready, and another one lacks some records.

    Args:
        other: when the other one begins, after ``LATER``, where the first one does.
        without: what it lacks.
        vcpu: the vCPU of the other one.
        followed: whether the vCPU has further lives.
    """
    story = Story()
    for own in {0, vcpu}:
        calm(story, vcpu=own)
    steps = [
        (LATER, lambda: story.pv_life(at=LATER, gva=PAGE, without=ANSWER)),
        (LATER + other, lambda: story.pv_life(at=LATER + other, vcpu=vcpu, without=frozenset(without))),
    ]
    tokens = {at: write() for at, write in sorted(steps, key=lambda step: step[0])}
    if followed:
        calm(story, vcpu=vcpu, lives=3, start=LATER + other + 3 * MS)
    story.progress(start=LATER + max(other, 0) + 20 * MS, end=LATER + AFTER)
    return analyse(story), tokens[LATER]


def test_undecided_where_the_ack_of_a_delivery_is_missing() -> None:
    analysis, token = _analysed(other=2 * MS, without=ACK)
    assert life(analysis, token)["outcome"] == "undecided"
    assert analysis.verdict == "undecided"
    assert not rules(analysis, "error")
    (finding,) = found(analysis, "lost-wakeup")
    assert any("not traced" in reason for reason in finding["not_ruled_out"])
    assert not any("record loss" in reason for reason in finding["ruled_out"])


@pytest.mark.parametrize("without", [{"ready"}, {"ready", "accepted"}], ids=["ready", "ready-accept"])
def test_undecided_where_the_ready_of_a_delivery_is_missing(without: frozenset[str]) -> None:
    """What was handed over answers the life that was completed first; the other one is open."""
    analysis, token = _analysed(other=2 * MS, without=without)
    assert life(analysis, token)["repaired"]
    assert outcomes(analysis) == {"answered": 24, "undecided": 1}
    assert not rules(analysis, "error")


def test_lost_where_nothing_is_missing() -> None:
    analysis, token = _analysed(other=2 * MS, without=())
    assert life(analysis, token)["outcome"] == "lost"


@pytest.mark.parametrize("without", [ACK, {"ready"}], ids=["ack", "ready"])
def test_lost_where_the_record_is_missing_before_the_life(without: frozenset[str]) -> None:
    analysis, token = _analysed(other=-10 * MS, without=without)
    assert life(analysis, token)["outcome"] == "lost"


def test_lost_where_the_ack_is_missing_long_after_the_life_was_stuck() -> None:
    analysis, token = _analysed(other=250 * MS, without=ACK)
    assert life(analysis, token)["outcome"] == "lost"


@pytest.mark.parametrize("without", [ACK, {"ready"}], ids=["ack", "ready"])
def test_lost_where_the_record_of_another_vcpu_is_missing(without: frozenset[str]) -> None:
    analysis, token = _analysed(other=2 * MS, without=without, vcpu=1)
    assert life(analysis, token)["outcome"] == "lost"


def test_the_last_delivery_may_wait_for_its_ack() -> None:
    """No later one tells that it was ACKed: nothing is missing, and the slot is not free."""
    analysis, token = _analysed(other=2 * MS, without=ACK, followed=False)
    assert life(analysis, token)["outcome"] == "in_flight"
    assert outcomes(analysis)["answered"] == 21


@pytest.mark.parametrize(("without", "known"), [(frozenset(), True), (ACK, False)], ids=["whole", "hole"])
def test_a_ready_is_spurious_only_where_no_record_is_shown_to_be_missing(
    without: frozenset[str], known: bool
) -> None:
    story = Story()
    calm(story)
    story.pv_life(at=LATER, without=without)
    story.pv_life(at=LATER + 2 * MS, without={"try", "not_present"})
    calm(story, start=LATER + 5 * MS)
    analysis = analyse(story)
    assert bool(found(analysis, "spurious-ready")) == known
    assert analysis.accounting["stray"].max() == 1


def test_a_ready_too_many_hides_nothing() -> None:
    """It was never due, so nobody ACKs it."""
    story = Story()
    calm(story)
    token = story.pv_life(at=LATER, gva=0xA008)
    lost = story.pv_life(at=LATER + MS, gva=PAGE, without=ANSWER)
    story.event(LATER + 2 * MS, "kvm_async_pf_ready", story.tid(0), 0, token=token, gva=0xA008)
    calm(story, lives=3, start=LATER + 3 * MS)
    story.event(LATER + 30 * MS, "kvm_async_pf_ready", story.tid(0), 0, token=0x99000, gva=0x9008)
    analysis = analyse(story.progress(start=LATER + 40 * MS, end=LATER + AFTER))
    assert life(analysis, lost)["outcome"] == "lost"
    assert len(found(analysis, "spurious-ready")) == 1
