"""Rows of the stream: fields of any width at any place, records that are too short, on both engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apftrace_parsers.integers import zeros
from tests.builders.subbuf import Layout, SubbufWriter

from .found import EVENT, PICK, Found, payload

if TYPE_CHECKING:
    from types import ModuleType


@pytest.mark.parametrize("value", [0, 1, -1, (1 << 63) - 1, -(1 << 63), 0x80000000, -0x80000000])
def test_extreme_values(walker_module: ModuleType, layout: Layout, value: int) -> None:
    writer = SubbufWriter(layout)
    writer.data(0, payload(layout, value))
    assert Found(walker_module, writer.finish(), layout).rows[0][4] == value


def test_short_records_read_as_zero(walker_module: ModuleType, layout: Layout) -> None:
    writer = SubbufWriter(layout)
    writer.data(5, payload(layout, 9)[:12])
    found = Found(walker_module, writer.finish(), layout)
    assert found.rows == [(5, 3, 7, PICK, 0, 0, 0)]
    assert found.short == 3


def test_two_picks_of_one_event(walker_module: ModuleType) -> None:
    layout = Layout()
    writer = SubbufWriter(layout)
    writer.data(5, payload(layout, 9))
    walker = walker_module.Walker(bytearray(writer.finish()), [0], [0], [4096], big=False, long_size=8)
    walker.set_picks(
        [(0, EVENT, 0), (0, EVENT, 1)], [[(8, 8), (0, 0), (0, 0)], [(18, -2), (0, 0), (0, 0)]], 4
    )
    columns = [zeros(code, 8) for code in "qiiiqqq"]
    walker.rows.set_output(columns)
    walker.feed(0, 0, 4096)
    assert walker.join(0)
    assert walker.merge(0) == 2
    assert [(columns[3][i], columns[4][i]) for i in range(2)] == [(0, 9), (1, -2)]


@pytest.mark.parametrize("width", [1, 2, 4, 8, -1, -2, -4, -8])
def test_fields_at_any_place(walker_module: ModuleType, layout: Layout, width: int) -> None:
    # Packed structures put fields across words.
    body = payload(layout, 0)[:8] + bytes(range(0x79, 0x79 + 24))
    writer = SubbufWriter(layout)
    writer.data(5, body)
    page = bytearray(writer.finish())
    big = layout.byte_order == ">"
    for offset in range(8, 24):
        walker = walker_module.Walker(page, [0], [0], [len(page)], big=big, long_size=layout.long_size)
        walker.set_picks([(0, EVENT, 0)], [[(offset, width), (0, 0), (0, 0)]], 4)
        columns = [zeros(code, 8) for code in "qiiiqqq"]
        walker.rows.set_output(columns)
        walker.feed(0, 0, len(page))
        assert walker.join(0)
        assert walker.merge(0) == 1
        raw = body[offset : offset + abs(width)]
        expected = int.from_bytes(raw, "big" if big else "little", signed=width < 0 or width == 8)
        assert columns[4][0] == expected, offset
