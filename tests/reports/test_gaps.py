from __future__ import annotations

import itertools

import pytest

from apftrace.analysis import LossSpan
from apftrace_reports import gaps
from apftrace_reports.gaps import gaps_in_words, strips
from apftrace_reports.series import View

VIEW = View(0, 1_000, 2_000, several=False, unit="ticks")  # the picture goes from 980 to 2,020


def span(
    cpu: int, after: int | None, before: int | None, count: int | None = 1, machine: str = "host"
) -> LossSpan:
    return LossSpan(machine, cpu, count, after, before)


def boxes(*losses: LossSpan) -> list[tuple[float, float, str]]:
    return [(row["from"], row["to"], row["lost"]) for row in strips(losses, VIEW).rows]


def test_a_gap_is_drawn_where_it_was():
    assert boxes(span(1, 1_200, 1_500, 530)) == [(1_200, 1_500, "530 records lost")]


@pytest.mark.parametrize(
    ("after", "before", "drawn"),
    [(None, 1_500, (980, 1_500)), (1_500, None, (1_500, 2_020)), (0, 9_000, (980, 2_020))],
)
def test_a_gap_with_an_open_end_reaches_the_edge_of_the_picture(after, before, drawn):
    assert boxes(span(0, after, before)) == [(*drawn, "1 record lost")]


@pytest.mark.parametrize(("after", "before"), [(0, 980), (2_020, 3_000), (None, 500), (5_000, None)])
def test_a_gap_outside_of_the_picture_is_said_in_words(after, before):
    drawn = strips((span(0, after, before),), VIEW)
    assert (drawn.rows, drawn.lanes) == ([], ())
    assert drawn.note == "1 gap lies outside of the picture."


def test_a_gap_without_a_place_is_said_in_words():
    drawn = strips((span(4, None, None, 9), span(2, None, None, None), span(2, None, None, 3)), VIEW)
    assert drawn.rows == []
    assert drawn.note == (
        "The trace does not say when the losses of CPU 2 (at least 3 records lost in 2 gaps), "
        "CPU 4 (9 records lost) were."
    )


def test_losses_without_a_place_on_many_cpus_are_counted():
    drawn = strips([span(cpu, None, None) for cpu in range(9)], VIEW)
    assert drawn.note.endswith("CPU 4 (1 record lost) and 4 more were.")


def test_each_cpu_has_its_strip_below_the_other():
    drawn = strips((span(3, 1_100, 1_200), span(1, 1_300, 1_400), span(3, 1_500, 1_600)), VIEW)
    assert [lane.name for lane in drawn.lanes] == ["CPU 1: 1 record lost", "CPU 3: 2 records lost in 2 gaps"]
    for above, below in itertools.pairwise(drawn.lanes):
        assert below.top - (above.top + above.height) == gaps.STRIP - gaps.BAR
    assert [row["y"] for row in drawn.rows] == [drawn.lanes[0].top, drawn.lanes[1].top, drawn.lanes[1].top]


def test_gaps_too_close_to_tell_apart_are_one_box():
    assert boxes(
        span(0, 1_100, 1_200), span(0, 1_202, 1_300, None), span(0, 1_150, 1_160), span(0, 1_400, 1_401)
    ) == [
        (1_100, 1_300, "at least 2 records lost in 3 gaps"),
        (1_400, 1_401, "1 record lost"),
    ]


def test_any_number_of_gaps_makes_few_boxes():
    many = [span(n % 50, 980 + n // 100, 981 + n // 100) for n in range(100_000)]
    drawn = strips(many, VIEW)
    assert len(drawn.lanes) == gaps.MOST_STRIPS
    assert len(drawn.rows) <= 300 * gaps.MOST_STRIPS
    assert drawn.note == "The 8 of 50 CPUs that were blind longest have a strip."


def test_the_blindest_cpus_have_a_strip():
    losses = [span(cpu, 1_000, 1_001 + (100 if cpu > 20 else 0)) for cpu in range(29)]
    assert [lane.name.split(":")[0] for lane in strips(losses, VIEW).lanes] == [
        f"CPU {n}" for n in range(21, 29)
    ]


def test_machines_are_named_when_there_are_several():
    losses = (span(0, 1_100, 1_200), span(0, 1_300, 1_400, machine="vm1"))
    assert [lane.name for lane in strips(losses, VIEW).lanes] == [
        "host CPU 0: 1 record lost",
        "vm1 CPU 0: 1 record lost",
    ]
    assert gaps_in_words(losses, "ticks").told[1] == "vm1 CPU 0: 1 record lost, 1300 to 1400 (100 ticks)"


def test_the_first_gaps_are_told_in_order_of_time_and_the_rest_counted():
    losses = [
        span(0, None, None),
        *(span(0, at, at + 1) for at in (500, 300, 400, 200, 100)),
        span(0, None, 50),
    ]
    told = gaps_in_words(losses, "ticks")
    assert [one.split(", ")[1] for one in told.told] == [
        "from the start to 50",
        *(f"{at} to {at + 1} (1 ticks)" for at in (100, 200, 300, 400)),
    ]
    assert (told.count, told.hidden) == (7, 2)


def test_nothing_lost_is_nothing_to_tell():
    assert gaps_in_words((), "ns").told == ()
    assert strips((), VIEW).note == ""
