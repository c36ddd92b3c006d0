"""Traces come from other people: what they carry reaches a terminal or a page only escaped."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from tests.builders import options
from tests.model import histories
from tests.model.support import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
MARKUP = "<script>alert(1)</script>"
COMM = "\x1b[31m<b>&\x07x"
KERNEL = f"Linux {ESCAPE}{MARKUP} 6.12.0"
TEXTS = ("text", "md", "html", "json", "junit")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    story = histories.late_wakeup()
    for tid in list(story.comms):
        story.comms[tid] = COMM
    facts = [
        options.uname(KERNEL),
        options.guest(f"guest{ESCAPE}{MARKUP}", 7, [101]),
        options.version(f"3.1 {ESCAPE}"),
    ]
    return write(story, tmp_path / f"trace{MARKUP.replace('/', '')}.dat", options=facts)


def controls(text: str) -> set[str]:
    """Return the control characters of a text, line ends and tabs apart."""
    return {ch for ch in text if not ch.isprintable() and ch not in "\n\t"}


@pytest.mark.parametrize("format_", TEXTS)
def test_no_control_character_reaches_a_report(run: Run, hostile: Path, format_: str) -> None:
    result = run("analyze", hostile, "--format", format_)
    assert controls(result.text) == set()
    assert controls(result.err) == set()


@pytest.mark.parametrize("format_", ["html", "md", "junit"])
def test_no_markup_of_the_trace_reaches_a_page(run: Run, hostile: Path, format_: str) -> None:
    page = run("analyze", hostile, "--format", format_).text
    rendered = outside_code(page) if format_ == "md" else page
    assert "<script>alert" not in rendered
    assert "alert(1)</script>" not in rendered
    assert "<b>&" not in rendered


def outside_code(page: str) -> str:
    """Return Markdown without its code blocks and code spans, in which everything is taken as it is."""
    page = re.sub(r"(?ms)^(```+).*?^\1$", "", page)
    page = "\n".join(line for line in page.splitlines() if not line.startswith("    "))
    return re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", page)


@pytest.mark.parametrize("comm", ["```\n<b>x", "`<b>`", "a`<b>x"])
def test_backticks_do_not_end_a_piece_of_code(run: Run, tmp_path: Path, comm: str) -> None:
    story = histories.late_wakeup()
    for tid in list(story.comms):
        story.comms[tid] = comm
    name = write(story, tmp_path / "tick`<b>`.dat").name
    assert "<b>" not in outside_code(run("analyze", name, "--format", "md").text)


def test_the_default_call_is_safe_on_a_terminal(run: Run, hostile: Path) -> None:
    result = run("analyze", hostile)
    assert controls(result.text) == controls(result.err) == set()


def test_info_is_safe_on_a_terminal(run: Run, hostile: Path) -> None:
    result = run("info", hostile)
    assert controls(result.text) == set()
    assert "\\x1b]0;owned\\x07" in result.text


def test_json_lines_escape_what_json_must(run: Run, hostile: Path) -> None:
    result = run("events", hostile)
    assert controls(result.text) == set()
    assert {json.loads(line)["comm"] for line in result.text.splitlines()} == {COMM}


def test_junit_stays_well_formed(run: Run, hostile: Path) -> None:
    assert ElementTree.fromstring(run("analyze", hostile, "--format", "junit").text).tag


def test_json_stays_json(run: Run, hostile: Path) -> None:
    report = json.loads(run("analyze", hostile, "--format", "json").text)
    assert MARKUP in report["inputs"][0]["kernel"]


def test_an_event_name_with_escape_sequences(run: Run, traces: Path) -> None:
    result = run("events", traces / "calm.dat", "-e", "no\x1b]0;owned\x07such")
    assert result.status == 2
    assert controls(result.err) == set()


def test_a_trace_name_with_escape_sequences_beside_wrong_usage(
    run: Run, traces: Path, tmp_path: Path
) -> None:
    name = "trace\x1b]0;owned\x07.dat"
    (tmp_path / name).write_bytes((traces / "calm.dat").read_bytes())
    result = run("events", name, "-e", "nosuch")
    assert result.status == 2
    assert controls(result.err) == set()


def test_an_output_name_with_escape_sequences(run: Run, traces: Path) -> None:
    result = run("events", traces / "calm.dat", "-o", f"no{ESCAPE}.such")
    assert result.status == 2
    assert controls(result.err) == set()


def test_a_time_with_escape_sequences(run: Run, traces: Path) -> None:
    result = run("analyze", traces / "calm.dat", "--late-after", f"1{ESCAPE}")
    assert result.status == 2
    assert controls(result.err) == set()


def test_a_losing_trace_with_a_hostile_name(run: Run, traces: Path, tmp_path: Path) -> None:
    name = "loss\x1b[2J.dat"
    (tmp_path / name).write_bytes((traces / "lossy.dat").read_bytes())
    result = run("events", name)
    assert result.status == 0
    assert controls(result.err) == set()
