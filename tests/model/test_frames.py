"""How columns come to the lives: matched, looked up, or as nothing at all."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from apftrace.model.frames import attach, is_first, look_up

KEYS = st.lists(st.integers(0, 40), unique=True, max_size=20)
LIVES = pl.DataFrame({"life": [2, 5, 7], "tid": [1, 1, 2]})


@pytest.mark.parametrize(
    "keys",
    [[2, 5, 7], [7, 2, 5], [5], [], [9], [1, 2, 3, 5, 8]],
    ids=["all", "unordered", "one", "no", "other", "mixed"],
)
def test_a_piece_is_matched_by_its_key(keys):
    piece = pl.DataFrame(
        {"life": keys, "ready": [10 * k for k in keys]}, schema={"life": pl.Int64, "ready": pl.Int64}
    )
    got = attach(LIVES, piece)
    assert got["ready"].to_list() == [10 * k if k in keys else None for k in (2, 5, 7)]
    assert got.schema == {**LIVES.schema, "ready": pl.Int64}


@given(KEYS, st.lists(st.integers(0, 40) | st.none(), max_size=60))
def test_attaching_is_a_left_join_of_the_first_of_each_key(lives, keys):
    rows = pl.DataFrame({"life": lives}, schema={"life": pl.Int64})
    piece = pl.DataFrame(
        {"life": keys, "x": range(len(keys))}, schema={"life": pl.Int64, "x": pl.Int64}, strict=False
    )
    first = piece.unique("life", keep="first", maintain_order=True)
    assert_frame_equal(attach(rows, piece), rows.join(first, on="life", how="left", maintain_order="left"))


def test_the_first_counts_of_very_many_too():
    keys = pl.Series("life", [n * 7919 % 50_000 for n in range(150_000)])
    piece = pl.DataFrame({"life": keys, "x": range(150_000)})
    got = attach(pl.DataFrame({"life": keys[:50_000]}), piece)
    assert got["x"].equals(pl.Series(range(50_000)))


@given(st.lists(st.integers(0, 40) | st.none(), max_size=20), KEYS)
def test_looking_up_is_a_left_join(wanted, keys):
    rows = pl.DataFrame({"seq": wanted}, schema={"seq": pl.Int64})
    table = pl.DataFrame({"seq": keys}, schema={"seq": pl.Int64})
    got = look_up(rows, table, "seq", twice=pl.col("seq") * 2)
    assert got["twice"].to_list() == [2 * w if w in keys else None for w in wanted]


@given(st.lists(st.integers(0, 6) | st.none(), max_size=20))
def test_the_first_of_each_value_is_told(values):
    series = pl.Series(values, dtype=pl.Int64)
    assert is_first(series).to_list() == [v is not None and v not in values[:n] for n, v in enumerate(values)]


def test_a_number_below_all_rows_is_none():
    table = pl.DataFrame({"seq": [-2, 0, 2], "x": [7, 8, 9]})
    assert look_up(pl.DataFrame({"seq": [-1, -9, 0]}), table, "seq", y=pl.col("x"))["y"].to_list() == [
        None,
        None,
        8,
    ]


@pytest.mark.parametrize(
    ("keys", "expected"), [([1, 1], [10, 10]), ([None, 1], [None, 20]), ([2, 1], [10, 20])]
)
def test_equal_keys_are_matched_like_others(keys, expected):
    got = attach(pl.DataFrame({"life": keys}), pl.DataFrame({"life": keys, "x": [10, 20]}))
    assert got["x"].to_list() == expected
