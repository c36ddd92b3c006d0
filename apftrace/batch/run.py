"""A whole batch: walk the sources, have each input analysed, put the results together."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from apftrace import __version__
from apftrace.batch import dataset, runs
from apftrace.batch.job import Task
from apftrace.batch.labels import Labels
from apftrace.batch.limits import Limits
from apftrace.batch.pool import Pool
from apftrace.batch.runs import Entry
from apftrace.batch.sources import Item, Sidecar, Walk
from apftrace.batch.store import Store
from apftrace.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from apftrace.batch.children import Caps, Outcome

RESULT_VERSION = 1
"""Goes up when a result means something else than before: those in a store are made anew then."""

MADE = ("batch.json", "runs.jsonl", "faults", "findings")
"""What a batch leaves in its folder, the sign that it is complete first: it goes first and comes last."""


class Runner(Protocol):
    """Has tasks done, on this machine or elsewhere."""

    def run(
        self, items: Iterable[Item], task_of: Callable[[Item], Task | None]
    ) -> Iterator[tuple[Item, Outcome | None]]:
        """Yield each item with what became of it, as they come; without anything where nothing was to be done."""


class Progress(Protocol):
    """Who is told how it goes."""

    def done(self, entry: Entry, result: dict[str, Any], took: float, weight: int, total: int) -> None:
        """Take note of one more input; ``weight`` of ``total`` bytes found so far are its."""

    def say(self, words: str) -> None:
        """Take note of something that concerns no single input."""


@dataclass(frozen=True)
class Settings:
    """What a batch is to do.

    Attributes:
        sources: files, folders, globs and URLs.
        output: folder of the results.
        jobs: worker processes.
        caps: what one input may take.
        limits: what archives may hold.
        late_after: see :func:`apftrace.analyze`.
        patterns: see :class:`apftrace.batch.labels.Labels`.
    """

    sources: tuple[str, ...]
    output: Path
    jobs: int
    caps: Caps
    limits: Limits = field(default_factory=Limits)
    late_after: int | None = None
    patterns: tuple[str, ...] = ()

    def decisive(self) -> dict[str, Any]:
        """Return all that decides what the result of an input is."""
        return {
            "version": __version__,
            "result": RESULT_VERSION,
            "schema": SCHEMA_VERSION,
            "late_after": self.late_after,
        }


@dataclass(frozen=True)
class Batch:
    """A finished batch: the line of every input, in the order of their paths."""

    lines: list[dict[str, Any]]

    @property
    def analysed(self) -> list[dict[str, Any]]:
        """The lines of the inputs that have a verdict."""
        return runs.analysed(self.lines)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The lines of the inputs that should have one and have none."""
        return [line for line in self.lines if line["status"] in runs.FAILED]


def run_batch(settings: Settings, progress: Progress) -> Batch:
    """Do a batch and write all that comes out of it.

    Raises:
        Busy: another batch writes into the same folder.
        NoRoom: temporary files cannot be written.
        BadPattern: a path pattern means nothing.
        OSError: the output folder cannot be written.
    """
    labels = Labels(settings.patterns)
    with Store(settings.output, settings.decisive(), settings.caps) as store:
        work = _Work(settings, store, labels, progress)
        entries = work.analyse()
        batch = Batch(runs.lines(entries, store, labels))
        with store.replacing(MADE) as fresh:
            dataset.write(batch.analysed, store, fresh)
            (fresh / "runs.jsonl").write_bytes(runs.jsonl(batch.lines))
            (fresh / "batch.json").write_bytes(_sign(settings, batch))
    return batch


def _sign(settings: Settings, batch: Batch) -> bytes:
    counts: dict[str, int] = {}
    for line in batch.lines:
        counts[line["status"]] = counts.get(line["status"], 0) + 1
    content = {"settings": settings.decisive(), "inputs": counts}
    return (json.dumps(content, sort_keys=True, indent=2) + "\n").encode()


@dataclass
class _Work:
    settings: Settings
    store: Store
    labels: Labels
    progress: Progress

    def analyse(self) -> list[Entry]:
        """Have every input analysed that has no result yet; return what became of each."""
        walk = self._walk()
        entries = []
        runner: Runner = Pool(self.settings.jobs, self.settings.caps, self.store.is_known)
        for item, outcome in runner.run(self._items(walk), self._task):
            entry, result, took = self._settled(item, outcome)
            entries.append(entry)
            self.progress.done(entry, result, took, item.weight, walk.total)
        return entries

    def _walk(self) -> Walk:
        return Walk(self.settings.limits, self.store.temporary, skip=self.settings.output.resolve())

    def _items(self, walk: Walk) -> Iterator[Item]:
        for found in walk.sources(self.settings.sources):
            if isinstance(found, Sidecar):
                if problem := self.labels.sidecar(found.folder, found.content):
                    self.progress.say(f"{found.folder}: a sidecar with labels is {problem}")
            else:
                yield found

    def _task(self, item: Item, kind: str = "analyse") -> Task | None:
        if item.access is None:
            return None
        return Task(
            kind,
            item.path,
            item.access.task(),
            self.settings.late_after,
            str(self.store.temporary),
            self.settings.limits,
        )

    def _settled(self, item: Item, outcome: Outcome | None) -> tuple[Entry, dict[str, Any], float]:
        if outcome is None:
            entry = Entry(item.path, item.name, None, None, item.status, item.problem)
            return entry, {"status": item.status, "reason": item.problem}, 0.0
        entry = Entry(item.path, item.name, outcome.sha256, outcome.size)
        answer = outcome.answer
        if answer.data["status"] == "known":
            assert outcome.sha256
            found = self.store.load(outcome.sha256)
            assert found is not None
            return entry, found.data, outcome.took
        if outcome.sha256:
            self.store.save(outcome.sha256, answer)
        if not outcome.sha256 or answer.data["status"] == "crashed":
            entry = replace(entry, status=answer.data["status"], reason=answer.data["reason"])
        return entry, answer.data, outcome.took
