# Types of stamps.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

cdef long long WORD, SCALED_MASK
cdef unsigned long long LONG_MASK
cdef int PIECE_WIDTH

@cython.final
cdef class Stamps:
    cdef bint are_ns
    cdef int shift
    cdef unsigned long long mult
    cdef long long offset
    cdef long long[::1] pieces, piece_from, piece_upto

    cpdef long long ns(self, int lane, long long raw) noexcept nogil
    @cython.locals(high=ulonglong, low=ulonglong, scaled=ulonglong)
    cdef long long _converted(self, int lane, long long raw) noexcept nogil
    @cython.locals(piece=longlong, slot=longlong, run=longlong, lift=longlong)
    cdef long long _shifted(self, int lane, long long raw) noexcept nogil
    @cython.locals(low=ulonglong, middle=ulonglong, other=ulonglong, high=ulonglong)
    cdef long long _scaled(self, long long raw, long long scaling, int fraction) noexcept nogil
