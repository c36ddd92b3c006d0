"""What changed since an earlier batch: the planted change and nothing else, with its numbers."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

import pytest

from apftrace.batch.baseline import BadBaseline, compared, read_baseline
from tests.batch.conftest import RunBatch, bytes_of
from tests.batch.packing import zipped
from tests.builders.story import Story

if TYPE_CHECKING:
    from pathlib import Path

PHASES = {"p1": 2e5, "p2": 3e6, "p3": 5e4, "p4": 3e4, "p5": 6e4}


def run(source: random.Random, number: int, kernel: str, **slower: float) -> dict[str, Any]:
    """Return the line of a run whose phases scatter by a tenth around those of its job."""
    job = f"job-{number % 3}"
    level = 1 + number % 3
    typical = {
        phase: round(ns * level * slower.get(phase, 1) * math.exp(source.gauss(0, 0.1)))
        for phase, ns in PHASES.items()
    }
    typical["p12"] = typical["p1"] + typical["p2"]
    typical["total"] = sum(typical[phase] for phase in PHASES)
    late = int(source.random() < 0.3)
    return {
        "status": "analysed", "path": f"in/{kernel}/{number}.dat", "name": f"{kernel}/{number}.dat",
        "sha256": f"{source.getrandbits(256):064x}", "kernel": kernel, "host": "lab1", "job": job, "clock_unit": "ns",
        "host_trace": None,
        "counts": {"lives": 100, "rules": {"late-wakeup": {"warning": late}} if late else {}, "late": {"p2": late}},
        "latency_ns": {phase: {"n": 100, "p50": ns, "p95": ns * 3, "p99": ns * 5, "max": ns * 9}
                       for phase, ns in typical.items()},
    }  # fmt: skip


def runs(seed: int, each: int = 15, **slower: dict[str, float]) -> list[dict[str, Any]]:
    source = random.Random(seed)
    return [
        run(source, n, kernel, **slower.get(kernel, {})) for kernel in ("v1", "v2", "v3") for n in range(each)
    ]


def moved(before, after, by=("kernel",)) -> list[tuple[str, str]]:
    changes = compared(before, after, by, 0.1).changes
    return [("/".join(one.group.values()), one.id) for one in changes if one.id]


@pytest.mark.parametrize("seed", range(8))
def test_a_slower_phase_on_one_kernel_is_found_and_nothing_else(seed: int):
    assert moved(runs(seed, each=24), runs(seed + 100, each=24, v2={"p2": 1.2})) == [("v2", "slower:p2")]


@pytest.mark.parametrize("seed", range(8))
def test_a_faster_phase_is_no_regression(seed: int):
    comparison = compared(runs(seed, each=24), runs(seed + 100, each=24, v2={"p2": 0.8}), ("kernel",), 0.1)
    assert [one.id for one in comparison.changes if one.id] == ["faster:p2"]
    assert comparison.regressions == ()


def test_nothing_changed_and_nothing_is_said():
    # One false alarm in twenty comparisons is what the test promises at most, noise as large as the effect or not.
    alarms = [found for seed in range(60) if (found := moved(runs(seed), runs(seed + 1000)))]
    assert len(alarms) <= 4
    assert not any(moved(runs(seed), runs(seed)) for seed in range(5))


def test_where_phases_cannot_be_told_apart_their_sum_is_compared():
    before, after = runs(1, each=24), runs(2, each=24, v2={"p1": 1.4, "p2": 1.4})
    for line in (*before, *after):
        for phase in ("p1", "p2"):
            del line["latency_ns"][phase]
    assert moved(before, after) == [("v2", "slower:p12")]
    for line in (*before, *after):
        line["latency_ns"] = {"total": line["latency_ns"]["total"]}
    assert moved(before, after) == [("v2", "slower:total")]


def test_a_change_too_small_to_matter_is_none():
    assert moved(runs(1, each=200), runs(2, each=200, v2={"p2": 1.05})) == []


def test_few_runs_tell_nothing_and_say_so():
    comparison = compared(runs(1, each=2), runs(2, each=2, v2={"p2": 3}), ("kernel",), 0.1)
    assert {one.verdict for one in comparison.changes} == {"too few runs"}
    assert {one.p for one in comparison.changes} == {None}


def test_the_numbers_of_a_change():
    before, after = runs(1), runs(2, v2={"p2": 1.2})
    (change,) = compared(before, after, ("kernel",), 0.1).regressions
    assert change.runs == (15, 15)
    assert change.ratio == pytest.approx(1.2, abs=0.12)
    assert 1 < change.typical[1] / change.typical[0] < 1.5
    assert 0.5 < change.shift.delta <= 1
    assert 0 < change.p < 0.05
    assert change.pairing == "run by run of the same name"


def test_runs_without_counterpart_are_compared_by_job():
    before, after = runs(1, each=30), runs(2, each=30, v2={"p2": 1.2})
    for line in after:
        line["name"] = f"tonight/{line['sha256']}"
    (change,) = compared(before, after, ("kernel",), 0.1).regressions
    assert (change.id, change.pairing) == ("slower:p2", "by host and job")


def test_a_rule_that_fires_more_often():
    before, after = runs(1), runs(2)
    for line in after[15:30]:
        line["counts"]["rules"]["missing-ack"] = {"warning": 3}
    comparison = compared(before, after, ("kernel",), 0.1)
    (change,) = comparison.regressions
    assert (change.id, change.group, change.typical, change.ratio) == (
        "more:missing-ack",
        {"kernel": "v2"},
        (0, 30),
        None,
    )
    assert moved(after, before) == [("v2", "fewer:missing-ack")]


def test_wakeups_that_are_late_because_of_the_slower_phase_are_not_told_twice():
    before, after = runs(1), runs(2, v2={"p2": 1.5})
    for line in after[15:30]:
        line["counts"]["rules"]["late-wakeup"], line["counts"]["late"] = {"warning": 9}, {"p2": 9}
    assert moved(before, after) == [("v2", "slower:p2")]
    for line in after[15:30]:
        line["counts"]["late"] = {"p4": 9}
    assert moved(before, after) == [("v2", "slower:p2"), ("v2", "more:late-wakeup")]


def test_copies_count_once():
    before, after = runs(1, each=3), runs(2, each=3, v2={"p2": 2})
    many = [line | {"name": f"{n}/{line['name']}"} for line in after for n in range(20)]
    assert {one.runs for one in compared(before, many, ("kernel",), 0.1).changes} == {(3, 3)}


def test_runs_that_were_left_out_are_counted_with_the_reason():
    before, after = runs(1), runs(2)
    after[0]["counts"]["lives"] = 4
    after[1]["clock_unit"] = "ticks"
    before += [{"status": "unreadable"}, {"status": "skipped"}]
    after += [after[2] | {"name": "again"}, after[3] | {"host_trace": "in/host.dat"}]
    assert compared(before, after, ("kernel",), 0.1).dropped == (
        ("not analysed", 1, 0),
        ("copies of other runs", 0, 1),
        ("durations of runs without a clock in ns", 0, 1),
        ("durations of runs with fewer than 5 faults", 0, 1),
    )
    assert compared(runs(1), runs(2), ("kernel",), 0.1).dropped == ()


def test_a_change_says_of_how_many_runs_it_speaks():
    before, after = runs(1), runs(2)
    after = [line for line in after if line["name"] != "v1/3.dat"]
    after[0]["latency_ns"] = {}
    changes = compared(before, after, ("kernel",), 0.1).changes
    of = {(one.group["kernel"], one.is_rule): (one.runs, one.of) for one in changes}
    assert of["v1", False] == ((13, 13), (15, 14))
    assert of["v1", True] == ((14, 14), (15, 14))
    assert of["v2", False] == ((15, 15), (15, 15))


def test_groups_by_other_labels_and_groups_on_one_side():
    before, after = runs(1), runs(2)
    for line in after:
        line["kernel"] = "v9"
        if line["job"] == "job-1":
            line["latency_ns"]["p3"]["p50"] *= 2
    assert compared(before, after, ("kernel",), 0.1).alone == (
        ("v1", "before only"),
        ("v2", "before only"),
        ("v3", "before only"),
        ("v9", "now only"),
    )
    assert moved(before, after, by=("job",)) == [("job-1", "slower:p3")]
    assert moved(before, after, by=("host", "job")) == [("lab1/job-1", "slower:p3")]


def test_durations_in_ticks_are_not_compared():
    before, after = runs(1), runs(2, v2={"p2": 2})
    for line in after:
        line["clock_unit"] = "ticks"
    assert not any(not one.is_rule for one in compared(before, after, ("kernel",), 0.1).changes)


@pytest.mark.parametrize(
    "text",
    ["no json", "{}", '{"status": "analysed"}', "[]", '{"status": "analysed", "counts": 3}', "\x00\xff"],
)
def test_what_is_no_baseline_is_said_in_one_line(tmp_path: Path, text: str):
    (tmp_path / "runs.jsonl").write_text(text, "utf-8")
    with pytest.raises(BadBaseline, match="line 1 is none of a batch's"):
        read_baseline(tmp_path)


def story(source: random.Random, slower: float) -> Story:
    made = Story()
    at = 1_000_000
    for _ in range(25):
        work = round(2_000_000 * slower * math.exp(source.gauss(0, 0.4)))
        made.pv_life(at=at, completed=at + work)
        at += work + 2_000_000
    return made


def test_from_traces_to_the_exit_status(batch: RunBatch, tmp_path: Path):
    # Two kernels, eight nights each; P2 of one becomes 20 % slower.
    for name, slower in (("before", 1.0), ("now", 1.2)):
        files = []
        for kernel in ("6.1.0", "6.12.0"):
            source = random.Random(f"{kernel}")
            for night in range(10):
                factor = slower if kernel == "6.12.0" else 1.0
                level = math.exp(source.gauss(0, 0.5))
                files.append(
                    (
                        f"{kernel}/{night}.dat",
                        bytes_of(story(source, factor * level), tmp_path, release=kernel),
                    )
                )
        (tmp_path / f"{name}.zip").write_bytes(zipped(files))
    batch(tmp_path / "before.zip", output="before", jobs=2)
    done = batch(tmp_path / "now.zip", output="now", jobs=2, baseline=tmp_path / "before")
    assert done.is_failing
    assert done.verdict == "regression"
    told = json.loads((tmp_path / "now" / "batch.json").read_text("utf-8"))["changes"]
    found = [(one["group"], one["id"]) for one in told if one["id"]]
    assert found == [({"kernel": "6.12.0"}, "slower:p2")]
    (change,) = done.regressions
    assert change.ratio == pytest.approx(1.2, abs=0.01)
    again = batch(tmp_path / "before.zip", output="again", baseline=tmp_path / "before" / "runs.jsonl")
    assert not any(one.id for one in again.comparison.changes)
