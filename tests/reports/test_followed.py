"""Reports on host and guest: what leads is the way until the guest's task ran again."""

from __future__ import annotations

import re

import pytest

from apftrace.analysis import Step, Story
from apftrace.schema import FAULTS, LATENCY
from apftrace_reports.data import phase_label
from apftrace_reports.escape import columns
from apftrace_reports.prepare import prepare
from apftrace_reports.registry import by_name

from . import analyses
from .analyses import START, life

TOLD, RAN = 2_000_000, 153_000_000


def followed(ran: int | None = RAN, outcome: str = "answered", unit: str = "ns"):
    """One life of 2 ms until the guest was told, whose task ran after ``ran``."""
    row = life(START, 0xDA1001) | {"outcome": outcome}
    steps = [Step(START, None, "fault"), Step(START + TOLD, "p5", "ACK")]
    if ran is not None:
        row |= {"running": START + ran, "e2e": ran, "p6": max(0, ran - TOLD)}
        steps += [Step(START + ran, "p6", "the guest's task ran")] if ran > TOLD else []
    story = Story(
        "host", "vm1", 0, 4711, 0xDA1001, START, TOLD, "pv", outcome, tuple(sorted(steps, key=lambda s: s.ts))
    )
    measured = analyses.analysis([row], []).latency
    if ran is not None:
        whole = {"phase": "e2e", "n": 1} | dict.fromkeys(("min", "p50", "p95", "p99", "max"), ran)
        rows = [*measured.to_dicts(), *(whole | {"kind": kind} for kind in ("all", "pv"))]
        measured = analyses.table(LATENCY, rows)
    one = analyses.trace_input(clock_unit=unit)
    return analyses.frames(
        analyses.table(FAULTS, [row]),
        analyses.empty().findings,
        stories=(story,),
        latency=measured,
        inputs=(one,),
    )


@pytest.mark.parametrize("name", ["text", "md", "html"])
@pytest.mark.parametrize(
    ("ran", "told"),
    [
        (RAN, "153 ms until its task ran"),
        (1_500_000, "2 ms in all, its task ran after 1.5 ms"),
        (None, "2 ms"),
    ],
)
def test_the_steps_add_up_to_what_the_story_says(name, ran, told):
    analysis = followed(ran)
    text = by_name(name).render(analysis).decode()
    assert re.search(rf"0xda1001\S* vCPU 0[,:] (step by step: )?{told}(:$|$|</summary>)", text, re.M)
    (one,) = prepare(analysis).told
    assert one.steps[-1].after == one.took


def test_a_lost_life_says_how_long_it_was_open():
    (one,) = prepare(followed(None, outcome="lost")).told
    assert one.lasted("ns") == "lost, open for 2 ms"


def test_the_way_until_the_task_ran_leads_every_table():
    data = prepare(followed())
    assert [row.phase for row in data.latency][:2] == ["e2e", "total"]
    text = by_name("text").render(followed()).decode()
    assert re.search(r"^SLOWEST +e2e +total", text, re.M)
    assert re.search(r"^0xda1001 +153 ms +2 ms", text, re.M)
    page = by_name("html").render(followed()).decode()
    assert re.search(r"<b>153 ms</b> p99 until it ran, pv</li>.*<b>2 ms</b> p99 until told", page, re.S)
    assert re.search(r"<th>not_present</th><th class=\"n\">e2e</th><th class=\"n\">Total</th>", page)


def test_without_a_guest_nothing_speaks_of_it():
    for name in ("text", "md", "html"):
        text = by_name(name).render(followed(None)).decode()
        assert "e2e" not in re.sub(r"<style>.*?</style>|<script.*?</script>", "", text, flags=re.S)


@pytest.mark.parametrize("unit", ["ns", "ticks"])
def test_a_column_more_still_fits_a_mail(unit):
    analysis = followed(123_456_789_012, unit=unit)
    assert "P1" in map(phase_label, prepare(analysis).life_phases)
    lines = by_name("text").render(analysis).decode().split("\n")
    row = next(line for line in lines if line.startswith("0xda1001"))
    assert max(map(columns, lines)) <= 72
    assert len(row.split()) >= 8


def test_the_scatter_is_as_high_as_the_whole_way():
    from apftrace_reports.series import View, pick, scatter

    faults = followed().faults
    (point,) = scatter(pick(faults)[0], View(START, START, START, several=False, unit="ns")).rows
    assert point["ns"] == RAN
