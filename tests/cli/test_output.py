"""Where reports go and in which format: -o, --format, and neither."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Run


def test_by_default_text_comes_on_stdout_and_a_page_beside(run: Run, traces: Path, tmp_path: Path) -> None:
    result = run("analyze", traces / "lost.dat")
    assert result.text.startswith("ANOMALY: ")
    assert "lost-wakeup" in result.text
    assert max(map(len, result.text.splitlines())) <= 72
    assert (tmp_path / "lost.apf.html").read_bytes().lstrip().lower().startswith(b"<!doctype html>")
    assert result.one_line() == "apftrace: report written to lost.apf.html"


def test_a_page_that_is_replaced_is_said_to_be(run: Run, traces: Path, tmp_path: Path) -> None:
    for name in ("a/trace.dat", "b/trace.dat"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes((traces / "calm.dat").read_bytes())
    said = [run("analyze", name).one_line() for name in ("a/trace.dat", "b/trace.dat")]
    assert said == [
        "apftrace: report written to trace.apf.html",
        "apftrace: report written to trace.apf.html, in place of an older one",
    ]


def test_parts_of_a_trace_have_pages_of_their_own(run: Run, traces: Path, tmp_path: Path) -> None:
    for name in ("split.dat.1", "split.dat.2"):
        (tmp_path / name).write_bytes((traces / "calm.dat").read_bytes())
        run("analyze", name)
    pages = sorted(path.name for path in tmp_path.glob("*.html"))
    assert pages == ["split.dat.1.apf.html", "split.dat.2.apf.html"]


def test_the_page_goes_into_the_current_folder_not_beside_the_trace(run: Run, traces: Path) -> None:
    run("analyze", traces / "calm.dat")
    assert not list(traces.glob("*.html"))


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("report.html", b"<!doctype html>"),
        ("report.txt", b"ANOMALY"),
        ("report.md", b"#"),
        ("report.json", b"{"),
        ("report.xml", b"<?xml"),
        ("REPORT.JSON", b"{"),
    ],
)
def test_the_suffix_chooses_the_format(
    run: Run, traces: Path, tmp_path: Path, name: str, head: bytes
) -> None:
    result = run("analyze", traces / "lost.dat", "-o", name)
    assert (tmp_path / name).read_bytes()[:40].lstrip().lower().startswith(head.lower())
    assert result.out == b""
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.parametrize("format_", ["html", "text", "md", "json", "junit"])
def test_a_named_format_goes_to_stdout(run: Run, traces: Path, tmp_path: Path, format_: str) -> None:
    result = run("analyze", traces / "lost.dat", "--format", format_)
    assert result.out
    assert not list(tmp_path.iterdir())


def test_a_named_format_beats_the_suffix(run: Run, traces: Path, tmp_path: Path) -> None:
    run("analyze", traces / "lost.dat", "--format", "json", "-o", "report.txt")
    assert json.loads((tmp_path / "report.txt").read_text())["schema_version"] == 1


def test_a_dash_is_stdout(run: Run, traces: Path, tmp_path: Path) -> None:
    result = run("analyze", traces / "lost.dat", "-o", "-")
    assert result.text.startswith("ANOMALY: ")
    assert not list(tmp_path.iterdir())


def test_json_on_stdout_is_nothing_but_json(run: Run, traces: Path) -> None:
    result = run("analyze", traces / "lost.dat", "-o", "-", "--format", "json")
    report = json.loads(result.text)
    assert report["verdict"] == "anomaly"
    assert [finding["rule"] for finding in report["findings"]] == ["lost-wakeup"]
    assert report["inputs"][0]["sha256"] is not None


def test_json_is_the_same_each_time(run: Run, traces: Path) -> None:
    arguments = ("analyze", traces / "lost.dat", "--format", "json")
    assert run(*arguments).out == run(*arguments).out


def test_junit_on_stdout_is_well_formed(run: Run, traces: Path) -> None:
    root = ElementTree.fromstring(run("analyze", traces / "lost.dat", "--format", "junit").text)
    assert root.tag in ("testsuites", "testsuite")
    assert root.findall(".//failure")


@pytest.mark.parametrize("name", ["report.docx", "report", "report.html.bak"])
def test_an_unknown_suffix_is_wrong_usage(run: Run, traces: Path, tmp_path: Path, name: str) -> None:
    result = run("analyze", traces / "lost.dat", "-o", name)
    assert result.status == 2
    assert name in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


def test_the_known_suffixes_are_those_that_the_readme_names(run: Run, traces: Path) -> None:
    said = run("analyze", traces / "lost.dat", "-o", "report.docx").one_line()
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (told,) = re.findall(r"the suffix chooses: `([^`]+)`", readme)
    assert [suffix for suffix in told.split() if f"{suffix} (" not in said] == []


@pytest.mark.parametrize("output", [(), ("-o", "-")])
def test_a_folder_cannot_go_to_stdout(run: Run, traces: Path, output: tuple[str, ...]) -> None:
    result = run("analyze", traces / "lost.dat", "--format", "parquet", *output)
    assert (result.status, result.out) == (2, b"")
    assert "--format parquet needs -o FOLDER" in result.one_line()


def test_a_report_that_cannot_be_written_is_one_line(run: Run, traces: Path) -> None:
    result = run("analyze", traces / "lost.dat", "-o", "no/such/folder/report.json")
    assert result.status not in (0, 1, 4)
    assert "no/such/folder" in result.one_line()


def test_a_trace_is_never_written_over(run: Run, traces: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in traces.iterdir()}
    for name in before:
        run("analyze", traces / name, "-o", tmp_path / "report.html")
    assert {path.name: path.read_bytes() for path in traces.iterdir()} == before


def test_a_reader_that_leaves_early_is_no_error(traces: Path) -> None:
    program = f'"{sys.executable}" -m apftrace events "{traces / "calm.dat"}" -e "*" | head -c 10'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", program], capture_output=True, text=True, check=False
    )
    assert len(done.stdout) == 10
    assert done.stderr == ""
