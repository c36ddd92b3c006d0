# Types of ledger.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

cdef int _SEQ, _TS, _CPU, _TID, _A, _B, _C, _READ, _ROOM, _MOST

@cython.final
cdef class Ledger:
    cdef public long long n
    cdef public long long[::1] state
    cdef long long[::1] start, rows
    cdef int[::1] count, reads, read, narrow
    cdef dict _moved

    cpdef Py_ssize_t put(self, int kind, long long ts, int cpu, long long base, long long a, long long b, long long c) except? -1 nogil
    cdef int _move_out(self, int kind) except -1 with gil
    cdef void _narrow(self, long long at, int n) noexcept
