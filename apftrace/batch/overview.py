"""A finished batch, and what its reports show of all runs together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apftrace.amounts import plural
from apftrace.batch.labels import LABELS
from apftrace.batch.runs import FAILED, JOINED, SKIPPED, analysed
from apftrace.grades import NEVER, SEVERITIES, at_least

if TYPE_CHECKING:
    from apftrace.batch.allow import AllowList
    from apftrace.batch.baseline import Change, Comparison

    Line = dict[str, Any]

VERDICTS = ("anomaly", "undecided", "unusable", "warnings", "clean")
"""Verdicts of traces, the one to look at first in front."""


@dataclass(frozen=True)
class Batch:
    """A finished batch.

    Attributes:
        lines: the line of every input, in the order of their paths.
        comparison: with the baseline; null when there was none.
        remarks: what somebody should tidy up in the allow-list.
        allowed_changes: reasons by the id and group of changes that the allow-list covers.
        fail_on: severity from which on a finding fails the batch, or ``never``.
    """

    lines: list[Line]
    comparison: Comparison | None = None
    remarks: list[str] = field(default_factory=list)
    allowed_changes: dict[tuple[str, ...], str] = field(default_factory=dict)
    fail_on: str = "error"

    @property
    def analysed(self) -> list[Line]:
        """The lines of the inputs that have a verdict."""
        return analysed(self.lines)

    @property
    def failed(self) -> list[Line]:
        """The lines of the inputs that should have a verdict and have none."""
        return [line for line in self.lines if line["status"] in FAILED]

    @property
    def besides(self) -> list[tuple[int, str]]:
        """How many inputs are no run of their own, and what they are instead."""
        kinds = Counter(line["status"] for line in self.lines)
        copies = sum(line["copy_of"] is not None for line in self.analysed)
        found = (
            (copies, "copy of another run", "copies of other runs"),
            (kinds[JOINED], "guest's trace, in its host's run", "guests' traces, in their hosts' runs"),
            (kinds[SKIPPED], "no trace", "no traces"),
        )
        return [(number, one if number == 1 else many) for number, one, many in found if number]

    @property
    def regressions(self) -> list[Change]:
        """What became worse and is not allowed to."""
        changes = self.comparison.regressions if self.comparison else ()
        return [change for change in changes if change_key(change) not in self.allowed_changes]

    def failing(self, line: Line) -> list[str]:
        """Return the rules for which a run fails the batch."""
        severe = at_least(self.fail_on)
        return [
            rule
            for rule, found in line["counts"]["rules"].items()
            if any(found.get(one) for one in severe) and rule not in line["allowed"]
        ]

    @property
    def is_failing(self) -> bool:
        """Whether there is a finding at ``fail_on``, or a regression, that is not allowed."""
        if self.fail_on == NEVER:
            return False
        return bool(self.regressions) or any(self.failing(line) for line in self.analysed)

    @property
    def is_unsafe(self) -> bool:
        """Whether inputs failed, or a verdict could be wrong."""
        return bool(self.failed) or any(
            line["unsafe"] or line["verdict"] == "unusable" for line in self.analysed
        )

    @property
    def verdict(self) -> str:
        """The batch in one word: ``regression``, the worst verdict of a trace, or ``nothing read``."""
        if self.regressions:
            return "regression"
        seen = {line["verdict"] for line in self.analysed}
        return next((verdict for verdict in VERDICTS if verdict in seen), "nothing read")

    @property
    def headline(self) -> str:
        """The batch in one sentence."""
        runs = self.analysed
        lives = sum(line["counts"]["lives"] for line in runs)
        lost = sum(line["counts"]["outcomes"].get("lost", 0) for line in runs)
        parts = [
            f"{plural(len(runs), 'trace', spec=',')} analysed, {plural(lives, 'async page fault', spec=',')}",
            f"{lost:,} lost",
        ]
        parts += [f"{plural(len(self.failed), 'input', spec=',')} not analysed"] if self.failed else []
        parts += [plural(len(self.regressions), "regression", spec=",")] if self.comparison else []
        return "; ".join(parts) + "."


def change_key(change: Change) -> tuple[str, ...]:
    """Return what names a change among all of a comparison."""
    return (change.id, *(f"{label}={value}" for label, value in sorted(change.group.items())))


def with_allowed(line: Line, allow: AllowList) -> Line:
    """Return the line of a run with the rules that the allow-list covers, and why."""
    if not line["counts"]:
        return line | {"allowed": {}}
    where = {label: line[label] for label in (*LABELS, "path")}
    found = {rule: allow.reason(rule, where, sum(n.values())) for rule, n in line["counts"]["rules"].items()}
    return line | {"allowed": {rule: reason for rule, reason in found.items() if reason is not None}}


@dataclass(frozen=True)
class KernelRow:
    """The runs of one kernel together."""

    kernel: str
    runs: int
    verdicts: dict[str, int]
    lives: int
    lost: int
    late: int
    lossy: int


def kernel_rows(batch: Batch) -> list[KernelRow]:
    """Return one row per kernel, by name."""
    by_kernel: dict[str, list[Line]] = {}
    for line in batch.analysed:
        by_kernel.setdefault(line["kernel"], []).append(line)
    return [
        KernelRow(
            kernel,
            len(lines),
            dict(Counter(line["verdict"] for line in lines)),
            sum(line["counts"]["lives"] for line in lines),
            sum(line["counts"]["outcomes"].get("lost", 0) for line in lines),
            sum(sum(line["counts"]["rules"].get("late-wakeup", {}).values()) for line in lines),
            sum(line["loss"]["events"] != 0 for line in lines),
        )
        for kernel, lines in sorted(by_kernel.items())
    ]


@dataclass(frozen=True)
class RuleRow:
    """What one rule found in all runs."""

    rule: str
    severity: str
    findings: int
    runs: int
    allowed: int


def rule_rows(batch: Batch) -> list[RuleRow]:
    """Return one row per rule that found something, the severest and most frequent first."""
    found: dict[str, list[tuple[dict[str, int], bool]]] = {}
    for line in batch.analysed:
        for rule, counts in line["counts"]["rules"].items():
            found.setdefault(rule, []).append((counts, rule in line["allowed"]))
    rows = [
        RuleRow(
            rule,
            next(one for one in SEVERITIES if any(counts.get(one) for counts, _ in runs)),
            sum(sum(counts.values()) for counts, _ in runs),
            len(runs),
            sum(sum(counts.values()) for counts, allowed in runs if allowed),
        )
        for rule, runs in found.items()
    ]
    return sorted(rows, key=lambda row: (SEVERITIES.index(row.severity), -row.findings, row.rule))


def worst_lives(batch: Batch, most: int) -> list[tuple[Line, dict[str, Any]]]:
    """Return the longest lives of all runs, each with the line of its run; copies of a run only once."""
    lives = [
        (line, life)
        for line in batch.analysed
        if line["copy_of"] is None and line["clock_unit"] == "ns"
        for life in line["worst"]
    ]
    lives.sort(
        key=lambda pair: (-pair[1]["lasted_ns"], pair[0]["path"], pair[1]["not_present"], pair[1]["token"])
    )
    return lives[:most]


def by_need(batch: Batch) -> list[Line]:
    """Return the runs that are not clean, those that need a look most in front."""
    return sorted(
        (line for line in batch.analysed if line["verdict"] != "clean"),
        key=lambda line: (
            not batch.failing(line),
            VERDICTS.index(line["verdict"]),
            *(-line["counts"]["findings"].get(one, 0) for one in SEVERITIES),
            line["path"],
        ),
    )


def worth_a_page(batch: Batch, most: int) -> list[str]:
    """Return the paths of the runs that get a report of their own: errors first, then the longest lives."""
    errors = [
        line for line in by_need(batch) if line["counts"]["findings"].get("error") and not line["copy_of"]
    ]
    chosen = [line["path"] for line in errors]
    chosen += [line["path"] for line, _ in worst_lives(batch, most)]
    return list(dict.fromkeys(chosen))[:most]
