from __future__ import annotations

import copy
import json

import jsonschema
import pytest

from apftrace.schema import ACCOUNTING, FINDINGS, VCPUS
from apftrace_reports.json_report import document, schema
from apftrace_reports.registry import by_name

from . import analyses

REPORT = by_name("json")


@pytest.fixture(scope="module")
def checker() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


def objects(value, path=()):
    """Every object of a document that has a fixed set of keys, with the path to it."""
    free = path[-1:] in {("events",), ("latency_ns",), ("late_after_ns",)}
    if isinstance(value, dict):
        if not free or "cpus" in value:
            yield path, value
        for key, one in value.items():
            yield from objects(one, (*path, key))
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from objects(one, (*path, at))


def at(value, path):
    for step in path:
        value = value[step]
    return value


def test_every_report_is_valid(analysis, checker):
    checker.validate(json.loads(REPORT.render(analysis)))


def test_a_key_removed_anywhere_is_invalid(checker):
    good = document(analyses.rich())
    tried = 0
    for path, found in objects(good):
        for key in found:
            if key in {"pv", "halt"} and path[:1] == ("latency_ns",):
                continue  # a phase that only one kind has
            bad = copy.deepcopy(good)
            del at(bad, path)[key]
            assert not checker.is_valid(bad), (path, key)
            tried += 1
        if len(path) > 1 and path[0] in {"findings", "vcpus"} and path[1] == 1:
            break
    assert tried > 80


def test_a_key_added_anywhere_is_invalid(checker):
    good = document(analyses.rich())
    paths = [path for path, _ in objects(good)]
    assert len(paths) > 40
    for path in paths:
        bad = copy.deepcopy(good)
        at(bad, path)["surprise"] = 1
        assert not checker.is_valid(bad), path


def test_every_column_of_the_tables_is_in_the_report():
    found = document(analyses.rich())
    renamed = {"ts": "ts_ns", "end": "end_ns"}
    assert set(found["findings"][0]) == {renamed.get(c.name, c.name) for c in FINDINGS.columns}
    assert set(found["vcpus"][0]) == {c.name for c in VCPUS.columns}
    identity = {"machine", "vm", "vcpu", "tid"}
    assert set(found["accounting"]) == {c.name for c in ACCOUNTING.columns} - identity


def test_the_top_level_is_the_published_one():
    assert set(document(analyses.rich())) == {
        "schema_version", "tool", "inputs", "verdict", "headline", "unsafe", "protocol", "accounting",
        "latency_ns", "late_after_ns", "vcpus", "findings", "not_run", "guests", "stories",
            "redacted",
    }  # fmt: skip


def test_64_bit_values_are_hexadecimal_text():
    rows = [analyses.finding(1, "token-reuse", token=2**64 - 1, gva=2**63, blocker=0)]
    (one,) = document(analyses.analysis([], rows))["findings"]
    assert (one["token"], one["gva"], one["blocker"]) == ("0xffffffffffffffff", "0x8000000000000000", "0x0")


def test_times_are_exact_integers():
    (one,) = document(analyses.analysis([], [analyses.finding(1, "late-wakeup", ts=2**53 + 1)]))["findings"]
    assert one["ts_ns"] == 2**53 + 1


def test_losses_say_how_many_and_where():
    host, guest = document(analyses.rich())["inputs"]
    assert host["lost"] == {"events": 1_204, "cpus": [3, 5, 6]}
    assert guest["lost"] == {"events": 0, "cpus": []}
    assert guest["sha256"] is None


def test_latency_has_all_lives_and_each_kind_apart():
    latency = document(analyses.rich())["latency_ns"]
    assert list(latency) == ["total", "P1", "P2", "P12", "P3", "P4", "P5"]
    assert latency["total"]["n"] == latency["total"]["pv"]["n"] + latency["total"]["halt"]["n"]
    assert "halt" not in latency["P4"]


def test_without_lives_the_accounting_is_still_there():
    found = document(analyses.empty())
    assert found["accounting"]["not_present"] == 0
    assert (found["latency_ns"], found["vcpus"], found["findings"]) == ({}, [], [])


def test_strings_arrive_as_the_trace_has_them():
    text = "\x1b[31m\u202e\ud83d</script>"
    found = json.loads(REPORT.render(analyses.analysis([], [], headline=text)))
    assert found["headline"] == text


def test_no_number_is_out_of_json():
    from dataclasses import replace

    import polars as pl

    single = analyses.single()
    odd = replace(single, vcpus=single.vcpus.with_columns(per_s=pl.lit(float("inf"))))
    assert json.loads(REPORT.render(odd))["vcpus"][0]["per_s"] is None


def test_keys_are_sorted():
    text = REPORT.render(analyses.rich()).decode()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2) + "\n"
