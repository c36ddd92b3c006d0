# Types of waiting.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

cdef int _NONE

@cython.final
cdef class Waiting:
    cdef public long long[::1] gva, token, life, kept
    cdef public int[::1] slot, next, over
    cdef int[::1] heads
    cdef int n, free, mask, width

    cdef int _reserve(self, int room) except -1 with gil
    cdef void _hang(self, int at) noexcept nogil
    cdef int _home(self, long long gva) noexcept nogil
    cpdef int begin(self, int slot, long long life, long long token, long long gva) except -1 nogil
    cpdef int answer(self, int slot, long long token, long long gva) noexcept nogil
    cpdef int first(self, long long gva) noexcept nogil
    cpdef int after(self, int at) noexcept nogil
    cdef int _seek(self, int at, long long gva) noexcept nogil
    cpdef list all(self)
