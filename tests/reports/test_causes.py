"""The table of what late wakeups were due to."""

from __future__ import annotations

import re
from itertools import chain

import polars as pl
import pytest

import apftrace
from apftrace.model.rules.causes import _WHY, kind_of
from apftrace_reports.causes import cause_rows
from apftrace_reports.escape import columns
from apftrace_reports.registry import by_name

from . import analyses
from .analyses import START, finding, life

FORMS = ("text", "md", "html")
OFF = "guest interrupts off"


def late(phases: list[int], cause: str | None = OFF, phase: str = "p4", first: int = 0):
    """Lives of which ``phase`` lasted so long, and the findings about them."""
    lives, findings = [], []
    for at, length in enumerate(phases, first):
        lengths = dict.fromkeys(("p1", "p2", "p3", "p4", "p5"), 1000) | {phase: length}
        row = life(START + at, 0x1000 * (at + 1), phases=tuple(lengths.values()))
        lives.append(row)
        about = {"tid": row["tid"], "token": row["token"], "ts": row["not_present"]}
        findings.append(finding(at, "late-wakeup", "warning", cause=cause, phase=phase, **about))
    return lives, findings


def both(*parts):
    lives, findings = (list(chain.from_iterable(rows)) for rows in zip(*parts, strict=True))
    return analyses.analysis(lives, findings)


def test_causes_of_one_kind_and_phase_are_one_row():
    analysis = both(
        late([10_000_000, 30_000_000, 26_000_000]),
        late([12_000_000], "slot held 12 ms by predecessor 0x1000: guest interrupts off", "p3", 3),
        late([13_000_000], "slot held 13 ms by predecessor 0x2000: guest interrupts off", "p3", 4),
        late(
            [50_000_000],
            "vCPU not scheduled: runnable but not on a CPU for 50 ms while a: b (7) ran",
            "p3",
            5,
        ),
        late([40_000_000], None, "p5", 6),
    )
    rows = cause_rows(analysis.findings, analysis.faults)
    assert [(row.cause, row.phase, row.count, row.worst, row.median) for row in rows] == [
        (OFF, "p4", 3, 30_000_000, 26_000_000),
        ("predecessor in the slot: guest interrupts off", "p3", 2, 13_000_000, 12_500_000),
        ("vCPU not scheduled", "p3", 1, 50_000_000, 50_000_000),
        ("not told", "p5", 1, 40_000_000, 40_000_000),
    ]


@pytest.mark.parametrize("name", FORMS)
def test_every_report_to_read_has_the_table_once(name):
    text = by_name(name).render(both(late([10_000_000, 30_000_000, 26_000_000]))).decode()
    assert len(re.findall("causes? of late wakeups", text, re.I)) == 1
    row = {
        "text": r"^ +3 P4 +30 ms +26 ms  guest interrupts off$",
        "md": r"^\| guest interrupts off \| P4 \| 3 \| 30 ms \| 26 ms \|$",
        "html": r"<td>guest interrupts off</td><td>P4</td>.*>3</td>.*>30 ms</td>.*>26 ms</td>",
    }
    assert len(re.findall(row[name], text, re.M)) == 1


@pytest.mark.parametrize("name", FORMS)
def test_one_late_wakeup_needs_no_table(name):
    rows = [finding(n, "wake-all", "info") for n in range(5)]
    for analysis in (both(late([10_000_000])), analyses.analysis([], rows)):
        assert not re.search("causes? of late wakeups", by_name(name).render(analysis).decode(), re.I)


def test_many_causes_stay_within_a_mail():
    parts = [late([10**6], f"{'x' * at}{'long ' * 20}", "p3", at) for at in range(13)]
    lines = by_name("text").render(both(*parts)).decode().split("\n")
    assert max(map(columns, lines)) <= 72
    assert "  ... and 1 more cause; --format html shows them all" in lines


@pytest.mark.parametrize("why", _WHY)
def test_a_kind_names_no_length_and_no_thread(why):
    cause, _ = _WHY[why]
    kind = kind_of(cause.format(took="12.3 ms", who=" while evil: for 3 (17) ran"))
    assert kind
    assert not re.search(r"\d|evil|\($", kind)
    held = f"slot held 923 ms by predecessor 0x1e2f000: {cause.format(took='1 s', who='')}"
    assert kind_of(held) == f"predecessor in the slot: {kind}"


def test_the_causes_of_a_capture_are_few(capture):
    analysis = apftrace.analyze(capture("irqoff-600-controlled.dat"))
    found = analysis.findings.filter(pl.col("rule") == "late-wakeup")
    rows = cause_rows(analysis.findings, analysis.faults)
    assert sum(row.count for row in rows) == found.height
    assert len(rows) < 15 < found["cause"].n_unique()
    assert not any(re.search(r"\d", row.cause) for row in rows)
    assert all(row.worst >= row.median > 0 for row in rows)
