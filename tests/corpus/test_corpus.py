"""The analysis under changed captures, five of each kind, the same ones every time."""

from __future__ import annotations

import pytest

from tests.conftest import only_with_more
from tests.corpus.edit import MUTATORS
from tests.corpus.run import describe, run

CASES = 5
LARGEST = 330_000
"""Bytes of a capture on disk; the large ones are for ``python -m tests.corpus.run``."""


@pytest.mark.parametrize("mutator", sorted(MUTATORS))
def test_nothing_missed_and_no_false_alarm(mutator: str) -> None:
    cases = list(run(CASES, seed=1, only=mutator, largest=LARGEST))
    if not cases:
        only_with_more()
    assert cases, "no capture suits this mutator"
    failed = [describe(case) for case in cases if not case.judgement.ok]
    assert not failed, "\n".join(failed)
