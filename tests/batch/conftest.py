"""Traces, archives of them, and batches run on them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from apftrace.batch.children import Caps
from apftrace.batch.items import Item, Sidecar
from apftrace.batch.job import Task, file_of
from apftrace.batch.limits import Limits
from apftrace.batch.run import Batch, Settings, run_batch
from apftrace.batch.sources import Walk
from tests.builders import options
from tests.builders.story import Story
from tests.model import histories
from tests.model.support import calm, write

if TYPE_CHECKING:
    from apftrace.batch.runs import Entry

CAPS = Caps(seconds=120, memory=2 << 30)


@dataclass
class Heard:
    """What a batch told while it ran."""

    inputs: list[tuple[str, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    total: int = 0

    def done(self, entry: Entry, result: dict[str, Any], took: float, weight: int, total: int) -> None:
        assert took >= 0
        self.inputs.append((entry.path, result["status"]))
        self.weights.append(weight)
        self.total = total

    def say(self, words: str) -> None:
        self.words.append(words)


class RunBatch(Protocol):
    """Runs a batch on these sources."""

    def __call__(self, *sources: object, output: str = ..., **settings: Any) -> Batch: ...


@pytest.fixture
def heard() -> Heard:
    """Return what the batches of the test told."""
    return Heard()


@pytest.fixture
def batch(tmp_path: Path, heard: Heard) -> RunBatch:
    """Return a function that runs a batch into a folder of the test's own."""

    def call(*sources: object, output: str = "out", **settings: Any) -> Batch:
        given = {"jobs": 1, "caps": CAPS, "reports": 1} | settings
        return run_batch(Settings(tuple(map(str, sources)), tmp_path / output, **given), heard)

    return call


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    """Return a walk with limits for tests; its temporary files lie below ``spool``."""
    (tmp_path / "spool").mkdir()
    return Walk(Limits(size=64 << 20), tmp_path / "spool")


def items(walk: Walk, *sources: object) -> list[Item]:
    """Return all inputs of some sources."""
    return [one for one in walk.sources(map(str, sources)) if not isinstance(one, Sidecar)]


def content(item: Item, limits: Limits | None = None) -> bytes:
    """Return the bytes that a worker gets to see."""
    assert item.access is not None, item.problem
    task = Task("analyse", (), None, None, limits or Limits())
    with file_of(item.access.task(), task) as path:
        return Path(path).read_bytes()


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lines(folder: Path) -> dict[str, dict[str, Any]]:
    """Return runs.jsonl by the name of the input."""
    text = (folder / "runs.jsonl").read_text("utf-8")
    return {line["name"]: line for line in map(json.loads, text.splitlines())}


def bytes_of(story: Story, folder: Path, release: str = "6.12.0-custom", host: str = "lab1") -> bytes:
    """Return a story as a trace.dat of some kernel and host."""
    path = folder / "made.dat"
    write(story, path, options=[options.uname(f"Linux {host} {release} x86_64")])
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return traces by name: calm, lost, late, lossy and empty (no async page fault at all)."""
    folder = tmp_path_factory.mktemp("made")
    quiet = Story()
    calm(quiet)
    stories = {
        "calm": quiet,
        "lost": histories.lost_wakeup(),
        "late": histories.late_wakeup(),
        "lossy": histories.events_lost(),
        "empty": Story(),
    }
    return {name: bytes_of(story, folder) for name, story in stories.items()}
