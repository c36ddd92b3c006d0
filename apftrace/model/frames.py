"""The ways in which columns come to the lives: beside them, without copying what is there; and outcomes turned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping


def attach(lives: pl.DataFrame, piece: pl.DataFrame, key: str = "life") -> pl.DataFrame:
    """Return ``lives`` with the columns of ``piece``, matched by ``key``; null where it has no row.

    Args:
        lives: has a column ``key``.
        piece: has ``key`` and new columns; of several rows with one key the first counts, of a null none.
        key: column of both, a row among all anchors.
    """
    if not piece.height:
        return without(lives, piece.drop(key).schema)
    found = piece.drop(key)
    if not (piece[key].equals(lives[key]) and _ascends(lives[key])):
        found = found.select(pl.all().gather(_places(piece[key], lives[key])))
    return _hung(lives, found)


def _places(keys: pl.Series, wanted: pl.Series) -> pl.Series:
    """Return per wanted key the place of the first like it in ``keys``; null for none.

    Rows among all anchors are small numbers: to look them up in a table of all takes a third of joining them.
    """
    # What is written last stays.
    places = pl.int_range(len(keys), dtype=pl.UInt32, eager=True).reverse()
    keys = keys.reverse()
    there = (keys >= 0).fill_null(value=False)
    if not there.all():
        places, keys = places.filter(there), keys.filter(there)
    # polars would count from the end.
    if (wanted < 0).any():
        wanted = pl.select(pl.when(wanted >= 0).then(wanted)).to_series()
    size = max(_most(keys), _most(wanted)) + 1
    return pl.repeat(None, size, dtype=pl.UInt32, eager=True).scatter(keys, places).gather(wanted)


def _most(keys: pl.Series) -> int:
    most = keys.max()
    return most if isinstance(most, int) else 0


def _ascends(keys: pl.Series) -> bool:
    return not keys.null_count() and bool((keys > keys.shift(1)).all())


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
        table: has ``key``, unique.
        key: column of both, a row among all anchors.
        columns: by name.
    """
    at = _places(table[key], rows[key])
    return rows.hstack(table.select(**columns).select(pl.all().gather(at)))


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
