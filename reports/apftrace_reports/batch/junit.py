"""A batch as JUnit XML: a test suite per kernel, a test case per input, and one for each thing compared."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from apftrace.batch.baseline import REGRESSIONS, TOO_FEW
from apftrace.batch.overview import change_key
from apftrace.batch.runs import ANALYSED, FAILED, JOINED
from apftrace_reports.batch.words import sentence
from apftrace_reports.escape import xml

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.batch.baseline import Change
    from apftrace.batch.overview import Batch

_MOST_OUTPUT = 20
_NOT_COUNTED = frozenset({"skipped", JOINED})


def render(batch: Batch) -> bytes:
    """Return the document as UTF-8."""
    suites = [_runs(kernel, list(lines), batch) for kernel, lines in _by_kernel(batch)]
    if batch.comparison:
        suites.append(_suite("baseline", [_change(change, batch) for change in batch.comparison.changes]))
    head = ['<?xml version="1.0" encoding="UTF-8"?>', '<testsuites name="apftrace batch">']
    return (
        "\n".join([*head, *(line for suite in suites for line in suite), "</testsuites>"]) + "\n"
    ).encode()


def _by_kernel(batch: Batch) -> Iterable[tuple[str, Iterable[dict[str, Any]]]]:
    told = (line for line in batch.lines if line["status"] not in _NOT_COUNTED)
    return groupby(
        sorted(told, key=lambda line: (line["kernel"], line["path"])), key=lambda line: str(line["kernel"])
    )


def _runs(kernel: str, lines: list[dict[str, Any]], batch: Batch) -> list[str]:
    return _suite(f"kernel {kernel}", [_run(line, batch) for line in lines])


def _suite(name: str, cases: list[tuple[str, list[str]]]) -> list[str]:
    kinds = [kind for kind, _ in cases]
    totals = (
        f'tests="{len(cases)}" failures="{kinds.count("failure")}" errors="{kinds.count("error")}" '
        f'skipped="{kinds.count("skipped")}"'
    )
    return [
        f'<testsuite name="{xml(name)}" {totals}>',
        *(x for _, lines in cases for x in lines),
        "</testsuite>",
    ]


def _run(line: dict[str, Any], batch: Batch) -> tuple[str, list[str]]:
    where = f"{line['kernel']}.{line['host']}.{line['job']}"
    if line["status"] in FAILED:
        return _case(where, line["path"], "error", f"{line['status']}: {line['reason']}", [])
    assert line["status"] == ANALYSED
    told = [f"{line['verdict']}: {line['headline']}", *line["unsafe"]]
    told += [f"{rule}: {sum(found.values())}" for rule, found in line["counts"]["rules"].items()]
    told += [f"allowed: {rule}: {reason}" for rule, reason in line["allowed"].items()]
    failing = batch.failing(line)
    if failing:
        return _case(where, line["path"], "failure", f"{line['headline']} ({', '.join(failing)})", told)
    if line["verdict"] in {"unusable", "undecided"}:
        return _case(where, line["path"], "skipped", "; ".join(line["unsafe"]) or line["headline"], [])
    return _case(where, line["path"], "system-out" if line["verdict"] != "clean" else "", "", told)


def _change(change: Change, batch: Batch) -> tuple[str, list[str]]:
    where = f"baseline.{'.'.join(change.group.values()) or 'all'}"
    reason = batch.allowed_changes.get(change_key(change))
    told = [sentence(change), *([f"allowed: {reason}"] if reason else [])]
    if change.verdict in REGRESSIONS and not reason:
        return _case(where, change.what, "failure", told[0], [])
    if change.verdict == TOO_FEW:
        return _case(where, change.what, "skipped", told[0], [])
    return _case(where, change.what, "system-out", "", told)


def _case(where: str, name: str, element: str, message: str, text: list[str]) -> tuple[str, list[str]]:
    head = f'<testcase classname="{xml(where)}" name="{xml(name)}"'
    if not element:
        return element, [f"{head}/>"]
    told = f' message="{xml(message)}"' if message else ""
    body = "\n".join(map(xml, text[:_MOST_OUTPUT]))
    return element, [f"{head}>", f"<{element}{told}>{body}</{element}>", "</testcase>"]
