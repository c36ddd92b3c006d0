"""Which life of the host a hit of the guest may belong to, before and after the clocks are known.

Tokens are compared where the guest's probe shows them. The function tracers show none: there the vCPU
tells, which in a Linux guest is the CPU of the same number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.frames import attach

if TYPE_CHECKING:
    from apftrace.model.correlate import Case
    from apftrace.model.guest.recording import GuestRecording

TOKEN_MASK = 0xFFFFFFFF
SAMPLE = 400
"""Hits without a token that vote: each meets every life of its vCPU ..."""

MOST_PAIRS = 4_000_000
"""... so that there are fewer the more lives there are."""

HITS = ("wait", "wake")
"""Kinds of hit that belong to one life."""


def host_lives(case: Case, vm: str | None = None) -> pl.DataFrame:
    """Return what of the host's lives a guest's hits can be compared with, one row per life.

    ``told`` is the earliest instant at which the guest can know of the fault, ``not_after`` the latest at
    which it can begin to wait: the next fault of the vCPU, which needs interrupts on (R8). ``taken`` and
    ``over`` bound the wake: the page-ready slot is filled at ``taken``, and free for the ACK or the next
    delivery (R11) at ``over``.

    Args:
        case: the host's case.
        vm: only the lives of this VM.
    """
    lives = case.lives if vm is None else case.lives.filter(pl.col("vm") == vm)
    own = lives.select(
        "life", "vm", "vcpu", "tid", "kind", "outcome", "not_present", "ready", "acked",
        (pl.col("token") & TOKEN_MASK).alias("token"),
        pl.coalesce("pf_injected", "not_present").alias("told"),
        pl.col("not_present").shift(-1).over("tid").alias("not_after"),
        pl.coalesce("accepted", "ready").alias("taken"),
    )  # fmt: skip
    slots = (
        case.delivered.select("tid", "life", "start")
        .sort("tid", "start")
        .with_columns(pl.col("start").shift(-1).over("tid").alias("next_taken"))
        .select("life", "next_taken")
    )
    own = attach(own, slots)
    return own.with_columns(pl.coalesce("acked", "next_taken").alias("over")).drop("next_taken")


def hits_of(rec: GuestRecording) -> pl.DataFrame:
    """Return the waits and wakes of a guest: seq, ts, vcpu (its CPU), kind and token."""
    return rec.hits.filter(pl.col("kind").is_in(HITS)).select(
        "seq", "ts", pl.col("cpu").alias("vcpu"), "kind", (pl.col("token") & TOKEN_MASK).alias("token")
    )


def has_tokens(hits: pl.DataFrame) -> bool:
    """Say whether the guest's probes show tokens."""
    return bool(hits.height) and hits["token"].null_count() * 2 < hits.height


def pairs(lives: pl.DataFrame, hits: pl.DataFrame, grain: int = 0) -> pl.DataFrame:
    """Return every pair that may belong together, with the offsets (host minus guest) that it allows.

    Columns: those of the hit, life, ``low`` and ``high`` (null where nothing bounds that side).

    Args:
        lives: from ``host_lives``, of one VM.
        hits: from ``hits_of``.
        grain: by how much stamps are rounded: text shows microseconds.
    """
    told = lives.filter((pl.col("kind") != "halt") & (pl.col("token") != tp.BROADCAST))
    if has_tokens(hits):
        chosen, key = hits.filter(pl.col("token").is_not_null()), "token"
    else:
        # A wait fits between any two faults of its vCPU; a wake only while the slot was full.
        hits = hits.filter(pl.col("kind") == "wake") if (hits["kind"] == "wake").any() else hits
        most = min(SAMPLE, MOST_PAIRS // max(1, told.height))
        step = max(1, -(-hits.height // max(1, most)))
        chosen, key = hits.gather_every(step).drop("token"), "vcpu"
    met = chosen.join(
        told.select(key, "life", "told", "not_after", "taken", "over"),
        on=key,
        how="inner",
        maintain_order="left",
    )
    return bounded(met, grain)


def bounded(met: pl.DataFrame, grain: int) -> pl.DataFrame:
    """Add ``low`` and ``high`` to pairs of hit and life; see `host_lives` for what bounds them."""
    is_wait = pl.col("kind") == "wait"
    return met.with_columns(
        (pl.when(is_wait).then("told").otherwise("taken") - pl.col("ts") - grain).alias("low"),
        (pl.when(is_wait).then("not_after").otherwise("over") - pl.col("ts") + grain).alias("high"),
    )
