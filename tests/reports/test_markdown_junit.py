from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

from hypothesis import example, given, settings
from hypothesis import strategies as st

from apftrace.analysis import LossSpan
from apftrace.model.rules import CATALOGUE
from apftrace_reports.registry import by_name

from . import analyses
from .analyses import finding

MARKDOWN, JUNIT = by_name("md"), by_name("junit")


def markdown(analysis) -> str:
    return MARKDOWN.render(analysis).decode()


def junit(analysis) -> ElementTree.Element:
    return ElementTree.fromstring(JUNIT.render(analysis))


def test_markdown_begins_with_the_verdict():
    assert markdown(analyses.rich()).startswith("## ANOMALY: One wakeup was lost on vCPU 0, and 7 came late")


def test_markdown_tables_keep_their_columns(analysis):
    for block in re.findall(r"(?:^\|.*\n)+", markdown(analysis), re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_markdown_tells_the_worst_with_raw_records():
    text = markdown(analyses.rich())
    assert "#### error: lost-wakeup: token 0x26b001 waited 21.0 ms for its ready\n" in text
    assert "\n      4211.002000000 [002] 4711 kvm_async_pf_not_present: token 0x26b002 gva" in text
    assert "- `try 444 = not_present 425 + repeated 19 + refused 0`\n" in text
    assert "- `kvm_page_fault`: `refault-loop`" in text


def test_markdown_folds_raw_records_but_the_first():
    rows = [finding(number, "lost-wakeup") for number in range(3)]
    text = markdown(analyses.analysis([], rows, excerpts={row["id"]: ("a  b", "c") for row in rows[:2]}))
    assert re.findall("<details.*", text) == [
        "<details open><summary>Raw records, 2 lines</summary>",
        "<details><summary>Raw records, 2 lines</summary>",
    ]
    assert text.count("</summary>\n\n      a  b\n      c\n\n</details>\n") == 2


def test_markdown_lists_the_gaps():
    text = markdown(analyses.lossy())
    assert "\n- gap: CPU 1: 530 records lost, 4213.000000000 to 4213.120000000 (120 ms)\n" in text
    assert "more gap" not in text
    gaps = tuple(LossSpan("host", 0, 1, n, n + 1) for n in range(9))
    assert "\n- and 4 more gaps\n" in markdown(replace(analyses.single(), losses=gaps))


@given(st.text(max_size=80))
@example("&\\")
@settings(max_examples=40, deadline=None)
def test_markdown_has_no_markup_of_the_trace(text):
    rendered = markdown(analyses.hostile(text))
    assert all(line.isprintable() for line in rendered.split("\n"))
    lines = [line for line in rendered.split("\n") if not line.startswith("      ")]
    ours = r"</?details( open)?>|<summary>Raw records, \d+ lines?</summary>"
    # From left to right: inside a code span a backslash stands for itself.
    literal = r"\\[^\w\s]|(`+)(?!`).*?(?<!`)\1(?!`)"
    bare = [re.sub(literal, " ", re.sub(f"^({ours})+$", "", line)) for line in lines]
    assert not [line for line in bare if re.search(r"[<>~$&\[\]]|://", line)]


def test_junit_counts_what_it_lists(analysis):
    root = junit(analysis)
    for element in (root, root[0]):
        assert int(element.get("tests")) == len(root.findall(".//testcase"))
        assert int(element.get("failures")) == len(root.findall(".//failure"))
        assert int(element.get("skipped")) == len(root.findall(".//skipped"))


def test_junit_fails_on_errors_only():
    cases = {
        case.get("name"): [child.tag for child in case] for case in junit(analyses.rich()).iter("testcase")
    }
    assert {name: tags for name, tags in cases.items() if tags} == {
        "verdict": ["system-out"],
        "lost-wakeup": ["failure"],
        "late-wakeup": ["system-out"],
        "missing-ack": ["system-out"],
        "wake-all": ["system-out"],
        "lost-in-guest": ["skipped"],
        "refault-loop": ["skipped"],
    }


def test_junit_lists_every_rule_of_the_catalogue_once():
    cases = [case.get("name") for case in junit(analyses.rich()).iter("testcase")]
    assert len(cases) == len(set(cases))
    assert {rule.id for rule in CATALOGUE} <= set(cases)


def test_junit_does_not_pass_an_unusable_trace():
    root = junit(analyses.analysis([], [], verdict="unusable", headline="Nothing could be decoded."))
    assert root.get("errors") == "1"
    assert root.find(".//error").get("message") == "unusable: Nothing could be decoded."


def test_junit_counts_what_it_does_not_tell():
    root = junit(analyses.analysis([], [finding(number, "lost-wakeup") for number in range(50)]))
    failure = root.find(".//failure")
    assert failure.get("message") == "50 findings"
    assert failure.text.endswith("... and 30 more")


@given(st.text(max_size=80))
@settings(max_examples=40, deadline=None)
def test_junit_stays_well_formed(text):
    root = junit(analyses.hostile(text))
    assert len(root.findall(".//failure")) == 1
