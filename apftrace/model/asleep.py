# cython: annotation_typing=False, language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, infer_types=True
"""Page faults that a vCPU thread slept through itself, in uninterruptible sleep: sums per thread, and the longest.

One source, two engines, as the odometer. A trace may hold millions of them, so no fault is kept but the
longest of its thread. The caller numbers threads, and says when a fault begins, when its thread is
switched out asleep, and when it enters the guest again. A fault for which KVM tried an async page fault is
none of these, whatever became of that.
"""

from __future__ import annotations

from array import array

from apftrace.model.readings import NEVER as _NEVER_SEEN

COMPILED: bool = not __file__.endswith(".py")

_NEVER = _NEVER_SEEN
# The fault under way: _OUT is when its thread first fell asleep, _BLOCKED what its clock said then.
_AT, _ADDRESS, _RIP, _CPU, _OUT, _OUT_CPU, _BLOCKED, _LOST = range(8)
# Sums, and the longest fault.
_COUNT, _SLEPT, _IN_USER, _IN_KERNEL, _DOUBTFUL, _FIRST, _LAST = range(8, 15)
_MOST, _M_AT, _M_ADDRESS, _M_RIP, _M_CPU, _M_OUT, _M_OUT_CPU, _M_END, _M_END_CPU = range(15, 24)
_FIELDS = 24

SUMS = {
    "count": _COUNT, "slept": _SLEPT, "in_user": _IN_USER, "in_kernel": _IN_KERNEL, "doubtful": _DOUBTFUL,
    "first": _FIRST, "last": _LAST, "most": _MOST, "at": _M_AT, "address": _M_ADDRESS, "rip": _M_RIP,
    "cpu": _M_CPU, "out": _M_OUT, "out_cpu": _M_OUT_CPU, "end": _M_END, "end_cpu": _M_END_CPU,
}  # fmt: skip


class Asleep:
    """The sums of all threads.

    Attributes:
        open: faults under way in which the thread has slept.
        losses: gaps in the record so far; what a fault with a gap inside was, nobody knows.
    """

    def __init__(self) -> None:
        self.open = 0
        self.losses = 0
        self.room = 0
        self._store = array("q")
        self.rows = memoryview(self._store)
        self._reserve(63)

    def _reserve(self, slot: int) -> None:
        room = 2 * (slot + 1)
        store = self._store + array("q", bytes(8 * _FIELDS * (room - self.room)))
        for at in range(self.room, room):
            store[at * _FIELDS + _AT] = _NEVER
        self._store = store
        self.rows = memoryview(store)
        self.room = room

    def begin(self, slot: int, ts: int, cpu: int, address: int, rip: int) -> None:
        """Let a fault begin; the one before it is over."""
        if slot >= self.room:
            self._reserve(slot)
        self.forget(slot)
        at = slot * _FIELDS
        self.rows[at + _AT] = ts
        self.rows[at + _CPU] = cpu
        self.rows[at + _ADDRESS] = address
        self.rows[at + _RIP] = rip
        self.rows[at + _LOST] = self.losses

    def forget(self, slot: int) -> None:
        """Let the fault under way be another matter: an async page fault, or the VMM's."""
        if slot < self.room:
            at = slot * _FIELDS
            if self.rows[at + _OUT]:
                self.open -= 1
            self.rows[at + _OUT] = 0
            self.rows[at + _AT] = _NEVER

    def sleep(self, slot: int, ts: int, cpu: int, blocked: int, entered: int) -> None:
        """Let the thread fall asleep uninterruptibly; ``entered`` is when it last entered the guest."""
        if slot >= self.room:
            return
        at = slot * _FIELDS
        if self.rows[at + _AT] <= entered or self.rows[at + _OUT]:
            return
        self.rows[at + _OUT] = ts
        self.rows[at + _OUT_CPU] = cpu
        self.rows[at + _BLOCKED] = blocked
        self.open += 1

    def enter(self, slot: int, ts: int, cpu: int, blocked: int) -> None:
        """Let the thread enter the guest: the fault is over."""
        if slot >= self.room or self.rows[slot * _FIELDS + _OUT] == 0:
            return
        at = slot * _FIELDS
        if self.rows[at + _LOST] == self.losses:
            self._count(at, ts, cpu, blocked - self.rows[at + _BLOCKED])
        else:
            self.rows[at + _DOUBTFUL] += 1
        self.forget(slot)

    def _count(self, at: int, ts: int, cpu: int, slept: int) -> None:
        rip = self.rows[at + _RIP]
        if self.rows[at + _COUNT] == 0:
            self.rows[at + _FIRST] = self.rows[at + _AT]
        self.rows[at + _COUNT] += 1
        self.rows[at + _LAST] = ts
        self.rows[at + _SLEPT] += slept
        # A 64-bit kernel lives in the upper half; 0 is a kernel before 6.1, which does not tell.
        if rip > 0:
            self.rows[at + _IN_USER] += 1
        elif rip < 0:
            self.rows[at + _IN_KERNEL] += 1
        if slept <= self.rows[at + _MOST]:
            return
        self.rows[at + _MOST] = slept
        self.rows[at + _M_AT] = self.rows[at + _AT]
        self.rows[at + _M_ADDRESS] = self.rows[at + _ADDRESS]
        self.rows[at + _M_RIP] = rip
        self.rows[at + _M_CPU] = self.rows[at + _CPU]
        self.rows[at + _M_OUT] = self.rows[at + _OUT]
        self.rows[at + _M_OUT_CPU] = self.rows[at + _OUT_CPU]
        self.rows[at + _M_END] = ts
        self.rows[at + _M_END_CPU] = cpu

    def take(self, n: int) -> dict[str, list[int]]:
        """Return the sums of the threads below ``n``, a column each."""
        rows = self._store
        return {
            name: [rows[slot * _FIELDS + at] if slot < self.room else 0 for slot in range(n)]
            for name, at in SUMS.items()
        }
