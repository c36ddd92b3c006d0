"""Guest traces of every form become the same hits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.builders.guest import Guest
from tests.builders.guest_events import TASK_UNINTERRUPTIBLE, WAIT, WAKE

from .support import recorded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apftrace.model.guest.recording import GuestRecording

    Capture = Callable[[str], Path]

HITS = ("wait", "wake", "irq")
HOG = 77


def test_a_thread_that_only_ran_where_the_waiter_was_woken_has_its_name(tmp_path: Path) -> None:
    guest = Guest(comms={0: "<idle>", 128: "touch", HOG: "hog"})
    guest.switch(900_000, 0, HOG, cpu=1)
    guest.call(1_000_000, 128, WAIT, token=0x1001).switch(1_010_000, 128, 0, state=TASK_UNINTERRUPTIBLE)
    guest.call(1_020_000, 0, WAKE, token=0x1001).wakeup(1_030_000, 0, 128, target=1)
    rec = recorded(guest.dat(tmp_path / "g.dat"))
    assert rec.kind("wakeup")["c"].to_list() == [HOG]
    assert rec.comms == {0: "<idle>", 128: "touch", HOG: "hog"}


@pytest.mark.parametrize(
    ("name", "hits"),
    [
        ("host-guest/agent-v7-h-vm1.dat", (361, 360, 360)),
        ("host-guest/guest-tsc.trace.txt", (185, 185, 185)),
        ("host-guest/guest-function.trace.txt", (147, 147, 147)),
        ("host-guest/guest-function_graph.trace.txt", (95, 95, 95)),
    ],
)
def test_every_hit_of_the_captures(capture: Capture, name: str, hits: tuple[int, ...]) -> None:
    rec = recorded(capture(name))
    assert tuple(rec.kind(kind).height for kind in HITS) == hits
    assert rec.has(*HITS)
    assert rec.hits["ts"].is_sorted()
    assert rec.hits["seq"].to_list() == list(range(rec.hits.height))
    assert rec.notes == ()


def test_every_token_of_the_captures_is_waited_for_before_it_is_woken(capture: Capture) -> None:
    for name in ("host-guest/agent-v7-h-vm1.dat", "host-guest/guest-tsc.trace.txt"):
        rec = recorded(capture(name))
        waits = dict(rec.kind("wait").select("token", "seq").iter_rows())
        wakes = dict(rec.kind("wake").select("token", "seq").iter_rows())
        assert wakes.keys() <= waits.keys()
        assert all(seq > waits[token] for token, seq in wakes.items())


def test_a_thread_that_slept_is_woken_and_switched_in(capture: Capture) -> None:
    for name in ("host-guest/agent-v7-h-vm1.dat", "host-guest/guest-tsc.trace.txt"):
        sleeps = [story for story in scheduling(recorded(capture(name))) if story.startswith("d")]
        assert len(sleeps) > 100
        # The last may not be over.
        assert sum(not story.startswith("dui") for story in sleeps) <= 1


def scheduling(rec: GuestRecording) -> list[str]:
    """Return per wait what then happened to its thread: d to sleep, o preempted, u woken, i on the CPU again."""
    stories: dict[int, list[str]] = {}
    for hit in rec.hits.iter_rows(named=True):
        if hit["kind"] == "wait":
            stories.setdefault(hit["tid"], []).append("")
        elif hit["kind"] == "switch":
            told = ((hit["tid"], "d" if hit["a"] & 2 else "o"), (hit["b"], "i"))
        elif hit["kind"] == "wakeup":
            told = ((hit["a"], "u"),)
        for tid, letter in told if hit["kind"] in ("switch", "wakeup") else ():
            if tid in stories:
                stories[tid][-1] += letter
    return [story for own in stories.values() for story in own]
