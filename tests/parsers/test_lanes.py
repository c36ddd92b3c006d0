"""Pages of a lane: missed events, and damage of every kind, on both engines."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from apftrace_parsers.integers import BAD_COMMIT, BAD_ORDER, BAD_RECORD, BAD_STAMP, NO_HEADER, UNKNOWN
from tests.builders.subbuf import Layout, SubbufWriter

from .found import PICK, Found, pages_of_three, payload

if TYPE_CHECKING:
    from types import ModuleType


@pytest.mark.parametrize(("count", "told"), [(None, -1), (0, 0), (13, 13)])
def test_missed_events(walker_module: ModuleType, layout: Layout, count: int | None, told: int) -> None:
    writer = SubbufWriter(layout)
    writer.data(100, payload(layout, 1))
    writer.missed(count)
    writer.data(500, payload(layout, 2))
    found = Found(walker_module, writer.finish(), layout)
    assert found.rows[1] == (500, 3, 0, -1, told, 100, 0)
    assert found.stamps == [100, 500, 500]


def test_missed_events_before_the_first_page(walker_module: ModuleType) -> None:
    layout = Layout()
    writer = SubbufWriter(layout)
    writer.missed(4)
    writer.data(500, payload(layout, 2))
    assert Found(walker_module, writer.finish(), layout).rows[0] == (500, 3, 0, -1, 4, -(1 << 63), 0)


def test_what_is_missing_before_the_bounds_is_not_told(walker_module: ModuleType, layout: Layout) -> None:
    writer = SubbufWriter(layout)
    writer.data(100, payload(layout, 1))
    writer.missed(5)
    writer.data(200, payload(layout, 2))
    writer.data(250, payload(layout, 3))
    writer.missed(7)
    writer.data(300, payload(layout, 4))
    found = Found(walker_module, writer.finish(), layout, bounds=(240, 400))
    assert found.rows[1] == (300, 3, 0, -1, 7, 250, 0)
    assert found.stamps == [250, 300, 300]


def test_what_is_missing_after_the_bounds_is_told_once(walker_module: ModuleType, layout: Layout) -> None:
    writer = SubbufWriter(layout)
    writer.data(100, payload(layout, 1))
    writer.missed(5)
    writer.data(200, payload(layout, 2))
    writer.missed(7)
    writer.data(300, payload(layout, 3))
    found = Found(walker_module, writer.finish(), layout, bounds=(50, 150))
    assert found.stamps == [100]
    assert found.losses == [(0, 5, 100, 200)]


LATE = struct.pack("<Q", 3 << 60)


@pytest.mark.parametrize(
    ("kind", "at", "bad", "kept"),
    [
        pytest.param(BAD_STAMP, 0, b"\xff" * 8, 0, id="stamp out of range"),
        pytest.param(BAD_COMMIT, 8, b"\x01\x02\x03\x04", 0, id="commit beyond the page"),
        pytest.param(BAD_RECORD, 16 + 24, bytes(8), 1, id="zeros where a record should be"),
        pytest.param(BAD_RECORD, 16 + 24, b"\0\0\0\0\xff\xff\xff\xff", 1, id="length beyond the page"),
        pytest.param(BAD_RECORD, 16 + 48, b"\x1c\0\0\0", 2, id="last record beyond the commit"),
        pytest.param(NO_HEADER, 0, bytes(4096), 0, id="a hole in the file"),
        pytest.param(NO_HEADER, 0, bytes(16), 0, id="zeros where the header should be"),
        pytest.param(BAD_STAMP, 16, b"\x1e\0\0\0\xff\xff\xff\xff" * 9, 0, id="endless extends"),
        pytest.param(BAD_ORDER, 0, LATE, 0, id="a page of later"),
    ],
)
def test_damage_costs_the_rest_of_its_page(
    walker_module: ModuleType, kind: int, at: int, bad: bytes, kept: int
) -> None:
    layout = Layout()
    pages = pages_of_three(layout)
    pages[4096 + at : 4096 + at + len(bad)] = bad
    found = Found(walker_module, bytes(pages), layout)
    stamps = [0, 1, 2, *range(100, 100 + kept)]
    last = stamps[-1]
    assert found.rows[: len(stamps)] == [(ts, 3, 7, PICK, ts % 100, -2, 0xFFFF) for ts in stamps]
    assert found.rows[len(stamps)] == (200, 3, 0, -1, -1, last, 0)
    assert found.stamps[len(stamps) + 1 :] == [200, 201, 202]
    assert found.damage[kind] == 1
    assert sum(found.damage) == 1
    assert found.places[0][:3] == (kind, 0, 1)


@pytest.mark.parametrize("bad", [b"\xff" * 8, bytes(4096)])
def test_damage_on_the_last_page_is_an_open_gap(walker_module: ModuleType, bad: bytes) -> None:
    layout = Layout()
    pages = pages_of_three(layout)
    pages[2 * 4096 : 2 * 4096 + len(bad)] = bad
    assert Found(walker_module, bytes(pages), layout).ends_in_gap


@pytest.mark.parametrize("copied", [0, 1])
def test_a_page_of_before_costs_the_page(walker_module: ModuleType, copied: int) -> None:
    pages = pages_of_three(Layout())
    pages += pages[copied * 4096 : (copied + 1) * 4096] + pages[2 * 4096 :]
    for at, stamp in ((2 * 4096, 150), (4 * 4096, 300)):
        pages[at : at + 8] = struct.pack("<Q", stamp)
    found = Found(walker_module, bytes(pages), Layout())
    assert found.stamps == [0, 1, 2, 100, 101, 102, 150, 151, 152, 300, 300, 301, 302]
    assert found.rows[9][3:6] == (-1, -1, -(1 << 63))
    assert found.places == [(BAD_ORDER, 0, 3, 0)]


def test_the_same_page_twice_is_read_once(walker_module: ModuleType) -> None:
    pages = pages_of_three(Layout())
    found = Found(walker_module, bytes(pages[:4096] + pages), Layout())
    assert found.stamps == [0, 1, 2, 100, 100, 101, 102, 200, 201, 202]
    assert found.rows[3][3:6] == (-1, -1, -(1 << 63))
    assert found.places == [(BAD_ORDER, 0, 1, 0)]


def test_of_pages_of_later_on_nobody_knows_what_they_stand_for(walker_module: ModuleType) -> None:
    pages = pages_of_three(Layout())
    later = [bytearray(pages[:4096]) for _ in range(2)]
    for page, stamp in zip(later, (500, 600), strict=True):
        page[:8] = struct.pack("<Q", stamp)
    pages[4096:4096] = later[0] + later[1]
    found = Found(walker_module, bytes(pages), Layout())
    assert found.stamps == [0, 1, 2, 500, 501, 502, 600, 601, 602]
    assert found.damage[BAD_ORDER] == 2
    assert found.ends_in_gap
    assert found.disordered


def test_a_record_that_runs_ahead_of_the_next_page_leaves_a_gap(walker_module: ModuleType) -> None:
    pages = pages_of_three(Layout())
    (head,) = struct.unpack_from("<I", pages, 16 + 24)
    struct.pack_into("<I", pages, 16 + 24, head + (120 << 5))
    found = Found(walker_module, bytes(pages), Layout())
    assert found.stamps == [0, 121, 122, 100, 100, 101, 102, 200, 201, 202]
    assert found.losses == [(0, UNKNOWN, 0, 100)]
    assert sum(found.damage) == 0


def test_an_absolute_stamp_of_before_leaves_a_gap_up_to_the_next_page(
    walker_module: ModuleType, layout: Layout
) -> None:
    writer = SubbufWriter(layout)
    for ts in (100, 160, 20, 21):
        writer.data(ts, payload(layout, 1))
    writer.end_page()
    writer.data(200, payload(layout, 1))
    writer.end_page()
    writer.data(300, payload(layout, 1))
    found = Found(walker_module, writer.finish(), layout)
    assert found.stamps == [100, 160, 20, 21, 200, 200, 300]
    assert found.losses == [(0, UNKNOWN, 21, 200)]
    assert found.backwards == 1


def test_pages_of_one_tick_are_in_order(walker_module: ModuleType) -> None:
    layout = Layout()
    writer = SubbufWriter(layout)
    for i in range(4):
        writer.data(100, payload(layout, i))
        writer.end_page()
    found = Found(walker_module, writer.finish(), layout)
    assert found.stamps == [100] * 4
    assert sum(found.damage) == 0


def test_a_page_without_records_is_no_damage(walker_module: ModuleType) -> None:
    layout = Layout()
    pages = pages_of_three(layout)
    pages[4096 + 8 : 4096 + 16] = bytes(8)
    found = Found(walker_module, bytes(pages), layout)
    assert found.stamps == [0, 1, 2, 200, 201, 202]
    assert sum(found.damage) == 0
