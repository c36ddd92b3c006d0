"""What inequalities leave of an offset: corridors, votes, maps, TSC arithmetic."""

from __future__ import annotations

from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apftrace.model.guest.clock import ClockMap
from apftrace.model.guest.corridor import corridor, walls
from apftrace.model.guest.tsc import TscOffset, tsc_map
from apftrace.model.guest.votes import elect
from apftrace_parsers.base import SourceInfo, TickRate

DRIFT = 500e-6


def bounds(*rows: tuple[int, int | None, int | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"at": pl.Int64, "low": pl.Int64, "high": pl.Int64}, orient="row")


def test_a_bound_weakens_with_the_distance_in_time() -> None:
    found = walls(bounds((0, 10, None), (1_000_000, None, 2000)), DRIFT)
    assert found["floor"].to_list() == [10, -490]
    assert found["ceiling"].to_list() == [2500, 2000]


def test_constant_offsets_that_fit_lie_between_the_greatest_floor_and_the_least_ceiling() -> None:
    found = corridor(bounds((0, -5, 90), (10, 7, 60), (20, 3, None)), DRIFT)
    assert (found.low, found.high, found.is_open, found.dropped.height) == (7, 60, True, 0)


def test_one_bound_against_many_is_given_up_with_by_how_much() -> None:
    found = corridor(bounds(*((n, 0, 100) for n in range(9)), (9, 5000, None)), 0.0)
    assert found.dropped["low"].to_list() == [5000]
    assert found.dropped["excess"][0] == pytest.approx(4899)
    assert found.is_open
    assert (found.low, found.high) == (0, 100)


def test_two_that_stand_only_against_each_other_are_both_given_up() -> None:
    found = corridor(bounds((0, 50, None), (1, None, 10)), 0.0)
    assert found.dropped.height == 2
    assert found.points.height == 0


@given(
    offset=st.integers(-(10**15), 10**15),
    drift=st.floats(-0.9, 0.9),
    rows=st.lists(
        st.tuples(st.integers(0, 10**11), st.integers(0, 10**7), st.integers(0, 10**7)),
        min_size=1,
        max_size=60,
    ),
)
def test_true_bounds_never_contradict_each_other_and_the_truth_stays_inside(
    offset: int, drift: float, rows: list[tuple[int, int, int]]
) -> None:
    """Whatever the offset does within the drift allowed, bounds that hold leave room for it."""

    def truth(at: int) -> float:
        return offset + drift * DRIFT * at

    true = [(at, int(truth(at)) - below, int(truth(at)) + 1 + above) for at, below, above in rows]
    found = corridor(bounds(*true), DRIFT)
    assert found.is_open
    assert found.dropped.height == 0
    for at, floor, ceiling in found.points.select("at", "floor", "ceiling").iter_rows():
        assert floor - 2 <= truth(at) <= ceiling + 2


def intervals(*rows: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"low": pl.Int64, "high": pl.Int64}, orient="row")


def test_the_majority_wins_over_what_scatters() -> None:
    won = elect(intervals((90, 110), (95, 120), (80, 105), (5000, 5020), (-900, -880)), 0)
    assert won is not None
    assert 95 <= won.offset <= 105
    assert (won.votes, won.rival) == (3, False)


def test_two_places_with_as_many_votes_decide_nothing() -> None:
    won = elect(intervals((0, 10), (1, 11), (500, 510), (501, 511)), 0)
    assert won is not None
    assert won.rival


def test_no_interval_elects_nothing() -> None:
    assert elect(intervals(), 0) is None


def test_a_map_is_exact_without_a_rate_and_goes_on_along_a_line() -> None:
    stamps = pl.Series("ts", [2**60, 2**60 + 1])
    assert ClockMap(2**60, 5).to_host(stamps).to_list() == [5, 6]
    line = ClockMap(0, 100, 1.0, ((0, 0.0), (1000, 10.0)))
    assert [line.one(at) for at in (-1000, 0, 500, 1000, 2000)] == [-910, 100, 605, 1110, 2120]


def test_a_map_of_many_knots_holds_its_ends() -> None:
    bent = ClockMap(0, 0, 1.0, ((0, 0.0), (10, 4.0), (20, 2.0)))
    assert [bent.one(at) for at in (-5, 5, 10, 15, 99)] == [-5, 7, 14, 18, 101]


def info(clock: str, unit: str, ticks: TickRate | None = None) -> SourceInfo:
    return SourceInfo("trace", "trace.dat v7", clock, unit, 1, None, ("",), ticks=ticks)


def test_tsc_offset_in_ticks_and_in_ns() -> None:
    raw = info("x86-tsc", "ticks")
    found = tsc_map(raw, raw, TscOffset(-700), first=1000)
    assert found is not None
    assert found.one(1000) == 1700
    rate = TickRate(878163774, 31)
    in_ns = info("tsc2nsec", "ns", rate)
    found = tsc_map(in_ns, raw, TscOffset(-7 * 10**12), first=10**12)
    assert found is not None
    assert found.one(10**12 + 2445) == pytest.approx((8 * 10**12 + 2445) * 878163774 >> 31, abs=1)
    found = tsc_map(in_ns, in_ns, TscOffset(-7 * 10**12), first=10**12)
    assert found is not None
    assert found.rate == 1.0
    assert found.one(10**12) == pytest.approx(10**12 + (7 * 10**12 * 878163774 >> 31), abs=1)


def test_a_scaled_tsc() -> None:
    raw = info("x86-tsc", "ticks")
    found = tsc_map(raw, raw, TscOffset(100, Fraction(3, 2)), first=1600)
    assert found is not None
    assert [found.one(at) for at in (1600, 1900)] == [1000, 1200]


@pytest.mark.parametrize(
    ("host", "guest"), [(("mono", "ns"), ("x86-tsc", "ticks")), (("x86-tsc", "ticks"), ("mono", "ns"))]
)
def test_a_clock_that_is_no_tsc_has_no_tsc_map(host: tuple[str, str], guest: tuple[str, str]) -> None:
    assert tsc_map(info(*host), info(*guest), TscOffset(0), first=1) is None
