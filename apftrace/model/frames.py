"""The one way in which columns come to the lives: beside them, without copying what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def attach(lives: pl.DataFrame, piece: pl.DataFrame) -> pl.DataFrame:
    """Return ``lives`` with the columns of ``piece``, matched by ``life``; null where it has no row.

    Only ``life`` goes through the join: the lives are wide, and there are many pieces.

    Args:
        lives: has a unique column ``life``.
        piece: has ``life``, unique, and new columns.
    """
    found = lives.select("life").join(piece, on="life", how="left", maintain_order="left")
    return lives.hstack(found.drop("life"))


def by_thread(lives: pl.DataFrame, piece: pl.DataFrame) -> pl.DataFrame:
    """Return ``lives`` with the columns of ``piece``, matched by ``tid``; null where it has no row."""
    found = lives.select("tid").join(piece, on="tid", how="left", maintain_order="left")
    return lives.hstack(found.drop("tid"))
