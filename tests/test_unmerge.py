"""Columns out of the narrow stream, in both engines, against the same said in Python."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apftrace import unmerge
from tests import engines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

ENGINES = {"compiled": unmerge, "interpreted": engines.interpreted([unmerge])["unmerge"]}
LONGS = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 3, 4, -1, 2**31 - 1, -(2**31)]), LONGS, LONGS, LONGS), max_size=40
)


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> ModuleType:
    """Return the module, compiled and interpreted."""
    engines.compiled([unmerge])
    return ENGINES[request.param]


def numbers(code: str, values: Sequence[int]) -> memoryview:
    return memoryview(array(code, values))


def bits(valid: bytearray, n: int) -> list[bool]:
    return [bool(valid[i >> 3] >> (i & 7) & 1) for i in range(n)]


def test_the_engines_are_two(engine: ModuleType) -> None:
    assert engine.COMPILED is not (engine.__file__ or "").endswith(".py")


@given(rows=ROWS, letter_of=st.lists(st.integers(-1, 2), min_size=4, max_size=4))
def test_a_column_is_what_its_picks_say(rows: list[tuple[int, ...]], letter_of: list[int]) -> None:
    for engine in ENGINES.values():
        out, valid = numbers("q", [7] * len(rows)), bytearray((len(rows) + 7) // 8)
        picks = numbers("i", [row[0] for row in rows])
        abc = (numbers("q", [row[1 + n] for row in rows]) for n in range(3))
        engine.column(picks, numbers("i", letter_of), *abc, out, memoryview(valid))
        held = [0 <= row[0] < len(letter_of) and letter_of[row[0]] >= 0 for row in rows]
        assert bits(valid, len(rows)) == held
        expected = [row[1 + letter_of[row[0]]] if has else 0 for row, has in zip(rows, held, strict=True)]
        assert list(out) == expected


@given(
    table=st.dictionaries(st.integers(-(2**31), 2**31 - 1), st.integers(0, 99), max_size=20),
    others=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=10),
    data=st.data(),
)
def test_what_is_looked_up_is_found_or_null(
    table: dict[int, int], others: list[int], data: st.DataObject
) -> None:
    wanted = data.draw(st.lists(st.sampled_from([*table, *others]), max_size=40)) if table or others else []
    keys = sorted(table)
    for engine in ENGINES.values():
        out, valid = numbers("i", [7] * len(wanted)), bytearray((len(wanted) + 7) // 8)
        values = numbers("i", [table[key] for key in keys])
        engine.look_up(numbers("i", wanted), numbers("i", keys), values, out, memoryview(valid))
        assert bits(valid, len(wanted)) == [key in table for key in wanted]
        assert list(out) == [table.get(key, 0) for key in wanted]


def test_count(engine: ModuleType) -> None:
    assert engine.count(numbers("i", [3, -1, 3, 0]), 3) == 2
    assert engine.count(numbers("i", []), 3) == 0
