"""One line per input: what ``runs.jsonl`` says, and what everything that compares runs is made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apftrace.batch.labels import UNKNOWN, Labels
from apftrace.batch.store import SHORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apftrace.batch.store import Store
    from apftrace.batch.wire import Message

ANALYSED = "analysed"
JOINED = "joined"
SKIPPED = "skipped"
STATUSES = {
    ANALYSED: "paired, timed and judged",
    JOINED: "a guest's, analysed together with its host's",
    "unreadable": "damaged, or no trace",
    "refused": "left alone: beyond a limit, or no plain file",
    "timeout": "took longer than a trace may",
    "memory": "took more memory than a trace may",
    "crashed": "ended its worker every time",
    SKIPPED: "beside traces, but none itself",
}
"""What can become of an input."""

FAILED = frozenset(STATUSES) - {ANALYSED, JOINED, SKIPPED}

_OF_RESULT: dict[str, Any] = {
    "format": None, "machine": None, "machines": [], "clock": None, "clock_unit": None, "cpus": None, "trace_id": None,
    "guests": {}, "verdict": None, "headline": None, "unsafe": [], "protocol": None, "seconds": None,
    "counts": None, "loss": None, "latency_ns": {}, "not_run": [], "worst": [], "notes": [],
}  # fmt: skip
"""What a line takes over from the result, and what stands there without one."""


@dataclass(frozen=True)
class Entry:
    """What became of one input in this batch.

    Attributes:
        path: as reports name it.
        name: the way inside its source.
        sha256: of its bytes; its result is in the store under that. Null when it was not read.
        size: bytes.
        status: empty when the store tells.
        reason: why it was not analysed.
    """

    path: str
    name: str
    sha256: str | None
    size: int | None
    status: str = ""
    reason: str = ""


def lines(entries: Iterable[Entry], store: Store, labels: Labels) -> list[dict[str, Any]]:
    """Return the line of every input, in the order of their paths."""
    firsts: dict[str, str] = {}
    return [_line(entry, store, labels, firsts) for entry in sorted(entries, key=lambda one: one.path)]


def _line(entry: Entry, store: Store, labels: Labels, firsts: dict[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = {"status": entry.status, "reason": entry.reason}
    if not entry.status and entry.sha256:
        found = store.load(entry.sha256)
        assert found is not None
        result = found.data
    told = labels.of(entry.path)
    first = firsts.setdefault(entry.sha256, entry.path) if entry.sha256 else entry.path
    return {
        "path": entry.path,
        "name": entry.name,
        "sha256": entry.sha256,
        "size": entry.size,
        "status": result["status"],
        "reason": result.get("reason") or None,
        "kernel": told.get("kernel") or result.get("release") or UNKNOWN,
        "host": told.get("host") or result.get("node") or UNKNOWN,
        "job": told.get("job") or UNKNOWN,
        "copy_of": first if first != entry.path else None,
        "result": entry.sha256,
        "host_trace": None,
        "report": None,
    } | {key: result.get(key, default) for key, default in _OF_RESULT.items()}


def join(host: dict[str, Any], guests: Sequence[dict[str, Any]], key: str, result: Message) -> None:
    """Put the result of traces that were analysed together in place of their own.

    Args:
        host: the line of the host's trace; it speaks for all of them.
        guests: those of its guests'.
        key: what the result is kept under.
        result: of all together; where they could not be joined, their own results stand.
    """
    if result.data["status"] != ANALYSED:
        names = ", ".join(guest["path"] for guest in guests)
        host["notes"] = [*host["notes"], f"not joined with {names}: {result.data['reason']}"]
        return
    host |= {name: result.data.get(name, default) for name, default in _OF_RESULT.items()}
    host["result"] = key
    for guest in guests:
        kept = {name: guest[name] for name in ("format", "machine", "clock", "trace_id")}
        guest.update(_OF_RESULT | kept | {"status": JOINED, "host_trace": host["path"], "result": None})


def run_id(line: dict[str, Any]) -> str:
    """Return the short name of what was analysed."""
    return str(line["result"])[:SHORT]


def analysed(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of the inputs that have a verdict."""
    return [line for line in lines if line["status"] == ANALYSED]


def jsonl(lines: Iterable[dict[str, Any]]) -> bytes:
    """Return ``runs.jsonl``."""
    return b"".join(json.dumps(line, sort_keys=True, allow_nan=False).encode() + b"\n" for line in lines)
