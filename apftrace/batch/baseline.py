"""What changed since an earlier batch: per phase and per rule, by kernel, host or job, with the test stated."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from apftrace.batch.labels import LABELS
from apftrace.batch.ranktest import Shift, adjusted, compare
from apftrace.batch.runs import ANALYSED, FAILED
from apftrace.errors import ApftraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    Line = dict[str, Any]

ALPHA = 0.05
"""Chance of even one false alarm in a whole comparison."""

MIN_LIVES = 5
"""Lives that a run needs to have a median worth comparing."""

MIN_RATE_RATIO = 1.5
MIN_DELTA = 0.2
"""What a change in how often a rule fires must at least be to matter: in ratio, and in Cliff's delta."""

TEST = (
    "Hodges-Lehmann aligned rank test on one value per run (median of a phase on a log scale; findings of a rule per "
    "1,000 lives), two-sided, p adjusted by Holm's method with Tarone's count to 5 % for the whole comparison"
)
"""The test in words, as every report states it."""

SLOWER, FASTER, MORE, FEWER, SAME, TOO_FEW = "slower", "faster", "more", "fewer", "same", "too few runs"
REGRESSIONS = frozenset({SLOWER, MORE})
_LATE = "late-wakeup"
_DROPPED = (
    "not analysed",
    "copies of other runs",
    "durations of runs without a clock in ns",
    f"durations of runs with fewer than {MIN_LIVES} faults",
)
"""Why runs are left out of a comparison."""


class BadBaseline(ApftraceError):
    """A baseline that cannot be read."""


@dataclass(frozen=True)
class Change:
    """One thing compared in one group.

    Attributes:
        id: ``slower:p2`` or ``more:late-wakeup``, what an allow-list names; empty for what did not change.
        group: the labels of the group.
        what: a phase, or a rule.
        is_rule: which of both.
        verdict: slower, faster, more, fewer, same, or too few runs.
        runs: before and after.
        typical: before and after: median of the runs' medians in ns, or mean of findings per 1,000 lives.
        ratio: after over before; null where before is none.
        shift: the test.
        p: adjusted; null when the runs are too few to tell.
        pairing: which runs were held against which.
        of: runs of the group before and after, copies once; those that ``runs`` lacks were left out.
    """

    id: str
    group: dict[str, str]
    what: str
    is_rule: bool
    verdict: str
    runs: tuple[int, int]
    typical: tuple[float, float]
    ratio: float | None
    shift: Shift
    p: float | None
    pairing: str
    of: tuple[int, int]


@dataclass(frozen=True)
class Comparison:
    """Two batches held against each other.

    Attributes:
        by: the labels that form groups.
        changes: everything that was compared, regressions first.
        alone: groups that only one of both has: their name, and which.
        dropped: why runs were left out, and how many before and after.
    """

    by: tuple[str, ...]
    changes: tuple[Change, ...]
    alone: tuple[tuple[str, str], ...]
    dropped: tuple[tuple[str, int, int], ...] = ()

    @property
    def regressions(self) -> tuple[Change, ...]:
        """What became worse."""
        return tuple(change for change in self.changes if change.verdict in REGRESSIONS)


def read_baseline(path: Path) -> list[Line]:
    """Return the lines of an earlier batch: of its folder, or of its runs.jsonl alone.

    Raises:
        BadBaseline: it is none.
        OSError: it cannot be read.
    """
    file = path / "runs.jsonl" if path.is_dir() else path
    out = []
    for number, text in enumerate(file.read_text("utf-8", "replace").splitlines(), 1):
        try:
            line = json.loads(text)
            if line["status"] == ANALYSED:
                line["counts"]["rules"], line["latency_ns"], line["name"], line["sha256"]
                _ = [line[label] for label in LABELS]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadBaseline(f"{file}: line {number} is none of a batch's runs.jsonl") from None
        out.append(line)
    return out


def compared(
    before: Iterable[Line], after: Iterable[Line], by: Sequence[str], min_effect: float
) -> Comparison:
    """Hold a batch against an earlier one.

    Args:
        before: lines of the earlier batch.
        after: lines of this one.
        by: labels that form groups.
        min_effect: how much slower a phase must at least be to matter, as a fraction.
    """
    before, after = list(before), list(after)
    old, new = (_grouped(lines, by) for lines in (before, after))
    both = sorted(old.keys() & new.keys())
    trials = [trial for key in both for trial in _trials(key, old[key], new[key], by)]
    judged = _judged(trials, min_effect)
    slower = {(_key(change, by), change.what) for change in judged if change.verdict == SLOWER}
    if any(what != "total" for _, what in slower):
        # Wakeups that are late because of a phase that became slower are no second regression.
        trials = [_without_late(trial, old, new, slower, by) for trial in trials]
        judged = _judged(trials, min_effect)
    alone = [(_name(key), "before only") for key in sorted(old.keys() - new.keys())]
    alone += [(_name(key), "now only") for key in sorted(new.keys() - old.keys())]
    order = {verdict: at for at, verdict in enumerate((SLOWER, MORE, FASTER, FEWER, SAME, TOO_FEW))}
    ranked = sorted(judged, key=lambda one: (order[one.verdict], _key(one, by), one.is_rule, one.what))
    counts = [_dropped(lines, groups) for lines, groups in ((before, old), (after, new))]
    dropped = [(why, counts[0][why], counts[1][why]) for why in _DROPPED]
    return Comparison(tuple(by), tuple(ranked), tuple(alone), tuple(one for one in dropped if any(one[1:])))


def _dropped(lines: Sequence[Line], groups: dict[tuple[str, ...], list[Line]]) -> Counter[str]:
    """Return why runs of one side were left out, wholly or in part, and how many."""
    runs = [line for line in lines if line["status"] == ANALYSED and not line.get("host_trace")]
    kept = [line for group in groups.values() for line in group]
    timed = [line for line in kept if line.get("clock_unit") == "ns"]
    few = sum(line["counts"].get("lives", 0) < MIN_LIVES for line in timed)
    numbers = (
        sum(line["status"] in FAILED for line in lines),
        len(runs) - len(kept),
        len(kept) - len(timed),
        few,
    )
    return Counter(dict(zip(_DROPPED, numbers, strict=True)))


def _key(change: Change, by: Sequence[str]) -> tuple[str, ...]:
    return tuple(change.group[label] for label in by)


def _name(key: Sequence[str]) -> str:
    return " ".join(key) or "all"


def _grouped(lines: Iterable[Line], by: Sequence[str]) -> dict[tuple[str, ...], list[Line]]:
    out: dict[tuple[str, ...], list[Line]] = {}
    seen: set[tuple[object, ...]] = set()
    for line in lines:
        if line["status"] != ANALYSED or line.get("host_trace"):
            continue
        key = tuple(str(line[label]) for label in by)
        if (*key, line["sha256"]) in seen:  # a copy says nothing new
            continue
        seen.add((*key, line["sha256"]))
        out.setdefault(key, []).append(line)
    return out


@dataclass(frozen=True)
class _Trial:
    """A test that was made and not judged yet."""

    group: dict[str, str]
    what: str
    is_rule: bool
    typical: tuple[float, float]
    shift: Shift
    pairing: str
    of: tuple[int, int]


def _trials(key: tuple[str, ...], old: list[Line], new: list[Line], by: Sequence[str]) -> Iterable[_Trial]:
    group = dict(zip(by, key, strict=True))
    for phase in _phases(old, new):
        yield from _trial(group, phase, False, old, new, _log_median(phase), by)
    rules = sorted({rule for line in (*old, *new) for rule in line["counts"]["rules"]})
    for rule in rules:
        yield from _trial(group, rule, True, old, new, _rate(rule), by)


def _phases(old: list[Line], new: list[Line]) -> list[str]:
    """Return the phases to compare: a sum of phases only where they cannot be told apart."""
    measured = Counter(phase for line in (*old, *new) for phase in line["latency_ns"])
    if measured["p2"] and measured["p2"] >= measured["p12"]:
        del measured["p12"]
    if measured["p3"] and measured["p3"] >= 0.5 * measured["total"]:
        del measured["total"]
    return sorted(measured)


def _log_median(phase: str) -> Callable[[Line], float | None]:
    def value(line: Line) -> float | None:
        found = line["latency_ns"].get(phase)
        if (
            not found
            or found["n"] < MIN_LIVES
            or not found["p50"]
            or found["p50"] <= 0
            or line["clock_unit"] != "ns"
        ):
            return None
        return math.log(found["p50"])

    return value


def _rate(rule: str, without: frozenset[str] = frozenset()) -> Callable[[Line], float | None]:
    def value(line: Line) -> float | None:
        found: int = sum(line["counts"]["rules"].get(rule, {}).values())
        if rule == _LATE:
            found -= sum(n for phase, n in line["counts"].get("late", {}).items() if phase in without)
        lives: int = line["counts"]["lives"]
        return found * 1000 / max(1, lives)

    return value


def _trial(
    group: dict[str, str],
    what: str,
    is_rule: bool,
    old: list[Line],
    new: list[Line],
    value: Callable[[Line], float | None],
    by: Sequence[str],
) -> Iterable[_Trial]:
    before = [(line, x) for line in old if (x := value(line)) is not None]
    after = [(line, x) for line in new if (x := value(line)) is not None]
    pairing, blocks = _blocks(before, after, by)
    shift = compare(blocks)
    if shift is not None:
        used = [[x for b in blocks if b[0] and b[1] for x in b[side]] for side in (0, 1)]
        typical = _mean if is_rule else _typical
        yield _Trial(
            group, what, is_rule, (typical(used[0]), typical(used[1])), shift, pairing, (len(old), len(new))
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _typical(values: Sequence[float]) -> float:
    return math.exp(median(values))


_Values = list[tuple["Line", float]]


def _blocks(
    before: _Values, after: _Values, by: Sequence[str]
) -> tuple[str, list[tuple[list[float], list[float]]]]:
    """Return what may be compared: the run of the same name if there is one, else runs of one host and job."""
    rest = [label for label in ("host", "job") if label not in by]
    ways: tuple[tuple[str, Callable[[Line], object]], ...] = (
        ("run by run of the same name", lambda line: line["name"]),
        ("run by run of the same name", lambda line: line["name"].partition("/")[2] or line["name"]),
        (f"by {' and '.join(rest)}", lambda line: tuple(line[label] for label in rest)),
    )
    fewest = min(len(before), len(after))
    for words, key in ways:
        if words == "by ":
            continue
        found = _partition(before, after, key)
        usable = [block for block in found if block[0] and block[1]]
        paired = all(len(b) == len(a) == 1 for b, a in usable)
        if sum(min(len(b), len(a)) for b, a in usable) >= 0.8 * fewest and (
            paired or words.startswith("by ")
        ):
            return ("all with all" if len(found) == 1 and not paired else words), found
    return "all with all", [([x for _, x in before], [x for _, x in after])]


def _partition(
    before: _Values, after: _Values, key: Callable[[Line], object]
) -> list[tuple[list[float], list[float]]]:
    out: dict[object, tuple[list[float], list[float]]] = {}
    for side, values in enumerate((before, after)):
        for line, value in values:
            out.setdefault(key(line), ([], []))[side].append(value)
    return list(out.values())


def _without_late(
    trial: _Trial,
    old: dict[tuple[str, ...], list[Line]],
    new: dict[tuple[str, ...], list[Line]],
    slower: set[tuple[tuple[str, ...], str]],
    by: Sequence[str],
) -> _Trial:
    key = tuple(trial.group[label] for label in by)
    phases = frozenset(what for group, what in slower if group == key)
    if trial.what != _LATE or not trial.is_rule or not phases:
        return trial
    (again,) = _trial(trial.group, _LATE, True, old[key], new[key], _rate(_LATE, phases), by)
    return replace(trial, shift=again.shift, typical=again.typical)


def _judged(trials: Sequence[_Trial], min_effect: float) -> list[Change]:
    levels = adjusted([(trial.shift.p, trial.shift.least_p) for trial in trials], ALPHA)
    changes = [_change(trial, p, min_effect) for trial, p in zip(trials, levels, strict=True)]
    moved = {
        (tuple(change.group.values()), change.verdict)
        for change in changes
        if change.id and not change.is_rule and change.what not in {"total", "p12"}
    }
    return [_unless_explained(change, moved) for change in changes]


def _unless_explained(change: Change, moved: set[tuple[tuple[str, ...], str]]) -> Change:
    # The total is slower because a phase is: one regression, not two.
    if change.what in {"total", "p12"} and (tuple(change.group.values()), change.verdict) in moved:
        return replace(change, verdict=SAME, id="")
    return change


def _change(trial: _Trial, p: float | None, min_effect: float) -> Change:
    shift = trial.shift
    before, after = trial.typical
    ratio = (after / before if before else None) if trial.is_rule else math.exp(shift.estimate)
    verdict = TOO_FEW if p is None else SAME if p > ALPHA else _moved(trial, ratio, min_effect)
    name = f"{verdict}:{trial.what}" if verdict not in {SAME, TOO_FEW} else ""
    return Change(
        name, trial.group, trial.what, trial.is_rule, verdict, (shift.before, shift.after), trial.typical, ratio, shift,
        p, trial.pairing, trial.of,
    )  # fmt: skip


def _moved(trial: _Trial, ratio: float | None, min_effect: float) -> str:
    if not trial.is_rule:
        assert ratio is not None
        if ratio >= 1 + min_effect:
            return SLOWER
        return FASTER if ratio <= 1 / (1 + min_effect) else SAME
    if abs(trial.shift.delta) < MIN_DELTA:
        return SAME
    if ratio is None or ratio >= MIN_RATE_RATIO:
        return MORE
    return FEWER if ratio <= 1 / MIN_RATE_RATIO else SAME
