# cython: annotation_typing=False, language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, infer_types=True
"""What every thread is doing, and for how long: the sched events, counted on meters that only ever go up.

One source, two engines, as the odometer, which adds what threads do for KVM. A record has the fields of
`thread_record` and then those of its caller.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from apftrace.model import thread_record as _record
from apftrace.model import tracepoints as _tp
from apftrace.model.breaks import Break, Breaks
from apftrace.model.readings import NEVER as _NEVER_SEEN

try:
    import cython
except ImportError:
    from apftrace_parsers import uncompiled as cython

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPILED: bool = cython.compiled

BITS = 62
"""CPUs below this number are told apart by a bit in a thread's record."""

_MOST_UNWOKEN = 4096
"""Sleeps that are kept of those that nobody ended; of more every other, and so on."""

_BITS = BITS
_ONE = 1
_ABSURD = 2**60
_CPU_MASK = 0xFFFF
_UNINTERRUPTIBLE = _tp.TASK_UNINTERRUPTIBLE
_DEAD = _tp.TASK_DEAD
_STATE_MASK = _tp.TASK_STATE_MASK
_NEVER = _NEVER_SEEN
_RUNNING, _RUNNABLE = _record.RUNNING, _record.RUNNABLE
_SLEEP, _BLOCKED = _record.SLEEP, _record.BLOCKED
_TID, _FIRST, _LAST, _CPU, _CPUS = _record.TID, _record.FIRST, _record.LAST, _record.CPU, _record.CPUS
_GONE, _STATE, _SINCE = _record.GONE, _record.STATE, _record.SINCE
_HOG, _HOG_WAIT = _record.HOG, _record.HOG_WAIT
_OUT_TO, _OUT_AT, _OUT_CPU = _record.OUT_TO, _record.OUT_AT, _record.OUT_CPU
_METERS, _N_METERS, _CLOCK = _record.METERS, _record.N_METERS, _record.CLOCK
_COUNTED = _record.COUNTED


_RARELY = 50
"""Switches for each break, at least: with fewer, the switches of some threads only are recorded."""


class Threads:
    """The records of all threads, one behind the other in ``state``.

    Args:
        blank: the record of a thread of which nothing is known.

    Attributes:
        cpus_of: per thread id the CPUs on which it was seen.
        woken: sleeps that somebody ended.
        unwoken_met: sleeps that nobody ended, as far as is recorded.
    """

    def __init__(self, blank: Sequence[int]) -> None:
        self.width = len(blank)
        self.blank = memoryview(array("q", blank))
        self.switches = memoryview(array("q", [0]) * (_CPU_MASK + 1))
        self.current = memoryview(array("q", [-1]) * (_CPU_MASK + 1))
        self.switched = memoryview(array("q", [0]) * (_CPU_MASK + 1))
        self.switch_breaks = Breaks(_RARELY)
        self.n_switches = 0
        self.cpus_of: dict[int, set[int]] = {}
        self.slept_from = memoryview(array("q", [0]) * _MOST_UNWOKEN)
        self.slept_to = memoryview(array("q", [0]) * _MOST_UNWOKEN)
        self.n_unwoken = 0
        self.unwoken_met = 0
        self.unwoken_step = 1
        self.woken = 0
        self.n_threads = 0
        self.mask = 1023
        self._slots_store = array("i", [-1]) * 1024
        self._state_store = array("q", [0]) * (512 * self.width)
        self.slots = memoryview(self._slots_store)
        self.state = memoryview(self._state_store)

    def _grow(self) -> None:
        # Double the room for threads.
        state = self._state_store + array("q", bytes(8 * len(self._state_store)))
        self.mask = self.mask * 2 + 1
        slots = array("i", [-1]) * (self.mask + 1)
        for slot in range(self.n_threads):
            at = self._hash(state[slot * self.width + _TID])
            while slots[at] >= 0:
                at = (at + 1) & self.mask
            slots[at] = slot
        self._state_store = state
        self._slots_store = slots
        self.state = memoryview(state)
        self.slots = memoryview(slots)

    def _hash(self, tid: int) -> int:
        return (tid ^ (tid >> 10)) & self.mask

    def _slot_of(self, tid: int, ts: int, cpu: int) -> int:
        # Threads are few and never forgotten, so open addressing needs no deletion.
        at = self._hash(tid)
        while self.slots[at] >= 0:
            if self.state[self.slots[at] * self.width + _TID] == tid:
                return self.slots[at]
            at = (at + 1) & self.mask
        slot = self.n_threads
        if (slot + 1) * 2 > self.mask:
            self._grow()
            return self._slot_of(tid, ts, cpu)
        self.slots[at] = slot
        self.n_threads = slot + 1
        base = slot * self.width
        for field in range(self.width):
            self.state[base + field] = self.blank[field]
        self.state[base + _TID] = tid
        self.state[base + _FIRST] = ts
        self.state[base + _LAST] = ts
        self.state[base + _CPU] = -1
        self.state[base + _SINCE] = ts
        return slot

    def _become(self, slot: int, state: int, ts: int) -> None:
        base = slot * self.width
        spent = ts - self.state[base + _SINCE]
        # A stamp out of a damaged page may lie anywhere; no sum may leave 64 bits because of it.
        if 0 < spent < _ABSURD:
            # As long as no sched event says otherwise, a thread that traces events runs.
            at = base + _CLOCK + max(self.state[base + _STATE], _RUNNING)
            self.state[at] = (self.state[at] + spent) & (_ABSURD - 1)
        self.state[base + _SINCE] = ts
        self.state[base + _STATE] = state

    def _mark(self, base: int, at: int, ts: int) -> None:
        # A phase begins here.
        self.state[base + at] = ts
        for meter in range(_N_METERS):
            self.state[base + at + 1 + meter] = self.state[base + _METERS + meter]

    def _count(self, base: int, at: int) -> None:
        # What the meters counted since a mark.
        for meter in range(_N_METERS):
            counted = self.state[base + _METERS + meter] - self.state[base + at + 1 + meter]
            self.state[base + _COUNTED + meter] = counted

    def _no_wait(self, base: int) -> None:
        # From here on the longest wait, and who had the CPU meanwhile, are found anew.
        self.state[base + _HOG] = 0
        self.state[base + _HOG_WAIT] = 0

    def _seen(self, slot: int, tid: int, ts: int, cpu: int) -> None:
        base = slot * self.width
        self.state[base + _LAST] = ts
        if self.state[base + _CPU] != cpu:
            self.state[base + _CPU] = cpu
            bit = _ONE << cpu if 0 <= cpu < _BITS else 0
            if bit == 0 or self.state[base + _CPUS] & bit == 0:
                self.state[base + _CPUS] |= bit
                self._first_seen_on(tid, cpu)

    def _first_seen_on(self, tid: int, cpu: int) -> None:
        self.cpus_of.setdefault(tid, set()).add(cpu)

    def _switch(self, ts: int, cpu: int, prev_pid: int, prev_state: int, next_pid: int) -> None:
        number = self.switches[cpu & _CPU_MASK] + 1
        self.switches[cpu & _CPU_MASK] = number
        if self.current[cpu & _CPU_MASK] != prev_pid and number > 1:
            self.switch_breaks.note(prev_pid, cpu, cpu, self.switched[cpu & _CPU_MASK], ts)
        self.current[cpu & _CPU_MASK] = next_pid
        self.switched[cpu & _CPU_MASK] = ts
        self.n_switches += 1
        if prev_pid > 0:
            slot = self._slot_of(prev_pid, ts, cpu)
            if prev_state & _DEAD:
                self.state[slot * self.width + _GONE] = ts
            if prev_state & _STATE_MASK == 0:
                self._become(slot, _RUNNABLE, ts)
                self.state[slot * self.width + _OUT_TO] = next_pid
                self.state[slot * self.width + _OUT_AT] = number
                self.state[slot * self.width + _OUT_CPU] = cpu
            elif prev_state & _UNINTERRUPTIBLE:
                self._become(slot, _BLOCKED, ts)
                self._fell_asleep(slot, ts, cpu)
            else:
                self._become(slot, _SLEEP, ts)
        if next_pid > 0:
            slot = self._slot_of(next_pid, ts, cpu)
            base = slot * self.width
            waited = ts - self.state[base + _SINCE]
            if self.state[base + _STATE] == _RUNNABLE and waited > self.state[base + _HOG_WAIT]:
                # Out to one thread and back in from it, with no switch of this CPU between.
                alone = (
                    self.state[base + _OUT_TO] == prev_pid
                    and self.state[base + _OUT_AT] == number - 1
                    and self.state[base + _OUT_CPU] == cpu
                )
                self.state[base + _HOG] = prev_pid if alone else 0
                self.state[base + _HOG_WAIT] = min(waited, _ABSURD)
            # The number of a thread that exited may be another's by now.
            if self.state[base + _STATE] >= _SLEEP and self.state[base + _GONE] == 0:
                self._unwoken(self.state[base + _SINCE], ts)
            self._become(slot, _RUNNING, ts)
            self._seen(slot, next_pid, ts, cpu)

    def broken(self) -> list[Break]:
        """Return where a CPU lost a record: another thread leaves it than came to it last."""
        return self.switch_breaks.told(self.n_switches)

    def _unwoken(self, since: int, ts: int) -> None:
        # A thread runs again that slept, and nobody woke it.
        self.unwoken_met += 1
        if self.unwoken_met % self.unwoken_step:
            return
        if self.n_unwoken == _MOST_UNWOKEN:
            self.n_unwoken //= 2
            for n in range(self.n_unwoken):
                self.slept_from[n] = self.slept_from[2 * n]
                self.slept_to[n] = self.slept_to[2 * n]
            self.unwoken_step *= 2
        self.slept_from[self.n_unwoken] = since
        self.slept_to[self.n_unwoken] = ts
        self.n_unwoken += 1

    def unwoken(self) -> list[tuple[int, int]]:
        """Return sleeps that nobody ended, from when to when: all, or of very many a part."""
        return [(self.slept_from[n], self.slept_to[n]) for n in range(self.n_unwoken)]

    def _fell_asleep(self, slot: int, ts: int, cpu: int) -> None:
        # For who wants to know what a thread sleeps through uninterruptibly.
        pass

    def _wake(self, ts: int, cpu: int, pid: int) -> None:
        slot = self._slot_of(pid, ts, cpu)
        if self.state[slot * self.width + _STATE] >= _SLEEP:
            self.woken += 1
            self._become(slot, _RUNNABLE, ts)
