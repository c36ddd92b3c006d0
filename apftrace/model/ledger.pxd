# Types of ledger.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

cdef int _SEQ, _TS, _A, _B, _C, _CPU, _TID, _READ, KINDS, MOST

@cython.final
cdef class Ledger:
    cdef public long long n
    cdef public long long[::1] state
    cdef long long[::1] count, room
    cdef int[::1] narrow, reads, read
    # KINDS * MOST of each.
    cdef long long* wide_at[1280]
    cdef int* narrow_at[1280]
    cdef dict _columns, _names

    cpdef Py_ssize_t put(self, int kind, long long ts, int cpu, long long base, long long a, long long b, long long c) except? -1 nogil
    cdef int _reserve(self, int kind, long long room) except -1 with gil
    cdef int _forget(self, int kind) except -1
    cdef long long* _wide_place(self, long long[::1] view) except NULL
    cdef int* _narrow_place(self, int[::1] view) except NULL
