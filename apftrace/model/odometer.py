# cython: annotation_typing=False, language_level=3, boundscheck=False, wraparound=False, cdivision=True, infer_types=True
"""Per-thread counters, read off at every event that matters: how a whole trace becomes a few rows per life.

A host trace is mostly kvm_entry, kvm_exit and sched events. The model needs them only as sums: how often
did the vCPU enter the guest between completed and the end, how long was it runnable but not running
during P3. So each thread has an odometer, and each *anchor* (an async page fault event, an ACK, an
injection ...) carries its reading. The difference of two readings is the sum over the interval, and
memory is bounded by the async page fault events, whatever the size of the trace.

One source, two engines: Cython compiles this file with the types of odometer.pxd; without a compiler
the same file runs interpreted. ``feed`` takes rows of one batch in time order.
"""

from __future__ import annotations

from array import array
from typing import Any

from apftrace.model import tracepoints as _tp

COMPILED: bool = not __file__.endswith(".py")

_TRY = _tp.TRY
_REPEATED = _tp.REPEATED
_NOT_PRESENT = _tp.NOT_PRESENT
_READY = _tp.READY
_COMPLETED = _tp.COMPLETED
_ENTRY = _tp.ENTRY
_EXIT = _tp.EXIT
_MSR = _tp.MSR
_INJ_EXCEPTION = _tp.INJ_EXCEPTION
_ACCEPT = _tp.ACCEPT
_INJ_VIRQ = _tp.INJ_VIRQ
_PAGE_FAULT = _tp.PAGE_FAULT
_USERSPACE_EXIT = _tp.USERSPACE_EXIT
_SWITCH = _tp.SWITCH
_WAKING = _tp.WAKING
_WAKEUP = _tp.WAKEUP
_QUEUE_WORK = _tp.QUEUE_WORK
_EXECUTE_START = _tp.EXECUTE_START
_EXECUTE_END = _tp.EXECUTE_END
_PROCESS_EXIT = _tp.PROCESS_EXIT
_APICV_ACCEPT = _tp.APICV_ACCEPT
_READING = _tp.READING
_LOST = _tp.LOST
_MSR_EN = _tp.MSR_EN
_MSR_INT = _tp.MSR_INT
_MSR_ACK = _tp.MSR_ACK
_PF_VECTOR = _tp.PF_VECTOR
_MC_VECTOR = _tp.MC_VECTOR
_HLT_VMX, _HLT_SVM = _tp.HLT_EXITS
_UNINTERRUPTIBLE = _tp.TASK_UNINTERRUPTIBLE
_DEAD = _tp.TASK_DEAD
_STATE_MASK = _tp.TASK_STATE_MASK
_NEVER = -(2**62)

# What a thread is doing, as the sched events tell it. Time in a state is booked in _CLOCK + state.
_UNKNOWN, _RUNNING, _RUNNABLE, _SLEEP, _BLOCKED = range(5)

# Fields of a thread's record in ``state``.
_TID, _FIRST, _LAST, _CPU, _ENTRIES, _VIRQS, _HLTS, _EXIT_TS, _ENTRY_TS, _STATE, _SINCE = range(11)
_PREV, _READY_GFN, _VCPU, _GONE, _WORK, _CLOCK = range(11, 17)
_FIELDS = _CLOCK + 5

COLUMNS: tuple[tuple[str, str], ...] = (
    ("ts", "q"), ("cpu", "i"), ("tid", "i"), ("kind", "i"), ("a", "q"), ("b", "q"), ("c", "q"),
    ("entries", "i"), ("virqs", "i"), ("hlts", "i"), ("exit_ts", "q"),
    ("ran", "q"), ("waited", "q"), ("slept", "q"), ("blocked", "q"),
)  # fmt: skip
"""Columns of the anchors, with array typecodes: the event, then the reading of its thread.

``exit_ts`` is the thread's last kvm_exit; ``ran waited slept blocked`` are ns on a CPU, runnable but not
on one, in interruptible and in uninterruptible sleep since the thread was first seen. In a kvm_msr row
the fields are write, ecx, data. A READING row is the vCPU thread's reading at the instant of a
``completed`` (a: gva) that some kworker traced.
"""


class Odometer:
    """All threads' counters.

    Attributes:
        vectors: page-ready vectors in use; 243 until a write of MSR_KVM_ASYNC_PF_INT says otherwise.
        seen_vectors: vectors that were accepted at any other time than right after a ready.
        cpus_of: per thread id the CPUs on which it was seen.
    """

    def __init__(self) -> None:
        self.vectors: dict[int, bool] = {_tp.LINUX_VECTOR: True}
        self.seen_vectors: dict[int, bool] = {}
        self.open_lives: dict[int, list[int]] = {}
        self.cpus_of: dict[int, set[int]] = {}
        self.function = 0
        self.n_threads = 0
        self.mask = 1023
        self._slots_store = array("i", [-1]) * 1024
        self._state_store = array("q", [0]) * (512 * _FIELDS)
        self.slots = memoryview(self._slots_store)
        self.state = memoryview(self._state_store)
        self._out: dict[str, Any] = {}
        self.n_out = 0
        self.make_room(1 << 14)

    def grow(self) -> None:
        """Double the room for threads."""
        state = self._state_store + array("q", bytes(8 * len(self._state_store)))
        self.mask = self.mask * 2 + 1
        slots = array("i", [-1]) * (self.mask + 1)
        for slot in range(self.n_threads):
            at = self._hash(state[slot * _FIELDS + _TID])
            while slots[at] >= 0:
                at = (at + 1) & self.mask
            slots[at] = slot
        self._state_store = state
        self._slots_store = slots
        self.state = memoryview(state)
        self.slots = memoryview(slots)

    def _hash(self, tid: int) -> int:
        return (tid ^ (tid >> 10)) & self.mask

    def slot_of(self, tid, ts, cpu):  # type: ignore[no-untyped-def]
        # Threads are few and never forgotten, so open addressing needs no deletion.
        at = (tid ^ (tid >> 10)) & self.mask
        while self.slots[at] >= 0:
            if self.state[self.slots[at] * _FIELDS + _TID] == tid:
                return self.slots[at]
            at = (at + 1) & self.mask
        slot = self.n_threads
        if (slot + 1) * 2 > self.mask:
            self.grow()
            return self.slot_of(tid, ts, cpu)
        self.slots[at] = slot
        self.n_threads = slot + 1
        base = slot * _FIELDS
        self.state[base + _TID] = tid
        self.state[base + _FIRST] = ts
        self.state[base + _LAST] = ts
        self.state[base + _CPU] = -1
        self.state[base + _EXIT_TS] = _NEVER
        self.state[base + _ENTRY_TS] = _NEVER
        self.state[base + _SINCE] = ts
        self.state[base + _PREV] = -2
        self.state[base + _READY_GFN] = -1
        self.state[base + _VCPU] = -1
        return slot

    def become(self, slot, state, ts):  # type: ignore[no-untyped-def]
        base = slot * _FIELDS
        was = self.state[base + _STATE]
        self.state[base + _CLOCK + was] += ts - self.state[base + _SINCE]
        self.state[base + _SINCE] = ts
        self.state[base + _STATE] = state

    def emit(self, slot, kind, ts, cpu, a, b, c):  # type: ignore[no-untyped-def]
        if self.n_out == self.room:
            self.make_room(self.room * 2)
        n = self.n_out
        base = slot * _FIELDS
        state = self.state
        self.become(slot, state[base + _STATE], ts)
        self.o_ts[n] = ts
        self.o_cpu[n] = cpu
        self.o_tid[n] = state[base + _TID]
        self.o_kind[n] = kind
        self.o_a[n] = a
        self.o_b[n] = b
        self.o_c[n] = c
        self.o_entries[n] = state[base + _ENTRIES]
        self.o_virqs[n] = state[base + _VIRQS]
        self.o_hlts[n] = state[base + _HLTS]
        self.o_exit[n] = state[base + _EXIT_TS]
        self.o_ran[n] = state[base + _CLOCK + _RUNNING] + state[base + _CLOCK + _UNKNOWN]
        self.o_waited[n] = state[base + _CLOCK + _RUNNABLE]
        self.o_slept[n] = state[base + _CLOCK + _SLEEP]
        self.o_blocked[n] = state[base + _CLOCK + _BLOCKED]
        self.n_out = n + 1

    def readings(self, gva, ts, cpu):  # type: ignore[no-untyped-def]
        # A completed names no vCPU: read every vCPU that waits for this page; nearly always it is one.
        owners = self.open_lives.get(gva)
        if owners is not None:
            for slot in owners:
                self.emit(slot, _READING, ts, cpu, gva, 0, 0)

    def keep(self, slot, kind, a, b, c):  # type: ignore[no-untyped-def]
        """Say whether a rare event is an anchor, and learn from it what later events mean."""
        base = slot * _FIELDS
        if kind == _MSR:
            if a and b == _MSR_INT:
                self.vectors[c & 0xFF] = True
            return a and (b == _MSR_EN or b == _MSR_INT or b == _MSR_ACK)
        if kind == _INJ_EXCEPTION:
            return a == _PF_VECTOR or a == _MC_VECTOR
        if kind == _QUEUE_WORK:
            # schedule_work comes right after not_present on the same thread, before 5.8 right before it:
            # that is how the address of async_pf_execute is learned.
            if self.state[base + _PREV] == _NOT_PRESENT or self.state[base + _PREV] == _TRY:
                self.function = b
            return b == self.function
        if kind == _EXECUTE_START:
            self.state[base + _WORK] = a if b == self.function else 0
            return b == self.function and b != 0
        if kind == _EXECUTE_END:
            return a != 0 and self.state[base + _WORK] == a
        if kind == _USERSPACE_EXIT:
            return b < 0 and b != -4
        return True

    def feed(self, ts, cpu, tid, kind, a, b, c):  # type: ignore[no-untyped-def]
        """Take one batch; return the number of anchors that ``take`` will hand out."""
        n = len(ts)
        self.n_out = 0
        for i in range(n):
            k = kind[i]
            t = ts[i]
            if k == _LOST:
                slot = self.slot_of(-1, t, cpu[i])
                self.emit(slot, _LOST, t, cpu[i], a[i], b[i], 0)
                continue
            slot = self.slot_of(tid[i], t, cpu[i])
            base = slot * _FIELDS
            self.state[base + _LAST] = t
            if self.state[base + _CPU] != cpu[i]:
                self.state[base + _CPU] = cpu[i]
                self.cpus_of.setdefault(tid[i], set()).add(cpu[i])
            if k == _SWITCH:
                was = a[i]
                if was > 0:
                    other = self.slot_of(was, t, cpu[i])
                    flags = b[i] & _STATE_MASK
                    if flags & _DEAD:
                        self.state[other * _FIELDS + _GONE] = t
                    if flags == 0:
                        self.become(other, _RUNNABLE, t)
                    elif flags & _UNINTERRUPTIBLE:
                        self.become(other, _BLOCKED, t)
                    else:
                        self.become(other, _SLEEP, t)
                if c[i] > 0:
                    other = self.slot_of(c[i], t, cpu[i])
                    self.become(other, _RUNNING, t)
                    if self.state[other * _FIELDS + _CPU] != cpu[i]:
                        self.state[other * _FIELDS + _CPU] = cpu[i]
                        self.cpus_of.setdefault(c[i], set()).add(cpu[i])
                continue
            if k == _EXIT:
                self.state[base + _EXIT_TS] = t
                if a[i] == _HLT_SVM or a[i] == _HLT_VMX:
                    self.state[base + _HLTS] += 1
            elif k == _ENTRY:
                self.state[base + _ENTRIES] += 1
                self.state[base + _ENTRY_TS] = t
                self.state[base + _VCPU] = a[i]
            elif k == _WAKING or k == _WAKEUP:
                other = self.slot_of(a[i], t, cpu[i])
                was = self.state[other * _FIELDS + _STATE]
                if was == _SLEEP or was == _BLOCKED:
                    self.become(other, _RUNNABLE, t)
                continue
            elif k == _PAGE_FAULT:
                if self.state[base + _READY_GFN] == a[i] >> 12:
                    self.emit(slot, k, t, cpu[i], a[i], b[i], c[i])
            elif k == _INJ_VIRQ:
                self.state[base + _VIRQS] += 1
                if a[i] in self.vectors:
                    self.emit(slot, k, t, cpu[i], a[i], b[i], c[i])
            elif k == _ACCEPT or k == _APICV_ACCEPT:
                # The accept that ready caused is the thread's very next event; c tells it from any other.
                if self.state[base + _PREV] == _READY and k == _ACCEPT:
                    self.emit(slot, k, t, cpu[i], a[i], b[i], 1)
                else:
                    self.seen_vectors[a[i]] = True
                    if a[i] in self.vectors:
                        self.emit(slot, k, t, cpu[i], a[i], b[i], 0)
            elif k == _COMPLETED:
                self.emit(slot, k, t, cpu[i], a[i], b[i], c[i])
                self.readings(a[i], t, cpu[i])
            elif k <= _READY:
                if k == _NOT_PRESENT:
                    owners = self.open_lives.setdefault(b[i], [])
                    if slot not in owners:
                        owners.append(slot)
                elif k == _READY:
                    self.state[base + _READY_GFN] = b[i] >> 12
                    owners = self.open_lives.get(b[i])
                    if owners is not None and slot in owners:
                        owners.remove(slot)
                        if not owners:
                            del self.open_lives[b[i]]
                self.emit(slot, k, t, cpu[i], a[i], b[i], c[i])
            elif self.keep(slot, k, a[i], b[i], c[i]):
                self.emit(slot, k, t, cpu[i], a[i], b[i], c[i])
            self.state[base + _PREV] = k
        return self.n_out

    def make_room(self, room: int) -> None:
        """Give the output ``room`` rows, keeping what is there."""
        for name, code in COLUMNS:
            old = self._out.get(name, array(code))
            self._out[name] = old + array(code, bytes((room - len(old)) * old.itemsize))
        self.room = room
        views = {name: memoryview(store) for name, store in self._out.items()}
        self.o_ts, self.o_cpu, self.o_tid, self.o_kind = views["ts"], views["cpu"], views["tid"], views["kind"]
        self.o_a, self.o_b, self.o_c = views["a"], views["b"], views["c"]
        self.o_entries, self.o_virqs, self.o_hlts = views["entries"], views["virqs"], views["hlts"]
        self.o_exit, self.o_ran, self.o_waited = views["exit_ts"], views["ran"], views["waited"]
        self.o_slept, self.o_blocked = views["slept"], views["blocked"]

    def take(self) -> dict[str, memoryview]:
        """Return the anchors of the last batch, a view per column of COLUMNS; valid until the next feed."""
        return {name: memoryview(store)[: self.n_out] for name, store in self._out.items()}

    def threads(self) -> dict[str, list[int]]:
        """Return every thread's final reading: tid, first, last, entries, entry_ts, hlts, virqs, vcpu, gone, state."""
        fields = {
            "tid": _TID, "first": _FIRST, "last": _LAST, "entries": _ENTRIES, "entry_ts": _ENTRY_TS,
            "hlts": _HLTS, "virqs": _VIRQS, "vcpu": _VCPU, "gone": _GONE, "state": _STATE,
        }  # fmt: skip
        return {
            name: [self._state_store[slot * _FIELDS + at] for slot in range(self.n_threads)]
            for name, at in fields.items()
        }
