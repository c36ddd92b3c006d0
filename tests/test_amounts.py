from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apftrace.amounts import duration, plural


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1 µs"),
        (9_994, "9.99 µs"),
        (9_996, "10 µs"),
        (99_960, "100 µs"),
        (999_400, "999 µs"),
        (999_600, "1 ms"),
        (21_000_000, "21 ms"),
        (999_999_999, "1 s"),
        (1_234_000_000_000, "1,234 s"),
        (-1_500, "-1.5 µs"),
    ],
)
def test_a_duration_has_up_to_three_digits(value, text):
    assert duration(value) == text


def test_ticks_stay_whole():
    assert duration(1_234_567, "ticks") == "1,234,567 ticks"


@given(st.integers(1_000, 999_000_000_000))
def test_a_duration_reads_back_within_half_a_percent(value):
    number, unit = duration(value).split()
    scale = {"µs": 10**3, "ms": 10**6, "s": 10**9}[unit]
    assert abs(float(number) * scale - value) <= value * 0.005 + 1
    assert len(re.sub(r"\D", "", number)) <= 3
    assert number == f"{float(number):.3g}"


def test_a_noun_agrees_with_its_number():
    assert [plural(n, "life", "lives") for n in (0, 1, 2)] == ["0 lives", "1 life", "2 lives"]
    assert [plural(n, "wait") for n in (1, 2)] == ["1 wait", "2 waits"]
    assert [plural(1_200, "wait", spec=spec) for spec in ("", ",")] == ["1200 waits", "1,200 waits"]
