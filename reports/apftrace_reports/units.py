"""Numbers as people read them: up to three significant digits for durations, instants as the kernel prints them."""

from __future__ import annotations

from apftrace import amounts

ABSENT = "-"


def duration(value: int | None, unit: str = "ns") -> str:
    """Return a duration as ``amounts.duration`` tells it, or ABSENT."""
    return ABSENT if value is None else amounts.duration(value, unit)


def instant(value: int | None, unit: str = "ns") -> str:
    """Return a time stamp as seconds with nine decimals, the way ``trace-cmd report -t`` does."""
    if value is None:
        return ABSENT
    if unit != "ns":
        return str(value)
    sign = "-" if value < 0 else ""
    seconds, rest = divmod(abs(value), 10**9)
    return f"{sign}{seconds}.{rest:09d}"


def hexadecimal(value: int | None) -> str | None:
    """Return a token or an address as text, because 64 bits do not fit a JavaScript number."""
    return None if value is None else f"{value:#x}"


def count(value: int | None) -> str:
    """Return a count with thousands separated."""
    return ABSENT if value is None else f"{value:,}"


def plural(number: int, word: str, words: str | None = None) -> str:
    """Return ``1 finding`` or ``1,200 findings``."""
    return amounts.plural(number, word, words, spec=",")


def share(value: float | None) -> str:
    """Return a fraction as a percentage with three significant digits at most."""
    if value is None:
        return ABSENT
    percent = value * 100
    return f"{percent:.0f} %" if percent >= 99.95 or percent == 0 else f"{percent:.1f} %"
