"""A batch as GitHub-flavoured Markdown, short enough for a job's summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.batch.baseline import FASTER, FEWER, SAME, TEST, TOO_FEW
from apftrace.batch.overview import VERDICTS, by_need, change_key, kernel_rows, rule_rows, worst_lives
from apftrace_reports.batch import words
from apftrace_reports.catalogue import rule_words
from apftrace_reports.data import phase_label
from apftrace_reports.escape import code_span, markdown, markdown_table
from apftrace_reports.units import count, duration, plural

if TYPE_CHECKING:
    from apftrace.batch.overview import Batch, KernelRow

_RUNS = 20
_LIVES = 10
_KERNELS = 30


def render(batch: Batch) -> bytes:
    """Return the summary as UTF-8."""
    out = [f"## apftrace: {batch.verdict.upper()}", "", markdown(batch.headline)]
    if batch.besides:
        out += ["", f"Besides: {', '.join(f'{count(number)} {what}' for number, what in batch.besides)}."]
    for section in (_runs, _changes, _kernels, _rules, _failed, _lives, _remarks):
        out += section(batch)
    return ("\n".join(out) + "\n").encode()


def _changes(batch: Batch) -> list[str]:
    if batch.comparison is None:
        return []
    changes = batch.comparison.changes
    out = ["", "### Against the baseline", ""]
    moved = [change for change in changes if change.verdict not in {SAME, TOO_FEW}]
    if moved:
        rows = (
            (
                change.verdict
                if change_key(change) not in batch.allowed_changes
                else f"{change.verdict} (allowed)",
                words.group(change),
                words.name(change),
                words.typical(change, 0),
                words.typical(change, 1),
                words.effect(change),
                words.certainty(change),
            )
            for change in moved
        )
        out += markdown_table(("", "where", "what", "before", "now", "effect", "certainty"), rows)
    else:
        out.append("Nothing changed.")
    tally = ", ".join(
        f"{sum(c.verdict == kind for c in changes)} {kind}" for kind in (SAME, TOO_FEW, FASTER, FEWER)
    )
    out += ["", markdown(f"Compared: {plural(len(changes), 'thing')} ({tally}). Test: {TEST}.")]
    left_out = words.dropped(batch.comparison)
    out += ["", markdown(left_out)] if left_out else []
    alone = [f"{name} ({side})" for name, side in batch.comparison.alone]
    return [*out, "", markdown(f"On one side only: {'; '.join(alone[:20])}.")] if alone else out


def _kernels(batch: Batch) -> list[str]:
    rows = kernel_rows(batch)
    if not rows:
        return []
    table = (
        (row.kernel, *map(count, (row.runs, *(row.verdicts.get(one, 0) for one in VERDICTS), *_sums(row))))
        for row in rows[:_KERNELS]
    )
    head = ("kernel", "runs", *VERDICTS, "faults", "lost", "late", "with losses")
    more = ["", f"{plural(len(rows) - _KERNELS, 'more kernel')}."] if len(rows) > _KERNELS else []
    return ["", "### Kernels", "", *markdown_table(head, table, numbers=1), *more]


def _sums(row: KernelRow) -> tuple[int, ...]:
    return row.lives, row.lost, row.late, row.lossy


def _rules(batch: Batch) -> list[str]:
    rows = rule_rows(batch)
    if not rows:
        return []
    table = (
        (
            row.severity,
            row.rule,
            rule_words(row.rule).title,
            count(row.findings),
            count(row.runs),
            count(row.allowed),
        )
        for row in rows
    )
    return [
        "",
        "### Findings",
        "",
        *markdown_table(("severity", "rule", "meaning", "findings", "runs", "allowed"), table),
    ]


def _runs(batch: Batch) -> list[str]:
    lines = by_need(batch)
    if not lines:
        return []
    out = ["", "### Runs to look at", ""]
    out += [f"- {x['verdict']}: {code_span(x['path'])}: {markdown(x['headline'])}" for x in lines[:_RUNS]]
    return [*out, f"- and {plural(len(lines) - _RUNS, 'more run')}"] if len(lines) > _RUNS else out


def _failed(batch: Batch) -> list[str]:
    if not batch.failed:
        return []
    out = ["", "### Not analysed", ""]
    out += [f"- {x['status']}: {code_span(x['path'])}: {markdown(x['reason'])}" for x in batch.failed[:_RUNS]]
    more = len(batch.failed) - _RUNS
    return [*out, f"- and {plural(more, 'more input')}"] if more > 0 else out


def _lives(batch: Batch) -> list[str]:
    lives = worst_lives(batch, _LIVES)
    if not lives:
        return []
    rows = (
        (
            duration(life["lasted_ns"]),
            life["token"],
            life["outcome"].replace("_", " "),
            ", ".join(f"{phase_label(phase)} {duration(took)}" for phase, took in life["phases"].items()),
            line["kernel"],
            line["path"],
        )
        for line, life in lives
    )
    return [
        "",
        "### The longest faults",
        "",
        *markdown_table(("lasted", "token", "outcome", "phases", "kernel", "run"), rows),
    ]


def _remarks(batch: Batch) -> list[str]:
    if not batch.remarks:
        return []
    return ["", "### Allow-list", "", *(f"- {markdown(remark)}" for remark in batch.remarks)]
