"""An input that hangs, crashes or eats memory costs itself; the others do not notice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apftrace.batch import children
from apftrace.batch.children import Caps
from tests.batch.conftest import RunBatch, lines, tree

if TYPE_CHECKING:
    from collections.abc import Callable

ROGUE = Path(__file__).with_name("rogue_worker.py")
TIGHT = Caps(seconds=4, memory=700 << 20)


@pytest.fixture
def inputs(tmp_path: Path, made: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes a folder of inputs, which a rogue worker will read."""
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setattr(children, "COMMAND", (sys.executable, str(ROGUE), str(marks)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]))
    folder = tmp_path / "in"
    folder.mkdir()

    def make(*names: str) -> Path:
        for number, name in enumerate(names):
            # Zeros behind a trace.dat change its digest and nothing else.
            (folder / f"{name}.dat").write_bytes(made["late"] + bytes(number))
        return folder

    return make


def outcomes(out: Path) -> dict[str, tuple[str, str | None]]:
    return {name.removesuffix(".dat"): (line["status"], line["reason"]) for name, line in lines(out).items()}


def test_each_costs_only_itself(batch: RunBatch, inputs: Callable[..., Path], tmp_path: Path):
    names = ("a", "hang", "b", "die", "c", "eat", "d", "raise", "e", "nonsense", "f")
    start = time.monotonic()
    batch(inputs(*names), jobs=2, caps=TIGHT)
    assert time.monotonic() - start < 60
    found = outcomes(tmp_path / "out")
    assert found == {
        **dict.fromkeys("abcdef", ("analysed", None)),
        "hang": ("timeout", "took longer than 4 s"),
        "die": ("crashed", "the worker died 3 times (SIGSEGV)"),
        "eat": ("memory", "took more memory than 700 MiB"),
        "raise": ("crashed", found["raise"][1]),
        "nonsense": ("crashed", found["nonsense"][1]),
    }
    assert found["raise"][1].startswith("ZeroDivisionError: by nothing (rogue_worker.py:")
    assert "no frame starts here" in found["nonsense"][1]
    assert not any(
        line["status"] == "analysed" and not line["counts"]["lives"]
        for line in lines(tmp_path / "out").values()
    )


def test_the_next_batch_does_not_wait_for_a_hang_again(
    batch: RunBatch, inputs: Callable[..., Path], tmp_path: Path
):
    folder = inputs("a", "hang")
    batch(folder, caps=TIGHT)
    before = tree(tmp_path / "out")
    batch(folder, caps=TIGHT)
    assert (tmp_path / "marks" / "hangs").read_text("ascii") == "."
    assert tree(tmp_path / "out") == before
    batch(folder, caps=Caps(seconds=5, memory=TIGHT.memory))
    assert outcomes(tmp_path / "out")["hang"] == ("timeout", "took longer than 5 s")


def test_a_worker_that_is_killed_once_is_no_result(
    batch: RunBatch, inputs: Callable[..., Path], tmp_path: Path
):
    folder = inputs("once-1", "a", "once-2")
    batch(folder, jobs=2)
    assert outcomes(tmp_path / "out") == dict.fromkeys(("a", "once-1", "once-2"), ("analysed", None))
    batch(folder, output="undisturbed", jobs=1)
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_a_worker_that_keeps_memory_is_replaced(batch: RunBatch, inputs: Callable[..., Path], tmp_path: Path):
    # Each alone is below the cap; one process that kept both would be above.
    batch(inputs("keep-1", "keep-2", "keep-3"), caps=Caps(seconds=60, memory=700 << 20))
    assert outcomes(tmp_path / "out") == dict.fromkeys(("keep-1", "keep-2", "keep-3"), ("analysed", None))


def test_what_crashed_is_tried_again_by_the_next_batch(
    batch: RunBatch, inputs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = inputs("die", "a")
    batch(folder)
    assert outcomes(tmp_path / "out")["die"][0] == "crashed"
    monkeypatch.undo()
    batch(folder)
    assert outcomes(tmp_path / "out")["die"] == ("analysed", None)


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text("ascii").split()]


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False


def wait_for(what: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


@pytest.mark.parametrize("name", ["hang", "loop"])
def test_workers_die_with_their_parent(inputs: Callable[..., Path], tmp_path: Path, name: str):
    folder = inputs(name)
    program = (
        "from pathlib import Path; from apftrace.batch import children; from apftrace.batch.run import *;"
        f"children.COMMAND = {children.COMMAND!r};"
        "from tests.batch.conftest import Heard; from apftrace.batch.children import Caps;"
        f"run_batch(Settings(({str(folder)!r},), Path({str(tmp_path / 'out')!r}), 1, Caps(100, 1 << 40)), Heard())"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        assert wait_for(lambda: bool(children_of(parent.pid)))
        (worker,) = children_of(parent.pid)
        time.sleep(1.5)  # it is at work now
        assert alive(worker)
        parent.kill()
    assert wait_for(lambda: not alive(worker))
