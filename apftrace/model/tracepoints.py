"""The tracepoints that the model reads, under all the names they have had, and the facts of the x86 ABI.

Field and event names follow the kernel's ``arch/x86/kvm/trace.h``, ``include/trace/events/{kvm,sched,
workqueue,signal,ras}.h``; names are tried newest first.
"""

from __future__ import annotations

from dataclasses import dataclass

from apftrace_parsers.base import MISSED, Pick

# Kinds of stream row. A kind is the index of its tracepoint in TRACEPOINTS; the odometer makes the further ones.
TRY = 0
REPEATED = 1
NOT_PRESENT = 2
READY = 3
COMPLETED = 4
ENTRY = 5
EXIT = 6
MSR = 7
INJ_EXCEPTION = 8
ACCEPT = 9
INJ_VIRQ = 10
PAGE_FAULT = 11
USERSPACE_EXIT = 12
SWITCH = 13
WAKING = 14
WAKEUP = 15
QUEUE_WORK = 16
EXECUTE_START = 17
EXECUTE_END = 18
PROCESS_EXIT = 19
SIGNAL = 20
MEMORY_FAILURE = 21
SMM = 22
CR = 23
APICV_ACCEPT = 24
SPENT = 64
UNANSWERED = 65
RESET = 66
STARTUP = 67
LOST = MISSED


@dataclass(frozen=True)
class Tracepoint:
    """A tracepoint of the model: its kind, its names, and the fields carried as a, b, c."""

    kind: int
    pick: Pick

    @property
    def name(self) -> str:
        """The newest name."""
        return self.pick.events[0].split(":")[-1]


def _tracepoint(kind: int, events: str, *fields: str) -> Tracepoint:
    return Tracepoint(kind, Pick(tuple(events.split("|")), tuple(tuple(f.split("|")) for f in fields)))


TRACEPOINTS: tuple[Tracepoint, ...] = (
    _tracepoint(TRY, "kvm:kvm_try_async_get_page", "gva", "gfn"),
    # Renamed by 1685c0f32554, "KVM: x86/mmu: rename trace function name for asynchronous page fault".
    _tracepoint(REPEATED, "kvm:kvm_async_pf_repeated_fault|kvm:kvm_async_pf_doublefault", "gva", "gfn"),
    _tracepoint(NOT_PRESENT, "kvm:kvm_async_pf_not_present", "token", "gva"),
    _tracepoint(READY, "kvm:kvm_async_pf_ready", "token", "gva"),
    _tracepoint(COMPLETED, "kvm:kvm_async_pf_completed", "gva", "address"),
    _tracepoint(ENTRY, "kvm:kvm_entry", "vcpu_id", "rip"),
    _tracepoint(EXIT, "kvm:kvm_exit", "exit_reason", "isa"),
    _tracepoint(MSR, "kvm:kvm_msr", "write", "ecx", "data"),
    _tracepoint(INJ_EXCEPTION, "kvm:kvm_inj_exception", "exception", "error_code", "reinjected"),
    _tracepoint(ACCEPT, "kvm:kvm_apic_accept_irq", "vec", "apicid", "dm"),
    _tracepoint(INJ_VIRQ, "kvm:kvm_inj_virq", "vector|irq"),
    _tracepoint(PAGE_FAULT, "kvm:kvm_page_fault", "fault_address", "error_code", "guest_rip"),
    _tracepoint(USERSPACE_EXIT, "kvm:kvm_userspace_exit", "reason", "errno"),
    _tracepoint(SWITCH, "sched:sched_switch", "prev_pid", "prev_state", "next_pid"),
    _tracepoint(WAKING, "sched:sched_waking", "pid"),
    _tracepoint(WAKEUP, "sched:sched_wakeup", "pid"),
    _tracepoint(QUEUE_WORK, "workqueue:workqueue_queue_work", "work", "function"),
    _tracepoint(EXECUTE_START, "workqueue:workqueue_execute_start", "work", "function"),
    _tracepoint(EXECUTE_END, "workqueue:workqueue_execute_end", "work"),
    _tracepoint(PROCESS_EXIT, "sched:sched_process_exit", "pid"),
    _tracepoint(SIGNAL, "signal:signal_generate", "sig", "code", "pid"),
    _tracepoint(MEMORY_FAILURE, "ras:memory_failure_event", "pfn", "type", "result"),
    # kvm_enter_smm until 2021; both tell of leaving too.
    _tracepoint(SMM, "kvm:kvm_smm_transition|kvm:kvm_enter_smm", "entering"),
    _tracepoint(CR, "kvm:kvm_cr", "rw", "cr", "val"),
    _tracepoint(APICV_ACCEPT, "kvm:kvm_apicv_accept_irq", "vec", "apicid"),
)
PICKS: tuple[Pick, ...] = tuple(t.pick for t in TRACEPOINTS)
NAMES: dict[int, str] = {t.kind: t.name for t in TRACEPOINTS}

BROADCAST = 0xFFFFFFFF
"""Token of a wake-all: ``~0`` as u32, set by kvm_async_pf_wakeup_all (virt/kvm/async_pf.c)."""

VCPU_BITS = 12
"""A token is ``(id << 12) | vcpu_id``: alloc_apf_token in arch/x86/kvm/x86.c."""

PER_VCPU = 64
"""ASYNC_PF_PER_VCPU: most lives that one vCPU can have outstanding."""

# arch/x86/include/uapi/asm/kvm_para.h
MSR_EN = 0x4B564D02
MSR_INT = 0x4B564D06
MSR_ACK = 0x4B564D07
EN_ENABLED = 1 << 0
EN_SEND_ALWAYS = 1 << 1
EN_DELIVERY_AS_INT = 1 << 3

LINUX_VECTOR = 0xF3
"""HYPERVISOR_CALLBACK_VECTOR, which Linux guests write to MSR_KVM_ASYNC_PF_INT."""

RESET_RIP = 0xFFF0
"""Where a vCPU begins after a reset: in no 64-bit guest's map, whose lowest 64 KiB are nobody's."""

# Delivery modes of an interrupt, as in the ICR: APIC_DM_* of arch/x86/include/asm/apicdef.h.
DM_SMI = 0x200
DM_INIT = 0x500
DM_SIPI = 0x600

CR0_PG = 1 << 31

PF_VECTOR = 14
MC_VECTOR = 18

HLT_EXITS: tuple[int, int] = (12, 0x78)
"""exit_reason of HLT on VMX (EXIT_REASON_HLT) and SVM (SVM_EXIT_HLT)."""

FAST_EXITS: tuple[int, int, int] = (32, 52, 0x7C)
"""exit_reason of MSR_WRITE and PREEMPTION_TIMER on VMX and of MSR on SVM: kernels 5.12 to 5.18 may enter again from
their fast path without a kvm_entry."""

# prev_state of sched_switch: __trace_sched_switch_state in include/trace/events/sched.h gives one bit of
# TASK_REPORT, or TASK_REPORT_MAX (above the mask) for a task that was preempted while runnable.
TASK_UNINTERRUPTIBLE = 0x02
TASK_DEAD = 0x10 | 0x20  # EXIT_DEAD, EXIT_ZOMBIE
TASK_STATE_MASK = 0xFF
