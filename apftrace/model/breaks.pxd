# Types of breaks.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

cdef int _MOST

@cython.final
cdef class Breaks:
    cdef long long[::1] rows
    cdef long long rarely, few
    cdef readonly long long n

    cpdef void note(self, int cpu, long long since, long long ts) noexcept nogil
