"""The command line called in this process, and traces to call it on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest

from apftrace.cli import main
from tests.builders import options
from tests.builders.story import Story
from tests.model import histories
from tests.model.support import calm, write

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Result:
    """What a call left: exit status, and what it wrote."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    def one_line(self) -> str:
        """Return the only line on stderr, which must be one and no traceback."""
        assert self.err.endswith("\n")
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        return line


class Run(Protocol):
    """Calls ``apftrace`` with these arguments, in a folder of the test's own."""

    def __call__(self, *arguments: object) -> Result: ...


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Return a function that calls the command line as the shell would."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["apftrace", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        caught = capsysbinary.readouterr()
        status = left.value.code
        return Result(
            status if isinstance(status, int) else 1 if status else 0, caught.out, caught.err.decode()
        )

    return call


@pytest.fixture(scope="session")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of traces: calm, lost, late, lossy, lost-and-lossy, sparse (no kvm_entry), and empty."""
    folder = tmp_path_factory.mktemp("traces")
    quiet = Story()
    calm(quiet)
    uname = [options.uname("Linux buildhost 6.12.0-custom x86_64")]
    write(quiet, folder / "calm.dat", options=uname)
    write(quiet, folder / "sparse.dat", off=["kvm_entry"])
    write(Story(), folder / "empty.dat")
    write(histories.lost_wakeup(), folder / "lost.dat")
    write(histories.late_wakeup(), folder / "late.dat")
    write(histories.wake_all(), folder / "info.dat")
    write(histories.events_lost(), folder / "lossy.dat")
    write(histories.duplicate_ready().lost(at=histories.START, cpu=0, count=3), folder / "lost-and-lossy.dat")
    return folder
