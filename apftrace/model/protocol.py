"""Which protocol host and guest speak here, and why we think so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.analysis import Protocol
from apftrace.model import tracepoints as tp

if TYPE_CHECKING:
    from apftrace.model.recording import Recording


def protocol(
    rec: Recording, lives: pl.DataFrame, delivered: pl.DataFrame, vectors: frozenset[int]
) -> Protocol:
    """Decide between ``int``, ``legacy``, ``halt-only`` and ``unknown``."""
    enables = rec.kind(tp.MSR).filter(
        (pl.col("a") == 1) & (pl.col("b") == tp.MSR_EN) & (pl.col("c") & 1 == 1)
    )
    send_always = bool((enables["c"] & tp.EN_SEND_ALWAYS != 0).any()) if enables.height else None
    vector = min(vectors) if len(vectors) == 1 else None
    acks = rec.kind(tp.MSR).filter((pl.col("a") == 1) & (pl.col("b") == tp.MSR_ACK)).height
    handed = delivered["accepted"].count()
    if acks or handed:
        seen = [
            f"{handed} page-ready interrupts accepted" if handed else "",
            f"{acks} ACK writes" if acks else "",
        ]
        return Protocol("int", vector, send_always, " and ".join(s for s in seen if s))
    if enables.height:
        kind = "int" if (enables["c"] & tp.EN_DELIVERY_AS_INT != 0).any() else "legacy"
        return Protocol(
            kind, vector if kind == "int" else None, send_always, "MSR 4b564d02 was written with bit 0 set"
        )
    told = (lives["kind"] == "pv").sum()
    if told and rec.has(tp.ACCEPT):
        return Protocol(
            "legacy", None, None, f"{told} not_present injected, no page-ready interrupt accepted"
        )
    if lives.height and (lives["kind"] == "halt").all():
        return Protocol("halt-only", None, None, "no fault was injected into a guest, no ACK was written")
    return Protocol(
        "unknown", None, None, "the tracepoints that tell are not in the trace, or no fault occurred"
    )
