"""A guest's waits from its own lines: what ends each, in which order, and what is not there."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from apftrace.model.guest.pair import alone
from apftrace.model.guest.recording import record_guest
from apftrace_parsers.registry import open_source
from tests.builders.guest_story import RAN, GuestStory
from tests.model.support import MS, START, S


def states(guest: GuestStory, columns: str) -> list[str]:
    """Return the waits as lines; instants in us since START."""
    with tempfile.TemporaryDirectory() as directory:
        source = open_source(guest.write(Path(directory) / "guest.txt"))
        waits = alone(record_guest(source, "vm1")[0]).waits
        source.close()
    instants = {"wait", "wake", "irq", "wakeup", "running", "retry"}
    return [
        " ".join(
            "-"
            if row[name] is None
            else str((row[name] - START) // 1000)
            if name in instants
            else str(row[name])
            for name in columns.split()
        )
        for row in waits.iter_rows(named=True)
    ]


def test_a_thread_that_slept() -> None:
    guest = GuestStory().life(at=START, token=0x1000)
    assert states(guest, "guest_tid wait irq wake wakeup running retry slept state") == [
        "200 4 526 528 529 566 571 True ran"
    ]


def test_a_thread_that_was_woken_before_it_could_sleep_runs_from_the_wake() -> None:
    guest = GuestStory().life(at=START, token=0x1000, slept=False)
    assert states(guest, "wait wake running slept state") == ["4 528 528 False ran"]


def test_a_token_used_again_belongs_to_the_wait_before_it() -> None:
    guest = GuestStory().life(at=START, token=0x1000).life(at=START + S, token=0x1000, tid=201)
    assert states(guest, "guest_tid wake early") == ["200 528 False", "201 1000528 False"]


def test_two_threads_wait_at_once_and_are_woken_in_another_order() -> None:
    guest = GuestStory()
    guest.life(at=START, token=0x1000, tid=200, irq=START + 5 * MS)
    guest.life(at=START + MS, token=0x2000, tid=201, irq=START + 3 * MS)
    assert states(guest, "guest_tid wake running") == ["200 5002 5040", "201 3002 3040"]


def test_an_interrupt_wakes_once() -> None:
    guest = GuestStory().life(at=START, token=0x1000)
    guest.life(at=START + MS, token=0x2000, tid=201, without={"irq"})
    assert states(guest, "irq wake") == ["526 528", "- 1528"]


@pytest.mark.parametrize(
    ("missing", "state"),
    [
        (RAN, "runnable"),
        (RAN | {"waking"}, "asleep"),
        ({"waking", "return"}, "ran"),
        ({"wake", "waking", "in"}, "ran"),
    ],
)
def test_what_shows_that_it_ran(missing: frozenset[str], state: str) -> None:
    guest = (
        GuestStory().life(at=START, token=0x1000).life(at=START + MS, token=0x2000, tid=201, without=missing)
    )
    guest.tick(START + S, 0)
    assert states(guest, "state") == ["ran", state]


def test_a_thread_that_waits_again_had_run() -> None:
    guest = GuestStory().life(at=START, token=0x1000, without=RAN | {"wake", "waking"})
    guest.life(at=START + MS, token=0x2000)
    assert states(guest, "wake state") == ["- ran", "1528 ran"]


def test_the_wake_of_another_token_ends_nothing() -> None:
    guest = GuestStory().life(at=START, token=0x1000, without=RAN | {"wake", "waking", "irq"})
    guest.hit(START + MS, 0, 0, "task_wake", "kvm_async_pf_task_wake", 0x9000)
    guest.life(at=START + 2 * MS, token=0x2000, tid=201)
    assert states(guest, "wake state")[0] == "- asleep"
