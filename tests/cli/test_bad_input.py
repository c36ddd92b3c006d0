"""Inputs that cannot be read: one line that says what was found where, status 3, never a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Run

SINGLE = ("analyze", "info", "events")
"""The verbs that take one trace; `batch` takes whatever is there, and names what is not."""

every_verb = pytest.mark.parametrize("verb", SINGLE)

GARBAGE = bytes(range(256)) * 16
PERF = b"PERFILE2" + bytes(96)
FTRACE = b"# tracer: nop\n#\n# entries-in-buffer/entries-written: 0/0   #P:2\n"


@every_verb
def test_a_missing_file(run: Run, verb: str) -> None:
    result = run(verb, "missing.dat")
    assert (result.status, result.out) == (3, b"")
    assert result.one_line() == "apftrace: missing.dat: No such file or directory"


@every_verb
def test_whether_a_file_may_be_read_is_known_when_it_is_opened(
    run: Run, traces: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Asked beforehand, the answer would be wrong usage; root is told only so, because it may read all.
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert run(verb, traces / "calm.dat").status == 0


@every_verb
def test_where_memory_ends(run: Run, traces: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("apftrace_parsers.registry.open_source", greedy)
    result = run(verb, traces / "calm.dat")
    assert (result.status, result.out) == (3, b"")
    assert result.one_line().startswith("apftrace: out of memory")


@every_verb
def test_a_file_that_may_not_be_read(
    run: Run, traces: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def refusing(path: Path, *arguments: Any, **options: Any) -> IO[Any]:
        if path.name == "calm.dat":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    result = run(verb, traces / "calm.dat")
    assert (result.status, result.out) == (3, b"")
    assert result.one_line() == f"apftrace: {traces / 'calm.dat'}: Permission denied"


@every_verb
def test_a_folder(run: Run, tmp_path: Path, verb: str) -> None:
    (tmp_path / "folder").mkdir()
    result = run(verb, "folder")
    assert (result.status, result.out) == (3, b"")
    assert result.one_line().startswith("apftrace: folder: ")
    assert "directory" in result.one_line()


@every_verb
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty", b""),
        ("one byte", b"\x17"),
        ("garbage", GARBAGE),
        ("zeros", bytes(5000)),
        ("magic", b"\x17\x08\x44"),
    ],
)
def test_a_file_that_is_no_trace(run: Run, tmp_path: Path, verb: str, name: str, content: bytes) -> None:
    (tmp_path / "input").write_bytes(content)
    result = run(verb, "input")
    assert (result.status, result.out) == (3, b"")
    assert result.one_line().startswith("apftrace: input: ")


@pytest.mark.parametrize(
    "content", [PERF, FTRACE, PERF[:20]], ids=["perf.data", "ftrace text", "cut perf.data"]
)
def test_a_trace_of_another_kind_is_read_or_refused_in_one_line(
    run: Run, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "input").write_bytes(content)
    result = run("analyze", "input", "-o", "-")
    assert result.status in (3, 4)
    assert result.one_line().startswith("apftrace: ")


@every_verb
def test_what_was_found_where_and_what_was_expected(
    run: Run, tmp_path: Path, traces: Path, verb: str
) -> None:
    content = bytearray((traces / "calm.dat").read_bytes())
    content[10:13] = b"99\0"
    (tmp_path / "future.dat").write_bytes(content)
    line = run(verb, "future.dat").one_line()
    assert line.startswith("apftrace: future.dat: ")
    assert "99" in line


@pytest.mark.parametrize("size", [*range(0, 64, 3), 100, 200, 400, 1000, 2000, 4000])
def test_headers_that_end_too_early(run: Run, tmp_path: Path, traces: Path, size: int) -> None:
    (tmp_path / "cut.dat").write_bytes((traces / "calm.dat").read_bytes()[:size])
    result = run("analyze", "cut.dat", "-o", "-")
    assert result.status == 3
    assert result.one_line().startswith("apftrace: cut.dat: ")


def test_the_line_gives_offset_and_expectation(run: Run, tmp_path: Path, traces: Path) -> None:
    (tmp_path / "cut.dat").write_bytes((traces / "calm.dat").read_bytes()[:30])
    assert run("analyze", "cut.dat").one_line() == (
        "apftrace: cut.dat: found 6 bytes before the end at offset 24, "
        "expected the offset of the options of 8 bytes"
    )


def test_records_that_end_too_early_are_analysed_as_far_as_they_go(
    run: Run, tmp_path: Path, traces: Path
) -> None:
    whole = (traces / "lost.dat").read_bytes()
    (tmp_path / "cut.dat").write_bytes(whole[: len(whole) - 3000])
    result = run("analyze", "cut.dat", "-o", "-")
    assert "Traceback" not in result.err
    assert result.status in (0, 1, 3, 4)
    assert result.out or result.status == 3


@pytest.mark.parametrize("seed", range(40))
def test_one_flipped_byte_is_no_crash(run: Run, tmp_path: Path, traces: Path, seed: int) -> None:
    content = bytearray((traces / "lost.dat").read_bytes())
    at = (seed * 2654435761) % len(content)
    content[at] ^= 0xFF
    (tmp_path / "bent.dat").write_bytes(content)
    result = run("analyze", "bent.dat", "-o", "-")
    assert result.status in (0, 1, 3, 4)
    assert "Traceback" not in result.err


def test_a_name_with_control_characters_is_made_visible(run: Run) -> None:
    result = run("analyze", "evil\x1b[2J\u202ename\n.dat")
    assert result.status == 3
    assert "\x1b" not in result.err
    assert "evil\\x1b[2J\\u202ename\\n.dat" in result.one_line()


@every_verb
def test_a_pipe_is_refused_because_the_format_needs_to_seek(traces: Path, verb: str) -> None:
    program = f'"{sys.executable}" -m apftrace {verb} <(cat "{traces / "calm.dat"}")'
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("apftrace: /dev/fd/")
