"""From a wait to the thread's return: which scheduling events belong to it, decided while streaming.

A guest switches threads all the time. Only what happens to a thread between its wait and its next run
matters, and on the CPU where it could run who ran instead; the rest is forgotten at once, so that memory
is bounded by the async page faults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace.model import tracepoints as tp
from apftrace.model.guest import hooks as hk

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_ROWS = 512
"""Scheduling events kept of one wait; a thread that neither sleeps nor waits again would collect them for ever."""


@dataclass
class _Episode:
    # A thread from its wait until it runs again.
    token: int | None
    slept: bool = False
    woken: bool = False
    runs_on: int | None = None
    rows: int = 0


class Episodes:
    """The waits that are going on.

    Args:
        keep: takes an event that belongs to one: kind, ts, cpu, tid, a, b, c.

    Attributes:
        open: by thread.
        running: the thread that each CPU was switched to last; whoever takes switches keeps it.
        runnable_on: per CPU the threads of open waits that could run there.
    """

    def __init__(self, keep: Callable[..., None]) -> None:
        self._keep = keep
        self.open: dict[int, _Episode] = {}
        self._faulted: dict[int, None] = {}
        self.running: dict[int, int] = {}
        self.runnable_on: dict[int, set[int]] = {}

    def hit(self, kind: str, tid: int, token: int | None) -> None:
        """Take a hit of a hook."""
        if kind == hk.WAIT and tid > 0:
            self._close(tid)
            self.open[tid] = _Episode(token)
        elif kind == hk.WAIT_RETURN:
            self._close(tid)
        elif kind == hk.WAKE:
            for waiter, episode in self.open.items():
                if token is not None and episode.token == token:
                    episode.woken = True
                    if waiter == tid:
                        # The interrupt came before the thread could sleep: it just goes on.
                        self._close(waiter)
                    break

    def context(self, kind: str, ts: int, cpu: int, tid: int, a: int, b: int, c: int) -> None:
        """Take a wakeup or a page fault, of any thread."""
        if kind == "page_fault":
            if tid in self._faulted:
                del self._faulted[tid]
                self._keep(kind, ts, cpu, tid, a, b, c)
        elif a in self.open:
            self._wake(kind, ts, cpu, tid, a, b)

    def switch(self, ts: int, cpu: int, prev: int, state: int, following: int) -> None:
        """Take a switch that an open wait is about: of its thread, or on a CPU where that could run."""
        out, into = self.open.get(prev), self.open.get(following)
        if self._allowed(cpu, out or into):
            self._keep("switch", ts, cpu, prev, state, following)
        if out is not None:
            if state & tp.TASK_UNINTERRUPTIBLE:
                out.slept = True
            elif state & tp.TASK_STATE_MASK:
                # It sleeps for another reason: the wait is long over.
                self._close(prev)
        if into is not None and (into.slept or into.woken):
            self._close(following)

    def _allowed(self, cpu: int, own: _Episode | None) -> bool:
        if own is not None:
            own.rows += 1
            return own.rows <= MOST_ROWS
        allowed = False
        for tid in self.runnable_on[cpu]:
            episode = self.open[tid]
            episode.rows += 1
            allowed = allowed or episode.rows <= MOST_ROWS
        return allowed

    def _wake(self, kind: str, ts: int, cpu: int, tid: int, woken: int, target: int) -> None:
        episode = self.open[woken]
        episode.rows += 1
        if episode.rows > MOST_ROWS:
            return
        self._keep(kind, ts, cpu, tid, woken, target, self.running.get(target))
        if episode.runs_on is not None:
            self.runnable_on[episode.runs_on].discard(woken)
        episode.runs_on = target
        self.runnable_on.setdefault(target, set()).add(woken)

    def _close(self, tid: int) -> None:
        episode = self.open.pop(tid, None)
        if episode is None:
            return
        self._faulted[tid] = None
        if episode.runs_on is not None:
            self.runnable_on[episode.runs_on].discard(tid)
