# cython: annotation_typing=False, language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, infer_types=True
"""Which lives wait: found by their page when a worker completes it, and by token when their ready comes.

One source, two engines, as the odometer. The lives of a page hang in one chain, in the order of their
beginning. A life leaves its chain with its ready; one that waits for nothing any more, because a later life
of its page on its thread proves that it is over, stays there for its ready alone.
"""

from __future__ import annotations

from array import array

COMPILED: bool = not __file__.endswith(".py")

_NONE = -1


class Waiting:
    """All lives without a ready.

    Args:
        width: numbers that the caller keeps with each life.

    Attributes:
        slot: per entry the thread of the life, as the caller numbers threads.
        life: per entry the life, as the caller numbers lives.
        kept: per entry ``width`` numbers of the caller's.
    """

    def __init__(self, width: int = 0) -> None:
        self.width = width
        self.kept = memoryview(array("q"))
        self.n = 0
        self.free = _NONE
        self.mask = 0
        self._reserve(1 << 10)

    def _reserve(self, room: int) -> None:
        # All memory comes from here: entries double, and the chains are hung up anew.
        kept = self.n
        wide = {name: array("q", bytes(8 * room)) for name in ("gva", "token", "life")}
        narrow = {name: array("i", bytes(4 * room)) for name in ("slot", "next", "over")}
        for store in (wide, narrow):
            for name, values in store.items():
                if kept:
                    memoryview(values)[:kept] = getattr(self, name)[:kept]
        self.gva, self.token, self.life = (memoryview(values) for values in wide.values())
        self.slot, self.next, self.over = (memoryview(values) for values in narrow.values())
        with_lives = array("q", bytes(8 * room * self.width))
        memoryview(with_lives)[: kept * self.width] = self.kept[: kept * self.width]
        self.kept = memoryview(with_lives)
        self.heads = memoryview(array("i", [_NONE]) * room)
        self.mask = room - 1
        for at in range(kept):
            self._hang(at)

    def _hang(self, at: int) -> None:
        home = self._home(self.gva[at])
        self.next[at] = _NONE
        last = self.heads[home]
        if last == _NONE:
            self.heads[home] = at
            return
        while self.next[last] != _NONE:
            last = self.next[last]
        self.next[last] = at

    def _home(self, gva: int) -> int:
        page = gva >> 12
        return (page ^ (page >> 11)) & self.mask

    def begin(self, slot: int, life: int, token: int, gva: int) -> int:
        """Let a life of page ``gva`` wait and return its entry; an older one of the page on this thread is over (R14)."""
        at = self.first(gva)
        while at != _NONE:
            if self.slot[at] == slot:
                self.over[at] = 1
            at = self.after(at)
        at = self.free
        if at != _NONE:
            self.free = self.next[at]
        else:
            if self.n > self.mask:
                self._reserve(2 * (self.mask + 1))
            at = self.n
            self.n = at + 1
        self.gva[at] = gva
        self.token[at] = token
        self.life[at] = life
        self.slot[at] = slot
        self.over[at] = 0
        self._hang(at)
        return at

    def answer(self, slot: int, token: int, gva: int) -> int:
        """Return the entry of the latest life that a ready on this thread answers, and free it; -1 when none waits.

        What is in it stays until the next life begins. Whatever its token says, no life of the page on this
        thread waits for the page after it.
        """
        home = self._home(gva)
        at = self.heads[home]
        before = _NONE
        found = found_before = _NONE
        while at != _NONE:
            if self.gva[at] == gva and self.slot[at] == slot:
                self.over[at] = 1
                if self.token[at] == token:
                    found, found_before = at, before
            before = at
            at = self.next[at]
        if found == _NONE:
            return _NONE
        if found_before == _NONE:
            self.heads[home] = self.next[found]
        else:
            self.next[found_before] = self.next[found]
        self.next[found] = self.free
        self.free = found
        return found

    def first(self, gva: int) -> int:
        """Return the entry of the first life that waits for page ``gva``; -1 when none does."""
        return self._seek(self.heads[self._home(gva)], gva)

    def after(self, at: int) -> int:
        """Return the entry of the next life that waits for the page of entry ``at``; -1 when none does."""
        return self._seek(self.next[at], self.gva[at])

    def _seek(self, at: int, gva: int) -> int:
        while at != _NONE and (self.over[at] or self.gva[at] != gva):
            at = self.next[at]
        return at

    def all(self) -> list[int]:
        """Return the entries of all lives that wait, also of those that wait for their ready alone."""
        found = []
        for home in range(len(self.heads)):
            at = self.heads[home]
            while at != _NONE:
                found.append(at)
                at = self.next[at]
        return found
