"""Sub-buffers: every form of record, every layout, on both engines, which agree on anything."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apftrace_parsers import subbuf, walk
from tests.builders.subbuf import MAX_DELTA, Layout, SubbufWriter
from tests.engines import interpreted

from .conftest import COMPILED, INTERPRETED
from .found import EVENT, PICK, Found, pages_of_three, payload
from .support import LAYOUTS

if TYPE_CHECKING:
    from types import ModuleType


def test_a_record_becomes_a_row(walker_module: ModuleType, layout: Layout) -> None:
    writer = SubbufWriter(layout)
    writer.data(1000, payload(layout, -5, tid=-1))
    found = Found(walker_module, writer.finish(), layout)
    assert found.rows == [(1000, 3, -1, PICK, -5, -2, 0xFFFF)]
    assert found.hits == {EVENT: 1}
    assert found.ends == (1000, 1000)


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


@pytest.mark.parametrize(
    ("before", "after"),
    [((2 << 59) - 10, (2 << 59) + 10), ((1 << 59) - 10, 10)],
    ids=["a stamp that seems older has wrapped", "no top before, none to take over"],
)
def test_absolute_stamps_take_what_is_above_59_bits_from_the_one_before(
    walker_module: ModuleType, before: int, after: int
) -> None:
    # As rb_fix_abs_ts() of the kernel.
    layout = Layout()
    writer = SubbufWriter(layout)
    writer.data(before, payload(layout, 1))
    writer.data(before + 20, payload(layout, 2), stamp="absolute")
    assert Found(walker_module, writer.finish(), layout).stamps == [before, after]


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


def test_bounds_leave_out_records_and_pages(walker_module: ModuleType) -> None:
    layout = Layout()
    found = Found(walker_module, bytes(pages_of_three(layout)), layout, bounds=(101, 200))
    assert found.stamps == [101, 102, 200]
    assert found.hits == {EVENT: 3}
    assert found.ends == (101, 200)


records = st.tuples(
    st.one_of(st.integers(0, 1 << 20), st.integers(0, 1 << 45)),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(0, 40),
    st.sampled_from(["auto", "extend", "absolute"]),
    st.booleans(),
)


# Between the two an absolute stamp would be the first one with bit 59, see above.
starts = st.integers(0, 1 << 58) | st.integers(1 << 59, 1 << 60)


@given(st.sampled_from(LAYOUTS), st.lists(records, max_size=60), starts)
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
