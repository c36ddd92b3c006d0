# Types of waiting.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

cdef int _NONE

@cython.final
cdef class Waiting:
    cdef public long long[::1] gva, token, life
    cdef public int[::1] slot, next, over
    cdef int[::1] heads
    cdef int n, free, mask

    cdef _reserve(self, int room)
    cdef void _hang(self, int at) noexcept
    cdef int _home(self, long long gva) noexcept
    cpdef begin(self, int slot, long long life, long long token, long long gva)
    cpdef long long answer(self, int slot, long long token, long long gva) noexcept
    cpdef int first(self, long long gva) noexcept
    cpdef int after(self, int at) noexcept
    cdef int _seek(self, int at, long long gva) noexcept
