"""What is put down comes back whole, however much of it there was."""

from __future__ import annotations

from array import array
from mmap import mmap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType


@pytest.mark.parametrize("code", ["i", "q"])
@pytest.mark.parametrize("rooms", [[0], [1000], [1, 1000, 100_000]])
def test_a_column_keeps_what_is_in_it_when_it_grows(
    ledger_engine: ModuleType, code: str, rooms: list[int]
) -> None:
    column = ledger_engine.Column(code, 192)
    n = 0
    for room in rooms:
        view = column.view(room)
        assert len(view) == room
        view[n:] = array(code, range(n, room))
        n = room
        del view
    assert column.view(n).tolist() == list(range(n))


@pytest.mark.parametrize("error", [SystemError, AttributeError])
def test_a_column_grows_by_copies_where_the_system_cannot_move_pages(
    ledger_engine: ModuleType, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    class NoMremap(mmap):
        def resize(self, size: int) -> None:
            raise error

    monkeypatch.setattr(ledger_engine, "anonymous", lambda size: NoMremap(-1, size))
    column = ledger_engine.Column("q", 64)
    column.view(100)[:] = array("q", range(100))
    assert column.view(10_000)[:100].tolist() == list(range(100))


def test_rows_beyond_the_room_come_back_in_their_order(ledger_engine: ModuleType) -> None:
    book = ledger_engine.Ledger({0: {"first": 0, "told": 1}, 1: {}})
    book.state = memoryview(array("q", [7, 8, 9]))
    for n in range(10_001):
        book.put(0, 10 * n, 3, 1, n, 2 * n, -n)
    book.put(1, 5, 0, 0, 0, 0, 0)
    taken = {name: column.tolist() for name, column in book.take(0).items()}
    assert taken["seq"] == list(range(10_001))
    assert taken["ts"] == [10 * n for n in range(10_001)]
    assert taken["cpu"] == [3] * 10_001
    assert taken["tid"] == [8] * 10_001
    assert taken["c"] == [-n for n in range(10_001)]
    assert taken["first"] == [8] * 10_001
    assert taken["told"] == [9] * 10_001
    assert book.take(1)["seq"].tolist() == [10_001]


def test_columns_come_in_the_order_of_the_event_and_its_reading(ledger_engine: ModuleType) -> None:
    reads = {"first": 0, "told": 1, "hog": 2, "ran": 3}
    assert tuple(ledger_engine.Ledger({5: reads}).take(5)) == (*ledger_engine.EVENT, *reads)


@pytest.mark.parametrize("reads", [{80: {}}, {0: dict.fromkeys("abcdefghij", 0)}])
def test_what_there_is_no_room_for_is_refused(
    ledger_engine: ModuleType, reads: dict[int, dict[str, int]]
) -> None:
    with pytest.raises(ValueError, match="room"):
        ledger_engine.Ledger(reads)
