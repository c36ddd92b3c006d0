"""The index page of a batch: what to look at first, what changed, how it went run by run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apftrace.batch.baseline import MORE, SAME, SLOWER, TEST, TOO_FEW
from apftrace.batch.overview import VERDICTS, by_need, change_key, kernel_rows, rule_rows, worst_lives
from apftrace.batch.runs import STATUSES
from apftrace_reports.base import tool_version
from apftrace_reports.batch import words
from apftrace_reports.catalogue import rule_words
from apftrace_reports.escape import visible
from apftrace_reports.page import bundle, content_policy, environment, raw, source

if TYPE_CHECKING:
    from apftrace.batch.baseline import Change
    from apftrace.batch.overview import Batch

MOST = 200
"""Rows of a table of inputs; runs.jsonl has all of them."""

FIRST = 20
"""Of those to look at as many stand in the open; the page goes on below them."""

LIVES = 20


def render(batch: Batch) -> bytes:
    """Return the page as UTF-8."""
    figures = {}
    if any(line["latency_ns"] for line in batch.analysed):
        from apftrace_reports.batch.charts import figures as drawn  # altair takes as long as all the rest

        figures = drawn(batch)
    templates = environment("ns")
    style = source(templates, "page.css") + source(templates, "index.css")
    scripts = [bundle(), source(templates, "page.js")] if figures else []
    rendered = templates.get_template("index.html.j2").render(
        **_content(batch),
        figures=figures,
        version=tool_version(),
        policy=content_policy(style, scripts),
        style=raw(style),
        scripts=[raw(script) for script in scripts],
    )
    return rendered.encode()


def _content(batch: Batch) -> dict[str, Any]:
    need = by_need(batch)
    changes = batch.comparison.changes if batch.comparison else ()
    return {
        "verdict": batch.verdict,
        "headline": batch.headline,
        "compared": batch.comparison is not None,
        "moved": [_change(one, batch) for one in changes if one.verdict not in {SAME, TOO_FEW}],
        "unmoved": [_change(one, batch) for one in changes if one.verdict in {SAME, TOO_FEW}],
        "alone": [
            (visible(name), side) for name, side in (batch.comparison.alone if batch.comparison else ())
        ],
        "dropped": words.dropped(batch.comparison) if batch.comparison else "",
        "test": TEST,
        "verdicts": VERDICTS,
        "tally": [(one, sum(line["verdict"] == one for line in batch.analysed)) for one in VERDICTS],
        "kernels": [(visible(row.kernel), row) for row in kernel_rows(batch)],
        "rules": [(row, rule_words(row.rule).title) for row in rule_rows(batch)],
        "lives": [(_run(line), life) for line, life in worst_lives(batch, LIVES)],
        "need": [_run(line) | {"failing": batch.failing(line)} for line in need[:MOST]],
        "first": FIRST,
        "more_need": max(0, len(need) - MOST),
        "failed": [_run(line) for line in batch.failed[:MOST]],
        "more_failed": max(0, len(batch.failed) - MOST),
        "besides": batch.besides,
        "statuses": STATUSES,
        "remarks": [visible(remark) for remark in batch.remarks],
    }


def _change(change: Change, batch: Batch) -> dict[str, Any]:
    reason = batch.allowed_changes.get(change_key(change))
    return {
        "verdict": change.verdict,
        "is_worse": change.verdict in {SLOWER, MORE} and not reason,
        "allowed": visible(reason or ""),
        "group": visible(words.group(change)),
        "name": visible(words.name(change)),
        "before": words.typical(change, 0),
        "now": words.typical(change, 1),
        "effect": words.effect(change),
        "runs": (words.runs(change, 0), words.runs(change, 1)),
        "delta": f"{change.shift.delta:+.2f}",
        "p": words.probability(change.p),
        "pairing": change.pairing,
    }


def _run(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line with every text of it safe to show."""
    shown = {key: visible(value) if isinstance(value, str) else value for key, value in line.items()}
    shown["rules"] = [
        (visible(rule), sum(found.values()), rule in line["allowed"])
        for rule, found in ((line["counts"] or {}).get("rules") or {}).items()
    ]
    return shown
