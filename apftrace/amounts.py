"""Amounts as people read them, alike everywhere: one life must not last 7.40 ms here and 7.4 ms there."""

from __future__ import annotations

_SCALES = ((10**3, "µs"), (10**6, "ms"), (10**9, "s"))


def duration(value: int, unit: str = "ns") -> str:
    """Return a duration with up to three significant digits, ``1.23 ms`` or ``7.4 ms``; ticks stay whole.

    Args:
        value: nanoseconds, or ticks.
        unit: ``ns`` or ``ticks``.
    """
    if unit != "ns":
        return f"{value:,} {unit}"
    if value < 0:
        return "-" + duration(-value)
    if value < 1000:
        return f"{value} ns"
    for scale, name in _SCALES:
        if value < 999.5 * scale:
            return f"{value / scale:.3g} {name}"
    return f"{round(value / 10**9):,} s"


def plural(number: int, word: str, words: str | None = None, *, spec: str = "") -> str:
    """Return a count with its noun, ``1 entry`` or ``2 entries``.

    Args:
        number: how many.
        word: for one.
        words: for any other number, where that is not ``word`` with an s.
        spec: how the number is written, ``,`` to have thousands apart.
    """
    return f"{number:{spec}} {word if number == 1 else words or word + 's'}"
