# Types of subbuf.py. Without this file the module would compile untyped, without a word.
cimport cython

cdef long long NO_STAMP, FOREVER, COMMIT_MASK, MISSED_EVENTS, MISSED_STORED, STAMP_MASK, SIGN, WORD, LONG_ONE
cdef unsigned long long LONG_MASK
cdef int UNKNOWN, NOTHING, RECORD, GAP, BAD_STAMP, BAD_COMMIT, BAD_RECORD, NO_HEADER, BAD_ORDER, SINCE_EVER, N_DAMAGE_KINDS
cdef int LOSS_ROOM, LOSS_WIDTH, DAMAGE_ROOM, DAMAGE_WIDTH, FIELDS_PER_PICK, PIECE_WIDTH
cdef int FIELD_WIDTH, PICK_WIDTH, END, DUE, LOW, HIGH, SHIFT, MASK, SIGNED, ODD

cdef class Walker:
    cdef const unsigned char[::1] data
    cdef const unsigned int[::1] words
    cdef bint big, swap, counts_ns
    cdef int long_size, head_size, tid_at, shift, longest_chain
    cdef unsigned long long mult
    cdef long long offset
    cdef short[::1] want
    cdef int[::1] chain, cpu, heap, head_pick
    cdef long long[::1] fields
    cdef long long[::1] want_base, counts, page_size, report_gaps, pieces, piece_from, piece_upto
    cdef long long[::1] raw_from, raw_upto, raw_floor, raw_limit
    cdef long long[::1] page, stop, pos, end, raw, page_no, page_raw, gap, first_raw, last_raw, past_end
    cdef long long[::1] head_kind, head_ns, head_at, head_len
    cdef public int live
    cdef public int hungry, n_losses
    cdef long long[::1] losses, damage, n_damage
    cdef int n_located
    cdef public long long short_records, backwards

    cdef long long[::1] ts, a, b, c, starts
    cdef int[::1] cpus, tid, pick, lanes, lengths
    cdef unsigned char[::1] payloads

    @cython.locals(i=int)
    cpdef bint join(self, int lane)
    cpdef long long merge(self, long long n)
    @cython.locals(room=longlong, lane=int, rival=int, until=longlong, at=longlong)
    cdef long long _merge(self, long long n) noexcept nogil
    @cython.locals(task=int, field=int)
    cdef inline long long _put(self, int lane, long long n, long long ns, long long at, long long size, int pick) noexcept nogil
    cdef long long _put_gap(self, int lane, long long n) noexcept nogil
    cdef int _advance(self, int lane) noexcept nogil
    cpdef long long collect(self, int lane, long long row, long long used)
    @cython.locals(n=longlong, start=longlong, i=longlong)
    cdef long long _collect(self, int lane, long long row, long long used) noexcept nogil
    @cython.locals(base=longlong, first=longlong, last=longlong, limit=longlong, pos=longlong, end=longlong,
                   raw=longlong, seen=longlong, kind=int, opened=int, word=longlong, code=int, delta=longlong,
                   body=longlong, size=longlong, after=longlong, slot=longlong, pick=int, ns=longlong)
    cdef long long _run(self, int lane, long long n, long long room, long long until) noexcept nogil
    @cython.locals(page=longlong, size=longlong, raw=longlong, commit=longlong, used=longlong, data=longlong,
                   missed=longlong, disordered=bint, known=bint)
    cdef int _open_page(self, int lane) noexcept nogil
    @cython.locals(after=longlong, later=longlong)
    cdef bint _next_is_early(self, int lane, long long raw) noexcept nogil
    @cython.locals(before=longlong, after=longlong, later=longlong)
    cdef bint _is_misplaced(self, int lane, long long raw) noexcept nogil
    cdef void _mark_gap(self, int lane) noexcept nogil
    @cython.locals(slot=int)
    cdef long long _drop_page(self, int lane, int kind, long long at) noexcept nogil
    @cython.locals(slot=int)
    cdef void _log_loss(self, int lane) noexcept nogil
    @cython.locals(high=longlong)
    cdef inline long long _absolute(self, long long raw, long long stamp) noexcept nogil
    cdef inline long long _ns(self, int lane, long long raw) noexcept nogil
    @cython.locals(high=ulonglong, low=ulonglong, scaled=ulonglong)
    cdef long long _converted(self, int lane, long long raw) noexcept nogil
    @cython.locals(piece=longlong, slot=longlong, run=longlong, lift=longlong)
    cdef long long _shifted(self, int lane, long long raw) noexcept nogil
    @cython.locals(low=ulonglong, middle=ulonglong, other=ulonglong, high=ulonglong)
    cdef long long _scaled(self, long long raw, long long scaling, int fraction) noexcept nogil
    cdef inline int _task(self, long long at, long long size) noexcept nogil
    @cython.locals(high=longlong, value=ulonglong)
    cdef inline long long _integer(self, long long at, long long size, int field) noexcept nogil
    @cython.locals(value=ulonglong, i=int)
    cdef long long _odd_integer(self, long long at, int field) noexcept nogil
    cdef inline long long _u16(self, long long at) noexcept nogil
    cdef inline unsigned long long _u32(self, long long at) noexcept nogil
    @cython.locals(word=uint)
    cdef inline unsigned long long _word(self, long long i) noexcept nogil
    @cython.locals(high=longlong, low=longlong)
    cdef inline long long _i64(self, long long at) noexcept nogil
    cdef inline long long _long(self, long long at) noexcept nogil
    cdef inline bint _before(self, int lane, int other) noexcept nogil
    cdef int _second(self) noexcept nogil
    cdef void _leave(self) noexcept nogil
    @cython.locals(i=int, child=int)
    cdef void _sink(self, int lane) noexcept nogil
