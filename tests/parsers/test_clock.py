"""Stamps to ns: the walker's 64-bit arithmetic is that of unbounded integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apftrace_parsers import subbuf
from apftrace_parsers.clock import STAMP_LIMIT, Clock, Piece
from tests.builders.subbuf import Layout, SubbufWriter

from .conftest import INTERPRETED

if TYPE_CHECKING:
    from types import ModuleType

ENGINES = [pytest.param(subbuf, id="compiled"), pytest.param(INTERPRETED["subbuf"], id="interpreted")]

pieces = st.builds(
    Piece,
    st.just(0),
    at=st.integers(0, 1 << 45),
    offset=st.integers(-(1 << 50), 1 << 50),
    rise=st.integers(-(1 << 14), 1 << 14),
    run=st.integers(1, 1 << 40),
    scaling=st.sampled_from([1, 3, 1 << 48, (1 << 48) + 12345, (5 << 47) + 1]),
    fraction=st.sampled_from([0, 1, 48]),
)
clocks = st.builds(
    Clock,
    mult=st.one_of(st.just(0), st.integers(1, (1 << 32) - 1)),
    shift=st.integers(0, 63),
    offset=st.integers(-(1 << 61), 1 << 61),
    pieces=st.one_of(st.just(()), pieces.map(lambda p: ((p,),))),
)


def walked(module: ModuleType, clock: Clock, raw: int) -> int | None:
    """Return the ns that a walker makes of a stamp, null when it is damage."""
    writer = SubbufWriter(Layout())
    writer.data(raw, bytes(8))
    walker = module.Walker(bytearray(writer.finish()), [0], [0], [4096], big=False, long_size=8)
    walker.stamps.set_clock(clock.mult, clock.shift, clock.offset)
    own = clock.pieces_of(0)
    if own:
        rows = [(p.first, p.at, p.offset, p.rise, p.run, p.scaling, p.fraction) for p in own]
        walker.stamps.set_pieces(rows, [(0, len(rows))])
    walker.set_bounds(0, *clock.raw_bounds(0, None, None))
    walker.feed(0, 0, 4096)
    assert not walker.join(0)
    ends = walker.ends(0)
    return int(ends[0]) if ends else None


@pytest.mark.parametrize("module", ENGINES)
@given(clock=clocks, raw=st.integers(0, (1 << 62) - 1))
@settings(max_examples=250, deadline=None)
def test_stamps_become_ns_exactly_or_are_damage(module: ModuleType, clock: Clock, raw: int) -> None:
    if not all(p.is_sane() for p in clock.pieces_of(0)):
        return
    ns = walked(module, clock, raw)
    bounds = clock.raw_bounds(0, None, None)
    assert ns == (clock.to_ns(raw) if bounds.floor <= raw <= bounds.limit else None)
    if ns is None and not clock.pieces:
        assert clock.to_ns(raw) >= STAMP_LIMIT


@given(clock=clocks.filter(lambda c: not c.pieces), ns=st.integers(0, 1 << 61))
@settings(max_examples=200, deadline=None)
def test_bounds_in_ns_become_bounds_in_stamps(clock: Clock, ns: int) -> None:
    first, _, _, limit = clock.raw_bounds(0, ns, None)
    assert first > limit or clock.to_ns(first) >= ns
    assert first == 0 or clock.to_ns(first - 1) < ns
    _, last, _, limit = clock.raw_bounds(0, None, ns)
    assert last < 0 or clock.to_ns(last) <= ns
    assert last == limit or clock.to_ns(last + 1) > ns
