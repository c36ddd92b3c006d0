# Types of unmerge.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

@cython.locals(i=Py_ssize_t, letter=int)
cpdef column(const int[::1] pick, const int[::1] letter_of, const long long[::1] a, const long long[::1] b,
             const long long[::1] c, long long[::1] out, unsigned char[::1] valid)
@cython.locals(i=Py_ssize_t, at=Py_ssize_t, key=int)
cpdef look_up(const int[::1] wanted, const int[::1] keys, const int[::1] values, int[::1] out,
              unsigned char[::1] valid)
@cython.locals(low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t)
cdef Py_ssize_t _first_from(const int[::1] keys, int key) noexcept nogil
@cython.locals(i=Py_ssize_t, n=Py_ssize_t)
cpdef Py_ssize_t count(const int[::1] values, int wanted)
