"""Numbers as people read them: up to three significant digits for durations, instants as the kernel prints them."""

from __future__ import annotations

ABSENT = "-"
_SCALES = ((10**3, "µs"), (10**6, "ms"), (10**9, "s"))


def duration(value: int | None, unit: str = "ns") -> str:
    """Return a duration with up to three significant digits, ``1.23 ms`` or ``7.4 ms``; ticks stay whole.

    As the sentences of the model say it: one life must not last 7.40 ms here and 7.4 ms there.

    Args:
        value: nanoseconds, or ticks.
        unit: ``ns`` or ``ticks``.
    """
    if value is None:
        return ABSENT
    if unit != "ns":
        return f"{value:,} {unit}"
    if value < 0:
        return "-" + duration(-value)
    if value < 1000:
        return f"{value} ns"
    for scale, name in _SCALES:
        number = _three_digits(value / scale)
        if float(number) < 1000:
            return f"{number} {name}"
    return f"{round(value / 10**9):,} s"


def _three_digits(value: float) -> str:
    for digits, limit in ((2, 9.995), (1, 99.95)):
        if value < limit:
            return f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return f"{value:.0f}"


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
    """Return ``1 finding`` or ``2 findings``."""
    return f"{count(number)} {word if number == 1 else words or word + 's'}"


def share(value: float | None) -> str:
    """Return a fraction as a percentage with three significant digits at most."""
    if value is None:
        return ABSENT
    percent = value * 100
    return f"{percent:.0f} %" if percent >= 99.95 or percent == 0 else f"{percent:.1f} %"
