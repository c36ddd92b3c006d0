# cython: annotation_typing=False, language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, infer_types=True
"""The lives of async page faults as they are met in the fold: from a try to its ready, and the work in between.

One source, two engines, as the odometer, which tells the events apart and adds what else vCPUs do. What is known of a
fault when an event of it comes is written into its thread's record; what is to stay goes into the ledger.
"""

from __future__ import annotations

from apftrace.model import thread_record as _thread
from apftrace.model import tracepoints as _tp
from apftrace.model import vcpu_record as _vcpu
from apftrace.model.asleep import Asleep
from apftrace.model.ledger import Ledger
from apftrace.model.readings import NEVER as _NEVER_SEEN
from apftrace.model.threads import Threads
from apftrace.model.waiting import Waiting

try:
    import cython
except ImportError:
    from apftrace_parsers import uncompiled as cython

COMPILED: bool = cython.compiled

_TRY, _NOT_PRESENT, _READY, _COMPLETED = _tp.TRY, _tp.NOT_PRESENT, _tp.READY, _tp.COMPLETED
_QUEUE_WORK, _SPENT, _UNANSWERED = _tp.QUEUE_WORK, _tp.SPENT, _tp.UNANSWERED
_NEVER = _NEVER_SEEN

# Fields of a thread's record in ``state``, and of what is kept with a life that waits.
_TID, _FIRST, _STATE, _HLTS = _thread.TID, _thread.FIRST, _thread.STATE, _thread.HLTS
_METERS, _N_METERS, _COUNTED, _MARK = _thread.METERS, _thread.N_METERS, _thread.COUNTED, _thread.MARK
_ENTRIES, _EXIT_TS, _PREV, _READY_GFN = _vcpu.ENTRIES, _vcpu.EXIT_TS, _vcpu.PREV, _vcpu.READY_GFN
_FAULTED, _LIFE, _LIFE_ENTRIES, _READY_ROW = _vcpu.FAULTED, _vcpu.LIFE, _vcpu.LIFE_ENTRIES, _vcpu.READY_ROW
_FIRST_FAULT, _TRIED, _QUEUED, _CHAIN, _SOLE = (
    _vcpu.FIRST_FAULT,
    _vcpu.TRIED,
    _vcpu.QUEUED,
    _vcpu.CHAIN,
    _vcpu.SOLE,
)
_T_TS, _T_CPU, _T_GVA, _T_GFN = _vcpu.T_TS, _vcpu.T_CPU, _vcpu.T_GVA, _vcpu.T_GFN
_T_ENTRIES, _T_EXIT, _T_FIRST = _vcpu.T_ENTRIES, _vcpu.T_EXIT, _vcpu.T_FIRST
_WAIT_MARK, _WORK_MARK, _FIELDS = _vcpu.WAIT_MARK, _vcpu.WORK_MARK, _vcpu.N_FIELDS
_K_BEGAN, _K_ENTRIES, _K_MARK, _KEPT = _vcpu.K_BEGAN, _vcpu.K_ENTRIES, _vcpu.K_MARK, _vcpu.KEPT


class Faults(Threads):
    """All threads' faults: those whose try came to nothing yet, and the lives that wait.

    Args:
        lasting: how long a phase must last for what its thread did to be kept, in units of the trace clock.

    Attributes:
        ledger: the anchors.
        asleep: the faults that threads slept through.
    """

    def __init__(self, lasting: int) -> None:
        super().__init__(_vcpu.blank())
        self.lasting = lasting
        self.waiting = Waiting(_KEPT)
        self.ledger = Ledger(_vcpu.READS)
        self.ledger.state = self.state
        self.asleep = Asleep()
        self.function = 0

    def _grow(self) -> None:
        Threads._grow(self)
        self.ledger.state = self.state

    def _emit(self, slot: int, kind: int, ts: int, cpu: int, a: int, b: int, c: int) -> int:
        base = slot * _FIELDS
        self._become(slot, self.state[base + _STATE], ts)
        seq = self.ledger.put(kind, ts, cpu, base, a, b, c)
        self._no_wait(base)
        return seq

    def _spent(self, slot: int, at: int, ts: int, cpu: int, *, lasted: bool) -> None:
        # A phase ends with the row that comes next: if it lasted, tell ahead of that row what the meters counted.
        base = slot * _FIELDS
        since = self.state[base + at]
        if since != _NEVER and lasted:
            self._become(slot, self.state[base + _STATE], ts)
            self._count(base, at)
            self.ledger.put(_SPENT, ts, cpu, base, since, 0, 0)
        self.state[base + at] = _NEVER

    def _completed(self, slot: int, ts: int, cpu: int, gva: int, address: int) -> None:
        # A completed names no vCPU: it is for a life that waits for this page; nearly always it is one.
        base = slot * _FIELDS
        at = self.waiting.first(gva)
        alone = at >= 0 and self.waiting.after(at) < 0
        sole = self.waiting.life[at] if alone else -1
        self.state[base + _SOLE] = self.state[self.waiting.slot[at] * _FIELDS + _TID] if alone else -1
        # Who waits for a page that several wait for is served in the order of arrival, as far as can be seen here.
        while at >= 0 and self.waiting.kept[at * _KEPT + _K_MARK] != _NEVER:
            at = self.waiting.after(at)
        waited = self.lasting
        if at >= 0:
            waited = ts - self.waiting.kept[at * _KEPT + _K_BEGAN]
            self._done(at, ts)
        # The worker's meters reach back to its completed before, of the first one to when it was first seen.
        if self.state[base + _WORK_MARK] == _NEVER:
            self.state[base + _WORK_MARK] = self.state[base + _FIRST]
        self._spent(slot, _WORK_MARK, ts, cpu, lasted=waited >= self.lasting)
        self._emit(slot, _COMPLETED, ts, cpu, gva, address, sole)
        self._mark(base, _WORK_MARK, ts)

    def _done(self, at: int, ts: int) -> None:
        # From here on a life waits for its vCPU.
        kept = at * _KEPT
        vcpu = self.waiting.slot[at] * _FIELDS
        self._become(self.waiting.slot[at], self.state[vcpu + _STATE], ts)
        self.waiting.kept[kept + _K_ENTRIES] = self.state[vcpu + _ENTRIES]
        self.waiting.kept[kept + _K_MARK] = ts
        for meter in range(_N_METERS):
            self.waiting.kept[kept + _K_MARK + 1 + meter] = self.state[vcpu + _METERS + meter]
        self._no_wait(vcpu)

    def _try(self, slot: int, ts: int, cpu: int, gva: int, gfn: int) -> None:
        # What it becomes is known with the thread's next fault event.
        base = slot * _FIELDS
        self._untried(slot, last=0)
        self.asleep.forget(slot)
        self.state[base + _T_TS] = ts
        self.state[base + _T_CPU] = cpu
        self.state[base + _T_GVA] = gva
        self.state[base + _T_GFN] = gfn
        self.state[base + _T_ENTRIES] = self.state[base + _ENTRIES]
        self.state[base + _T_EXIT] = self.state[base + _EXIT_TS]
        self.state[base + _T_FIRST] = self.state[base + _FAULTED] < 0
        self.state[base + _FAULTED] = _TRY
        self.state[base + _CHAIN] = _TRY
        self._no_wait(base)

    def _untried(self, slot: int, last: int) -> None:
        # A try that became nothing is an anchor of its own, with the thread's reading at its time.
        base = slot * _FIELDS
        if self.state[base + _FAULTED] == _TRY:
            entries, exit_ts = self.state[base + _ENTRIES], self.state[base + _EXIT_TS]
            self.state[base + _ENTRIES] = self.state[base + _T_ENTRIES]
            self.state[base + _EXIT_TS] = self.state[base + _T_EXIT]
            self.state[base + _FIRST_FAULT] = self.state[base + _T_FIRST]
            ts, gva, gfn = self.state[base + _T_TS], self.state[base + _T_GVA], self.state[base + _T_GFN]
            self.ledger.put(_TRY, ts, self.state[base + _T_CPU], base, gva, gfn, last)
            self.state[base + _ENTRIES], self.state[base + _EXIT_TS] = entries, exit_ts

    def _tried(self, slot: int, gva: int) -> bool:
        # Say whether the thread's previous fault event is the try that came to this, and take it off.
        base = slot * _FIELDS
        self.asleep.forget(slot)
        self.state[base + _FIRST_FAULT] = self.state[base + _FAULTED] < 0
        if self.state[base + _FAULTED] == _TRY and self.state[base + _T_GVA] == gva:
            return True
        self._untried(slot, last=0)
        self.state[base + _FIRST_FAULT] = self.state[base + _FAULTED] < 0
        return False

    def _begin(self, slot: int, ts: int, cpu: int, token: int, gva: int) -> None:
        base = slot * _FIELDS
        tried = self._tried(slot, gva)
        self.state[base + _TRIED] = self.state[base + _T_TS] if tried else _NEVER
        gfn = self.state[base + _T_GFN] if tried else -1
        if self.state[base + _CHAIN] != _QUEUE_WORK:
            self.state[base + _QUEUED] = -1
        life = self._emit(slot, _NOT_PRESENT, ts, cpu, token, gva, gfn)
        kept = self.waiting.begin(slot, life, token, gva) * _KEPT
        self.waiting.kept[kept + _K_BEGAN] = ts
        self.waiting.kept[kept + _K_MARK] = _NEVER
        self.state[base + _LIFE] = life
        self.state[base + _LIFE_ENTRIES] = self.state[base + _ENTRIES]
        self.state[base + _FAULTED] = _NOT_PRESENT
        self.state[base + _CHAIN] = _NOT_PRESENT

    def _ready(self, slot: int, ts: int, cpu: int, token: int, gva: int) -> None:
        base = slot * _FIELDS
        life = -1
        at = self.waiting.answer(slot, token, gva)
        if at >= 0:
            life = self.waiting.life[at]
            for field in range(_MARK):
                self.state[base + _WAIT_MARK + field] = self.waiting.kept[at * _KEPT + _K_MARK + field]
            self._spent(slot, _WAIT_MARK, ts, cpu, lasted=ts - self.state[base + _WAIT_MARK] >= self.lasting)
        self.state[base + _READY_GFN] = gva >> 12
        self.state[base + _READY_ROW] = self._emit(slot, _READY, ts, cpu, token, gva, life)

    def _queue_work(self, slot: int, ts: int, cpu: int, work: int, function: int) -> None:
        # schedule_work comes right after not_present on the same thread, before 5.8 right before it: that
        # is how the address of async_pf_execute is learned.
        base = slot * _FIELDS
        before = self.state[base + _PREV]
        if before == _NOT_PRESENT or (before == _TRY and self.function == 0):
            self.function = function
        if function == self.function:
            of = self.state[base + _LIFE] if self.state[base + _CHAIN] == _NOT_PRESENT else -1
            seq = self._emit(slot, _QUEUE_WORK, ts, cpu, work, function, of)
            self.state[base + _QUEUED] = seq if of < 0 else -1
            self.state[base + _CHAIN] = _QUEUE_WORK

    def finish(self) -> None:
        """Close the books: a try that is its thread's last fault event becomes an anchor."""
        for slot in range(self.n_threads):
            self._untried(slot, last=1)
            self.state[slot * _FIELDS + _FAULTED] = -1
        for at in self.waiting.all():
            self._unanswered(at)

    def _unanswered(self, at: int) -> None:
        # A completed life without a ready: what its vCPU had counted by then.
        kept = at * _KEPT
        done = self.waiting.kept[kept + _K_MARK]
        if done != _NEVER:
            base = self.waiting.slot[at] * _FIELDS
            self.state[base + _COUNTED + _HLTS - _METERS] = self.waiting.kept[
                kept + _K_MARK + 1 + _HLTS - _METERS
            ]
            entries = self.waiting.kept[kept + _K_ENTRIES]
            self.ledger.put(_UNANSWERED, done, -1, base, self.waiting.life[at], entries, 0)
