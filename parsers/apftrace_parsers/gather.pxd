# Types of gather.py. Without this file the module would compile untyped, without a word.
cimport cython

@cython.locals(found=longlong, row=longlong)
cpdef long long select(
    const int[::1] pick, const int[::1] size, long long n, int wanted, long long least, int[::1] rows,
)
@cython.locals(i=longlong)
cpdef void longs(const long long[::1] source, const int[::1] rows, long long n, long long[::1] out)
@cython.locals(i=longlong)
cpdef void mapped(
    const int[::1] source, const int[::1] values, const int[::1] rows, long long n, int[::1] out,
)
@cython.locals(i=longlong)
cpdef void values(
    const unsigned char[::1] heap, const long long[::1] at, const int[::1] rows, long long n,
    long long offset, long long width, long long count, bint swap, unsigned char[::1] out,
)
@cython.locals(short=longlong, put=longlong, i=longlong, start=longlong, room=longlong, begin=longlong,
               span=longlong, word=longlong)
cpdef long long lists(
    const unsigned char[::1] heap, const long long[::1] at, const int[::1] size, const int[::1] rows,
    long long n, long long offset, long long length, bint located, bint relative, bint text,
    long long width, bint big, bint swap, int[::1] ends, unsigned char[::1] out,
)
@cython.locals(k=longlong)
cdef void copy(
    const unsigned char[::1] heap, long long start, long long length, long long width, bint swap,
    unsigned char[::1] out, long long put,
) noexcept nogil
@cython.locals(b0=uint, b1=uint, b2=uint, b3=uint)
cdef long long location(const unsigned char[::1] heap, long long start, bint big) noexcept nogil
@cython.locals(k=longlong)
cdef long long up_to_nul(const unsigned char[::1] heap, long long start, long long length) noexcept nogil
