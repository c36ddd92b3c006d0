"""The sums that must balance, per vCPU and in total."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.switched_on import hits
from apftrace.schema import ACCOUNTING

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

_OUTCOMES = {
    "answered": ("answered",),
    "cancelled": ("cancelled", "woken_by_all"),
    "in_flight": ("in_flight",),
    "lost": ("lost",),
    "undecided": ("undecided",),
}
_STRAY = ["again", "spurious", "unissued", "undecided", "none"]
_COUNTS = (
    "try", "not_present", "repeated", "refused", "ready", "wake_all", *_OUTCOMES, "left_truncated", "stray",
    "repaired", "delivered", "acks", "cut", "headless", "headless_repeated", "lost_told",
)  # fmt: skip


def account(
    rec: Recording,
    threads: pl.DataFrame,
    lives: pl.DataFrame,
    tries: pl.DataFrame,
    readies: pl.DataFrame,
    delivered: pl.DataFrame,
    acks: pl.DataFrame,
) -> pl.DataFrame:
    """Return the table ``accounting``: a row per vCPU thread, then the total."""
    became = pl.col("became")
    parts = (
        _counts(
            tries,
            {
                "try_alone": (pl.col("kind") == tp.TRY) | pl.col("after_try"),
                "repeated": pl.col("kind") == tp.REPEATED,
                "refused": became == "refused",
                "cut": became == "cut",
                "headless_repeated": became.is_null() & pl.col("at_head") & ~pl.col("after_try"),
            },
        ),
        _of_lives(lives),
        _of_readies(readies),
        _counts(delivered, {"delivered": pl.col("implied").is_null()}),
        _counts(acks, {"acks": pl.col("seq").is_not_null()}),
    )
    table = threads.select("tid", "vm", "vcpu", pl.lit(rec.machine).alias("machine"))
    for part in parts:
        table = table.join(part, on="tid", how="left", maintain_order="left")
    # The try of a life or of a repeated fault has no row of its own.
    tried = pl.col("try_alone").fill_null(0) + pl.col("try_of_life").fill_null(0)
    table = table.with_columns(tried.alias("try")).select(
        "tid", "vm", "vcpu", "machine", *(pl.col(c).fill_null(0).cast(pl.Int64) for c in _COUNTS)
    )
    total = table.select(
        pl.lit(None, pl.Int32).alias("tid"),
        pl.lit(None, pl.String).alias("vm"),
        pl.lit(None, pl.Int32).alias("vcpu"),
        pl.lit(rec.machine).alias("machine"),
        *(pl.col(c).sum() for c in _COUNTS),
    )
    table = pl.concat([table.sort("vm", "vcpu", "tid"), total.select(table.columns)])
    broken = [_broken(rec, row, max(1, threads.height)) for row in table.iter_rows(named=True)]
    return ACCOUNTING.conform(
        table.with_columns(
            pl.col("headless") + pl.col("headless_repeated"),
            pl.Series("broken", broken, pl.List(pl.String)),
            pl.Series("balanced", [not b for b in broken]),
        )
    )


def _counts(frame: pl.DataFrame, chosen: dict[str, pl.Expr]) -> pl.DataFrame:
    """Return per tid how many rows each expression chooses."""
    return frame.group_by("tid").agg(where.sum().alias(name) for name, where in chosen.items())


def _of_lives(lives: pl.DataFrame) -> pl.DataFrame:
    """Return the counts of lives per tid."""
    repaired = pl.col("ready").is_null() & pl.col("repaired").is_not_null()
    # Few outcomes and many lives: an outcome is compared once, not once a life.
    sums = lives.group_by("tid", "outcome").agg(
        pl.col("try").count().alias("try_of_life"),
        pl.col("headless").sum(),
        pl.len().alias("not_present"),
        repaired.sum().alias("repaired"),
        pl.col("ready").count().alias("told"),
    )
    summed = ("try_of_life", "headless", "not_present", "repaired")
    return sums.group_by("tid").agg(
        *(pl.col(c).sum() for c in summed),
        pl.col("told").filter(pl.col("outcome") == "lost").sum().alias("lost_told"),
        *(
            pl.col("not_present").filter(pl.col("outcome").is_in(outcomes)).sum().alias(name)
            for name, outcomes in _OUTCOMES.items()
        ),
    )


def _of_readies(readies: pl.DataFrame) -> pl.DataFrame:
    """Return the counts of readies per tid."""
    sums = readies.group_by("tid", "answer").agg(pl.len().alias("n"), pl.col("broadcast").sum())
    return sums.group_by("tid").agg(
        (pl.col("n") - pl.col("broadcast")).sum().alias("ready"),
        pl.col("broadcast").sum().alias("wake_all"),
        pl.col("n").filter(pl.col("answer") == "truncated").sum().alias("left_truncated"),
        pl.col("n").filter(pl.col("answer").is_in(_STRAY)).sum().alias("stray"),
    )


def _broken(rec: Recording, row: dict[str, int | None], n_vcpus: int) -> list[str]:
    """Return the identities that do not hold in one row, with their numbers.

    Each compares sums that are counted apart: hits of different tracepoints, lives by their outcome, and in the
    total what the parser counted in the file with what the model made of it.
    """
    n = {c: int(row[c] or 0) for c in _COUNTS}
    allowed = 1 if row["tid"] is not None else n_vcpus
    out = _unread(rec, n) if row["tid"] is None else []
    # The record may begin and end inside a fault: a try cut off at the end, a not_present whose try is missing.
    tried = n["try"] - n["cut"] + n["headless"] + n["headless_repeated"]
    if rec.has(tp.TRY, tp.REPEATED) and tried != n["not_present"] + n["repeated"] + n["refused"]:
        out.append(
            f"try {n['try']} != not_present {n['not_present']} + repeated {n['repeated']} + refused {n['refused']}"
        )
    answered = n["answered"] + n["lost_told"] + n["left_truncated"] + n["stray"] - n["repaired"]
    if n["ready"] != answered:
        out.append(
            f"ready {n['ready']} != answered {n['answered'] + n['lost_told']} + left_truncated {n['left_truncated']} "
            f"+ stray {n['stray']} - repaired {n['repaired']}"
        )
    closed = n["ready"] - n["left_truncated"] - n["stray"] + n["repaired"]
    still = n["in_flight"] + n["undecided"] + n["lost"] - n["lost_told"]
    if n["not_present"] != closed + n["cancelled"] + still:
        out.append(
            f"not_present {n['not_present']} != ready {closed} (without stray and left_truncated, with repaired) + "
            f"cancelled {n['cancelled']} + open {still}"
        )
    if rec.has(tp.ACCEPT, tp.MSR) and abs(n["delivered"] - n["acks"]) > allowed:
        out.append(f"delivered {n['delivered']} != acks {n['acks']} within {allowed}")
    return out


def _unread(rec: Recording, n: dict[str, int]) -> list[str]:
    """Return the tracepoints of which the file holds more or fewer records than the model counted."""
    found = {
        tp.TRY: n["try"],
        tp.REPEATED: n["repeated"],
        tp.NOT_PRESENT: n["not_present"],
        tp.READY: n["ready"] + n["wake_all"],
    }
    return [
        f"{tp.NAMES[kind]} {counted} != {hits(rec, kind)} in the trace"
        for kind, counted in found.items()
        if counted != hits(rec, kind)
    ]
