# Types of breaks.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

cdef int _MOST, _COLUMNS

@cython.final
cdef class Breaks:
    cdef long long[::1] rows
    cdef long long rarely, few
    cdef readonly long long n

    @cython.locals(at=longlong)
    cpdef void note(self, long long tid, int before, int after, long long since, long long ts) noexcept nogil
