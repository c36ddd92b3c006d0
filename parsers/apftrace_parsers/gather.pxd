# Types of gather.py. Without this file the module would compile untyped, without a word.
cimport cython

cdef class Gatherer:
    cdef const unsigned char[::1] heap
    cdef const long long[::1] starts
    cdef const int[::1] lengths
    cdef int[::1] rows
    cdef bint big, swap
    cdef long long n

    @cython.locals(row=longlong)
    cpdef long long select(self, const int[::1] pick, long long n, int wanted, long long least)
    @cython.locals(i=longlong)
    cpdef object longs(self, const long long[::1] source, long long[::1] out)
    @cython.locals(i=longlong)
    cpdef object mapped(self, const int[::1] source, const int[::1] values, int[::1] out)
    @cython.locals(i=longlong)
    cpdef object values(self, long long offset, long long length, long long width, unsigned char[::1] out)
    @cython.locals(put=longlong, i=longlong, start=longlong, span=longlong)
    cpdef object texts(self, long long offset, long long length, int[::1] ends, unsigned char[::1] out)
    @cython.locals(astray=longlong, put=longlong, i=longlong, start=longlong, word=longlong, begin=longlong,
                   span=longlong)
    cpdef long long located(
        self, long long offset, long long base, long long width, int[::1] ends,
        unsigned char[::1] out,
    )
    @cython.locals(put=longlong, i=longlong, start=longlong, span=longlong)
    cpdef object tails(self, long long offset, long long width, int[::1] ends, unsigned char[::1] out)
    @cython.locals(k=longlong)
    cdef void _copy(
        self, long long start, long long length, long long width, unsigned char[::1] out, long long put,
    ) noexcept nogil
    @cython.locals(b0=uint, b1=uint, b2=uint, b3=uint)
    cdef long long _location(self, long long start) noexcept nogil
    @cython.locals(k=longlong)
    cdef long long _up_to_nul(self, long long start, long long length) noexcept nogil
