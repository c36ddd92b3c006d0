"""How the program ends: at once where all is said, as Python does where something is not."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from apftrace import __main__ as program
from tests.conftest import SAMPLES

if TYPE_CHECKING:
    from pathlib import Path


class Closed:
    """A stream that nothing can be written to."""

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int | str]:
    """Return the statuses with which the process would have ended, and that libraries could tidy up before."""
    done: list[int | str] = []
    monkeypatch.setattr(os, "_exit", done.append)
    monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: done.append("tidied up"))
    return done


@pytest.mark.parametrize("status", [0, 4])
def test_the_process_ends_with_its_status(ended: list[int | str], status: int) -> None:
    program.leave(SystemExit(status))
    assert ended == ["tidied up", status]


def test_what_is_left_to_be_said_is_said(ended: list[int | str]) -> None:
    with pytest.raises(SystemExit, match="why"):
        program.leave(SystemExit("why"))
    assert ended == []


def test_what_cannot_be_written_is_not_passed_over(
    ended: list[int | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(SystemExit):
        program.leave(SystemExit(0))
    assert ended == []


def test_what_was_downloaded_for_a_batch_is_not_left_behind(tmp_path: Path) -> None:
    for name in ("temp", "out"):
        (tmp_path / name).mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(SAMPLES / "host-v7-zstd.dat", "host.dat")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "apftrace",
            "batch",
            f"simplecache::file://{tmp_path}/a.zip",
            "-o",
            "out",
            "--jobs",
            "1",
        ],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path / "temp")},
        check=False,
    )
    assert done.returncode == 0
    assert not [*(tmp_path / "temp").iterdir()]
