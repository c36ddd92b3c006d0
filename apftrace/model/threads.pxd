# Types of threads.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

from apftrace.model.breaks cimport Breaks

cdef long long _UNINTERRUPTIBLE, _DEAD, _STATE_MASK, _NEVER, _ABSURD, _CPU_MASK, _ONE
cdef int _BITS, _RUNNING, _RUNNABLE, _SLEEP, _BLOCKED
cdef int _TID, _FIRST, _LAST, _CPU, _CPUS, _GONE, _STATE, _SINCE, _HOG, _HOG_WAIT, _OUT_TO, _OUT_AT, _OUT_CPU
cdef int _METERS, _N_METERS, _CLOCK, _COUNTED, _MOST_UNWOKEN, _RARELY

cdef class Threads:
    cdef public dict cpus_of
    cdef long long[::1] blank, switches, current, switched, state, slept_from, slept_to
    cdef object _state_store, _slots_store
    cdef int[::1] slots
    cdef int width, mask, n_threads, n_unwoken
    cdef long long n_switches
    cdef Breaks switch_breaks
    cdef readonly long long woken, unwoken_met
    cdef long long unwoken_step

    cdef int _grow(self) except -1 with gil
    cdef inline int _hash(self, long long tid) noexcept nogil
    cdef int _slot_of(self, int tid, long long ts, int cpu) except -1 nogil
    cdef void _become(self, int slot, int state, long long ts) noexcept nogil
    cdef void _mark(self, int base, int at, long long ts) noexcept nogil
    cdef void _count(self, int base, int at) noexcept nogil
    cdef void _no_wait(self, int base) noexcept nogil
    cdef int _seen(self, int slot, int tid, long long ts, int cpu) except -1 nogil
    cdef int _first_seen_on(self, int tid, int cpu) except -1 with gil
    @cython.locals(alone=bint)
    cdef int _switch(self, long long ts, int cpu, int prev_pid, long long prev_state, int next_pid) except -1 nogil
    cdef void _unwoken(self, long long since, long long ts) noexcept nogil
    cdef void _fell_asleep(self, int slot, long long ts, int cpu) noexcept nogil
    cdef int _wake(self, long long ts, int cpu, int pid) except -1 nogil
