from __future__ import annotations

import itertools
from dataclasses import replace

import polars as pl
import pytest

from apftrace_reports import series
from apftrace_reports.charts import log_ticks
from apftrace_reports.figures import view_of
from apftrace_reports.prepare import prepare

from . import analyses
from .analyses import START, life


def view(analysis) -> series.View:
    return view_of(analysis, prepare(analysis))


def test_a_distribution_rises_to_one(built):
    rows = series.distribution(built["many"].faults, "pv").rows
    for _, curve in itertools.groupby(rows, key=lambda row: row["phase"]):
        points = list(curve)
        assert [one["share"] for one in points] == sorted(one["share"] for one in points)
        assert [one["ns"] for one in points] == sorted(one["ns"] for one in points)
        assert points[-1]["share"] == 1
        assert len(points) < 200


def test_a_distribution_keeps_the_worst_value(built):
    faults = built["many"].faults
    rows = series.distribution(faults, "pv").rows
    assert max(row["ns"] for row in rows if row["phase"] == "total") == faults["total"].max()


def test_few_lives_are_no_distribution():
    lives = [life(START + n, n << 12) for n in range(series.FEWEST - 1)]
    assert series.distribution(analyses.analysis(lives, []).faults, "pv").rows == []


def test_a_zero_duration_fits_a_log_axis():
    lives = [life(START + n, n << 12, phases=(0, 5, 5, 5, 5)) for n in range(9)]
    rows = series.distribution(analyses.analysis(lives, []).faults, "pv").rows
    assert min(row["ns"] for row in rows) == 1


def test_a_few_odd_durations_do_not_stretch_the_axis():
    lives = [life(START + n, n << 12) for n in range(200)]
    lives += [life(START + 300 + n, 300 + n << 12, phases=(1, 1, 1, 1, 1)) for n in range(3)]
    rows = series.distribution(analyses.analysis(lives, []).faults, "pv").rows
    assert min(row["ns"] for row in rows) == 200_000
    assert max(row["share"] for row in rows) == 1


def test_kinds_are_kept_apart():
    faults = analyses.rich().faults
    phases = {row["phase"] for row in series.distribution(faults, "halt").rows}
    assert phases == {"total", "P1", "P2", "P3"}


def test_few_lives_are_all_drawn():
    faults = analyses.rich().faults
    picked, note = series.pick(faults)
    assert (picked.height, note) == (faults.height, "")


def test_thinning_keeps_what_matters(built):
    faults = built["many"].faults
    picked, note = series.pick(faults)
    assert picked.height <= series.MOST_LIVES
    assert (
        picked.filter(pl.col("outcome") != "answered").height
        == faults.filter(pl.col("outcome") != "answered").height
    )
    assert picked["total"].max() == faults["total"].max()
    assert note.startswith(f"{picked.height:,} of 50,000 faults are drawn")


def test_lives_that_never_ended_are_shown_at_their_age():
    rich = analyses.rich()
    rows = series.scatter(rich.faults, view(rich)).rows
    ages = [row["ns"] for row in rows if row["outcome"] == "lost"]
    assert ages == [1_500_000_000]


def test_boxes_of_a_line_do_not_overlap():
    rich = analyses.rich()
    drawn = series.timeline(rich.faults, view(rich))
    by_line = sorted(drawn.rows, key=lambda row: (row["y"], row["from"], row["to"]))
    for _, boxes in itertools.groupby(by_line, key=lambda row: row["y"]):
        for before, after in itertools.pairwise(boxes):
            assert before["to"] <= after["from"] + 1e-7
    assert [lane.name for lane in drawn.lanes] == ["vm1 vCPU 0", "vm1 vCPU 1", "vm2 vCPU 2", "vm2 vCPU 3"]
    assert drawn.lanes[0].height == 2


def test_lanes_lie_below_each_other():
    rich = analyses.rich()
    for drawn in (series.timeline(rich.faults, view(rich)), series.outstanding(rich.faults, view(rich))):
        for above, below in itertools.pairwise(drawn.lanes):
            assert above.top + above.height < below.top


def test_a_life_is_drawn_phase_after_phase():
    single = analyses.single()
    rows = sorted(series.timeline(single.faults, view(single)).rows, key=lambda row: row["from"])
    assert [row["phase"] for row in rows] == ["P1", "P2", "P3", "P4", "P5"]
    assert [row["from"] for row in rows[1:]] == [row["to"] for row in rows[:-1]]
    assert (rows[0]["from"], rows[-1]["to"]) == (0.001, 0.003)


def test_the_longest_phase_is_painted_last():
    single = analyses.single()
    assert series.timeline(single.faults, view(single)).rows[-1]["phase"] == "P2"


@pytest.mark.parametrize(("outcome", "phase"), [("lost", "lost"), ("in_flight", "open")])
def test_an_open_life_is_drawn_to_its_end(outcome, phase):
    row = life(START, 0x1000, outcome=outcome, phases=(100, 200, None)) | {"end": START + 1_000}
    open_life = analyses.analysis([row], [])
    boxes = series.timeline(open_life.faults, view(open_life)).rows
    assert [box["phase"] for box in sorted(boxes, key=lambda box: box["from"])] == ["P1", "P2", phase]


def test_too_many_vcpus_are_counted():
    lives = [life(START + n, n << 12, vcpu=n, tid=n) for n in range(series.MOST_LANES + 9)]
    wide = analyses.analysis(lives, [])
    drawn = series.timeline(wide.faults, view(wide))
    assert len(drawn.lanes) == series.MOST_LANES
    assert drawn.note == "The 32 busiest of 41 vCPUs are drawn."


def test_open_lives_are_counted_in_steps():
    lives = [life(START + at, 0x1000 * (1 + at), phases=(100, 100, 100, 100, 100)) for at in (0, 200, 500)]
    short = analyses.analysis(lives, [])
    rows = series.outstanding(short.faults, view(short)).rows
    # The second begins at 200 while the first is open until 500, when the third begins.
    assert [row["open"] for row in rows] == [1, 2, 2, 1, 0]


def test_long_step_plots_keep_their_peak(built):
    many = built["many"]
    drawn = series.outstanding(many.faults, view(many))
    assert len(drawn.rows) < 8 * 500
    assert drawn.lanes[0].name == "vCPU 0, at most 4"


def test_the_axis_spans_the_lives_not_the_trace():
    single = analyses.single()
    first, last = view(single).span()
    assert 0 < first < 0.001
    assert 0.003 < last < 0.0031


def test_ticks_stay_ticks():
    ticks = replace(analyses.single(), inputs=(analyses.trace_input(clock_unit="ticks"),))
    assert view(ticks).at(START + 1_000_000) == 1_000_000


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 10**7, [1, 10, 10**2, 10**3, 10**4, 10**5, 10**6, 10**7]),
        (900, 110_000, [1_000, 3_000, 10_000, 30_000, 100_000]),
        (1_600, 2_500, [2_000]),
    ],
)
def test_log_axes_have_round_ticks(low, high, ticks):
    assert log_ticks(low, high) == ticks


def busy_lives(spans: list[tuple[int, int | None]]) -> pl.DataFrame:
    rows = []
    for number, (start, acked) in enumerate(spans):
        row = life(START + start - 10, number << 12, phases=(1, 1, 8, None))
        rows.append(row | {"accepted": START + start, "acked": None if acked is None else START + acked})
    return analyses.analysis(rows, []).faults


def busy(spans: list[tuple[int, int | None]], last: int) -> list[tuple[float, float, float]]:
    shown = series.View(START, START, START + last, several=False, unit="ticks")
    return series.slot_busy(busy_lives(spans), shown)


def test_a_slot_is_busy_from_the_delivery_to_the_ack():
    assert busy([(100, 150), (300, 310)], 1_000) == [(100, 150, 1.0), (300, 310, 1.0)]


def test_a_slot_without_an_ack_is_busy_to_the_next_delivery_or_the_end():
    assert busy([(100, None), (300, None)], 1_000) == [(100, 300, 1.0), (300, 1_000, 1.0)]


def test_lives_that_were_not_delivered_take_no_slot():
    lives = [
        life(START, 0x1000, kind="halt", phases=(1, 1, 1, None)),
        life(START, 0x2000, phases=(1, 1, None)),
    ]
    faults = analyses.analysis(lives, []).faults
    assert series.slot_busy(faults, series.View(START, START, START + 9, several=False, unit="ns")) == []


def test_a_ready_stands_in_for_an_accept_that_was_not_traced():
    row = life(START, 0x1000, phases=(100, 100, 100, 100, 100)) | {"accepted": None}
    faults = analyses.analysis([row], []).faults
    shown = series.View(START, START, START + 900, several=False, unit="ns")
    assert series.slot_busy(faults, shown) == [(3e-7, 5e-7, 1.0)]


@pytest.mark.parametrize("step", [100, 333, 1_000])
def test_many_busy_spans_keep_their_sum(step):
    spans = [(at * step + 20, at * step + 20 + step // 4) for at in range(5_000)]
    shares = busy(spans, 5_000 * step)
    assert len(shares) <= 300
    assert all(0 < part <= 1 for _, _, part in shares)
    total = sum((stop - start) * part for start, stop, part in shares)
    assert total == pytest.approx(sum(stop - start for start, stop in spans), rel=0.001)


def test_a_busy_slice_is_where_the_slot_was_busy():
    spans = [(at * 100, at * 100 + 90) for at in range(2_000)] + [
        (at * 100, at * 100 + 1) for at in range(2_000, 4_000)
    ]
    shares = busy(spans, 400_000)
    halves = [
        [part for start, stop, part in shares if low <= start and stop <= high]
        for low, high in ((2_000, 198_000), (202_000, 398_000))
    ]
    assert min(halves[0]) > 0.85
    assert max(halves[1]) < 0.05


@pytest.mark.parametrize("unit", ["ns", "ticks"])
def test_a_column_of_instants_is_placed_as_each_of_them(unit):
    shown = series.View(START, START, START + 9, several=False, unit=unit)
    instants = [START - 5, START, START + 1_234_567_890, START + 10**15]
    assert list(shown.many(pl.Series(instants))) == [shown.at(one) for one in instants]
