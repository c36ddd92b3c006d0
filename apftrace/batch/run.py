"""A whole batch: walk the sources, have each input analysed, put the results together."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from apftrace import __version__, digest
from apftrace.batch import dataset, runs
from apftrace.batch.allow import AllowList, read_allow_list, today
from apftrace.batch.baseline import compared, read_baseline
from apftrace.batch.cluster import Cluster
from apftrace.batch.grouping import Group, find_groups
from apftrace.batch.items import Item, Sidecar
from apftrace.batch.job import Task, session_digest
from apftrace.batch.labels import Labels
from apftrace.batch.limits import Limits
from apftrace.batch.overview import Batch, change_key, with_allowed, worth_a_page
from apftrace.batch.pool import Pool
from apftrace.batch.runs import Entry
from apftrace.batch.sources import Walk
from apftrace.batch.store import SHORT, Store
from apftrace.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from apftrace.batch.baseline import Change
    from apftrace.batch.children import Caps, Outcome

_PARTS = "kernel=*/part-*.parquet"
MADE = {
    "runs.jsonl": "",
    "faults": _PARTS,
    "findings": _PARTS,
    "reports": "[0-9a-f]" * SHORT + ".html",
    "index.html": "",
    "summary.md": "",
    "junit.xml": "",
    "batch.json": "",
}
"""What a batch leaves in its folder, with the pattern of the files below; last the sign that it is complete."""


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
        cluster: address of a Dask scheduler that has the work done; null for worker processes here.
        reports: how many traces get a report of their own at most.
        baseline: folder of an earlier batch, or its runs.jsonl.
        group_by: labels by which the baseline is compared.
        min_effect: how much slower a phase must at least be to matter, as a fraction.
        allow: allow-list.
        fail_on: severity from which on a finding fails the batch.
    """

    sources: tuple[str, ...]
    output: Path
    jobs: int
    caps: Caps
    limits: Limits = field(default_factory=Limits)
    late_after: int | None = None
    patterns: tuple[str, ...] = ()
    cluster: str | None = None
    reports: int = 20
    baseline: Path | None = None
    group_by: tuple[str, ...] = ("kernel",)
    min_effect: float = 0.1
    allow: Path | None = None
    fail_on: str = "error"

    def decisive(self) -> dict[str, Any]:
        """Return all that decides what the result of an input is."""
        return {
            "version": __version__,
            "code": digest.code(),
            "schema": SCHEMA_VERSION,
            "late_after": self.late_after,
        }


def run_batch(settings: Settings, progress: Progress) -> Batch:
    """Do a batch and write all that comes out of it.

    Raises:
        ApftraceError: the folder is in use or holds what no batch wrote, temporary files cannot be written, or a
            path pattern, the baseline or the allow-list means nothing.
        OSError: the output folder cannot be written, the baseline or the allow-list cannot be read.
    """
    labels = Labels(settings.patterns)
    allow = read_allow_list(settings.allow, today()) if settings.allow else AllowList()
    before = read_baseline(settings.baseline) if settings.baseline else None
    with ExitStack() as stack:
        cluster = Cluster[Unit](settings.cluster, settings.caps) if settings.cluster else None
        if cluster is not None:
            stack.callback(cluster.close)
        store = stack.enter_context(Store(settings.output, settings.decisive(), settings.caps, MADE))
        work = _Work(settings, store, labels, progress, cluster)
        lines = runs.lines(work.analyse(), store, labels)
        work.join(lines)
        lines = [with_allowed(line, allow) for line in lines]
        batch = _concluded(lines, before, allow, settings)
        work.pages(batch)
        _write(batch, store, settings)
    return batch


def _concluded(
    lines: list[dict[str, Any]], before: list[dict[str, Any]] | None, allow: AllowList, settings: Settings
) -> Batch:
    comparison = None if before is None else compared(before, lines, settings.group_by, settings.min_effect)
    allowed = {}
    for change in comparison.regressions if comparison else ():
        reason = allow.reason(change.id, change.group)
        if reason is not None:
            allowed[change_key(change)] = reason
    return Batch(lines, comparison, allow.remarks(), allowed, settings.fail_on)


def _write(batch: Batch, store: Store, settings: Settings) -> None:
    from apftrace_reports.batch import html, junit, markdown

    with store.replacing() as fresh:
        (fresh / "reports").mkdir()
        for line in batch.analysed:
            page = store.page(line["result"], line["path"])
            if line["report"]:
                (fresh / line["report"]).write_bytes(page.read_bytes())
        dataset.write(batch.analysed, store, fresh)
        (fresh / "junit.xml").write_bytes(junit.render(batch))
        (fresh / "summary.md").write_bytes(markdown.render(batch))
        (fresh / "index.html").write_bytes(html.render(batch))
        (fresh / "runs.jsonl").write_bytes(runs.jsonl(batch.lines))
        (fresh / "batch.json").write_bytes(_sign(batch, settings))


def _sign(batch: Batch, settings: Settings) -> bytes:
    statuses = Counter(line["status"] for line in batch.lines)
    content = {
        "settings": settings.decisive(),
        "verdict": batch.verdict,
        "headline": batch.headline,
        "inputs": dict(statuses),
        "verdicts": dict(Counter(line["verdict"] for line in batch.analysed)),
        "changes": [_told(change, batch) for change in batch.comparison.changes]
        if batch.comparison
        else None,
    }
    return (json.dumps(content, sort_keys=True, indent=2) + "\n").encode()


def _told(change: Change, batch: Batch) -> dict[str, Any]:
    return asdict(change) | {"allowed": batch.allowed_changes.get(change_key(change))}


Unit = tuple[Item, ...]
"""Inputs that are analysed together: one, or a host's trace and those of its guests."""


@dataclass
class _Work:
    settings: Settings
    store: Store
    labels: Labels
    progress: Progress
    cluster: Cluster[Unit] | None = None

    def analyse(self) -> list[Entry]:
        """Have every input analysed that has no result yet; return what became of each."""
        walk = self._walk()
        entries = []
        units = ((item,) for item in self._items(walk))
        for (item,), outcome in self._run(units, self._task, known=True):
            entry, result, took = self._settled(item, outcome)
            entries.append(entry)
            self.progress.done(entry, result, took, item.weight, walk.total)
        return entries

    def join(self, lines: list[dict[str, Any]]) -> None:
        """Have the traces of one session analysed together, and put that into the lines of the hosts."""
        by_path = {line["path"]: line for line in lines}
        found = [
            (session_digest([(path, by_path[path]["sha256"]) for path in group.paths]), group)
            for group in find_groups(lines)
        ]
        missing = {key: group for key, group in found if not self.store.is_known(key)}
        sessions = self._sessions({group.host: group for group in missing.values()})
        for _, outcome in self._run(sessions, self._task):
            assert outcome is not None
            if outcome.sha256:
                self.store.save(outcome.sha256, outcome.answer)
        for key, group in found:
            if result := self.store.load(key):
                runs.join(by_path[group.host], [by_path[path] for path in group.guests], key, result)

    def pages(self, batch: Batch) -> None:
        """Have the reports made that are not there yet, and note in the lines where they are."""
        worth = set(worth_a_page(batch, self.settings.reports))
        chosen = {line["path"]: line for line in batch.analysed if line["path"] in worth}
        guests: dict[str, list[str]] = {}
        for line in batch.lines:
            if line["host_trace"]:
                guests.setdefault(line["host_trace"], []).append(line["path"])
        missing = {}
        for path, line in chosen.items():
            line["report"] = f"reports/{runs.run_id(line)}.html"
            if not self.store.page(line["result"], path).exists():
                missing[path] = Group(path, tuple(guests.get(path, ())))
        for (item, *_), outcome in self._run(self._sessions(missing), lambda unit: self._task(unit, "page")):
            line = chosen[item.path]
            if outcome is not None and outcome.answer.blobs and outcome.sha256 == line["result"]:
                self.store.put(outcome.answer.blobs[0], self.store.page(line["result"], item.path))
        for path in missing:
            if not self.store.page(chosen[path]["result"], path).exists():
                chosen[path]["report"] = None
                self.progress.say(f"{path}: no report could be made")

    def _run(
        self, units: Iterable[Unit], task_of: Callable[[Unit], Task | None], *, known: bool = False
    ) -> Iterator[tuple[Unit, Outcome | None]]:
        """Have tasks done, here or on the cluster; those with a result are passed over where ``known`` is set."""
        if self.cluster is not None:
            return self.cluster.run(units, task_of, self.store.digests() if known else ())
        is_known = self.store.is_known if known else lambda _: False
        return Pool[Unit](self.settings.jobs, self.settings.caps, is_known).run(units, task_of)

    def _walk(self, wanted: Callable[[str], bool] = lambda _: True) -> Walk:
        return Walk(self.settings.limits, self.store.temporary, self.settings.output.resolve(), wanted)

    def _items(self, walk: Walk) -> Iterator[Item]:
        for found in walk.sources(self.settings.sources):
            if isinstance(found, Sidecar):
                if problem := self.labels.sidecar(found.folder, found.content):
                    self.progress.say(f"{found.folder}: a sidecar with labels is {problem}")
            else:
                yield found

    def _sessions(self, groups: dict[str, Group]) -> Iterator[Unit]:
        """Yield the inputs of each group together, as soon as the walk has come by all of them."""
        of_path = {path: group for group in groups.values() for path in group.paths}
        waiting: dict[str, dict[str, Item]] = {}
        if not groups:
            return
        for item in self._items(self._walk(of_path.__contains__)):
            group = of_path.get(item.path)
            if group is None or item.access is None:
                continue
            found = waiting.setdefault(group.host, {})
            found[item.path] = item
            if len(found) == len(group.paths):
                del waiting[group.host]
                yield tuple(found[path] for path in group.paths)

    def _task(self, unit: Unit, kind: str = "analyse") -> Task | None:
        inputs = tuple((item.path, item.access.task()) for item in unit if item.access is not None)
        if not inputs:
            return None
        return Task(kind, inputs, self.settings.late_after, str(self.store.temporary), self.settings.limits)

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
