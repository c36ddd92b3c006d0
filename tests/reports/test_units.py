from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apftrace_reports import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
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
    assert units.duration(value) == text


def test_ticks_stay_whole():
    assert units.duration(1_234_567, "ticks") == "1,234,567 ticks"
    assert units.instant(1_234_567, "ticks") == "1234567"


@given(st.integers(1_000, 999_000_000_000))
def test_a_duration_reads_back_within_half_a_percent(value):
    number, unit = units.duration(value).split()
    scale = {"µs": 10**3, "ms": 10**6, "s": 10**9}[unit]
    assert abs(float(number) * scale - value) <= value * 0.005 + 1
    assert len(re.sub(r"\D", "", number)) <= 3
    assert number == f"{float(number):.3g}"  # as the model says it


@pytest.mark.parametrize(
    ("value", "text"),
    [(4_211_000_000_001, "4211.000000001"), (-1, "-0.000000001"), (0, "0.000000000"), (None, "-")],
)
def test_an_instant_keeps_every_nanosecond(value, text):
    assert units.instant(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "0 %"), (0.1234, "12.3 %"), (0.9999, "100 %"), (1.0, "100 %")]
)
def test_a_share_is_a_percentage(value, text):
    assert units.share(value) == text


def test_hexadecimal_keeps_all_64_bits():
    assert units.hexadecimal(2**64 - 1) == "0xffffffffffffffff"
    assert units.hexadecimal(None) is None


def test_plural_agrees():
    assert [units.plural(number, "life", "lives") for number in (0, 1, 1_200)] == [
        "0 lives",
        "1 life",
        "1,200 lives",
    ]
