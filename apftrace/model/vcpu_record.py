"""The record of a thread in the fold, behind what `thread_record` has: what the odometer keeps, mostly of vCPUs.

What an interrupt vector is used for, and what is kept with a life that waits, are told here too.
"""

from __future__ import annotations

from array import array

from apftrace.model import thread_record
from apftrace.model import tracepoints as tp
from apftrace.model.readings import NEVER, READINGS

ENTRIES, VIRQS, EXIT_TS, ENTRY_TS, PREV, READY_GFN, VCPU, WORK = (
    thread_record.N_FIELDS + n for n in range(8)
)
"""Counts of kvm_entry and kvm_inj_virq, the last exit and entry, the kind of its last event; the page of its last
ready, the vCPU that it is, the work item that it executes."""

FAULTED, LIFE, LIFE_ENTRIES, READY_ROW, FIRST_FAULT, TRIED, TOLD, QUEUED, CHAIN, SOLE = (
    WORK + 1 + n for n in range(10)
)
"""Its last fault events: any of the three, the row of its not_present and of its ready; `readings` has the links."""

T_TS, T_CPU, T_GVA, T_GFN, T_ENTRIES, T_EXIT, T_FIRST = (SOLE + 1 + n for n in range(7))
"""A try whose outcome is not known yet."""

AT_RESET, RUN_CPU, FAST_EXIT = (T_FIRST + 1 + n for n in range(3))
"""Its entries when it had last entered at the reset vector, the CPU of its last entry or exit, and whether its last
exit is one after which a kernel may enter again at once."""

WAIT_MARK, ACCEPT_MARK, VIRQ_MARK, WORK_MARK = (FAST_EXIT + 1 + n * thread_record.MARK for n in range(4))
"""Per kind of phase a mark where it began."""

N_FIELDS = WORK_MARK + thread_record.MARK

K_BEGAN, K_ENTRIES, K_MARK = range(3)
"""With a life that waits: when it began, its vCPU's entries at its completed, and a mark there."""
KEPT = K_MARK + thread_record.MARK

N_VECTORS = 256
DUE, OTHER, OWN = 1, 2, 4
"""A vector is page-ready as told, anything else, or only ever accepted right after a ready: then it is a guest's own
choice of page-ready vector, made before the trace."""

FINAL = {
    "tid": thread_record.TID, "first": thread_record.FIRST, "last": thread_record.LAST, "entries": ENTRIES,
    "entry_ts": ENTRY_TS, "hlts": thread_record.HLTS, "virqs": VIRQS, "vcpu": VCPU, "gone": thread_record.GONE,
    "state": thread_record.STATE,
}  # fmt: skip
"""What is told of every thread at the end."""

_UNKNOWN = {
    EXIT_TS: NEVER, ENTRY_TS: NEVER, PREV: -2, READY_GFN: -1, VCPU: -1, FAULTED: -1, CHAIN: -1, LIFE: -1,
    ACCEPT_MARK: NEVER, VIRQ_MARK: NEVER, WORK_MARK: NEVER,
}  # fmt: skip

_SOURCES = {
    "entries": ENTRIES, "virqs": VIRQS, "exit_ts": EXIT_TS, "hog": thread_record.HOG, "vcpu_tid": SOLE,
    "first": FIRST_FAULT, "tried": TRIED, "told": TOLD, "queued": QUEUED,
    **{
        name: thread_record.COUNTED + n
        for n, name in enumerate(("ran", "waited", "slept", "blocked", "guest", "hlts"))
    },
}  # fmt: skip

READS = {
    kind: {name: _SOURCES[name] for name in READINGS.get(kind, ())}
    for kind in (*range(len(tp.TRACEPOINTS)), tp.SPENT, tp.UNANSWERED, tp.RESET, tp.STARTUP)
}
"""Per kind of anchor the fields that go into its row, by the names of `readings`."""


def blank() -> array[int]:
    """Return the record of a thread of which nothing is known."""
    record = array("q", bytes(8 * N_FIELDS))
    for field, value in _UNKNOWN.items():
        record[field] = value
    return record
