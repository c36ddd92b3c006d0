# Types of odometer.py when Cython builds it; the .py alone is the interpreted form.
cimport cython

from apftrace.model.asleep cimport Asleep
from apftrace.model.ledger cimport Ledger
from apftrace.model.waiting cimport Waiting

cdef int _TRY, _REPEATED, _NOT_PRESENT, _READY, _COMPLETED, _ENTRY, _EXIT, _MSR, _INJ_EXCEPTION
cdef int _ACCEPT, _INJ_VIRQ, _PAGE_FAULT, _USERSPACE_EXIT, _SWITCH, _WAKING, _WAKEUP, _QUEUE_WORK
cdef int _EXECUTE_START, _EXECUTE_END, _PROCESS_EXIT, _APICV_ACCEPT, _READING, _RESET, _STARTUP, _LOST
cdef long long _MSR_EN, _MSR_INT, _MSR_ACK, _PF_VECTOR, _MC_VECTOR, _HLT_VMX, _HLT_SVM
cdef long long _RESET_RIP, _DM_SMI, _DM_INIT, _DM_SIPI
cdef long long _SLEEPING, _UNINTERRUPTIBLE, _DEAD, _STATE_MASK, _NEVER, _ABSURD, _CPU_MASK
cdef int _UNKNOWN, _RUNNING, _RUNNABLE, _SLEEP, _BLOCKED
cdef int _TID, _FIRST, _LAST, _CPU, _ENTRIES, _VIRQS, _HLTS, _EXIT_TS, _ENTRY_TS, _STATE, _SINCE, _CLOCK
cdef int _N_VECTORS, _DUE, _OTHER, _OWN, _PREV, _READY_GFN, _VCPU, _GONE, _WORK, _HOG, _HOG_WAIT, _OUT_TO, _OUT_AT, _OUT_CPU, _GUEST, _FIELDS
cdef int _FAULTED, _LIFE, _LIFE_ENTRIES, _READY_ROW, _FIRST_FAULT, _TRIED, _TOLD, _QUEUED, _CHAIN
cdef int _T_TS, _T_CPU, _T_GVA, _T_GFN, _T_ENTRIES, _T_EXIT, _T_FIRST, _AT_RESET
cdef int _V_TID, _V_ENTRIES, _V_HLTS, _V_CLOCK, _SINCE_LAST, _BEFORE

@cython.final
cdef class Odometer:
    cdef int[::1] use
    cdef long long[::1] switches
    cdef Waiting waiting
    cdef public Ledger ledger
    cdef public Asleep asleep
    cdef public dict cpus_of
    cdef long long function
    cdef object _state_store, _slots_store
    cdef long long[::1] state
    cdef int[::1] slots
    cdef int mask, n_threads

    cdef int _slot_of(self, int tid, long long ts, int cpu) except -1
    cdef void _become(self, int slot, int state, long long ts) noexcept
    cdef long long _emit(self, int slot, int kind, long long ts, int cpu, long long a, long long b, long long c) except *
    cdef _completed(self, int slot, long long ts, int cpu, long long gva, long long address)
    cdef void _read_vcpu(self, int slot, int vcpu, long long ts) noexcept
    cdef void _since_last(self, int slot, long long ts) noexcept
    cdef _try(self, int slot, long long ts, int cpu, long long gva, long long gfn)
    cdef _untried(self, int slot, int last)
    cdef bint _tried(self, int slot, long long gva) except -1
    cdef _begin(self, int slot, long long ts, int cpu, long long token, long long gva)
    cdef _ready(self, int slot, long long ts, int cpu, long long token, long long gva)
    cdef _queue_work(self, int slot, long long ts, int cpu, long long work, long long function)
    cdef bint _keep(self, int slot, int kind, long long a, long long b, long long c) except -1
    cdef int _seen(self, int slot, int tid, long long ts, int cpu) except -1
    cdef int _switch(self, long long ts, int cpu, int prev_pid, long long prev_state, int next_pid) except -1
    cdef int _wake(self, long long ts, int cpu, int pid) except -1
    cdef _accept(self, int slot, int kind, long long ts, int cpu, long long vec, long long apicid, long long mode)
    cdef int _reset(self, int slot, long long ts, int cpu, long long vcpu, long long rip) except -1
    cdef int _own(self, int slot, int kind, long long ts, int cpu, long long a, long long b, long long c) except -1
    cpdef feed(self, const long long[::1] ts, const int[::1] cpu, const int[::1] tid, const int[::1] kind,
                   const long long[::1] a, const long long[::1] b, const long long[::1] c)
