"""Sub-buffers: every form of record, every layout, damage, on both engines."""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apftrace_parsers import subbuf, walk
from apftrace_parsers.integers import zeros
from tests.builders.subbuf import MAX_DELTA, Layout, SubbufWriter
from tests.engines import interpreted

from .conftest import COMPILED, INTERPRETED
from .support import LAYOUTS, layout_id

if TYPE_CHECKING:
    from types import ModuleType

EVENT = 77
PICK = 0
ROWS = 4096
# Kinds of damage: module constants are C variables in the compiled engine.
BAD_STAMP, BAD_COMMIT, BAD_RECORD, NO_HEADER, BAD_ORDER = range(5)


@pytest.fixture(params=LAYOUTS, ids=layout_id)
def layout(request: pytest.FixtureRequest) -> Layout:
    return request.param


def payload(layout: Layout, value: int, *, event: int = EVENT, tid: int = 7, more: int = 0) -> bytes:
    """Return common fields, then an s64 at 8 and an s16 at 18; ``more`` bytes follow."""
    head = struct.pack(layout.byte_order + "HBBi", event, 0, 0, tid)
    return head + struct.pack(layout.byte_order + "qHh", value, 0xFFFF, -2) + bytes(more)


FIELDS = [(8, -8), (18, -2), (16, 2)]


class Found:
    """What a walker finds in the pages of CPU 3."""

    def __init__(
        self, engine: ModuleType, pages: bytes, layout: Layout, bounds: tuple[int, int] | None = None
    ) -> None:
        walker = engine.Walker(
            bytearray(pages),
            [3],
            [0],
            [layout.page_size],
            big=layout.byte_order == ">",
            long_size=layout.long_size,
        )
        walker.set_picks([(0, EVENT, PICK)], [FIELDS], 4)
        if bounds:
            walker.set_bounds(0, *bounds, 0, (1 << 62) - 1)
        columns = [zeros(code, ROWS) for code in "qiiiqqq"]
        walker.rows.set_output(columns)
        walker.feed(0, 0, len(pages))
        n = 0
        if walker.join(0):
            while walker.live:
                n = walker.merge(n)
                assert n < ROWS - 1, "more rows than the test has room for"
                walker.take_losses()
        self.rows: list[tuple[int, ...]] = [tuple(column[i] for column in columns) for i in range(n)]
        self.damage = walker.damage_counts()
        self.places = walker.damage_places()
        self.short = walker.short_records
        self.hits: dict[int, int] = walker.hits(0)
        self.ends = walker.ends(0)
        self.ends_in_gap = walker.ends_in_gap(0)
        self.disordered = walker.ends_disordered(0)
        self.backwards = walker.backwards

    def everything(self) -> dict[str, Any]:
        return vars(self)

    @property
    def stamps(self) -> list[int]:
        return [row[0] for row in self.rows]


@pytest.fixture
def walker_module(engine: str) -> ModuleType:
    return subbuf if engine == "compiled" else INTERPRETED["subbuf"]


def test_a_record_becomes_a_row(walker_module: ModuleType, layout: Layout) -> None:
    writer = SubbufWriter(layout)
    writer.data(1000, payload(layout, -5, tid=-1))
    found = Found(walker_module, writer.finish(), layout)
    assert found.rows == [(1000, 3, -1, PICK, -5, -2, 0xFFFF)]
    assert found.hits == {EVENT: 1}
    assert found.ends == (1000, 1000)


@pytest.mark.parametrize("value", [0, 1, -1, (1 << 63) - 1, -(1 << 63), 0x80000000, -0x80000000])
def test_extreme_values(walker_module: ModuleType, layout: Layout, value: int) -> None:
    writer = SubbufWriter(layout)
    writer.data(0, payload(layout, value))
    assert Found(walker_module, writer.finish(), layout).rows[0][4] == value


@pytest.mark.parametrize("more", [0, 4, 88, 92, 300])
def test_short_and_long_form(walker_module: ModuleType, layout: Layout, more: int) -> None:
    writer = SubbufWriter(layout)
    for i in range(5):
        writer.data(10 * i, payload(layout, i, more=more), long_form=i % 2 == 1)
    found = Found(walker_module, writer.finish(), layout)
    assert [row[4] for row in found.rows] == [0, 1, 2, 3, 4]
    assert found.stamps == [0, 10, 20, 30, 40]


def test_all_kinds_of_stamps(walker_module: ModuleType, layout: Layout) -> None:
    # Bit 59 is set: absolute stamps hold 59 bits and take the top from the stamp before.
    start = (1 << 59) + 12345
    times = [start, start + 5, start + MAX_DELTA + 6, start + (1 << 40), start + (1 << 40) + 1]
    writer = SubbufWriter(layout)
    for ts, stamp in zip(times, ["auto", "extend", "auto", "absolute", "auto"], strict=True):
        writer.data(ts, payload(layout, 1), stamp=stamp)
    assert Found(walker_module, writer.finish(), layout).stamps == times


def test_absolute_stamps_carry_over_59_bits(walker_module: ModuleType) -> None:
    # As rb_fix_abs_ts() of the kernel: a stamp that seems older has wrapped.
    layout = Layout()
    writer = SubbufWriter(layout)
    start = (2 << 59) - 10
    writer.data(start, payload(layout, 1))
    writer.data(start + 20, payload(layout, 2), stamp="absolute")
    assert Found(walker_module, writer.finish(), layout).stamps == [start, start + 20]


def test_a_discarded_record_moves_the_clock(walker_module: ModuleType, layout: Layout) -> None:
    # As libtraceevent counts; the kernel's own reader would say 150.
    writer = SubbufWriter(layout)
    writer.data(100, payload(layout, 1))
    writer.discard(150, 24)
    writer.data(200, payload(layout, 2))
    assert Found(walker_module, writer.finish(), layout).stamps == [100, 200]


def test_padding_to_the_end_of_a_page(walker_module: ModuleType, layout: Layout) -> None:
    writer = SubbufWriter(layout)
    writer.data(100, payload(layout, 1))
    writer.end_page(padding=True)
    writer.data(200, payload(layout, 2))
    found = Found(walker_module, writer.finish(), layout)
    assert found.stamps == [100, 200]
    assert found.damage == [0, 0, 0, 0, 0]


def test_null_padding_ends_a_page(walker_module: ModuleType, layout: Layout) -> None:
    writer = SubbufWriter(layout)
    writer.data(100, payload(layout, 1))
    page = bytearray(writer.finish())
    used = layout.header_size + 4 + 20
    page[used : used + 4] = layout.record_head(29, 0)
    page[8 : 8 + layout.long_size] = layout.long(layout.data_size)
    found = Found(walker_module, bytes(page), layout)
    assert found.stamps == [100]
    assert found.damage == [0, 0, 0, 0, 0]


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


def pages_of_three(layout: Layout) -> bytearray:
    """Return three pages with records at 0-2, 100-102 and 200-202."""
    writer = SubbufWriter(layout)
    for page in range(3):
        for i in range(3):
            writer.data(100 * page + i, payload(layout, i))
        writer.end_page()
    return bytearray(writer.finish())


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
    assert sum(found.damage) == 0


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


def test_short_records_read_as_zero(walker_module: ModuleType, layout: Layout) -> None:
    writer = SubbufWriter(layout)
    writer.data(5, payload(layout, 9)[:12])
    found = Found(walker_module, writer.finish(), layout)
    assert found.rows == [(5, 3, 7, PICK, 0, 0, 0)]
    assert found.short == 3


def test_bounds_leave_out_records_and_pages(walker_module: ModuleType) -> None:
    layout = Layout()
    found = Found(walker_module, bytes(pages_of_three(layout)), layout, bounds=(101, 200))
    assert found.stamps == [101, 102, 200]
    assert found.hits == {EVENT: 3}
    assert found.ends == (101, 200)


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


records = st.tuples(
    st.one_of(st.integers(0, 1 << 20), st.integers(0, 1 << 45)),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(0, 40),
    st.sampled_from(["auto", "extend", "absolute"]),
    st.booleans(),
)


@given(st.sampled_from(LAYOUTS), st.lists(records, max_size=60), st.integers(0, 1 << 60))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(layout: Layout, todo: list[Any], ts: int) -> None:
    writer = SubbufWriter(layout)
    expected = []
    for step, value, words, stamp, long_form in todo:
        ts += step
        writer.data(ts, payload(layout, value, more=4 * words), stamp=stamp, long_form=long_form)
        expected.append((ts, value))
    pages = writer.finish()
    for module in (subbuf, INTERPRETED["subbuf"]):
        found = Found(module, pages, layout)
        assert [(row[0], row[4]) for row in found.rows] == expected
        assert found.damage == [0, 0, 0, 0, 0]


@given(
    st.sampled_from(LAYOUTS),
    st.integers(0, 1 << 62),
    st.integers(0, 300),
    st.binary(min_size=0, max_size=300),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_both_engines_agree_on_noise(
    layout: Layout, ts: int, commit: int, noise: bytes, flagged: bool
) -> None:
    page = layout.u64(ts) + layout.long(commit | (3 << 30 if flagged else 0)) + noise
    pages = page.ljust(layout.page_size, b"\0") * 2
    compiled = Found(subbuf, pages, layout)
    assert compiled.everything() == Found(INTERPRETED["subbuf"], pages, layout).everything()


@given(st.data(), st.sampled_from(LAYOUTS))
@settings(max_examples=80, deadline=None)
def test_both_engines_agree_on_flipped_bytes(data: st.DataObject, layout: Layout) -> None:
    pages = pages_of_three(layout)
    for _ in range(data.draw(st.integers(1, 6))):
        page = data.draw(st.integers(0, 2)) * layout.page_size
        pages[page + data.draw(st.integers(0, 120))] = data.draw(st.integers(0, 255))
    compiled = Found(subbuf, bytes(pages), layout)
    assert compiled.everything() == Found(INTERPRETED["subbuf"], bytes(pages), layout).everything()


def test_the_walker_uses_the_compiled_module() -> None:
    assert walk.subbuf.COMPILED, "subbuf is not compiled: build the extension modules"


def test_the_source_runs_without_cython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cython", None)
    modules = interpreted(COMPILED)
    for module in modules.values():
        assert not module.COMPILED
        assert module.cython.__name__ == "apftrace_parsers.uncompiled"
    plain = modules["subbuf"]
    layout = Layout()
    assert Found(plain, bytes(pages_of_three(layout)), layout).stamps == [
        0,
        1,
        2,
        100,
        101,
        102,
        200,
        201,
        202,
    ]
