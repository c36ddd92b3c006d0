"""Faults planted in a real guest's record are found there, and nothing else is."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

import apftrace
from tests.conftest import capture_path
from tests.corpus.run import build
from tests.model.guest.capture import lines_of, written
from tests.model.guest.corpus import GUEST, MUTATORS, Guest, run_case

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("name", MUTATORS)
def test_what_is_planted_is_found_and_nothing_else(name: str, number: int) -> None:
    case = run_case(name, number)
    assert case is not None
    assert (case.missed, case.false) == ((), ())


def test_what_the_host_lost_is_not_blamed_on_the_guest(tmp_path: Path) -> None:
    """A life of the real host loses its answer; its guest's thread sleeps on, for the host's reason."""
    tried = 0
    for number in range(40):
        host = tmp_path / f"host-{number}.dat"
        (due,) = build("lost", "agent-v7-h", number, host) or ()
        guest = Guest(list(lines_of(capture_path(GUEST))), random.Random(number))
        wake = guest.wakes.get(due.token or 0)
        if wake is None or not guest.slept(wake.token or 0):
            continue
        tid = guest.waits[wake.token or 0].tid
        kept = guest.never_again(tid, guest.irq_of(wake.token or 0).ts - 1, guest.without(wake))
        kept = [line for line in kept if line is not guest.irq_of(wake.token or 0)]
        analysis = apftrace.analyze(host, guests={"vm1": written(kept, tmp_path / "guest.txt")})
        blamed = {
            row["rule"] for row in analysis.findings.iter_rows(named=True) if row["token"] == wake.token
        }
        assert "lost-wakeup" in blamed
        assert not blamed & {"lost-in-guest", "missing-guest-handler", "orphan-wake"}
        assert "lost-in-guest" not in analysis.findings["rule"].to_list()
        tried += 1
        if tried == 4:
            return
    pytest.fail(f"only {tried} lives suit")
