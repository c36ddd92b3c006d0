"""When the windows of a lane begin, as a whole pass noted: a later look at a span reads no more than it needs."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

Mark = tuple[int, ...]
"""Where the pages of a lane go on; what it means is the business of who reads them."""

_BACK = 2
"""Windows before the one at hand: of a window that begins before the span, the first page is nobody's business."""

_MOST = 512
"""Windows that are kept of a lane; of more every other, and so on, so that memory stays bounded."""


@dataclass
class Landmarks:
    """The windows of one lane, in order of time; what lies behind a disorder is not among them."""

    _stamps: list[int] = field(default_factory=list)
    _places: list[tuple[int, Mark]] = field(default_factory=list)
    _in_order: bool = True
    _met: int = 0
    _step: int = 1

    def note(self, stamp: int, page: int, mark: Mark) -> None:
        """Add the next window.

        Args:
            stamp: raw, of its first page.
            page: number of that page in its lane.
            mark: where it is.
        """
        self._met += 1
        self._in_order = self._in_order and (not self._stamps or stamp > self._stamps[-1])
        if not self._in_order or self._met % self._step:
            return
        if len(self._stamps) == _MOST:
            del self._stamps[1::2], self._places[1::2]
            self._step *= 2
        self._stamps.append(stamp)
        self._places.append((page, mark))

    def before(self, stamp: int) -> tuple[int, Mark] | None:
        """Return page and mark from which on to read for all records since a raw stamp; null: from the start."""
        at = bisect_left(self._stamps, stamp) - 1 - _BACK
        return self._places[at] if at > 0 else None
