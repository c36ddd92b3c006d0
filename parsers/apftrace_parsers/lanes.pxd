# Types of lanes.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

from apftrace_parsers.stamps cimport Stamps

cdef long long NO_STAMP, COMMIT_MASK, MISSED_EVENTS, MISSED_STORED, LONG_SIGN
cdef int UNKNOWN, NOTHING, RECORD, GAP, BAD_STAMP, BAD_COMMIT, NO_HEADER, BAD_ORDER, SINCE_EVER
cdef int LOSS_WIDTH, DAMAGE_ROOM, DAMAGE_WIDTH

cdef class Lanes:
    cdef const unsigned char[::1] data
    cdef const unsigned int[::1] words
    cdef bint big, swap
    cdef int long_size
    cdef public Stamps stamps
    cdef long long[::1] page_size, raw_from, raw_upto, raw_floor, raw_limit
    cdef long long[::1] page, stop, known, pos, end, raw, page_no, page_raw, gap, first_raw, last_raw, past_end
    cdef long long[::1] head_kind, head_ns, head_at, head_len
    cdef public int n_losses
    cdef long long[::1] losses, damage, n_damage
    cdef int n_located

    @cython.locals(page=longlong, size=longlong, raw=longlong, commit=longlong, used=longlong, data=longlong,
                   outside=bint, counted=bint, before=longlong, missed=longlong)
    cdef int _open_page(self, int lane) noexcept nogil
    @cython.locals(known=bint, after=longlong)
    cdef void _put_gap_at_head(self, int lane, long long before, long long raw, long long missed) noexcept nogil
    @cython.locals(after=longlong, later=longlong)
    cdef bint _next_is_early(self, int lane, long long raw) noexcept nogil
    @cython.locals(before=longlong, after=longlong, later=longlong)
    cdef bint _is_misplaced(self, int lane, long long raw) noexcept nogil
    cdef void _mark_gap(self, int lane) noexcept nogil
    @cython.locals(slot=int)
    cdef long long _drop_page(self, int lane, int kind, long long at) noexcept nogil
    @cython.locals(slot=int)
    cdef void _log_loss(self, int lane) noexcept nogil
    @cython.locals(first=ulonglong, second=ulonglong, value=ulonglong)
    cdef long long _number(self, long long at, int width) noexcept nogil
    @cython.locals(word=uint)
    cdef inline unsigned long long _head_word(self, long long i) noexcept nogil
