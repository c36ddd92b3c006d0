# cython: annotation_typing=False, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Copy fields out of collected payloads, column by column.

Compiled like `subbuf`, with the types of ``gather.pxd``; also runs as plain Python. Payloads lie one
behind the other in ``heap``; row r starts at ``at[r]`` and has ``size[r]`` bytes. ``rows`` are the row
numbers of one event, all of them long enough for its fields of fixed place (see ``select``); what lies
elsewhere in the record is checked row by row.
"""

from __future__ import annotations

try:
    import cython
except ImportError:
    from apftrace_parsers import _uncompiled as cython

COMPILED: bool = cython.compiled
"""Whether this is the compiled engine."""


def select(pick: memoryview, size: memoryview, n: int, wanted: int, least: int, rows: memoryview) -> int:
    """Write the numbers of the rows of one event with at least ``least`` bytes to ``rows``; count them."""
    found = 0
    for row in range(n):
        if pick[row] == wanted and size[row] >= least:
            rows[found] = row
            found += 1
    return found


def longs(source: memoryview, rows: memoryview, n: int, out: memoryview) -> None:
    """Copy the 64-bit values of n rows."""
    for i in range(n):
        out[i] = source[rows[i]]


def mapped(source: memoryview, values: memoryview, rows: memoryview, n: int, out: memoryview) -> None:
    """Copy ``values[source[r]]`` of n rows."""
    for i in range(n):
        out[i] = values[source[rows[i]]]


def values(
    heap: memoryview,
    at: memoryview,
    rows: memoryview,
    n: int,
    offset: int,
    width: int,
    count: int,
    swap: bool,
    out: memoryview,
) -> None:
    """Copy ``count`` elements of ``width`` bytes at a fixed offset, each turned around if ``swap``."""
    for i in range(n):
        copy(heap, at[rows[i]] + offset, width * count, width, swap, out, i * width * count)


def lists(
    heap: memoryview,
    at: memoryview,
    size: memoryview,
    rows: memoryview,
    n: int,
    offset: int,
    length: int,
    located: bool,
    relative: bool,
    text: bool,
    width: int,
    big: bool,
    swap: bool,
    ends: memoryview,
    out: memoryview,
) -> int:
    """Copy what differs in length from row to row.

    Args:
        heap: payloads.
        at: where records start.
        size: their length.
        rows: the rows to copy.
        n: how many.
        offset: of the field in the record.
        length: bytes of the field.
        located: the field is a location, u32 of length << 16 | offset (``__data_loc``).
        relative: that offset counts from the end of the field (``__rel_loc``).
        text: stop at NUL.
        width: bytes of an element.
        big: the location is big endian.
        swap: turn elements around.
        ends: receives the list offsets of Arrow, n + 1 numbers, in elements.
        out: receives the elements.

    Returns:
        Rows whose location leads out of the record; theirs are empty.
    """
    short = 0
    put = 0
    ends[0] = 0
    for i in range(n):
        start = at[rows[i]]
        room = size[rows[i]]
        begin = offset
        span = length
        if located:
            word = location(heap, start + offset, big)
            begin = word & 0xFFFF
            span = word >> 16
            if relative:
                begin += offset + 4
        if begin + span > room:
            short += 1
            span = 0
        if text:
            span = up_to_nul(heap, start + begin, span)
        span -= span % width
        copy(heap, start + begin, span, width, swap, out, put)
        put += span
        ends[i + 1] = put // width
    return short


def copy(
    heap: memoryview, start: int, length: int, width: int, swap: bool, out: memoryview, put: int
) -> None:
    """Copy elements, each turned around if ``swap``."""
    if not swap:
        for k in range(length):
            out[put + k] = heap[start + k]
    else:
        for k in range(length):
            out[put + k] = heap[start + k - k % width + width - 1 - k % width]


def location(heap: memoryview, start: int, big: bool) -> int:
    """Return a 32-bit location."""
    b0 = heap[start]
    b1 = heap[start + 1]
    b2 = heap[start + 2]
    b3 = heap[start + 3]
    if big:
        return b0 << 24 | b1 << 16 | b2 << 8 | b3
    return b3 << 24 | b2 << 16 | b1 << 8 | b0


def up_to_nul(heap: memoryview, start: int, length: int) -> int:
    """Return how many bytes stand before the first NUL."""
    for k in range(length):
        if heap[start + k] == 0:
            return k
    return length
