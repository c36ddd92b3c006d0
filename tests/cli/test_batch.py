"""``apftrace batch`` from the shell: statuses, progress in a pipe and on a terminal, lists, GitHub's summary."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from apftrace.batch.runs import Entry
from apftrace.cli.progress import Bar

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def _not_on_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.mark.parametrize(
    ("names", "arguments", "status"),
    [
        (("calm",), (), 0),
        (("late",), (), 0),
        (("late",), ("--fail-on", "warning"), 1),
        (("lost", "calm"), (), 1),
        (("lost", "calm"), ("--fail-on", "never"), 0),
        (("lost", "calm"), ("--exit-zero",), 0),
        (("calm", "missing"), (), 4),
        (("calm", "lossy"), (), 4),
        (("lost", "missing"), (), 1),
        (("missing",), (), 3),
    ],
)
def test_the_status(
    run: Run, traces: Path, names: tuple[str, ...], arguments: tuple[str, ...], status: int
) -> None:
    sources = [traces / f"{name}.dat" for name in names]
    assert run("batch", *sources, "-o", "out", "--jobs", 1, "--reports", 0, *arguments).status == status


def test_a_pipe_gets_a_line_per_input(run: Run, traces: Path) -> None:
    result = run("batch", traces / "calm.dat", traces / "lost.dat", "gone", "-o", "out", "--jobs", 1)
    *told, end = map(json.loads, result.text.splitlines())
    assert {(one["event"], one["status"], one["verdict"]) for one in told} == {
        ("input", "analysed", "clean"),
        ("input", "analysed", "anomaly"),
        ("input", "unreadable", None),
    }
    assert all(one["took_seconds"] >= 0 for one in told)
    assert (end["event"], end["verdict"], end["analysed"], end["failed"]) == ("end", "anomaly", 2, 1)


def test_a_list_on_standard_input(
    run: Run, traces: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for separator in ("\n", "\0"):
        text = separator.join([str(traces / "calm.dat"), "", str(traces / "late.dat"), ""])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert run("batch", "-", "-o", "out", "--jobs", 1, "--reports", 0).status == 0
        names = [
            json.loads(line)["name"]
            for line in (tmp_path / "out" / "runs.jsonl").read_text("utf-8").splitlines()
        ]
        assert names == ["calm.dat", "late.dat"]


def test_github_gets_its_summary_appended(
    run: Run, traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "step-summary"
    target.write_text("what another step said\n", "utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    run("batch", traces / "lost.dat", "-o", "out", "--jobs", 1, "--reports", 0)
    assert target.read_bytes() == b"what another step said\n" + (tmp_path / "out" / "summary.md").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing argument 'SOURCE...'"),
        (("in",), "Missing option '-o'"),
        (("in", "-o", "out", "--labels", "x"), "none of {kernel}"),
        (("in", "-o", "out", "--group-by", "cpu"), "'cpu' is none of"),
        (("in", "-o", "out", "--memory", "much"), "'much' is not a size"),
        (("in", "-o", "out", "--baseline", "gone"), "does not exist"),
        (("in", "-o", "out", "--allow", "in/bad.toml"), "no TOML"),
        (("in", "-o", "out", "--baseline", "in"), "is none of a batch's runs.jsonl"),
        (("in", "-o", "out", "--timeout", "0"), "0"),
        (("in", "-o", "out", "--late-after", "soon"), "is not a time"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.toml").write_text("[[", "utf-8")
    (tmp_path / "in" / "runs.jsonl").write_text("{}\n", "utf-8")
    result = run("batch", *arguments)
    assert result.status == 2
    assert words in result.one_line()


def test_a_folder_with_other_files_is_wrong_usage(run: Run, traces: Path, tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("mine", "utf-8")
    result = run("batch", traces / "calm.dat", "-o", ".")
    assert (result.status, result.out) == (2, b"")
    assert "holds summary.md, which no apftrace batch wrote; choose another folder" in result.one_line()
    assert (tmp_path / "summary.md").read_text("utf-8") == "mine"


def test_an_output_that_cannot_be_made_is_one_line(run: Run, traces: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    for output in ("file", "file/out"):
        result = run("batch", traces / "calm.dat", "-o", output)
        assert result.status in {2, 3}
        assert "file" in result.one_line()


def test_a_terminal_gets_a_bar_with_rate_and_time_to_go() -> None:
    out = io.StringIO()
    bar = Bar(out)
    entry = Entry("in/\x1b[2Jevil.dat", "evil.dat", None, None)
    bar.done(entry, {"status": "analysed"}, 0.1, 250, 1000)
    bar.done(entry, {"status": "unreadable"}, 0.1, 250, 1000)
    line = bar.line(10.0)
    assert line.startswith("############............  50%  2 inputs  0.2/s  ETA 0:10  1 failed")
    assert "evil" not in out.getvalue()
    assert out.getvalue().startswith("\r\x1b[K")


def test_hostile_names_reach_no_terminal(run: Run, tmp_path: Path) -> None:
    name = "evil\x1b[2J\n.dat"
    (tmp_path / name).write_bytes(b"\x17\x08\x44nonsense")
    result = run("batch", name, "-o", "out", "--jobs", 1)
    assert b"\x1b" not in result.out
    assert "\x1b" not in result.err
    assert json.loads(result.text.splitlines()[0])["path"] == name
    assert os.listdir(tmp_path / "out" / "reports") == []  # noqa: PTH208
