"""Compare what the analysis says with what it ought to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .edit import Expectation

_VERDICTS = {
    "undecided": "undecided",
    "in_flight": "in-flight",
    "cancelled": "cancelled",
    "woken_by_all": "cancelled",
    "lost": "lost",
}


@dataclass
class Said:
    """What the analysis said, as plain rows."""

    faults: list[dict[str, Any]]
    findings: list[dict[str, Any]]
    accounting: list[dict[str, Any]]

    def errors(self) -> list[tuple[str, int | None, int | None]]:
        """Return rule, thread and token of each finding of severity error."""
        return [(f["rule"], f["tid"], f["token"]) for f in self.findings if f["severity"] == "error"]


@dataclass(frozen=True)
class Result:
    """One expectation met or not: ``status`` is a column of the table."""

    expectation: Expectation
    verdict: str
    status: str


@dataclass
class Judgement:
    """Everything about one case."""

    results: list[Result] = field(default_factory=list)
    false: list[tuple[str, int | None, int | None]] = field(default_factory=list)
    """Findings of severity error that nobody planted."""

    @property
    def ok(self) -> bool:
        return not self.false and all(
            r.status in {"found", "right", "undecided rightly"} for r in self.results
        )


def judge(said: Said, before: Said, expectations: Iterable[Expectation]) -> Judgement:
    """Judge an analysis.

    Args:
        said: about the changed capture.
        before: about the capture as it was; its errors are not counted again.
        expectations: of the mutator.
    """
    judgement = Judgement()
    excused = set()
    for e in expectations:
        if e.free or "found" in e.verdicts:
            excused.add((e.tid, e.token))
        if not e.free:
            verdict = _verdict(said, before, e)
            judgement.results.append(Result(e, verdict, _status(e, verdict)))
    blamed = {(r.expectation.tid, r.expectation.token) for r in judgement.results if r.status == "false"}
    old = {(rule, token) for rule, _, token in before.errors()}
    judgement.false = [
        (rule, tid, token)
        for rule, tid, token in said.errors()
        if (rule, token) not in old and (tid, token) not in excused | blamed
    ]
    return judgement


def _verdict(said: Said, before: Said, e: Expectation) -> str:
    lives = [f for f in said.faults if f["tid"] == e.tid and f["token"] == e.token]
    outcomes = {f["outcome"] for f in lives}
    hits = [f for f in said.findings if _meets(f, e) and (f["token"] is not None or not _in(f, before))]
    if hits:
        if "undecided" in outcomes and all(f["confidence"] == "possible" for f in hits):
            return "undecided"
        if e.phase and not any(f["phase"] in e.phase for f in hits):
            return "found as " + ",".join(sorted({str(f["phase"]) for f in hits}))
        if e.confidence and not all(f["confidence"] in e.confidence for f in hits):
            return "found as " + ",".join(sorted({f["confidence"] for f in hits}))
        return "found"
    for outcome, verdict in _VERDICTS.items():
        if outcome in outcomes:
            return verdict
    if lives:
        return "repaired" if any(f["repaired"] for f in lives) else "quiet"
    if e.tid is not None and _left_truncated(said, e):
        return "left-truncated"
    return "quiet"


def _meets(finding: dict[str, Any], e: Expectation) -> bool:
    return (
        finding["rule"] in e.rule
        and (e.tid is None or finding["tid"] in {None, e.tid})
        and (e.token is None or finding["token"] in {None, e.token})
    )


def _in(finding: dict[str, Any], before: Said) -> bool:
    key = (finding["rule"], finding["tid"], finding["token"])
    return any((f["rule"], f["tid"], f["token"]) == key for f in before.findings)


def _left_truncated(said: Said, e: Expectation) -> bool:
    return any(row["tid"] == e.tid and row["left_truncated"] for row in said.accounting)


def _status(e: Expectation, verdict: str) -> str:
    if verdict == "undecided":
        return "undecided rightly" if verdict in e.verdicts else "undecided wrongly"
    if verdict in e.verdicts:
        return "found" if verdict == "found" else "right"
    if verdict in {"found", "lost"}:
        return "false"
    return "missed" if e.verdicts == {"found"} else "wrong"
