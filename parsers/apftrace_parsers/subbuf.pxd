# Types of subbuf.py. Without this file the module would compile untyped, without a word.
cimport cython

from apftrace_parsers.lanes cimport Lanes
from apftrace_parsers.rowwriter cimport RowWriter

cdef long long NO_STAMP, FOREVER, STAMP_MASK
cdef int NOTHING, RECORD, GAP, BAD_STAMP, BAD_RECORD, LOSS_ROOM

@cython.final
cdef class Walker(Lanes):
    cdef public RowWriter rows
    cdef short[::1] want
    cdef int[::1] cpu, heap, head_pick
    cdef long long[::1] want_base, counts, report_gaps
    cdef public int live, hungry
    cdef long long n_short
    cdef public long long backwards
    cdef long long[::1] ts, starts
    cdef int[::1] pick, lanes, lengths
    cdef unsigned char[::1] payloads

    @cython.locals(base=longlong, i=longlong)
    cpdef dict hits(self, int instance)
    @cython.locals(i=int)
    cpdef bint join(self, int lane)
    cpdef long long merge(self, long long n)
    @cython.locals(room=longlong, lane=int, rival=int, until=longlong)
    cdef long long _merge(self, long long n) noexcept nogil
    cdef long long _put_gap(self, int lane, long long n) noexcept nogil
    cpdef long long collect(self, int lane, long long row, long long used)
    @cython.locals(n=longlong, start=longlong, i=longlong)
    cdef long long _collect(self, int lane, long long row, long long used) noexcept nogil
    cdef int _advance(self, int lane) noexcept nogil
    @cython.locals(base=longlong, cpu=int, first=longlong, last=longlong, limit=longlong, pos=longlong, end=longlong,
                   raw=longlong, seen=longlong, kind=int, opened=int, word=longlong, code=int, delta=longlong,
                   body=longlong, size=longlong, after=longlong, stamp=longlong, slot=longlong, pick=int, ns=longlong)
    cdef long long _run(self, int lane, long long n, long long room, long long until) noexcept nogil
    @cython.locals(high=longlong)
    cdef inline long long _absolute(self, long long raw, long long stamp) noexcept nogil
    cdef inline long long _u16(self, long long at) noexcept nogil
    @cython.locals(word=uint)
    cdef inline unsigned long long _word(self, long long i) noexcept nogil
    cdef inline bint _before(self, int lane, int other) noexcept nogil
    cdef int _second(self) noexcept nogil
    cdef void _leave(self) noexcept nogil
    @cython.locals(i=int, child=int)
    cdef void _sink(self, int lane) noexcept nogil
