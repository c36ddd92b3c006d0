"""When the windows of a lane begin, as a whole pass noted: a later look at a span reads no more than it needs."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

Mark = tuple[int, ...]
"""Where the pages of a lane go on; what it means is the business of who reads them."""

_BACK = 2
"""Windows before the one at hand: of a window that begins before the span, the first page is nobody's business."""


@dataclass
class Landmarks:
    """The windows of one lane, in order of time; what lies behind a disorder is not among them."""

    _stamps: list[int] = field(default_factory=list)
    _places: list[tuple[int, Mark]] = field(default_factory=list)
    _in_order: bool = True

    def note(self, stamp: int, page: int, mark: Mark) -> None:
        """Add the next window.

        Args:
            stamp: raw, of its first page.
            page: number of that page in its lane.
            mark: where it is.
        """
        self._in_order = self._in_order and (not self._stamps or stamp > self._stamps[-1])
        if self._in_order:
            self._stamps.append(stamp)
            self._places.append((page, mark))

    def before(self, stamp: int) -> tuple[int, Mark] | None:
        """Return page and mark from which on to read for all records since a raw stamp; null: from the start."""
        at = bisect_left(self._stamps, stamp) - 1 - _BACK
        return self._places[at] if at > 0 else None
