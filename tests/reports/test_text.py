from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apftrace.analysis import GuestLink, LossSpan
from apftrace_reports.catalogue import rule_words
from apftrace_reports.escape import columns
from apftrace_reports.registry import by_name

from . import analyses
from .analyses import START, finding

REPORT = by_name("text")
SECTIONS = [
    "ANOMALY",
    "FINDINGS",
    "PHASES",
    "SLOWEST",
    "ACCOUNTING",
    "vCPUs",
    "ENVIRONMENT",
    "NOT LOOKED FOR",
]


def render(analysis) -> str:
    return REPORT.render(analysis).decode()


def test_no_line_is_wider_than_72_columns(analysis):
    assert max(columns(line) for line in render(analysis).split("\n")) <= 72


@given(st.text(max_size=300), st.text(st.characters(categories=("Lo", "Mn", "So")), max_size=90))
@settings(max_examples=60, deadline=None)
def test_no_line_is_wider_whatever_the_trace_says(narrow, wide):
    for text in (narrow, wide):
        lines = render(analyses.hostile(text)).split("\n")
        assert max(columns(line) for line in lines) <= 72
        assert all(line.isprintable() for line in lines)


def test_the_verdict_is_the_first_line():
    assert render(analyses.single()).startswith("CLEAN: Every async page fault was answered in time.\n")
    assert render(analyses.rich()).startswith("ANOMALY: One wakeup was lost on vCPU 0, and 7 came late")


def test_sections_stand_in_the_order_of_importance():
    text = render(analyses.rich())
    places = [re.search(f"^{section}", text, re.M).start() for section in SECTIONS]
    assert places == sorted(places)


def test_doubts_about_the_verdict_come_before_the_findings():
    text = render(analyses.rich())
    doubt = text.index("Why this verdict is not safe:\n  - 1,204 events were lost on CPUs 3, 5 and 6.")
    assert doubt < text.index("FINDINGS")
    assert "not safe" not in render(analyses.single())


def test_a_finding_is_told_with_its_evidence():
    rows = [finding(1, "token-zero")]
    text = render(analyses.analysis([], rows))
    assert text[text.index("FINDINGS") : text.index("\n  means ")] == (
        "FINDINGS  1 error\n"
        "\n"
        "[error] token-zero: Token 0\n"
        "  * token-zero: token 0x26b001 waited 21.0 ms for its ready\n"
        "    proved, vCPU 1, tid 4712, vm vm1, token 0x26b001, gva\n"
        "    0x7f1200000001, P3, at 4211.001000000, for 21 ms\n"
        "    cause: the ACK of the ready before it is missing\n"
        "    charged to: token 0x14000\n"
        "    ruled out: records lost on CPU 2; vCPU stopped in userspace\n"
        "    not ruled out: guest interrupts off: record kvm_inj_virq\n"
        "    evidence:\n"
        "      4211.001000000 [002] 4711 kvm_async_pf_not_present: token 0x26b001\n"
        "        gva 0x7f1200000000\n"
        "      4211.002400000 [003] 88 kvm_async_pf_completed: gva 0x7f1200000000\n"
        "        address 0x7fd3a8e00000"
    )


def test_the_phases_say_above_which_length_they_are_late():
    assert "\n  late above: P3 10 ms\n" in render(analyses.rich())


def test_a_guest_says_its_method_and_the_unit_of_its_offset():
    link = GuestLink(
        "vm1", method="inferred", how="by causality", offset=7, low=-5, high=9, within=10, typical=6
    )
    guest = replace(analyses.rich().inputs[0], machine="vm1")
    text = " ".join(render(replace(analyses.rich(), inputs=(guest,), guests=(link,))).split())
    assert "joined inferred: by causality" in text
    assert "offset 7 ns, -5 to 9 ns would do without drift" in text


def test_a_rule_says_what_it_means_and_what_to_do():
    text = render(analyses.analysis([], [finding(1, "lost-wakeup")]))
    words = rule_words("lost-wakeup")
    assert words.title
    assert f"[error] lost-wakeup: {words.title}\n" in text
    told = " ".join(text.split())
    assert f"means {words.means}" in told
    assert f"next {words.remedy}" in told
    assert all(f"see also {bug}" in told for bug in words.bugs)


def test_a_rule_without_words_is_told_by_its_id():
    text = render(analyses.analysis([], [finding(1, "brand-new")]))
    assert "\n[error] brand-new\n" in text
    assert "means" not in text


def test_only_the_worst_finding_shows_raw_records():
    text = render(analyses.rich())
    assert text.count("raw records:") == 1
    assert text.index("raw records:") < text.index("late-wakeup")


def records(
    number: int, text: str = "gva = 0xd92d000, gfn = 0xd92d and a good deal more than fits"
) -> tuple[str, ...]:
    return tuple(
        f"CPU 1/KVM-3096 [000] 4211.0000{n:02d}000: kvm_try_async_get_page: {text}" for n in range(number)
    )


def raw(excerpt: tuple[str, ...], **more: object) -> list[str]:
    """The lines of the excerpt of one finding, from its head on."""
    row = finding(1, "token-zero", **more)
    text = render(analyses.analysis([], [row], excerpts={row["id"]: excerpt}))
    lines = text[text.index("    raw records") : text.index("\n  means ")].split("\n")
    assert max(columns(line) for line in lines) <= 72
    return lines


def test_a_long_record_breaks_after_the_name_of_its_event():
    assert raw(records(1)) == [
        "    raw records:",
        "    CPU 1/KVM-3096 [000] 4211.000000000: kvm_try_async_get_page:",
        "        gva = 0xd92d000, gfn = 0xd92d and a good deal more than fits",
    ]


def test_a_record_that_fits_stays_whole():
    assert raw(records(1, "gva 1"))[1:] == [
        "    CPU 1/KVM-3096 [000] 4211.000000000: kvm_try_async_get_page: gva 1"
    ]


def test_a_long_excerpt_keeps_its_ends_and_counts_the_rest():
    lines = raw(records(40, "gva 1"))
    assert lines[0] == "    raw records, 19 of 40; --format html shows all:"
    assert len(lines) == 21
    assert lines[11] == "      ... 21 more ..."
    assert lines[1] == f"    {records(1, 'gva 1')[0]}"
    assert lines[-1] == f"    {records(40, 'gva 1')[-1]}"


def test_a_long_excerpt_keeps_the_records_of_the_evidence():
    event = {"ts": START + 20_000, "cpu": 0, "tid": 1, "event": "kvm_try_async_get_page", "text": ""}
    lines = raw(records(40, "gva 1"), evidence=[event])
    assert f"    {records(40, 'gva 1')[20]}" in lines
    assert len(lines) <= 21
    assert sum(line.startswith("      ... ") for line in lines) == 2


@pytest.mark.parametrize(("ts", "told"), [(START + 1_000, 0), (START + 77_000, 1)])
def test_evidence_is_told_besides_an_excerpt_that_lacks_it(ts, told):
    event = {"ts": ts, "cpu": 0, "tid": 1, "event": "kvm_async_pf_ready", "text": ""}
    row = finding(1, "token-zero", evidence=[event])
    text = render(analyses.analysis([], [row], excerpts={row["id"]: records(3)}))
    assert text.count("    evidence:\n") == told
    assert text.count("    raw records:\n") == 1


def test_gaps_are_listed_in_the_environment():
    text = render(analyses.lossy())
    assert (
        "  gap       CPU 3: 7 records lost, from the start to 4212.000000000\n"
        "  gap       CPU 1: 530 records lost, 4213.000000000 to 4213.120000000\n"
        "            (120 ms)\n"
        "  gap       CPU 3: records lost, from 4221.000000000 to the end\n"
        "  gap       CPU 6: 40 records lost, the trace does not say when\n"
        "  protocol "
    ) in text


def test_many_gaps_are_counted():
    gaps = tuple(LossSpan("host", 0, 1, START + n, START + n + 1) for n in range(9))
    text = render(replace(analyses.single(), losses=gaps))
    assert text.count("  gap       CPU 0: 1 record lost, ") == 5
    assert "            ... and 4 more gaps\n" in text
    assert "gap" not in render(analyses.single())


@pytest.mark.parametrize(("severity", "shown"), [("error", 3), ("warning", 2), ("info", 1)])
def test_the_rest_of_a_rule_is_counted(severity, shown):
    rows = [finding(number, "late-wakeup", severity) for number in range(9)]
    text = render(analyses.analysis([], rows))
    assert text.count("\n  * late-wakeup") == shown
    assert f"... and {9 - shown} more; --format json tells them all" in text


def test_a_group_says_when_and_where():
    text = render(analyses.rich())
    assert "[warning] late-wakeup x 7: " in text
    assert "  certainty 7 likely\n" in text
    assert "  first     4211.002000000, last 4211.008000000\n" in text
    assert "  on        vm1 vCPU 0, vm1 vCPU 1, vm1 vCPU 2, vm1 vCPU 3\n" in text


def test_long_evidence_is_cut_and_counted():
    event = {"ts": START, "cpu": None, "tid": None, "event": "kvm_exit", "text": "reason hlt"}
    text = render(analyses.analysis([], [finding(1, "vcpu-spin", evidence=[event] * 30)]))
    assert text.count("4211.000000000 kvm_exit: reason hlt") == 8
    assert "... and 22 more events" in text


def test_no_finding_does_not_hide_what_was_not_looked_for():
    text = render(analyses.empty())
    assert "No rule found anything. 1 rule could not look, see the end." in text
    assert text.endswith("  kvm_exit, kvm_entry: late-wakeup\n")


def test_no_life_is_a_sentence_not_an_empty_table():
    text = render(analyses.empty())
    assert "Nothing to measure: no fault was seen." in text
    assert "SLOWEST" not in text
    assert "vCPUs" not in text


def test_the_phase_table_lines_up():
    text = render(analyses.rich())
    table = text[text.index("PHASES") : text.index("\n\nSLOWEST")].split("\n")
    assert table[0].split() == ["PHASES", "n", "p50", "p95", "p99", "max"]
    *table, limits = table
    assert limits.startswith("  late above: ")
    assert {columns(line) for line in table} == {72}
    assert [line[:29].split() for line in table[1:4]] == [
        ["total", "until", "told", *kind] for kind in ([], ["pv"], ["halt"])
    ]


def test_accounting_and_broken_identities_are_printed():
    rich = analyses.rich()
    text = render(rich)
    assert "  try 444 = not_present 425 + repeated 19 + refused 0\n" in text
    assert "does not balance" not in text
    assert "  does not balance:\n    - " in render(analyses.hostile("try 9 != 8"))


def test_ticks_fit_their_columns():
    slow = analyses.life(START, 0x1000, phases=(10**12,) * 5)
    ticks = analyses.analysis([slow], [], inputs=(analyses.trace_input(clock_unit="ticks"),))
    text = render(ticks)
    assert "5.00e+12" in text
    assert "in ticks: no rate is known" in text
    assert max(map(columns, text.split("\n"))) <= 72


def test_many_vcpus_are_counted():
    lives = [analyses.life(START + n, n << 12 | n, vcpu=n, tid=100 + n) for n in range(40)]
    text = render(analyses.analysis(lives, []))
    assert "  ... and 24 more\n" in text


def test_a_broken_clock_does_not_break_the_report():
    odd = replace(analyses.single(), inputs=(analyses.trace_input(first_ns=None, last_ns=None, events={}),))
    assert "no event" in render(odd)
