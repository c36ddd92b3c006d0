"""What is moved out of the fold's few thousand rows of room comes back whole, however much of it there was."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

PIECE = array("q", range(1000))


class NoMremap:
    """A mapping as systems without mremap have it."""

    def __init__(self, room: bytearray) -> None:
        self.room = room

    def resize(self, size: int) -> None:
        raise SystemError("mmap: resizing not available--no mremap()")

    def __len__(self) -> int:
        return len(self.room)

    def __getitem__(self, key: slice) -> bytes:
        return bytes(self.room[key])

    def __setitem__(self, key: slice, value: memoryview) -> None:
        self.room[key] = value


@pytest.mark.parametrize("pieces", [0, 1, 100])
def test_a_column_holds_all_that_was_put_into_it(ledger_engine: ModuleType, pieces: int) -> None:
    column = ledger_engine.Column()
    for _ in range(pieces):
        column.add(memoryview(PIECE).cast("B"))
    assert column.view() == PIECE.tobytes() * pieces


def test_a_column_grows_by_copies_where_the_system_cannot_move_pages(
    ledger_engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_engine, "anonymous", lambda size: NoMremap(bytearray(size)))
    column = ledger_engine.Column()
    for _ in range(10):
        column.add(memoryview(PIECE).cast("B"))
    room = column._room
    assert bytes(room[: len(PIECE) * 80]) == PIECE.tobytes() * 10


def test_rows_beyond_the_room_come_back_in_their_order(ledger_engine: ModuleType) -> None:
    book = ledger_engine.Ledger({0: {"first": 0}, 1: {}})
    book.state = memoryview(array("q", [7, 8]))
    for n in range(10_001):
        book.put(0, 10 * n, 3, 1, n, 2 * n, -n)
    book.put(1, 5, 0, 0, 0, 0, 0)
    taken = {name: bytes(column) for name, column in book.take(0).items()}
    assert array("q", taken["seq"]).tolist() == list(range(10_001))
    assert array("q", taken["ts"]).tolist() == [10 * n for n in range(10_001)]
    assert array("i", taken["cpu"]).tolist() == [3] * 10_001
    assert array("i", taken["tid"]).tolist() == [8] * 10_001
    assert array("q", taken["c"]).tolist() == [-n for n in range(10_001)]
    assert array("i", taken["first"]).tolist() == [8] * 10_001
    assert array("q", bytes(book.take(1)["seq"])).tolist() == [10_001]
