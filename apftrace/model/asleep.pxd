# Types of asleep.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

cdef long long _NEVER
cdef int _AT, _ADDRESS, _RIP, _CPU, _OUT, _OUT_CPU, _BLOCKED, _LOST
cdef int _COUNT, _SLEPT, _IN_USER, _IN_KERNEL, _DOUBTFUL, _FIRST, _LAST
cdef int _MOST, _M_AT, _M_ADDRESS, _M_RIP, _M_CPU, _M_OUT, _M_OUT_CPU, _M_END, _M_END_CPU, _FIELDS

@cython.final
cdef class Asleep:
    cdef public long long losses
    cdef public int open
    cdef int room
    cdef object _store
    cdef long long[::1] rows

    cdef int _reserve(self, int slot) except -1 with gil
    cpdef int begin(self, int slot, long long ts, int cpu, long long address, long long rip) except -1 nogil
    cpdef void forget(self, int slot) noexcept nogil
    cpdef void sleep(self, int slot, long long ts, int cpu, long long blocked, long long entered) noexcept nogil
    cpdef void enter(self, int slot, long long ts, int cpu, long long blocked) noexcept nogil
    cdef void _count(self, long long at, long long ts, int cpu, long long slept) noexcept nogil
