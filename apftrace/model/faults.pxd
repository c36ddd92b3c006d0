# Types of faults.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

from apftrace.model.asleep cimport Asleep
from apftrace.model.ledger cimport Ledger
from apftrace.model.threads cimport Threads
from apftrace.model.waiting cimport Waiting

cdef int _TRY, _NOT_PRESENT, _READY, _COMPLETED, _QUEUE_WORK, _SPENT, _UNANSWERED
cdef long long _NEVER
cdef int _TID, _FIRST, _STATE, _HLTS, _METERS, _N_METERS, _COUNTED, _MARK
cdef int _ENTRIES, _EXIT_TS, _PREV, _READY_GFN
cdef int _FAULTED, _LIFE, _LIFE_ENTRIES, _READY_ROW, _FIRST_FAULT, _TRIED, _QUEUED, _CHAIN, _SOLE
cdef int _T_TS, _T_CPU, _T_GVA, _T_GFN, _T_ENTRIES, _T_EXIT, _T_FIRST
cdef int _WAIT_MARK, _WORK_MARK, _FIELDS
cdef int _K_BEGAN, _K_ENTRIES, _K_MARK, _KEPT

cdef class Faults(Threads):
    cdef Waiting waiting
    cdef public Ledger ledger
    cdef public Asleep asleep
    cdef long long function, lasting

    cdef int _grow(self) except -1 with gil
    cdef Py_ssize_t _emit(self, int slot, int kind, long long ts, int cpu, long long a, long long b, long long c) except? -1 nogil
    cdef int _spent(self, int slot, int at, long long ts, int cpu, bint lasted) except -1 nogil
    @cython.locals(alone=bint, waited=longlong)
    cdef int _completed(self, int slot, long long ts, int cpu, long long gva, long long address) except -1 nogil
    cdef inline void _done(self, int at, long long ts) noexcept nogil
    cdef int _try(self, int slot, long long ts, int cpu, long long gva, long long gfn) except -1 nogil
    cdef int _untried(self, int slot, int last) except -1 nogil
    cdef int _tried(self, int slot, long long gva) except -1 nogil
    cdef int _begin(self, int slot, long long ts, int cpu, long long token, long long gva) except -1 nogil
    @cython.locals(life=longlong)
    cdef int _ready(self, int slot, long long ts, int cpu, long long token, long long gva) except -1 nogil
    cdef int _queue_work(self, int slot, long long ts, int cpu, long long work, long long function) except -1 nogil
    cdef int _unanswered(self, int at) except -1
