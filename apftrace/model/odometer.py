# cython: annotation_typing=False, language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, infer_types=True
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

from apftrace.model import thread_record as _thread
from apftrace.model import tracepoints as _tp
from apftrace.model import vcpu_record as _vcpu
from apftrace.model.breaks import Break, Breaks
from apftrace.model.faults import Faults
from apftrace.model.readings import NEVER as _NEVER_SEEN

try:
    import cython
except ImportError:
    from apftrace_parsers import uncompiled as cython

COMPILED: bool = cython.compiled

_TRY, _REPEATED, _NOT_PRESENT = _tp.TRY, _tp.REPEATED, _tp.NOT_PRESENT
_READY, _COMPLETED = _tp.READY, _tp.COMPLETED
_ENTRY, _EXIT, _MSR, _INJ_EXCEPTION = _tp.ENTRY, _tp.EXIT, _tp.MSR, _tp.INJ_EXCEPTION
_ACCEPT, _APICV_ACCEPT, _INJ_VIRQ = _tp.ACCEPT, _tp.APICV_ACCEPT, _tp.INJ_VIRQ
_PAGE_FAULT, _USERSPACE_EXIT, _PROCESS_EXIT = _tp.PAGE_FAULT, _tp.USERSPACE_EXIT, _tp.PROCESS_EXIT
_SWITCH, _WAKING, _WAKEUP = _tp.SWITCH, _tp.WAKING, _tp.WAKEUP
_QUEUE_WORK, _EXECUTE_START, _EXECUTE_END = _tp.QUEUE_WORK, _tp.EXECUTE_START, _tp.EXECUTE_END
_RESET, _STARTUP, _LOST = _tp.RESET, _tp.STARTUP, _tp.LOST
_MSR_EN, _MSR_INT, _MSR_ACK = _tp.MSR_EN, _tp.MSR_INT, _tp.MSR_ACK
_PF_VECTOR, _MC_VECTOR, _RESET_RIP = _tp.PF_VECTOR, _tp.MC_VECTOR, _tp.RESET_RIP
_DM_SMI, _DM_INIT, _DM_SIPI = _tp.DM_SMI, _tp.DM_INIT, _tp.DM_SIPI
_HLT_VMX, _HLT_SVM = _tp.HLT_EXITS
_MSR_VMX, _TIMER_VMX, _MSR_SVM = _tp.FAST_EXITS
_NEVER = _NEVER_SEEN
_ABSURD = 2**60
_CPU_MASK = 0xFFFF

# Fields of a thread's record in ``state``.
_TID, _LAST, _CPU, _GONE = _thread.TID, _thread.LAST, _thread.CPU, _thread.GONE
_GUEST, _HLTS, _BLOCKED_FOR = _thread.GUEST, _thread.HLTS, _thread.CLOCK + _thread.BLOCKED
_ENTRIES, _VIRQS, _EXIT_TS, _ENTRY_TS = _vcpu.ENTRIES, _vcpu.VIRQS, _vcpu.EXIT_TS, _vcpu.ENTRY_TS
_PREV, _READY_GFN, _VCPU, _WORK = _vcpu.PREV, _vcpu.READY_GFN, _vcpu.VCPU, _vcpu.WORK
_FAULTED, _LIFE, _LIFE_ENTRIES, _READY_ROW = _vcpu.FAULTED, _vcpu.LIFE, _vcpu.LIFE_ENTRIES, _vcpu.READY_ROW
_TOLD, _AT_RESET, _RUN_CPU, _FAST_EXIT = _vcpu.TOLD, _vcpu.AT_RESET, _vcpu.RUN_CPU, _vcpu.FAST_EXIT
_ACCEPT_MARK, _VIRQ_MARK, _FIELDS = _vcpu.ACCEPT_MARK, _vcpu.VIRQ_MARK, _vcpu.N_FIELDS
_N_VECTORS, _DUE, _OTHER, _OWN = _vcpu.N_VECTORS, _vcpu.DUE, _vcpu.OTHER, _vcpu.OWN

_RARELY, _FEW = 500, 8
"""Entries and exits for each that has no counterpart, at least, or as many as one gap on all CPUs leaves."""


class Odometer(Faults):
    """All threads' counters.

    Args:
        lasting: how long a phase must last for what its thread did to be kept, in units of the trace clock; for
            P4 and P5, in which a life keeps the slot from others, a tenth of it.

    Attributes:
        ledger: the anchors.
        asleep: the faults that threads slept through.
    """

    def __init__(self, lasting: int = 0) -> None:
        super().__init__(lasting)
        self.holding = lasting // 10
        self.use = memoryview(array("i", [0]) * _N_VECTORS)
        self.use[_tp.LINUX_VECTOR] = _DUE
        self.here = memoryview(array("i", [-1]) * (_CPU_MASK + 1))
        self.run_breaks = Breaks(_RARELY, _FEW)
        self.runs = 0

    def _fell_asleep(self, slot: int, ts: int, cpu: int) -> None:
        base = slot * _FIELDS
        self.asleep.sleep(slot, ts, cpu, self.state[base + _BLOCKED_FOR], self.state[base + _ENTRY_TS])

    def _keep(self, slot: int, kind: int, a: int, b: int, c: int) -> bool:
        # Say whether an event is an anchor, and learn from it what later events mean.
        base = slot * _FIELDS
        if kind == _MSR:
            if a and b == _MSR_INT:
                self.use[c & (_N_VECTORS - 1)] |= _DUE
            return a != 0 and b in (_MSR_EN, _MSR_INT, _MSR_ACK)
        if kind == _INJ_EXCEPTION:
            near = self.state[base + _LIFE_ENTRIES] == self.state[base + _ENTRIES]
            self.state[base + _TOLD] = self.state[base + _LIFE] if near else -1
            return a in (_PF_VECTOR, _MC_VECTOR)
        if kind == _EXECUTE_START:
            self.state[base + _WORK] = a if b == self.function else 0
            return b == self.function and b != 0
        if kind == _EXECUTE_END:
            return a != 0 and self.state[base + _WORK] == a
        if kind == _USERSPACE_EXIT:
            self.asleep.forget(slot)
            return b < 0 and b != -4
        if kind == _PROCESS_EXIT:
            self.state[base + _GONE] = self.state[base + _LAST]
        return True

    def _accept(self, slot: int, kind: int, ts: int, cpu: int, vec: int, apicid: int, mode: int) -> None:
        known = 0 <= vec < _N_VECTORS
        if kind == _ACCEPT and mode >= _DM_SMI:
            # An NMI, SMI, INIT, SIPI or kick of a halted vCPU (0x300) has no vector of interrupts.
            if mode in (_DM_INIT, _DM_SIPI):
                self._emit(slot, _STARTUP, ts, cpu, mode, apicid, vec)
        elif kind == _ACCEPT and self.state[slot * _FIELDS + _PREV] == _READY:
            # The accept that ready caused is the thread's very next event.
            if known and self.use[vec] == 0:
                self.use[vec] = _OWN
            self._emit(slot, kind, ts, cpu, vec, apicid, self.state[slot * _FIELDS + _READY_ROW])
            self._mark(slot * _FIELDS, _ACCEPT_MARK, ts)
        elif known:
            self.use[vec] |= _OTHER
            if self.use[vec] & _DUE:
                self._emit(slot, kind, ts, cpu, vec, apicid, -1)
                self._mark(slot * _FIELDS, _ACCEPT_MARK, ts)

    def _inj_virq(self, slot: int, ts: int, cpu: int, vec: int, b: int, c: int) -> None:
        base = slot * _FIELDS
        self.state[base + _VIRQS] += 1
        if 0 <= vec < _N_VECTORS and (self.use[vec] & _DUE or self.use[vec] == _OWN):
            # A vector that is injected again begins no handler.
            first = self.state[base + _ACCEPT_MARK] != _NEVER or self.state[base + _VIRQ_MARK] == _NEVER
            held = ts - self.state[base + _ACCEPT_MARK]
            self._spent(slot, _ACCEPT_MARK, ts, cpu, lasted=held >= self.holding)
            self._emit(slot, _INJ_VIRQ, ts, cpu, vec, b, c)
            if first:
                self._mark(base, _VIRQ_MARK, ts)

    def _reset(self, slot: int, ts: int, cpu: int, vcpu: int, rip: int) -> None:
        # An exit before its first instruction makes it enter there again.
        base = slot * _FIELDS
        if self.state[base + _AT_RESET] != self.state[base + _ENTRIES] or self.state[base + _ENTRIES] == 0:
            self._emit(slot, _RESET, ts, cpu, vcpu, rip, 0)
        self.state[base + _AT_RESET] = self.state[base + _ENTRIES] + 1

    def _ran(self, base: int, same: int, other: int, ts: int, cpu: int) -> None:
        # Entries and exits alternate: where two of the same come in a row, the one between them is missing.
        if same > other:
            self.run_breaks.note(self.state[base + _TID], self.state[base + _RUN_CPU], cpu, same, ts)
        self.state[base + _RUN_CPU] = cpu
        self.runs += 1

    def _own(self, slot: int, kind: int, ts: int, cpu: int, a: int, b: int, c: int) -> None:
        # An event that is about the thread that traced it, the frequent kinds first.
        base = slot * _FIELDS
        if kind == _EXIT:
            before = self.state[base + _EXIT_TS] if self.state[base + _FAST_EXIT] == 0 else _NEVER
            self._ran(base, before, self.state[base + _ENTRY_TS], ts, cpu)
            self.state[base + _FAST_EXIT] = a in (_MSR_VMX, _TIMER_VMX, _MSR_SVM)
            self.state[base + _EXIT_TS] = ts
            inside = ts - self.state[base + _ENTRY_TS]
            if 0 < inside < _ABSURD:
                self.state[base + _GUEST] = (self.state[base + _GUEST] + inside) & (_ABSURD - 1)
            if a in (_HLT_SVM, _HLT_VMX):
                self.state[base + _HLTS] += 1
        elif kind == _ENTRY:
            if self.asleep.open:
                self.asleep.enter(slot, ts, cpu, self.state[base + _BLOCKED_FOR])
            if b == _RESET_RIP:
                self._reset(slot, ts, cpu, a, b)
            self._ran(base, self.state[base + _ENTRY_TS], self.state[base + _EXIT_TS], ts, cpu)
            self.state[base + _ENTRIES] += 1
            self.state[base + _ENTRY_TS] = ts
            self.state[base + _VCPU] = a
        elif kind == _PAGE_FAULT:
            self.asleep.begin(slot, ts, cpu, a, c)
            if self.state[base + _READY_GFN] == a >> 12:
                self._emit(slot, kind, ts, cpu, a, b, 0)
        elif kind == _INJ_VIRQ:
            self._inj_virq(slot, ts, cpu, a, b, c)
        elif kind in (_ACCEPT, _APICV_ACCEPT):
            self._accept(slot, kind, ts, cpu, a, b, c)
        elif kind == _TRY:
            self._try(slot, ts, cpu, a, b)
        elif kind == _NOT_PRESENT:
            self._begin(slot, ts, cpu, a, b)
        elif kind == _READY:
            self._ready(slot, ts, cpu, a, b)
        elif kind == _COMPLETED:
            self._completed(slot, ts, cpu, a, b)
        elif kind == _REPEATED:
            tried = self._tried(slot, a)
            self._emit(slot, kind, ts, cpu, a, b, tried)
            self.state[base + _FAULTED] = _REPEATED
        elif kind == _QUEUE_WORK:
            self._queue_work(slot, ts, cpu, a, b)
        elif self._keep(slot, kind, a, b, c):
            if kind == _MSR and b == _MSR_ACK:
                held = ts - self.state[base + _VIRQ_MARK]
                self._spent(slot, _VIRQ_MARK, ts, cpu, lasted=held >= self.holding)
            self._emit(slot, kind, ts, cpu, a, b, c)

    def _meet(self, tid: int, ts: int, cpu: int) -> int:
        # The thread of an event: nearly always that of the event before on this CPU.
        slot = self.here[cpu & _CPU_MASK]
        base = slot * _FIELDS
        if slot >= 0 and self.state[base + _TID] == tid and self.state[base + _CPU] == cpu:
            self.state[base + _LAST] = ts
            return slot
        slot = self._slot_of(tid, ts, cpu)
        self._seen(slot, tid, ts, cpu)
        self.here[cpu & _CPU_MASK] = slot
        return slot

    def feed(
        self,
        ts: memoryview,
        cpu: memoryview,
        tid: memoryview,
        kind: memoryview,
        a: memoryview,
        b: memoryview,
        c: memoryview,
    ) -> None:
        """Take the rows of one batch, in time order."""
        with cython.nogil:
            for i in range(len(ts)):
                k = kind[i]
                if k == _LOST:
                    self.asleep.losses += 1
                    continue
                slot = self._meet(tid[i], ts[i], cpu[i])
                if k == _SWITCH:
                    self._switch(ts[i], cpu[i], a[i], b[i], c[i])
                elif k in (_WAKING, _WAKEUP):
                    self._wake(ts[i], cpu[i], a[i])
                else:
                    self._own(slot, k, ts[i], cpu[i], a[i], b[i], c[i])
                    self.state[slot * _FIELDS + _PREV] = k

    def broken_runs(self) -> list[Break]:
        """Return where a CPU lost a record, as two entries or two exits of a vCPU in a row show."""
        return self.run_breaks.told(self.runs)

    def vectors(self) -> frozenset[int]:
        """Return the page-ready vectors: 243, and what guests wrote to MSR_KVM_ASYNC_PF_INT."""
        return frozenset(vec for vec in range(_N_VECTORS) if self.use[vec] & _DUE)

    def seen_vectors(self) -> frozenset[int]:
        """Return the vectors that were accepted at any other time than right after a ready."""
        return frozenset(vec for vec in range(_N_VECTORS) if self.use[vec] & _OTHER)

    def threads(self) -> dict[str, list[int]]:
        """Return every thread's final reading, by the names of ``vcpu_record.FINAL``."""
        return {
            name: [self._state_store[slot * _FIELDS + at] for slot in range(self.n_threads)]
            for name, at in _vcpu.FINAL.items()
        }
