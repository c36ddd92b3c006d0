"""What a walker finds in pages that a test wrote."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from apftrace_parsers.integers import zeros
from tests.builders.subbuf import Layout, SubbufWriter

if TYPE_CHECKING:
    from types import ModuleType

EVENT = 77
PICK = 0
ROWS = 4096


def payload(layout: Layout, value: int, *, event: int = EVENT, tid: int = 7, more: int = 0) -> bytes:
    """Return common fields, then an s64 at 8 and an s16 at 18; ``more`` bytes follow."""
    head = struct.pack(layout.byte_order + "HBBi", event, 0, 0, tid)
    return head + struct.pack(layout.byte_order + "qHh", value, 0xFFFF, -2) + bytes(more)


FIELDS = [(8, -8), (18, -2), (16, 2)]


class Found:
    """What a walker finds in the pages of CPU 3."""

    def __init__(
        self, engine: ModuleType, pages: bytes, layout: Layout, bounds: tuple[int, int] | None = None
    ) -> None:
        walker = engine.Walker(
            bytearray(pages),
            [3],
            [0],
            [layout.page_size],
            big=layout.byte_order == ">",
            long_size=layout.long_size,
        )
        walker.set_picks([(0, EVENT, PICK)], [FIELDS], 4)
        if bounds:
            walker.set_bounds(0, *bounds, 0, (1 << 62) - 1)
        columns = [zeros(code, ROWS) for code in "qiiiqqq"]
        walker.rows.set_output(columns)
        walker.feed(0, 0, len(pages))
        n = 0
        self.losses: list[tuple[int, ...]] = []
        if walker.join(0):
            while walker.live:
                n = walker.merge(n)
                assert n < ROWS - 1, "more rows than the test has room for"
                self.losses += walker.take_losses()
        self.rows: list[tuple[int, ...]] = [tuple(column[i] for column in columns) for i in range(n)]
        self.damage = walker.damage_counts()
        self.places = walker.damage_places()
        self.short = walker.short_records
        self.hits: dict[int, int] = walker.hits(0)
        self.ends = walker.ends(0)
        self.ends_in_gap = walker.ends_in_gap(0)
        self.disordered = walker.ends_disordered(0)
        self.backwards = walker.backwards

    def everything(self) -> dict[str, Any]:
        return vars(self)

    @property
    def stamps(self) -> list[int]:
        return [row[0] for row in self.rows]


def pages_of_three(layout: Layout) -> bytearray:
    """Return three pages with records at 0-2, 100-102 and 200-202."""
    writer = SubbufWriter(layout)
    for page in range(3):
        for i in range(3):
            writer.data(100 * page + i, payload(layout, i))
        writer.end_page()
    return bytearray(writer.finish())
