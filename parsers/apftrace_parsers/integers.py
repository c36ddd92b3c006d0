"""What the modules that walk sub-buffers share: integers in arrays, and what some of them stand for."""

from __future__ import annotations

from array import array

EVENT_IDS = 1 << 16
NO_NS = -(1 << 63)
"""Stands for an absent time in the stream and in the list of losses."""
UNKNOWN = -1

NOTHING, RECORD, GAP = range(3)
"""What stands at the head of a lane."""

SINCE_EVER = 2
"""A gap of which nobody knows where it begins: pages from later on stood before it."""

BAD_STAMP, BAD_COMMIT, BAD_RECORD, NO_HEADER, BAD_ORDER = range(5)
"""Kinds of damage."""
N_DAMAGE_KINDS = 5

WORD = 1 << 32
SIGN = 1 << 31


def zeros(code: str, n: int) -> memoryview:
    """Return n zeros of an array type code."""
    return memoryview(array(code, bytes(array(code).itemsize * max(n, 1))))


def filled(value: int, n: int) -> memoryview:
    """Return n times a number, as 64 bits."""
    return memoryview(array("q", [value] * n))
