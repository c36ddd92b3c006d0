"""What rules state, put together as the table ``findings``: numbered, in order, with vCPU and evidence."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from apftrace.grades import SEVERITIES
from apftrace.model.evidence import texts
from apftrace.model.rules.base import EVIDENCE_PER_RULE, framed, listed
from apftrace.model.vms import named_threads
from apftrace.schema import FINDINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apftrace.model.correlate import Case
    from apftrace.model.rules.base import Finding

_SEVERITY_ORDER = {severity: place for place, severity in enumerate(SEVERITIES)}

_UNSIGNED = ("blocker", "gva", "token")
_LISTS = ("ruled_out", "not_ruled_out", "seqs", "seen")


@cache
def _stated_types() -> dict[str, pa.DataType]:
    # Those of the table, but for what is added here, and with the anchors and a guest's events for evidence.
    own = {f.name: f.type for f in FINDINGS.arrow() if f.name not in ("id", "rule", "vm", "vcpu")}
    own |= dict.fromkeys(_UNSIGNED, pa.int64())
    return own | {"seqs": pa.large_list(pa.int64()), "seen": own.pop("evidence")}


def stated(found: Iterable[Finding] | pl.DataFrame) -> pl.DataFrame:
    """Return what a rule states as a frame with the columns of ``Finding``.

    Args:
        found: the findings; or a frame of them already, of which columns that say nothing may be missing.
    """
    if isinstance(found, pl.DataFrame):
        return _filled(found)
    rows = list(found)
    columns = {
        name: pa.array([f.get(name, () if name in _LISTS else None) for f in rows], dtype)
        for name, dtype in _stated_types().items()
    }
    return framed(columns) if rows else _nothing()


def _filled(found: pl.DataFrame) -> pl.DataFrame:
    def column(name: str, dtype: pl.DataType) -> pl.Expr:
        if name in found.columns:
            return pl.col(name).cast(dtype)
        return pl.lit([] if name in _LISTS else None, dtype).alias(name)

    return found.select(column(*one) for one in _nothing().schema.items())


@cache
def _nothing() -> pl.DataFrame:
    return framed({name: pa.array([], dtype) for name, dtype in _stated_types().items()})


def table(case: Case, found: Sequence[tuple[str, pl.DataFrame]]) -> pl.DataFrame:
    """Return the table ``findings``, the most severe first.

    Args:
        case: the case.
        found: rule ids, each with what the rule ``stated``.
    """
    parts = [
        frame.with_columns(pl.lit(rule).alias("rule"), pl.int_range(1, pl.len() + 1).alias("n"))
        for rule, frame in found
        if frame.height
    ]
    if not parts:
        return FINDINGS.empty()
    order = pl.col("severity").replace_strict(_SEVERITY_ORDER, return_dtype=pl.Int8)
    rows = pl.concat(parts).sort(order, maintain_order=True)
    rows = rows.with_columns(
        pl.concat_str("rule", pl.lit("-"), "n").alias("id"),
        _evidence(case, rows),
        pl.col("machine").fill_null(case.rec.machine),
        *(pl.col(c).reinterpret(signed=False) for c in _UNSIGNED),
    )
    named = named_threads(case.rec, case.threads)
    return FINDINGS.conform(rows.join(named, on="tid", how="left", maintain_order="left"))


def _evidence(case: Case, rows: pl.DataFrame) -> pl.Series:
    """Return the events of each finding in order of time; none of those that come late in their rule."""
    early = rows["n"] <= EVIDENCE_PER_RULE
    told = rows.filter(early).select("seqs", "seen").rows()
    shown = texts(case.rec, (s for seqs, _ in told for s in seqs if s is not None))

    def events(seqs: list[int | None], seen: list[dict[str, object]]) -> list[dict[str, object]]:
        own = [shown[s] for s in seqs if s is not None and s in shown]
        return sorted([*own, *seen], key=lambda e: e["ts"])  # type: ignore[arg-type, return-value]

    told_next = iter(told)
    return listed("evidence", [events(*next(told_next)) if one else [] for one in early])
