"""Where the record is blind: losses where a thread may have been, and CPUs whose data merely end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders.story import ANSWER, Story
from tests.builders.tracedat import Event, Missed
from tests.model import histories
from tests.model.support import (
    LATER,
    MS,
    START,
    US,
    S,
    analyse,
    by_turns,
    calm,
    found,
    life,
    outcomes,
    rules,
)


def _rover(*, silent_from: int | None = None) -> Story:
    """A vCPU that uses both CPUs by turns, and one wakeup without an answer; CPU 1 may end early."""
    story = Story(cpus=2)
    for n in range(200):
        story.pv_life(at=START + n * 4 * MS, cpu=n % 2)
    story.pv_life(at=LATER, cpu=0, without=ANSWER)
    for n in range(200):
        story.pv_life(at=LATER + 5 * MS + n * 4 * MS, cpu=n % 2)
    if silent_from is not None:
        story.records = [r for r in story.records if r.cpu == 0 or r.ts < silent_from]
    return story


STRANDED = 201 << 12


def test_lost_where_no_cpu_falls_silent() -> None:
    assert life(analyse(_rover()), STRANDED)["outcome"] == "lost"


def test_undecided_where_a_cpu_of_the_thread_ends_before_the_proof() -> None:
    analysis = analyse(_rover(silent_from=LATER + 2 * MS))
    assert life(analysis, STRANDED)["outcome"] == "undecided"
    assert life(analysis, STRANDED)["tainted"]
    assert not rules(analysis, "error")


def test_lost_where_the_proof_was_complete_before_a_cpu_ends() -> None:
    analysis = analyse(_rover(silent_from=LATER + 500 * MS))
    assert life(analysis, STRANDED)["outcome"] == "lost"
    assert [f["token"] for f in found(analysis, "lost-wakeup")] == [STRANDED]


def test_nothing_is_spurious_where_a_cpu_begins_late() -> None:
    story = _rover()
    story.records = [r for r in story.records if r.cpu == 0 or r.ts > START + 200 * MS]
    assert not rules(analyse(story), "error") - {"lost-wakeup"}


@pytest.mark.parametrize(("sightings", "outcome"), [(300, "lost"), (25, "undecided")])
def test_a_loss_elsewhere_counts_for_a_thread_that_was_seldom_seen(sightings: int, outcome: str) -> None:
    story = Story(cpus=2)
    calm(story, lives=5)
    token = story.pv_life(at=LATER, without=ANSWER)
    story.progress(start=LATER + MS, end=LATER + sightings * MS)
    story.progress(vcpu=1, start=LATER, end=LATER + sightings * MS)
    story.records.append(Missed(LATER + 20 * MS, 1, 1000))
    assert life(analyse(story), token)["outcome"] == outcome


def test_a_silent_end_is_no_chance() -> None:
    story = histories.lost_wakeup()
    story.progress(vcpu=1, start=START, end=LATER + S // 2)
    assert outcomes(analyse(story)) == {"answered": 20, "lost": 1}


def test_what_a_thread_used_later_tells_nothing_of_a_cpu_that_begins_late() -> None:
    story = Story(cpus=2)
    calm(story, lives=100)
    # Its ready was on CPU 1, whose data begin later; by then the thread keeps to CPU 0.
    token = story.pv_life(at=LATER, cpu=0, without=ANSWER)
    for n in range(200):
        story.pv_life(at=LATER + 5 * MS + n * 4 * MS, cpu=0)
        story.pv_life(vcpu=1, at=LATER + 5 * MS + n * 4 * MS, cpu=1)
    story.records = [r for r in story.records if r.cpu == 0 or r.ts > LATER + 200 * MS]
    analysis = analyse(story)
    assert life(analysis, token)["outcome"] == "undecided"
    assert analysis.unsafe == ("records that would tell may be missing",)
    assert not rules(analysis, "error")


def test_a_cpu_that_was_never_again_without_a_record_for_so_long_was_not_idle() -> None:
    story = Story(cpus=2)
    for n in range(20):
        story.pv_life(at=START + n * 100 * MS, cpu=n % 2)
    token = story.pv_life(at=START + 50 * MS, cpu=0, without=ANSWER)
    begins = START + 2 * S
    for n in range(100):
        story.pv_life(at=begins + n * 4 * MS, cpu=n % 2)
        # The other CPU has many records while this one pauses, but not for long.
        story.pv_life(at=begins + 400 * MS + n * 3 * MS, cpu=0)
        story.pv_life(at=begins + 800 * MS + n * 4 * MS, cpu=n % 2)
    story.records = [r for r in story.records if r.cpu == 0 or r.ts >= begins]
    analysis = analyse(story)
    assert life(analysis, token)["outcome"] == "undecided"
    assert not rules(analysis, "error")


NAPPER = 700
"""A thread of the host that has nothing to do with async page faults."""
SMOOTH = ("worker_sleeps", "worker_back")
"""Of a life: its worker sleeps through the page's way in, and what wakes it is not in these histories."""


def _sleeps(story: Story, *, start: int, end: int, cpu: int = 0, unwoken: bool = False) -> None:
    """Let a thread sleep every millisecond; ``unwoken`` ones are ended without a record."""
    for at in range(start, end, MS):
        story.switch(at, NAPPER, 0, state=1, cpu=cpu)
        if not unwoken:
            story.event(
                at + 300_000, "sched_wakeup", 0, cpu, comm="nap", pid=NAPPER, prio=120, target_cpu=cpu
            )
        story.switch(at + 400_000, 0, NAPPER, cpu=cpu)


def _few_records(*, unwoken_at: int | None) -> tuple[Story, int]:
    """A wakeup without an answer on CPU 0, and a CPU 1 that has three lives of another vCPU, 300 ms later."""
    story = Story(cpus=2)
    for n in range(20):
        story.pv_life(at=START + n * 14 * MS, cpu=0, without=SMOOTH)
    token = story.pv_life(at=START + MS, cpu=0, without={*ANSWER, *SMOOTH})
    story.progress(start=START + 300 * MS, end=START + 450 * MS)
    for n in range(3):
        story.pv_life(vcpu=1, at=START + 300 * MS + n * 40 * MS, cpu=1, without=SMOOTH)
    _sleeps(story, start=START, end=START + 100 * MS)
    if unwoken_at is not None:
        _sleeps(story, start=unwoken_at, end=unwoken_at + MS, unwoken=True)
    return story, token


def test_lost_where_a_cpu_with_few_records_begins_late() -> None:
    story, token = _few_records(unwoken_at=None)
    assert life(analyse(story), token)["outcome"] == "lost"


def test_undecided_where_a_thread_was_woken_on_a_cpu_that_left_no_record_yet() -> None:
    story, token = _few_records(unwoken_at=START + 200 * MS)
    analysis = analyse(story)
    assert life(analysis, token)["outcome"] == "undecided"
    assert not rules(analysis, "error")


def test_undecided_where_a_thread_was_woken_on_a_cpu_that_left_no_record_any_more() -> None:
    story, token = _few_records(unwoken_at=START + 200 * MS)
    story.records = [r for r in story.records if r.cpu == 0]
    for n in range(3):
        story.pv_life(vcpu=1, at=START + n * 2 * MS, cpu=1, without=SMOOTH)
    assert life(analyse(story), token)["outcome"] == "undecided"


@pytest.mark.parametrize("unwoken", [START + 320 * MS, START + 440 * MS])
def test_what_is_not_recorded_at_other_times_either_tells_nothing_of_a_late_begin(unwoken: int) -> None:
    story, token = _few_records(unwoken_at=START + 200 * MS)
    # CPU 1 has records to the end, and still nobody wakes.
    story.progress(vcpu=1, start=START + 430 * MS, end=START + 450 * MS)
    _sleeps(story, start=unwoken, end=unwoken + MS, unwoken=True)
    assert life(analyse(story), token)["outcome"] == "lost"


def test_where_wakeups_are_hardly_recorded_none_is_missing() -> None:
    story, token = _few_records(unwoken_at=None)
    _sleeps(story, start=START + 200 * MS, end=START + 240 * MS, unwoken=True)
    assert life(analyse(story), token)["outcome"] == "lost"


def _pauses(*, recorded: bool) -> tuple[Story, int]:
    """A wakeup without an answer, and a pause of the recorder some time after it began: on all CPUs, without a mark."""
    story = Story(cpus=2)
    calm(story)
    token = story.pv_life(at=LATER, without=ANSWER)
    story.progress(start=LATER + MS, end=LATER + 300 * MS)
    _sleeps(story, start=START, end=START + 100 * MS, cpu=1)
    story.switch(LATER + 100 * MS, story.tid(0), NAPPER)
    if recorded:
        story.switch(LATER + 110 * MS, NAPPER, story.tid(0))
    story.records = [r for r in story.records if not LATER + 101 * MS < r.ts < LATER + 109 * MS]
    story.switch(LATER + 200 * MS, story.tid(0), 0)
    return story, token


def test_lost_where_a_pause_of_a_cpu_is_one() -> None:
    story, token = _pauses(recorded=True)
    analysis = analyse(story)
    assert life(analysis, token)["outcome"] == "lost"
    assert "events-lost" not in rules(analysis)


def test_undecided_where_a_thread_leaves_a_cpu_that_it_never_came_to() -> None:
    story, token = _pauses(recorded=False)
    analysis = analyse(story)
    assert life(analysis, token)["outcome"] == "undecided"
    assert "records of CPU 0 lost here" in {f["message"] for f in found(analysis, "events-lost")}
    assert not rules(analysis, "error")


def test_where_only_some_switches_are_recorded_none_is_missing() -> None:
    story, token = _pauses(recorded=False)
    # As with a filter on threads: each time another leaves than came.
    for n in range(20):
        story.switch(LATER + 220 * MS + n * MS, 900 + n, NAPPER)
    assert life(analyse(story), token)["outcome"] == "lost"


def _entries(*, missing: bool, filtered: bool = False, length: int = 40 * MS + 600 * US) -> tuple[Story, int]:
    """Return a life that was never answered, and a vCPU of which an exit is missing while it waits, or many are."""
    story = Story()
    calm(story)
    token = story.pv_life(at=LATER, without=ANSWER)
    story.progress(start=LATER + MS, end=LATER + 300 * MS)
    runs = by_turns(story)
    gone = [r for r in runs if r.ts >= LATER + 100 * MS and isinstance(r, Event) and r.name == "kvm_exit"]
    for record in gone[: 100 if filtered else 0]:
        runs.remove(record)
    if missing and not filtered:
        since = LATER + 99 * MS + 500 * US
        runs = [r for r in runs if not since < r.ts < since + length]
    story.records = runs
    return story, token


@pytest.mark.parametrize("cpu", [0, 1])
def test_undecided_where_a_vcpu_enters_twice_in_a_row(cpu: int) -> None:
    story, token = _entries(missing=True)
    for n, record in enumerate(story.records):
        if isinstance(record, Event) and record.ts == LATER + 99 * MS and record.name == "kvm_exit":
            story.records[n] = replace(record, cpu=cpu)
    analysis = analyse(story, whole=False)
    assert life(analysis, token)["outcome"] == "undecided"
    assert analysis.verdict == "undecided"
    assert "records of CPU 0 lost here" in {f["message"] for f in found(analysis, "events-lost")}
    assert not rules(analysis, "error")


def test_lost_where_entries_and_exits_take_turns() -> None:
    story, token = _entries(missing=False)
    assert life(analyse(story, whole=False), token)["outcome"] == "lost"


def test_lost_where_one_exit_alone_is_missing() -> None:
    """Whole sub-buffers go missing, so somebody took it out: with the ACK of a life, say."""
    story, token = _entries(missing=True, length=600 * US)
    assert life(analyse(story, whole=False), token)["outcome"] == "lost"


def test_where_only_some_exits_are_recorded_none_is_missing() -> None:
    story, token = _entries(missing=True, filtered=True)
    assert life(analyse(story, whole=False), token)["outcome"] == "lost"


def test_where_no_exit_is_recorded_none_is_missing() -> None:
    story = Story()
    calm(story, lives=2, every=100 * MS)
    assert len([r for r in story.records if isinstance(r, Event) and r.name == "kvm_entry"]) <= 8
    assert analyse(story, off=["kvm_exit"], whole=False).losses == ()


def test_undecided_after_a_quiet_time_too() -> None:
    """A gap of 10 ms is one however seldom there are records on the whole."""
    story, token = _entries(missing=True)
    story.pv_life(at=START - 8 * S)
    assert life(analyse(story, whole=False), token)["outcome"] == "undecided"


def _hop(behind: int) -> Story:
    """A sound trace of a vCPU that moves, to a CPU whose clock is behind, and then stays in the guest for long."""
    story = Story(cpus=2)
    calm(story)
    for n in range(20):
        story.event(START + n * MS, "sched_switch", 900, 1, prev_pid=900, prev_state=0, next_pid=0)
    tid = story.tid(0)
    for at, cpu, name in (
        (LATER, 0, "exit"), (LATER + 10 * US, 0, "entry"), (LATER + 30 * US, 0, "exit"),
        (LATER + 32 * US - behind, 1, "entry"), (LATER + 40 * MS, 1, "exit"), (LATER + 40 * MS + US, 1, "entry"),
    ):  # fmt: skip
        fields = {"vcpu_id": 0} if name == "entry" else {"exit_reason": 0x60, "isa": 2}
        story.event(at, f"kvm_{name}", tid, cpu, **fields)
    return story


@pytest.mark.parametrize("behind", [0, 5 * US])
def test_two_clocks_that_disagree_are_no_gap(behind: int) -> None:
    assert analyse(_hop(behind), whole=False).losses == ()


@pytest.mark.parametrize(("reason", "gaps"), [(0x7C, 0), (0x60, 1)])
def test_an_entry_on_the_fast_path_of_an_exit_is_not_missing(reason: int, gaps: int) -> None:
    story = _hop(0)
    story.records = [
        replace(r, fields=r.fields | {"exit_reason": reason}) if r.ts == LATER + 30 * US else r
        for r in story.records
        if r.ts != LATER + 32 * US
    ]
    losses = analyse(story, whole=False).losses
    assert len(losses) == gaps * 2  # the one missing may be on either CPU


def test_a_loss_on_a_cpu_of_the_vcpu_explains_what_is_missing() -> None:
    story, _ = _entries(missing=True)
    for n, record in enumerate(story.records):
        if (
            isinstance(record, Event)
            and record.name == "kvm_exit"
            and record.ts < LATER + 5 * MS
            and record.ts > LATER
        ):
            story.records[n] = replace(record, cpu=1)
    story.lost(at=LATER + 150 * MS, cpu=1, count=1)
    story.switch(LATER + 200 * MS, 0, 900, cpu=1)
    assert {loss.cpu for loss in analyse(story, whole=False).losses} == {1}


def test_a_loss_where_the_vcpu_never_was_does_not() -> None:
    story, token = _entries(missing=True)
    story.switch(LATER, 900, 0, cpu=1).switch(LATER + 200 * MS, 0, 900, cpu=1)
    story.lost(at=LATER + 150 * MS, cpu=1, count=1)
    analysis = analyse(story, whole=False)
    assert {loss.cpu for loss in analysis.losses} == {0, 1}
    assert life(analysis, token)["outcome"] == "undecided"
