"""The ways in which columns come to the lives: beside them, without copying what is there; and outcomes turned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping


def attach(lives: pl.DataFrame, piece: pl.DataFrame, key: str = "life") -> pl.DataFrame:
    """Return ``lives`` with the columns of ``piece``, matched by ``key``; null where it has no row.

    Only the key goes through the join, for the lives are wide, and in order on both sides, which polars then merges.

    Args:
        lives: has a unique column ``key``, in order.
        piece: has ``key``, unique, and new columns.
        key: column of both.
    """
    if not piece.height:
        return without(lives, piece.drop(key).schema)
    piece = piece.sort(key)
    if not piece[key].equals(lives[key]):
        piece = lives.select(key).join(piece, on=key, how="left", maintain_order="left")
    return _hung(lives, piece.drop(key))


def firsts(rows: pl.DataFrame, key: str) -> pl.DataFrame:
    """Return the first row of each ``key``, in the order of the keys; null is none."""
    rows = rows.filter(pl.col(key).is_not_null()).sort(key, maintain_order=True)
    first = rows[key].ne_missing(rows[key].shift(1))
    return rows if first.all() else rows.filter(first)


def is_first(values: pl.Series) -> pl.Series:
    """Say of each value whether it is there and the first of its kind."""
    there = values.is_not_null()
    # To sort values that are nearly in order takes a fifth of hashing them.
    known = values.drop_nulls().sort()
    return there & values.is_first_distinct() if (known == known.shift(1)).any() else there


def look_up(rows: pl.DataFrame, table: pl.DataFrame, key: str, **columns: pl.Expr) -> pl.DataFrame:
    """Return ``rows`` with expressions over the rows of ``table`` that their column ``key`` names; null for none.

    Args:
        rows: has ``key``, in any order.
        table: has ``key``, unique and in order.
        key: column of both.
        columns: by name.
    """
    at = table[key].set_sorted().search_sorted(rows[key])
    at = pl.select(pl.when(at < table.height).then(at)).to_series()
    found = table.select(key, **columns).select(pl.all().gather(at))
    meant = found[key] == rows[key]
    return rows.hstack(found.select(pl.when(meant).then(c).alias(c) for c in columns))


def by_thread(lives: pl.DataFrame, piece: pl.DataFrame) -> pl.DataFrame:
    """Return ``lives`` with the columns of ``piece``, matched by ``tid``; null where it has no row."""
    found = lives.select("tid").join(piece, on="tid", how="left", maintain_order="left")
    return _hung(lives, found.drop("tid"))


def _hung(lives: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    empty = {c.name: c.dtype for c in found if c.null_count() == len(c)}
    return without(lives.hstack(found.drop(empty)), empty)


def without(lives: pl.DataFrame, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return ``lives`` with columns that say nothing of any of them."""
    # A literal takes no memory, and of most traces half of the columns are such.
    return lives.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in columns.items())


def turn(lives: pl.DataFrame, hit: pl.Series | pl.Expr, outcome: str, *, rule: str | None) -> pl.DataFrame:
    """Return ``lives`` with another ``outcome`` and ``lost_rule``.

    Args:
        lives: has both.
        hit: the lives that are turned, by number; or an expression that says which.
        outcome: theirs.
        rule: the rule that blames them all the same; null for none, ``keep`` leaves the one that did.
    """
    chosen = pl.col("life").is_in(hit.implode()) if isinstance(hit, pl.Series) else hit
    turned = lives.with_columns(chosen.fill_null(value=False).alias("turned")).with_columns(
        pl.when("turned").then(pl.lit(outcome)).otherwise("outcome").alias("outcome"),
        pl.when("turned").then(pl.lit(rule, pl.String)).otherwise("lost_rule").alias("lost_rule")
        if rule != "keep"
        else pl.col("lost_rule"),
    )
    return turned.drop("turned")
