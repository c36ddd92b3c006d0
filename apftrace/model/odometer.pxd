# Types of odometer.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

from apftrace.model.breaks cimport Breaks
from apftrace.model.faults cimport Faults

cdef int _TRY, _REPEATED, _NOT_PRESENT, _READY, _COMPLETED, _ENTRY, _EXIT, _MSR, _INJ_EXCEPTION
cdef int _ACCEPT, _INJ_VIRQ, _PAGE_FAULT, _USERSPACE_EXIT, _SWITCH, _WAKING, _WAKEUP, _QUEUE_WORK
cdef int _EXECUTE_START, _EXECUTE_END, _PROCESS_EXIT, _APICV_ACCEPT, _RESET, _STARTUP, _LOST
cdef long long _MSR_EN, _MSR_INT, _MSR_ACK, _PF_VECTOR, _MC_VECTOR, _HLT_VMX, _HLT_SVM, _MSR_VMX, _TIMER_VMX, _MSR_SVM
cdef long long _RESET_RIP, _DM_SMI, _DM_INIT, _DM_SIPI
cdef long long _NEVER, _ABSURD, _CPU_MASK
cdef int _TID, _LAST, _CPU, _GONE, _GUEST, _HLTS, _BLOCKED_FOR
cdef int _ENTRIES, _VIRQS, _EXIT_TS, _ENTRY_TS, _PREV, _READY_GFN, _VCPU, _WORK
cdef int _FAULTED, _LIFE, _LIFE_ENTRIES, _READY_ROW, _TOLD, _AT_RESET, _RUN_CPU, _FAST_EXIT
cdef int _ACCEPT_MARK, _VIRQ_MARK, _FIELDS
cdef int _N_VECTORS, _DUE, _OTHER, _OWN

cdef class Odometer(Faults):
    cdef int[::1] use, here
    cdef long long holding, runs
    cdef Breaks run_breaks

    cdef void _fell_asleep(self, int slot, long long ts, int cpu) noexcept nogil
    @cython.locals(near=bint)
    cdef inline bint _keep(self, int slot, int kind, long long a, long long b, long long c) noexcept nogil
    @cython.locals(known=bint)
    cdef inline int _accept(self, int slot, int kind, long long ts, int cpu, long long vec, long long apicid, long long mode) except -1 nogil
    @cython.locals(first=bint, held=longlong)
    cdef inline int _inj_virq(self, int slot, long long ts, int cpu, long long vec, long long b, long long c) except -1 nogil
    cdef inline int _reset(self, int slot, long long ts, int cpu, long long vcpu, long long rip) except -1 nogil
    cdef inline void _ran(self, int base, long long same, long long other, long long ts, int cpu) noexcept nogil
    @cython.locals(held=longlong)
    cdef inline int _own(self, int slot, int kind, long long ts, int cpu, long long a, long long b, long long c) except -1 nogil
    cdef inline int _meet(self, int tid, long long ts, int cpu) except -1 nogil
    @cython.locals(i=Py_ssize_t, k=int, slot=int)
    cpdef feed(self, const long long[::1] ts, const int[::1] cpu, const int[::1] tid, const int[::1] kind,
                   const long long[::1] a, const long long[::1] b, const long long[::1] c)
