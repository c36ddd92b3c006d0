"""Breaks of a chain, both engines: what is told of how many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType


def broken(breaks_engine: ModuleType, n: int, *, rarely: int, few: int = 0) -> Any:
    breaks = breaks_engine.Breaks(rarely, few)
    for at in range(n):
        breaks.note(7, 0, 1, at, at + 1)
    return breaks


@pytest.mark.parametrize(
    ("n", "links", "told"), [(1, 500, 1), (1, 499, 0), (300, 150_000, 300), (5000, 2**40, 4096)]
)
def test_of_a_chain_that_breaks_rarely_all_are_told(
    breaks_engine: ModuleType, n: int, links: int, told: int
) -> None:
    found = broken(breaks_engine, n, rarely=500).told(links)
    assert [tuple(one) for one in found] == [(7, 0, 1, at, at + 1) for at in range(told)]


@pytest.mark.parametrize(("n", "told"), [(8, 8), (9, 0)])
def test_a_few_are_told_of_a_short_record(breaks_engine: ModuleType, n: int, told: int) -> None:
    assert len(broken(breaks_engine, n, rarely=500, few=8).told(20)) == told
