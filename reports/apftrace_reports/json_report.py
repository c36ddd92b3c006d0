"""The machine-readable report, ``schema_version`` 1; its schema is ``apftrace-report.schema.json``.

Times are integers in the trace clock's unit, 64-bit tokens and addresses hexadecimal strings. Strings are
the trace's own: JSON escapes what it must.
"""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from apftrace.schema import SCHEMA_VERSION
from apftrace_reports.accounting import total_row
from apftrace_reports.base import Rendered, tool_version
from apftrace_reports.units import hexadecimal

if TYPE_CHECKING:
    import polars as pl

    from apftrace.analysis import Analysis, GuestLink, Input, Story

_STATISTICS = ("n", "min", "p50", "p95", "p99", "max")
_IDENTITY = ("machine", "vm", "vcpu", "tid")


class JsonReport(Rendered):
    """One JSON document for scripts and CI."""

    name = "json"
    suffixes = (".json",)
    wants_sha256 = True

    def render(self, analysis: Analysis) -> bytes:
        """Return the document, keys sorted, two spaces of indent."""
        text = json.dumps(document(analysis), sort_keys=True, indent=2, allow_nan=False)
        return (text + "\n").encode()


def document(analysis: Analysis) -> dict[str, Any]:
    """Return the report as plain dicts and lists."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "apftrace", "version": tool_version()},
        "inputs": [_input(one) for one in analysis.inputs],
        "guests": [_guest(one) for one in analysis.guests],
        "redacted": analysis.redacted,
        "verdict": analysis.verdict,
        "headline": analysis.headline,
        "unsafe": list(analysis.unsafe),
        "protocol": {
            "kind": analysis.protocol.kind,
            "vector": analysis.protocol.vector,
            "send_always": analysis.protocol.send_always,
            "why": analysis.protocol.why,
        },
        "accounting": _accounting(analysis.accounting),
        "latency_ns": _latency(analysis.latency),
        "late_after_ns": {_phase(phase): limit for phase, limit in analysis.late_after.items()},
        "vcpus": [{key: _number(value) for key, value in row.items()} for row in analysis.vcpus.to_dicts()],
        "findings": [_finding(row) for row in analysis.findings.iter_rows(named=True)],
        "stories": [_story(one) for one in analysis.stories],
        "not_run": [{"rule": one.rule, "missing": list(one.missing)} for one in analysis.not_run],
    }


def schema() -> dict[str, Any]:
    """Return the published JSON Schema of :func:`document`."""
    text = files("apftrace_reports").joinpath("apftrace-report.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _input(one: Input) -> dict[str, Any]:
    return {
        "path": one.path,
        "sha256": one.sha256,
        "format": one.format,
        "kernel": one.kernel,
        "clock": one.clock,
        "clock_unit": one.clock_unit,
        "cpus": one.cpus,
        "machine": one.machine,
        "events": dict(one.events),
        "lost": {"events": one.lost_events, "cpus": sorted(one.lost_cpus)},
        "first_ns": one.first_ns,
        "last_ns": one.last_ns,
        "notes": list(one.notes),
    }


def _guest(one: GuestLink) -> dict[str, Any]:
    return {
        "machine": one.machine,
        "vm": one.vm,
        "method": one.method,
        "how": one.how,
        "offset_ns": one.offset,
        "rate": _number(one.rate),
        "offset_least_ns": one.low,
        "offset_most_ns": one.high,
        "within_ns": one.within,
        "typical_ns": one.typical,
        "drift_ppm": _number(one.drift_ppm),
        "inequalities": {"hold": one.bounds, "broken": one.broken},
        "lives": {"told": one.lives, "joined": one.joined},
        "contradictions": list(one.contradictions),
        "refused": one.refused,
        "notes": list(one.notes),
    }


def _accounting(accounting: pl.DataFrame) -> dict[str, Any] | None:
    total = total_row(accounting)
    return total and {key: value for key, value in total.items() if key not in _IDENTITY}


def _latency(latency: pl.DataFrame) -> dict[str, Any]:
    # The figures of all lives stand in the phase itself, those of one kind under its name beside them.
    out: dict[str, Any] = {}
    for row in latency.iter_rows(named=True):
        figures = {key: row[key] for key in _STATISTICS}
        phase = out.setdefault(_phase(row["phase"]), {})
        phase.update(figures if row["kind"] == "all" else {row["kind"]: figures})
    return out


def _finding(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "rule": row["rule"],
        "severity": row["severity"],
        "confidence": row["confidence"],
        "machine": row["machine"],
        "vm": row["vm"],
        "vcpu": row["vcpu"],
        "tid": row["tid"],
        "token": hexadecimal(row["token"]),
        "gva": hexadecimal(row["gva"]),
        "ts_ns": row["ts"],
        "end_ns": row["end"],
        "phase": row["phase"] and _phase(row["phase"]),
        "cause": row["cause"],
        "blocker": hexadecimal(row["blocker"]),
        "message": row["message"],
        "evidence": [
            {
                "ts_ns": one["ts"],
                "cpu": one["cpu"],
                "tid": one["tid"],
                "event": one["event"],
                "text": one["text"],
            }
            for one in row["evidence"] or ()
        ],
        "ruled_out": row["ruled_out"] or [],
        "not_ruled_out": row["not_ruled_out"] or [],
    }


def _story(story: Story) -> dict[str, Any]:
    return {
        "machine": story.machine,
        "vm": story.vm,
        "vcpu": story.vcpu,
        "tid": story.tid,
        "token": hexadecimal(story.token),
        "kind": story.kind,
        "outcome": story.outcome,
        "not_present_ns": story.not_present,
        "total_ns": story.total,
        "steps": [
            {"ts_ns": one.ts, "phase": one.phase and _phase(one.phase), "text": one.text}
            for one in story.steps
        ],
    }


def _phase(phase: str) -> str:
    return phase if phase in ("total", "e2e") else phase.upper()


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
