"""Short ways to write a trace, read it back and look at a walker's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apftrace.model import tracepoints as tp
from apftrace_parsers.base import PassResult, Pick
from apftrace_parsers.registry import open_source
from tests.builders.subbuf import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from apftrace_parsers.base import Source

LAYOUTS = [
    Layout(order, long_size, page_size)
    for order, long_size, page_size in [("<", 8, 4096), (">", 8, 4096), ("<", 4, 4096), (">", 4, 16384)]
]
PICKS = (
    Pick(("kvm_entry",), (("vcpu_id",), ("rip",))),
    Pick(("kvm_async_pf_not_present",), (("token",), ("gva",))),
    Pick(("kvm_async_pf_ready",), (("token",), ("gva",))),
    Pick(("sched_switch",), (("prev_pid",), ("next_pid",), ("prev_state",))),
)
GAP = -1


def layout_id(layout: Layout) -> str:
    order = "le" if layout.byte_order == "<" else "be"
    return f"{order}{8 * layout.long_size}-{layout.page_size}"


def streamed(
    path: Path, picks: Sequence[Pick] = PICKS, **bounds: int | None
) -> tuple[list[dict[str, Any]], PassResult]:
    """Return the rows of the stream and what the pass found."""
    source = open_source(path)
    result = PassResult()
    try:
        rows = [row for batch in source.stream(picks, result, **bounds) for row in batch.to_pylist()]
    finally:
        source.close()
    return rows, result


def tabled(
    path: Path, events: Sequence[str] = ("*",), **bounds: int | None
) -> tuple[dict[str, list[dict[str, Any]]], PassResult]:
    """Return the rows of typed tables by event, and what the pass found."""
    source = open_source(path)
    result = PassResult()
    rows: dict[str, list[dict[str, Any]]] = {}
    try:
        for event, batch in source.tables(events, result, **bounds):
            assert batch.schema == event.schema
            batch.validate(full=True)
            rows.setdefault(event.name, []).extend(batch.to_pylist())
    finally:
        source.close()
    return rows, result


def drain(source: Source, picks: Sequence[Pick] = PICKS) -> list[tuple[Any, ...]]:
    """Return everything that both kinds of pass say, in a form that compares."""
    seen: list[tuple[Any, ...]] = []
    for kind in ("stream", "tables"):
        result = PassResult()
        if kind == "stream":
            for batch in source.stream(picks, result):
                batch.validate(full=True)
                seen += [tuple(row.values()) for row in batch.to_pylist()]
        else:
            for event, batch in source.tables(["*"], result):
                batch.validate(full=True)
                seen += [(event.name, *map(str, row.values())) for row in batch.to_pylist()]
        seen.append((kind, repr(result)))
    return seen


def look(source: Source, **bounds: int) -> tuple[list[dict[str, Any]], PassResult]:
    """Return the rows that the model reads of a source, and what the pass found."""
    result = PassResult()
    batches = source.stream(tp.PICKS, result, **bounds)
    return [row for batch in batches for row in batch.to_pylist()], result
