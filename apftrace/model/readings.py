"""What the odometer reads off for each kind of anchor, and what an anchor's fields mean where the fold made them."""

from __future__ import annotations

from apftrace.model import tracepoints as tp

NEVER = -(2**62)
"""Instant of what did not happen."""

SHARES = ("ran", "waited", "slept", "blocked")
"""What a thread did with its time, in ns: on a CPU, runnable but not on one, in interruptible and in
uninterruptible sleep."""

READINGS: dict[int, tuple[str, ...]] = {
    tp.TRY: ("first", "exit_ts", "entries"),
    tp.REPEATED: ("first", "exit_ts", "entries"),
    tp.NOT_PRESENT: ("first", "tried", "queued", "entries", "exit_ts"),
    tp.COMPLETED: ("vcpu_tid",),
    tp.RESET: ("entries",),
    tp.MSR: ("entries", "exit_ts"),
    tp.INJ_EXCEPTION: ("entries", "told"),
    tp.ACCEPT: ("entries", "virqs"),
    tp.INJ_VIRQ: ("entries", "virqs"),
    tp.USERSPACE_EXIT: ("exit_ts",),
    tp.SPENT: (*SHARES, "guest", "hlts", "hog"),
    tp.UNANSWERED: ("hlts",),
}
"""The part of the thread's reading that the model needs of each kind of anchor.

``exit_ts`` is the thread's last kvm_exit, ``guest`` ns from kvm_entry to kvm_exit. ``hog`` is the one thread
that had the CPU for all of its longest wait since its previous anchor; 0 when there were several, or no wait.

Fields and links, where they are not the tracepoint's own:

- A try that became a not_present or a repeated_fault, the thread's next event of the three, has no row: in a
  not_present c is the try's gfn (-1 without one) and ``tried`` its instant, in a repeated_fault c says whether
  there was one. In the row of any other try c says that the thread had no further event of the three.
  ``first`` says that the thread had none before.
- ready: c is the row of the not_present that it answers, -1 when none with its token waits.
- completed: c is the row of the not_present when only one vCPU waits for the page, ``vcpu_tid`` its thread;
  else -1.
- SPENT: what its thread did in a phase that ends with the row after it, the row ``seq + 1``, and lasted: P3 ends
  with a ready, P4 with an inj_virq, P5 with an ACK, and P1 and P2, for the worker, with a completed. a is when the
  phase began; for a worker the completed before, to which its sums reach back.
- UNANSWERED: a completed life that has no ready up to the end of the record: ts is its completed, a the row of its
  not_present, b and ``hlts`` the entries and hlt exits of its vCPU by then. Where several vCPUs wait for a page,
  it may be another's completed.
- accept: c is the row of the ready right after which it came, else -1.
- inj_exception: ``told`` is the row of the not_present for which this may be the #PF: the last one, no entry
  into the guest between; else -1.
- queue_work: c is the row of the not_present that is the event before it on its thread, else -1. Before 5.8 it
  came first: then ``queued`` of the not_present is the row of the queue_work, else -1.
- msr: write, ecx, data.
- RESET: the first of a row of kvm_entry at the reset vector; a is the vCPU, ``entries`` those before it.
- STARTUP: kvm_apic_accept_irq of an INIT or a SIPI, on the thread that sent it; a is the delivery mode, b the
  vCPU that it is for, c the vector.
"""
