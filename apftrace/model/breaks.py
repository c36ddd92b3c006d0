# cython: annotation_typing=False, language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, infer_types=True
"""Where a chain of events is broken, so that a record is missing of which nothing else in the file tells.

One source, two engines, as the odometer. Who leaves a CPU came to it; a vCPU that enters the guest exits before
it enters again. What always breaks is a filter, or a kernel that traces otherwise, and shows no gap.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

COMPILED: bool = not __file__.endswith(".py")

_MOST = 4096
_COLUMNS = 5


class Break(NamedTuple):
    """A place where a record is missing: between ``since`` and ``ts``, last on CPU ``before``, then on ``after``."""

    tid: int
    before: int
    after: int
    since: int
    ts: int


class Breaks:
    """The breaks of one kind of chain.

    Args:
        rarely: links for each break, at least: with fewer the chain is of no use.
        few: breaks that may be in a record however short it is.
    """

    def __init__(self, rarely: int, few: int = 0) -> None:
        self.rarely = rarely
        self.few = few
        self.n = 0
        self.rows = memoryview(array("q", [0]) * (_COLUMNS * _MOST))

    def note(self, tid: int, before: int, after: int, since: int, ts: int) -> None:
        """Take a break: its thread, the CPUs and the instants of the last link before it and of the first after it."""
        if self.n < _MOST:
            at = _COLUMNS * self.n
            self.rows[at] = tid
            self.rows[at + 1] = before
            self.rows[at + 2] = after
            self.rows[at + 3] = since
            self.rows[at + 4] = ts
        self.n += 1

    def told(self, links: int) -> list[Break]:
        """Return the breaks among so many links, the first of very many; none if the chain breaks too often for one."""
        if self.n > self.few and self.n * self.rarely > links:
            return []
        kept = min(self.n, _MOST)
        return [Break(*self.rows[n : n + _COLUMNS]) for n in range(0, _COLUMNS * kept, _COLUMNS)]
