"""Standard streams that are closed or full, and Ctrl-C: one line, and no status that means a finding."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.conftest import SAMPLES

if TYPE_CHECKING:
    from pathlib import Path


def shell(folder: Path, arguments: str, redirections: str) -> subprocess.CompletedProcess[str]:
    command = f'"{sys.executable}" -m apftrace {arguments} {redirections}'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.parametrize("verb", ["analyze", "analyze --format json", "info", "events", "batch"])
def test_closed_output_is_one_line_where_it_was_asked_for(traces: Path, tmp_path: Path, verb: str) -> None:
    folder = "-o out --jobs 1 --reports 0" if verb == "batch" else ""
    done = shell(tmp_path, f'{verb} "{traces / "calm.dat"}" {folder}', ">&-")
    if verb == "batch":
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "out" / "batch.json").exists()
    else:
        assert (done.returncode, done.stderr) == (3, "apftrace: standard output: it is closed\n")


@pytest.mark.parametrize("options", ["", "--format json", "--format md"])
def test_a_reader_that_has_seen_enough_changes_neither_status_nor_page(
    traces: Path, tmp_path: Path, options: str
) -> None:
    verb = f'analyze "{traces / "late.dat"}" --fail-on warning {options}'
    done = shell(tmp_path, verb, "| true; exit ${PIPESTATUS[0]}")
    assert done.returncode == 1
    assert (tmp_path / "late.apf.html").exists() == (not options)


def test_a_batch_whose_reader_has_seen_enough_goes_on(traces: Path, tmp_path: Path) -> None:
    verb = f'batch "{traces / "late.dat"}" -o out --fail-on warning --jobs 1 --reports 0'
    assert shell(tmp_path, verb, "| true; exit ${PIPESTATUS[0]}").returncode == 1
    assert (tmp_path / "out" / "batch.json").exists()


def test_a_file_name_that_is_no_text(traces: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/odd\xff.dat"
    shutil.copy(traces / "calm.dat", odd)
    done = shell(tmp_path, "batch", "odd*.dat -o out --jobs 1 --reports 1")
    assert (done.returncode, done.stderr) == (0, "")
    (path,) = set(pq.read_table(tmp_path / "out" / "faults")["path"].to_pylist())
    assert path.endswith("odd\\udcff.dat")
    shutil.copy(SAMPLES / "agent-v7-h-vm1.dat", odd)
    done = shell(tmp_path, "analyze", "odd*.dat")
    assert done.returncode == 0
    assert (tmp_path / os.fsdecode(b"odd\xff.apf.html")).exists()


def test_nothing_of_a_closed_stream_gets_into_a_file(traces: Path, tmp_path: Path) -> None:
    for name, redirections in (("plain", ""), ("closed", "<&- >&- 2>&-")):
        done = shell(tmp_path, f'analyze "{traces / "late.dat"}" -o {name}.json', redirections)
        assert done.returncode == 0
    assert (tmp_path / "closed.json").read_bytes() == (tmp_path / "plain.json").read_bytes()


def test_a_closed_standard_error_costs_only_what_is_said_there(traces: Path, tmp_path: Path) -> None:
    done = shell(tmp_path, f'analyze "{traces / "calm.dat"}"', "2>&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("CLEAN")


def test_a_list_from_a_closed_standard_input_is_empty(tmp_path: Path) -> None:
    done = shell(tmp_path, "batch - -o out", "<&-")
    assert (done.returncode, done.stderr) == (3, "apftrace: no trace could be analysed\n")


@pytest.mark.parametrize(
    "arguments", ["analyze {}", "events {} --format parquet", "events {}", "info {}", "-h"]
)
def test_a_full_disk_is_one_line_that_says_where(traces: Path, tmp_path: Path, arguments: str) -> None:
    done = shell(tmp_path, arguments.format(traces / "calm.dat"), ">/dev/full")
    assert (done.returncode, done.stderr) == (3, "apftrace: standard output: No space left on device\n")


def test_ctrl_c_while_modules_are_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "apftrace", "-h"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_ctrl_c_at_work_says_nothing(tmp_path: Path) -> None:
    trace = SAMPLES / "host-v6-none.dat"
    command = [sys.executable, "-m", "apftrace", "events", trace, "-e", "*", "-o", tmp_path / "out.jsonl"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        while not any(tmp_path.iterdir()):  # what it writes to is there: it is at work
            assert running.poll() is None
            time.sleep(0.002)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=20)
    assert (running.returncode, said) == (130, "")
    assert not any(tmp_path.iterdir())


def test_on_a_terminal_a_batch_says_where_its_page_is(traces: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "apftrace", "batch", traces / "calm.dat", "-o", "out", "--jobs", "1"]
    done = subprocess.run(command, stdout=theirs, stderr=theirs, check=False, cwd=tmp_path)
    os.close(theirs)
    with os.fdopen(ours, "rb") as terminal:
        shown = os.read(terminal.fileno(), 1 << 16).decode()
    assert done.returncode == 0
    assert shown.endswith("apftrace: report written to out/index.html\r\n")
