"""Faults planted in a real guest's record are found there, and nothing else is."""

from __future__ import annotations

import pytest

from tests.model.guest.corpus import MUTATORS, run_case


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("name", MUTATORS)
def test_what_is_planted_is_found_and_nothing_else(name: str, number: int) -> None:
    case = run_case(name, number)
    assert case is not None
    assert (case.missed, case.false) == ((), ())
