"""Exit statuses: 0 sound, 1 a finding, 2 wrong usage, 3 unreadable, 4 the verdict is unsafe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


@pytest.mark.parametrize(
    ("trace", "fail_on", "status"),
    [
        ("calm", "error", 0), ("calm", "warning", 0), ("calm", "info", 0), ("calm", "never", 0),
        ("info", "error", 0), ("info", "warning", 0), ("info", "info", 1), ("info", "never", 0),
        ("late", "error", 0), ("late", "warning", 1), ("late", "info", 1), ("late", "never", 0),
        ("lost", "error", 1), ("lost", "warning", 1), ("lost", "info", 1), ("lost", "never", 0),
        ("lossy", "error", 4), ("lossy", "warning", 1), ("lossy", "never", 4),
        ("sparse", "error", 4), ("sparse", "never", 4), ("empty", "error", 4),
        ("lost-and-lossy", "error", 1), ("lost-and-lossy", "never", 4),
    ],
)  # fmt: skip
def test_the_status_follows_finding_and_safety(
    run: Run, traces: Path, trace: str, fail_on: str, status: int
) -> None:
    assert run("analyze", traces / f"{trace}.dat", "-o", "-", "--fail-on", fail_on).status == status


def test_errors_are_what_it_fails_on_by_default(run: Run, traces: Path) -> None:
    assert run("analyze", traces / "late.dat", "-o", "-").status == 0
    assert run("analyze", traces / "lost.dat", "-o", "-").status == 1


@pytest.mark.parametrize("trace", ["lost", "lossy", "sparse", "empty"])
def test_exit_zero_whatever_was_found(run: Run, traces: Path, trace: str) -> None:
    assert run("analyze", traces / f"{trace}.dat", "-o", "-", "--exit-zero").status == 0


def test_exit_zero_does_not_hide_an_unreadable_trace(run: Run) -> None:
    assert run("analyze", "missing.dat", "--exit-zero").status == 3


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--fail-on", "disaster"],
        ["--format", "docx"],
        ["--no-such-option"],
        ["--late-after", "soon"],
        ["--late-after", "10"],
        ["--late-after", "-1ms"],
        ["--late-after", "nanms"],
        ["--late-after", "infs"],
        ["--late-after", "9223372037s"],
        ["--late-after", ""],
        ["another.dat", "and.dat", "--fail-on"],
    ],
    ids=" ".join,
)
def test_wrong_usage(run: Run, traces: Path, arguments: list[str]) -> None:
    trace = [traces / "calm.dat"] if arguments else []
    result = run("analyze", *trace, *arguments)
    assert result.status == 2
    assert result.out == b""
    assert result.err.startswith("apftrace: ")
    assert len(result.err.splitlines()) == 1


def test_standard_input_cannot_be_analysed(run: Run) -> None:
    result = run("analyze", "-")
    assert result.status == 2
    assert "TRACE must be a file" in result.err


@pytest.mark.parametrize("limit", ["2ms", "2000us", "2000000ns", "0.002s"])
def test_late_after_sets_the_threshold(run: Run, traces: Path, limit: str) -> None:
    assert (
        run("analyze", traces / "late.dat", "-o", "-", "--fail-on", "warning", "--late-after", limit).status
        == 1
    )


def test_late_after_may_be_more_than_the_latest(run: Run, traces: Path) -> None:
    arguments = ("analyze", traces / "late.dat", "-o", "-", "--fail-on", "warning", "--late-after")
    assert run(*arguments, "301ms").status == 0
    assert run(*arguments, "299ms").status == 1


def test_the_verdict_is_told_on_stderr_beside_a_report(run: Run, traces: Path) -> None:
    result = run("analyze", traces / "lost.dat", "-o", "report.json")
    assert result.out == b""
    assert result.one_line() == "apftrace: anomaly: 21 async page faults; 1 lost wakeup."
