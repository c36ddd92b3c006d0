"""A guest's trace as trace-cmd report prints it: the same hits as in the records."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from .support import calls, history, recorded, scheduled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("option", ["-t", "-R"])
def test_the_report_of_the_capture_is_the_capture(
    tmp_path: Path, capture: Callable[[str], Path], option: str
) -> None:
    dat = capture("host-guest/agent-v7-h-vm1.dat")
    path = reported(tmp_path / "report.txt", "-t", *(["-R", "-N"] if option == "-R" else []), "-i", str(dat))
    text, records = recorded(path), recorded(dat)
    assert calls(text) == calls(records)
    assert scheduled(text) == [
        # The plugin of libtraceevent shows R for a thread that was preempted.
        (*row[:4], row[4] & 0xFF if row[3] == "switch" and option == "-t" else row[4], *row[5:])
        for row in scheduled(records)
    ]


def reported(path: Path, *arguments: str) -> Path:
    """Return a file with what trace-cmd report prints."""
    command = shutil.which("trace-cmd")
    assert command, "trace-cmd is missing: these tests compare with it"
    path.write_bytes(subprocess.run([command, "report", *arguments], capture_output=True, check=True).stdout)
    return path


@pytest.mark.parametrize("hooks", ["kprobe", "function", "graph"])
def test_what_trace_cmd_report_prints(tmp_path: Path, hooks: str) -> None:
    guest = history()
    dat = guest.dat(tmp_path / "g.dat", hooks)
    path = reported(tmp_path / "report.txt", "-t", "-i", str(dat))
    text, records = recorded(path), recorded(dat)
    # The name of the probe on apf_task_wake_all does not say enough without its address.
    due = [row for row in calls(records) if hooks != "kprobe" or row[3] != "wake_all"]
    assert [row[1:4] for row in calls(text)] == [row[1:4] for row in due]
    timed = [leaf is None for (leaf,) in calls(text, "a")]
    assert list(itertools.compress(calls(text), timed)) == list(itertools.compress(due, timed))
    assert scheduled(text) == scheduled(records)
