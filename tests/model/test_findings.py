"""What rules state becomes one table: from dicts and frames alike, the most severe first, with evidence for some."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
import pytest

from apftrace.model import findings
from apftrace.model.correlate import Case, correlate
from apftrace.model.findings import stated, table
from apftrace.model.recording import record
from apftrace.model.rules.base import ERROR, INFO, PROVED, WARNING, finding, listed
from apftrace.schema import FINDINGS
from apftrace_parsers.registry import open_source
from tests.builders.story import Story
from tests.model.support import calm, write


@pytest.fixture(scope="module")
def case() -> Case:
    story = Story()
    calm(story)
    with tempfile.TemporaryDirectory() as directory:
        source = open_source(write(story, Path(directory) / "trace.dat"))
        return correlate(record(source)[0])


def of(case: Case, n: int, severity: str = WARNING, **more: object) -> dict[str, object]:
    """Return a finding about the n-th life of a case."""
    life = case.lives.row(n, named=True)
    seqs = [life["ready_seq"], None, life["life"]]
    return finding(
        severity=severity, confidence=PROVED, tid=life["tid"], token=life["token"], seqs=seqs, **more
    )


def test_dicts_and_frames_state_alike(case):
    dicts = [of(case, n, message=f"no. {n}", ruled_out=["loss"]) for n in range(3)]
    frame = pl.DataFrame(
        [{**f, "ruled_out": ["loss"]} for f in dicts], schema_overrides={"seqs": pl.List(pl.Int64)}
    )
    assert stated(frame).equals(stated(dicts), null_equal=True)


def test_what_is_not_stated_is_null_and_lists_are_empty(case):
    (row,) = table(case, [("late-wakeup", stated([of(case, 0)]))]).to_dicts()
    assert (row["cause"], row["blocker"], row["ruled_out"], row["not_ruled_out"]) == (None, None, [], [])
    assert row["machine"] == case.rec.machine


def test_nothing_stated_is_an_empty_table(case):
    nothing = table(case, [("late-wakeup", stated([])), ("lost-wakeup", stated([]))])
    assert nothing.schema == FINDINGS.polars()
    assert not nothing.height


def test_the_most_severe_come_first_and_keep_the_number_of_their_rule(case):
    first = stated([of(case, 0, INFO), of(case, 1, ERROR)])
    second = stated([of(case, 2, WARNING), of(case, 3, ERROR)])
    got = table(case, [("wake-all", first), ("token-zero", second)])
    assert got["id"].to_list() == ["wake-all-2", "token-zero-2", "token-zero-1", "wake-all-1"]


def test_a_finding_names_the_vcpu_of_its_thread(case):
    got = table(case, [("late-wakeup", stated([of(case, 0), {**of(case, 1), "tid": None}]))])
    assert got["vcpu"].to_list() == [case.lives["vcpu"][0], None]


def test_evidence_comes_in_order_of_time_and_for_the_first_of_a_rule_only(case, monkeypatch):
    monkeypatch.setattr(findings, "EVIDENCE_PER_RULE", 2)
    many = stated([of(case, n) for n in range(4)])
    got = table(case, [("late-wakeup", many), ("lost-wakeup", many)])
    assert got["evidence"].list.len().to_list() == [2, 2, 0, 0, 2, 2, 0, 0]
    events = got["evidence"][0].to_list()
    assert [e["event"] for e in events] == ["kvm_async_pf_not_present", "kvm_async_pf_ready"]
    assert [e["ts"] for e in events] == [case.lives["not_present"][0], case.lives["ready"][0]]


def test_a_guests_events_stand_among_those_of_the_host(case):
    life = case.lives.row(0, named=True)
    seen = {"ts": life["not_present"] + 1, "cpu": 0, "tid": 7, "event": "vm1:wait", "text": ""}
    got = table(case, [("late-wakeup", stated([of(case, 0, seen=[seen])]))])
    assert [e["event"] for e in got["evidence"][0].to_list()][1] == "vm1:wait"


def test_a_column_of_lists_has_the_type_of_its_table():
    assert listed("not_ruled_out", [["a"], []]).dtype == FINDINGS.polars()["not_ruled_out"]
