"""Batches made in a second thread come in order, with their errors, and no more of them than are asked for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from apftrace.ahead import beside, made_ahead

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_items_come_in_their_order() -> None:
    assert list(made_ahead(range(1, 1000))) == list(range(1, 1000))
    assert list(made_ahead([])) == []


def test_an_error_comes_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("the third")

    items = made_ahead(broken())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(items)


def test_a_reader_that_turns_away_stops_the_making() -> None:
    made = []

    def endless() -> Iterator[int]:
        while True:
            made.append(threading.get_ident())
            yield len(made)

    items = made_ahead(endless())
    assert next(items) == 1
    items.close()  # type: ignore[attr-defined]
    n = len(made)
    assert set(made) != {threading.get_ident()}
    assert n < 10
    assert not {t.ident for t in threading.enumerate()} & set(made)


def test_what_is_made_beside_is_the_same_and_its_error_too() -> None:
    assert beside(divmod, 7, 2).result() == (3, 1)
    with pytest.raises(ZeroDivisionError):
        beside(divmod, 7, 0).result()
