# Types of rowwriter.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

cdef long long SIGN
cdef int FIELDS_PER_PICK, ODD

@cython.final
cdef class RowWriter:
    cdef const unsigned char[::1] data
    cdef const unsigned int[::1] words
    cdef bint big, swap
    cdef int tid_at
    cdef int[::1] chain
    cdef long long[::1] end, due, low, high, shift, mask, signed, plain
    cdef long long[::1] ts, a, b, c
    cdef int[::1] cpus, tid, pick
    cdef public long long room, short_records

    @cython.locals(word=longlong, task=int, field=int)
    cpdef long long put(self, long long n, long long ns, int cpu, long long at, long long size, int pick) noexcept nogil
    cpdef long long put_gap(self, long long n, long long ns, int cpu, long long missed, long long since) noexcept nogil
    cdef inline int _task(self, long long at, long long size) noexcept nogil
    @cython.locals(value=ulonglong)
    cdef inline long long _cut(self, long long word, int field) noexcept nogil
    @cython.locals(high=longlong, value=ulonglong)
    cdef inline long long _integer(self, long long at, long long size, int field) noexcept nogil
    @cython.locals(value=ulonglong, i=int)
    cdef long long _odd_integer(self, long long at, int field) noexcept nogil
    @cython.locals(word=uint)
    cdef inline unsigned long long _word(self, long long i) noexcept nogil
