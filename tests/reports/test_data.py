from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from apftrace.schema import ACCOUNTING, LATENCY
from apftrace_reports import prepare as prepare_module
from apftrace_reports.accounting import accounting_lines, broken_identities
from apftrace_reports.data import whereabouts
from apftrace_reports.environment import environment, ranges
from apftrace_reports.html import IN_FULL
from apftrace_reports.prepare import prepare
from apftrace_reports.registry import by_name

from . import analyses
from .analyses import START, finding, life


def test_findings_are_grouped_by_rule_worst_first():
    data = prepare(analyses.rich())
    assert [(group.rule, group.severity, group.count) for group in data.groups] == [
        ("lost-wakeup", "error", 1),
        ("late-wakeup", "warning", 7),
        ("missing-ack", "warning", 1),
        ("wake-all", "info", 1),
    ]
    late = data.groups[1]
    assert (late.first, late.last) == (START + 2_000_000, START + 8_000_000)
    assert late.confidences == (("likely", 7),)
    assert late.where == ("vm1 vCPU 0", "vm1 vCPU 1", "vm1 vCPU 2", "vm1 vCPU 3")
    assert data.severities == (("error", 1), ("warning", 8), ("info", 1))
    assert data.findings == 10


def test_a_rule_takes_its_worst_severity():
    rows = [finding(1, "late-wakeup", "warning"), finding(2, "late-wakeup", "error")]
    (group,) = prepare(analyses.analysis([], rows)).groups
    assert group.severity == "error"
    assert group.severities == (("error", 1), ("warning", 1))


def test_the_room_for_findings_is_shared_among_the_rules():
    rows = [finding(n, "late-wakeup") for n in range(300)] + [
        finding(n, "wake-all", "info") for n in range(4)
    ]
    late, info = prepare(analyses.analysis([], rows), in_full=20).groups
    assert (len(late.findings), late.hidden) == (16, 284)
    assert (len(info.findings), info.hidden) == (4, 0)
    assert [one.id for one in late.findings[:2]] == ["late-wakeup-0", "late-wakeup-1"]


def test_a_rule_can_be_kept_to_a_few():
    rows = [finding(n, "late-wakeup") for n in range(300)] + [
        finding(n, "wake-all", "info") for n in range(4)
    ]
    late, info = prepare(analyses.analysis([], rows), per_rule=3).groups
    assert [(len(one.findings), one.count) for one in (late, info)] == [(3, 300), (3, 4)]


@pytest.mark.parametrize("name", ["text", "md", "junit", "html"])
def test_findings_that_are_only_counted_are_not_turned_into_objects(name, monkeypatch):
    rows = [finding(n, "late-wakeup") for n in range(2_000)]
    made = []
    true = prepare_module.Finding
    monkeypatch.setattr(prepare_module, "Finding", lambda **facts: made.append(1) or true(**facts))
    by_name(name).render(analyses.analysis([], rows))
    assert len(made) == {"text": 3, "md": 3, "junit": 20, "html": IN_FULL}[name]


def test_a_finding_carries_its_evidence_and_excerpt():
    one = prepare(analyses.rich()).groups[0].findings[0]
    assert (one.token, one.gva, one.blocker) == ("0x384000", "0x7f1200000001", "0x14000")
    assert one.lasted == 1_999_000_000
    assert [event.event for event in one.evidence] == ["kvm_async_pf_not_present", "kvm_async_pf_completed"]
    assert len(one.excerpt) == 6
    assert whereabouts(one, "ns") == (
        "proved, vCPU 1, tid 4712, vm vm1, token 0x384000, gva 0x7f1200000001, P3, at 4211.001000000, for 2 s"
    )


def test_absent_fields_leave_no_trace():
    bare = dict.fromkeys(finding(1, "wake-all")) | {"id": "w-1", "rule": "wake-all", "severity": "info"}
    one = prepare(analyses.analysis([], [bare | {"confidence": "proved"}])).groups[0].findings[0]
    assert whereabouts(one, "ns") == "proved"
    assert (one.evidence, one.ruled_out, one.lasted, one.token) == ((), (), None, None)


def test_latency_drops_rows_that_repeat_others():
    rows = [(row.phase, row.kind) for row in prepare(analyses.single()).latency]
    assert rows == [(phase, "pv") for phase in ("total", "p1", "p2", "p3", "p4", "p5")]
    both = [(row.phase, row.kind) for row in prepare(analyses.rich()).latency]
    assert both[:3] == [("total", "all"), ("total", "pv"), ("total", "halt")]
    assert ("p12", "all") not in both


def test_p1_and_p2_together_stay_where_they_are_not_told_apart():
    rows = [{"phase": "p12", "kind": "pv", "n": 3, "min": 1, "p50": 2, "p95": 3, "p99": 3, "max": 3}]
    only = replace(analyses.single(), latency=analyses.table(LATENCY, rows))
    (row,) = prepare(only).latency
    assert (row.label, row.name) == ("P1+P2", "queue, fault-in")


def test_phases_are_named_as_the_schema_says():
    rows = {row.label: (row.name, row.late_after) for row in prepare(analyses.single()).latency}
    assert rows["P3"] == ("undelivered", 10_000_000)
    assert rows["P4"] == ("interrupt latency", None)
    assert rows["total"] == ("until told", None)


def test_the_slowest_lives_come_first():
    totals = [one.total for one in prepare(analyses.rich()).slowest]
    assert len(totals) == 5
    assert totals == sorted(totals, reverse=True)
    assert totals[0] == analyses.rich().faults["total"].max()


def test_a_life_whose_task_ran_late_is_slow_though_its_guest_was_told_soon():
    rows = [life(START + n, 0x1000 * (n + 1)) for n in range(6)]
    rows[3]["e2e"] = 10 * max(row["total"] for row in rows)
    first = prepare(analyses.analysis(rows, [])).slowest[0]
    assert (first.token, first.e2e) == ("0x4000", rows[3]["e2e"])


def test_a_vcpu_is_named_by_its_vm_only_when_there_are_several():
    assert prepare(analyses.single()).vcpus[0].where == "vCPU 0"
    assert [row.where for row in prepare(analyses.rich()).vcpus][2:] == ["vm2 vCPU 2", "vm2 vCPU 3"]


def test_guests_are_told_apart_by_machine():
    rows = [life(START, 0x1000) | {"machine": name} for name in ("g1", "g2")]
    wheres = [one.where for one in prepare(analyses.analysis(rows, [])).slowest]
    assert sorted(wheres) == ["g1 vm1 vCPU 0", "g2 vm1 vCPU 0"]


def test_accounting_reads_as_equations():
    first, second, third = accounting_lines(analyses.rich().accounting)
    assert first.equation() == "try 444 = not_present 425 + repeated 19 + refused 0"
    assert second.equation() == (
        "not_present 425 = answered 420 + cancelled 2 + in_flight 1 + lost 1 + undecided 1"
    )
    assert third.equation().startswith("delivered 420 = acks 420 (at most one per vCPU")


@pytest.mark.parametrize(
    ("refused", "broken", "sign"),
    [
        (0, [], "="),
        (3, ["try 5 != not_present 4"], "!="),
        (3, [], "?"),
        (None, [], "?"),
        (0, ["ready 5 != 4"], "="),
    ],
)
def test_the_sign_tells_what_the_model_found(refused, broken, sign):
    row = {"try": 5, "not_present": 4, "repeated": 1, "refused": refused, "broken": broken}
    assert accounting_lines(analyses.table(ACCOUNTING, [row]))[0].sign == sign


def test_what_the_record_cuts_off_is_counted_where_there_is_any():
    row = {"try": 6, "headless": 1, "not_present": 5, "repeated": 1, "refused": 0, "cut": 1}
    assert accounting_lines(analyses.table(ACCOUNTING, [row]))[0].equation() == (
        "try 6 + begun before the trace 1 = not_present 5 + repeated 1 + refused 0 + cut off by its end 1"
    )


@pytest.mark.parametrize(
    ("delivered", "acks", "broken", "equation"),
    [
        (41, 40, [], "delivered 41 ~ acks 40 ("),
        (40, 41, [], "delivered 40 ~ acks 41 ("),
        (40, 0, [], "delivered 40 ? acks 0 ("),
        (40, 44, ["delivered 40 != acks 44 within 2"], "delivered 40 != acks 44 ("),
        (None, 41, [], "delivered - ? acks 41 ("),
        (40, None, [], "delivered 40 ? acks - ("),
    ],
)
def test_deliveries_and_acks_may_lie_apart_as_far_as_the_model_says(delivered, acks, broken, equation):
    rows = [{"delivered": delivered, "acks": acks, "broken": broken}]
    assert accounting_lines(analyses.table(ACCOUNTING, rows))[2].equation().startswith(equation)


def test_broken_identities_name_their_vcpu():
    rows = [
        {"vcpu": 1, "tid": 7, "broken": ["try 5 != 4"]},
        {"tid": None, "broken": ["try 9 != 8"]},
    ]
    assert broken_identities(analyses.table(ACCOUNTING, rows)) == ("vCPU 1 (tid 7): try 5 != 4", "try 9 != 8")


def test_no_total_row_means_no_equations():
    assert accounting_lines(ACCOUNTING.empty()) == ()


def test_the_environment_says_what_was_lost_and_where():
    host, guest = environment(analyses.rich().inputs)
    assert dict(host.facts)["lost"] == "1,204 events on CPUs 3, 5-6 of 8"
    assert dict(guest.facts)["lost"] == "none known"
    assert dict(host.facts)["window"] == "12.3 s, 4211.000000000 to 4223.345678901"
    assert [name for name, _ in host.events][:3] == [
        "kvm_try_async_get_page",
        "kvm_async_pf_not_present",
        "kvm_async_pf_ready",
    ]


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"lost_events": None, "lost_cpus": (1,)}, "an unknown number of events on CPU 1 of 8"),
        ({"lost_events": 1, "lost_cpus": ()}, "1 event, CPU unknown"),
        ({"lost_events": 0, "lost_cpus": ()}, "none known"),
    ],
)
def test_losses_without_a_count_or_a_place(facts, text):
    (one,) = environment((analyses.trace_input(**facts),))
    assert dict(one.facts)["lost"] == text


def test_an_input_without_events_says_so():
    (one,) = environment((analyses.trace_input(events={}, first_ns=None, last_ns=None, kernel=None),))
    facts = dict(one.facts)
    assert (facts["window"], facts["events"], facts["kernel"]) == ("no event", "none", "not recorded")


def test_ranges_join_neighbours():
    assert ranges((7, 0, 1, 2, 3, 9, 10)) == "0-3, 7, 9-10"


def test_nothing_prepared_holds_a_control_character():
    def strings(value):
        if isinstance(value, str):
            yield value
        elif isinstance(value, (tuple, list)):
            for one in value:
                yield from strings(one)
        elif hasattr(value, "__dict__"):
            yield from strings(list(vars(value).values()))

    found = list(strings(prepare(analyses.hostile())))
    assert len(found) > 200
    assert all(text.isprintable() for text in found)


def test_ticks_anywhere_make_ticks_everywhere():
    ticks = replace(analyses.single(), inputs=(analyses.trace_input(clock_unit="ticks"),))
    assert prepare(ticks).unit == "ticks"


def test_frames_are_not_changed():
    analysis = analyses.rich()
    before = analysis.findings.clone()
    prepare(analysis)
    assert analysis.findings.equals(before)
    assert isinstance(analysis.faults, pl.DataFrame)
