# cython: annotation_typing=False, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Rows of the narrow stream made columns again: which of a, b, c holds a field depends on the row's pick.

Compiled with the types of ``unmerge.pxd``; without a compiler it runs as plain Python. Bitmaps are Arrow's: a bit
a row, the lowest first, set where there is a value; they come here all zeros.
"""

from __future__ import annotations

try:
    import cython
except ImportError:
    from apftrace_parsers import uncompiled as cython

COMPILED: bool = cython.compiled
"""Whether this is the compiled engine."""


def column(
    pick: memoryview,
    letter_of: memoryview,
    a: memoryview,
    b: memoryview,
    c: memoryview,
    out: memoryview,
    valid: memoryview,
) -> None:
    """Put a column together.

    Args:
        pick: of each row; all columns are as long. One that is not in ``letter_of`` has no such field.
        letter_of: per pick 0, 1 or 2 for a, b or c; -1 where its event has no such field.
        a: of each row, as b and c.
        b: see a.
        c: see a.
        out: the values; 0 where there is none.
        valid: bitmap of the rows that have one.
    """
    with cython.nogil:
        for i in range(len(pick)):
            letter = letter_of[pick[i]] if 0 <= pick[i] < len(letter_of) else -1
            if letter < 0:
                out[i] = 0
                continue
            out[i] = a[i] if letter == 0 else b[i] if letter == 1 else c[i]
            valid[i >> 3] |= 1 << (i & 7)


def look_up(
    wanted: memoryview, keys: memoryview, values: memoryview, out: memoryview, valid: memoryview
) -> None:
    """Look up numbers in a table.

    Args:
        wanted: what to look for, row by row.
        keys: ascending, each once.
        values: of the keys.
        out: the value of each row, as long as ``wanted``; 0 where there is none.
        valid: bitmap of the rows that have one.
    """
    with cython.nogil:
        at = 0
        for i in range(len(wanted)):
            key = wanted[i]
            # Rows of a thread come in runs.
            if at >= len(keys) or keys[at] != key:
                at = _first_from(keys, key)
            if at < len(keys) and keys[at] == key:
                out[i] = values[at]
                valid[i >> 3] |= 1 << (i & 7)
            else:
                out[i] = 0


def _first_from(keys: memoryview, key: int) -> int:
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


def count(values: memoryview, wanted: int) -> int:
    """Return how often a number is among others."""
    n = 0
    with cython.nogil:
        for i in range(len(values)):
            n += values[i] == wanted
    return n
