# cython: annotation_typing=False, language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, infer_types=True
"""Where a chain of events is broken, so that a record is missing of which nothing else in the file tells.

One source, two engines, as the odometer. Who leaves a CPU came to it; a vCPU that enters the guest exits before
it enters again. What always breaks is a filter, or a kernel that traces otherwise, and shows no gap.
"""

from __future__ import annotations

from array import array

COMPILED: bool = not __file__.endswith(".py")

_MOST = 256


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
        self.rows = memoryview(array("q", [0]) * (3 * _MOST))

    def note(self, cpu: int, since: int, ts: int) -> None:
        """Take a break: the CPU, the last link before it and the first one after it."""
        if self.n < _MOST:
            self.rows[3 * self.n] = cpu
            self.rows[3 * self.n + 1] = since
            self.rows[3 * self.n + 2] = ts
        self.n += 1

    def told(self, links: int) -> list[tuple[int, int, int]]:
        """Return the breaks among so many links: cpu, after and before; none if there are too many to mean anything."""
        if self.n > _MOST or (self.n > self.few and self.n * self.rarely > links):
            return []
        return [(self.rows[n], self.rows[n + 1], self.rows[n + 2]) for n in range(0, 3 * self.n, 3)]
