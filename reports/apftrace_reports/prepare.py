"""Turn the frames of an analysis into what reports show.

Every string that came from a trace passes :func:`~apftrace_reports.escape.visible` here. Nothing in this
module decides anything: verdicts, severities and causes are those of the analysis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from apftrace.analysis import NotRun
from apftrace.grades import CONFIDENCES, SEVERITIES
from apftrace_reports.accounting import accounting_asides, accounting_lines, broken_identities
from apftrace_reports.catalogue import quiet_rules, rule_words
from apftrace_reports.causes import LATE, CauseRow, cause_rows
from apftrace_reports.data import (
    LIFE_PHASES,
    Evidence,
    Finding,
    Group,
    LatencyRow,
    Life,
    ReportData,
    Step,
    VcpuRow,
    phase_label,
    phase_words,
    place,
    time_unit,
)
from apftrace_reports.environment import environment
from apftrace_reports.escape import visible
from apftrace_reports.gaps import gaps_in_words
from apftrace_reports.units import hexadecimal

if TYPE_CHECKING:
    from apftrace.analysis import Analysis, Story


_SUMMED = ("rule", "severity", "confidence", "ts", "machine", "vm", "vcpu")


def prepare(
    analysis: Analysis, *, in_full: int = 200, per_rule: int | None = None, slowest: int = 5
) -> ReportData:
    """Collect what a report shows.

    Args:
        analysis: the finished analysis.
        in_full: how many findings to carry with their evidence, shared fairly among the rules.
        per_rule: how many of one rule at most.
        slowest: how many of the slowest lives to list.
    """
    several = several_vms(analysis)
    groups = finding_groups(analysis, in_full, per_rule, several=several)
    lives = slowest_lives(analysis, slowest, several=several)
    heard = {*analysis.findings["rule"].drop_nulls().unique(), *(one.rule for one in analysis.not_run)}
    return ReportData(
        verdict=analysis.verdict,
        headline=visible(analysis.headline),
        unsafe=tuple(visible(reason) for reason in analysis.unsafe),
        protocol=_protocol(analysis),
        unit=time_unit(analysis),
        several=several,
        lives=analysis.faults.height,
        outcomes=_counted(analysis.faults, "outcome"),
        severities=_ordered(_counted(analysis.findings, "severity"), SEVERITIES),
        groups=groups,
        latency=latency_rows(analysis),
        lost=lost_lives(analysis, several=several),
        slowest=lives,
        life_phases=_shown_phases(lives),
        accounting=accounting_lines(analysis.accounting),
        asides=accounting_asides(analysis.accounting),
        broken=broken_identities(analysis.accounting),
        vcpus=tuple(_vcpu(row, several=several) for row in analysis.vcpus.iter_rows(named=True)),
        inputs=environment(analysis.inputs, analysis.guests, time_unit(analysis)),
        gaps=gaps_in_words(analysis.losses, time_unit(analysis)),
        not_run=tuple(
            NotRun(visible(one.rule), tuple(visible(event) for event in one.missing))
            for one in analysis.not_run
        ),
        quiet=quiet_rules(heard),
        redacted=analysis.redacted,
    )


def finding_groups(
    analysis: Analysis, in_full: int, per_rule: int | None, *, several: bool
) -> tuple[Group, ...]:
    """Group the findings per rule, the worst rule first, and carry ``in_full`` of them whole.

    There may be very many: all but those are only counted, in polars, and their evidence is not touched.
    """
    if analysis.findings.is_empty():
        return ()
    frame = (
        analysis.findings.select(_SUMMED)
        .with_columns(
            pl.col("severity")
            .replace_strict(dict(zip(SEVERITIES, range(3), strict=True)), default=3)
            .alias("grade"),
            pl.int_range(pl.len()).over("rule").alias("rank"),
        )
        .with_row_index("at")
    )
    ranked = frame.select("rank", "at").filter(pl.col("rank") < (per_rule or in_full))
    whole = analysis.findings[ranked.sort("rank", "at")["at"].head(in_full).sort()]
    summaries = (
        frame.group_by("rule")
        .agg(
            pl.len().alias("count"),
            pl.col("grade").min(),
            pl.col("at").min(),
            pl.col("ts").min().alias("first"),
            pl.col("ts").max().alias("last"),
            pl.col("severity").value_counts(),
            pl.col("confidence").value_counts(),
            pl.struct("machine", "vm", "vcpu").unique(maintain_order=True).head(64).alias("where"),
        )
        .sort("grade", "at")
    )
    shown: dict[str, list[Finding]] = {}
    for row in whole.iter_rows(named=True):
        shown.setdefault(row["rule"], []).append(_finding(row, analysis.excerpts))
    causes = {LATE: cause_rows(analysis.findings, analysis.faults)}
    return tuple(
        _group(row, tuple(shown.get(row["rule"], ())), causes.get(row["rule"], ()), several=several)
        for row in summaries.iter_rows(named=True)
    )


def _group(
    row: dict[str, Any], findings: tuple[Finding, ...], causes: tuple[CauseRow, ...], *, several: bool
) -> Group:
    severities = _ordered(_pairs(row["severity"], "severity"), SEVERITIES)
    places = sorted({place(one, several=several) for one in row["where"]} - {""}, key=_natural)
    return Group(
        rule=visible(row["rule"] or "?"),
        severity=severities[0][0],
        count=row["count"],
        severities=severities,
        confidences=_ordered(_pairs(row["confidence"], "confidence"), CONFIDENCES),
        first=row["first"],
        last=row["last"],
        where=tuple(places),
        findings=findings,
        words=rule_words(row["rule"]),
        causes=causes,
    )


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in text.split()]


def _finding(row: dict[str, Any], excerpts: dict[str, tuple[str, ...]]) -> Finding:
    return Finding(
        id=visible(row["id"] or ""),
        rule=visible(row["rule"] or "?"),
        severity=visible(row["severity"] or "?"),
        confidence=visible(row["confidence"] or "?"),
        machine=_maybe(row["machine"]),
        vm=_maybe(row["vm"]),
        vcpu=row["vcpu"],
        tid=row["tid"],
        token=hexadecimal(row["token"]),
        gva=hexadecimal(row["gva"]),
        ts=row["ts"],
        end=row["end"],
        phase=_maybe(row["phase"]),
        cause=_maybe(row["cause"]),
        blocker=hexadecimal(row["blocker"]),
        message=visible(row["message"] or ""),
        evidence=tuple(_evidence(one) for one in row["evidence"] or ()),
        ruled_out=tuple(visible(one) for one in row["ruled_out"] or ()),
        not_ruled_out=tuple(visible(one) for one in row["not_ruled_out"] or ()),
        excerpt=tuple(visible(line.expandtabs()) for line in excerpts.get(row["id"], ())),
    )


def _evidence(one: dict[str, Any]) -> Evidence:
    return Evidence(
        one["ts"], one["cpu"], one["tid"], visible(one["event"] or ""), visible(one["text"] or "")
    )


def latency_rows(analysis: Analysis) -> tuple[LatencyRow, ...]:
    """Return the phase table without rows that repeat others, the way until the guest's task ran in front.

    Those are the row of all kinds where only one kind has the phase, and P1+P2 where every life has both.
    """
    rows = [row for row in analysis.latency.iter_rows(named=True) if row["n"]]
    numbers = {(row["phase"], row["kind"]): row["n"] for row in rows}

    def repeats(row: dict[str, Any]) -> bool:
        n, phase, kind = row["n"], row["phase"], row["kind"]
        if phase == "p12" and numbers.get(("p1", kind)) == numbers.get(("p2", kind)) == n:
            return True
        return kind == "all" and n in (numbers.get((phase, "pv")), numbers.get((phase, "halt")))

    rows.sort(key=lambda row: row["phase"] != "e2e")
    return tuple(_latency(row, analysis.late_after) for row in rows if not repeats(row))


def _latency(row: dict[str, Any], late_after: dict[str, int]) -> LatencyRow:
    phase = visible(row["phase"])
    name, doc = phase_words(phase)
    return LatencyRow(
        phase=phase,
        label=phase_label(phase),
        name=name,
        doc=doc,
        kind=visible(row["kind"]),
        late_after=late_after.get(phase),
        **{key: row[key] for key in ("n", "min", "p50", "p95", "p99", "max")},
    )


def slowest_lives(analysis: Analysis, number: int, *, several: bool) -> tuple[Life, ...]:
    """Return the lives that took longest, the longest first: until the guest's task ran, where its trace shows that."""
    faults = analysis.faults
    told = _told(analysis)
    # Only the columns that decide are put in order; there may be millions of lives.
    order = (
        faults.lazy()
        .select(pl.max_horizontal("total", "e2e").alias("took"), "total", "not_present", "token")
        .with_row_index("at")
        .filter(pl.col("total").is_not_null())
        .sort("took", "not_present", "token", descending=[True, False, False])
        .head(number)
        .collect()
    )
    rows = faults[order["at"]].iter_rows(named=True)
    return tuple(
        _life(row, told.get((row["tid"], row["token"], row["not_present"])), several=several) for row in rows
    )


def lost_lives(analysis: Analysis, *, several: bool) -> tuple[Life, ...]:
    """Return the lost lives that have a story."""
    told = _told(analysis)
    begun = [one.not_present for one in analysis.stories if one.outcome == "lost"]
    lost = analysis.faults.filter((pl.col("outcome") == "lost") & pl.col("not_present").is_in(begun))
    keyed = (
        (told.get((row["tid"], row["token"], row["not_present"])), row)
        for row in lost.sort("not_present").iter_rows(named=True)
    )
    return tuple(_life(row | {"total": story.total}, story, several=several) for story, row in keyed if story)


def _told(analysis: Analysis) -> dict[tuple[int, int, int], Story]:
    return {(one.tid, one.token, one.not_present): one for one in analysis.stories}


def _life(row: dict[str, Any], story: Story | None, *, several: bool) -> Life:
    return Life(
        token=hexadecimal(row["token"]) or "?",
        where=place(row, several=several),
        kind=row["kind"] or "unknown",
        outcome=(row["outcome"] or "undecided").replace("_", " "),
        not_present=row["not_present"],
        total=row["total"],
        e2e=row["e2e"],
        phases={phase: row[phase] for phase in LIFE_PHASES},
        blocker=hexadecimal(row["blocker"]),
        steps=_steps(story),
    )


def _steps(story: Story | None) -> tuple[Step, ...]:
    if story is None:
        return ()
    return tuple(Step(one.ts - story.not_present, one.phase, visible(one.text)) for one in story.steps)


def _shown_phases(lives: tuple[Life, ...]) -> tuple[str, ...]:
    present = [phase for phase in LIFE_PHASES if any(life.phases[phase] is not None for life in lives)]
    split = "p1" in present or "p2" in present
    return tuple(phase for phase in present if phase != "p12" or not split)


def several_vms(analysis: Analysis) -> bool:
    """Say whether a vCPU number alone would be ambiguous."""
    return any(
        frame.select("machine", "vm").unique().drop_nulls("vm").height > 1
        for frame in (analysis.vcpus, analysis.faults, analysis.findings)
    )


def _vcpu(row: dict[str, Any], *, several: bool) -> VcpuRow:
    values = {key: value for key, value in row.items() if key not in {"machine", "vm", "comm"}}
    return VcpuRow(place(row, several=several), visible(row["comm"] or ""), values)


def _protocol(analysis: Analysis) -> str:
    protocol = analysis.protocol
    words = [protocol.kind]
    if protocol.vector is not None:
        words.append(f"vector {protocol.vector} ({protocol.vector:#x})")
    if protocol.send_always is not None:
        words.append(f"SEND_ALWAYS {'set' if protocol.send_always else 'not set'}")
    return visible(", ".join(words) + (f": {protocol.why}" if protocol.why else ""))


def _counted(frame: pl.DataFrame, column: str) -> tuple[tuple[str, int], ...]:
    pairs = (
        frame.group_by(column).agg(pl.len().alias("count")).sort("count", column, descending=[True, False])
    )
    return tuple((visible(name or "?"), number) for name, number in pairs.iter_rows())


def _pairs(structs: list[dict[str, Any]], column: str) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((visible(one[column] or "?"), one["count"]) for one in structs))


def _ordered(pairs: tuple[tuple[str, int], ...], order: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    rank = {name: at for at, name in enumerate(order)}
    return tuple(sorted(pairs, key=lambda pair: (rank.get(pair[0], len(order)), pair[0])))


def _maybe(text: str | None) -> str | None:
    return visible(text) if text else None
