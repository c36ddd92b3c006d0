from __future__ import annotations

import pytest

from apftrace_reports import units


def test_an_absent_duration_is_a_dash():
    assert units.duration(None) == "-"
    assert units.duration(1_500) == "1.5 µs"


def test_ticks_stay_whole():
    assert units.duration(1_234_567, "ticks") == "1,234,567 ticks"
    assert units.instant(1_234_567, "ticks") == "1234567"


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
