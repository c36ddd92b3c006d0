"""For each rule of the catalogue the shortest history that shows it, with nothing else wrong.

The tests of a rule vary its history; ``test_catalogue`` takes away what the rule needs, one tracepoint
at a time, and holds every rule to have a history here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.builders.story import ACK, ANSWER, MSR_ACK, MSR_EN, Story
from tests.model.support import LATER, MS, START, US, S, calm

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = 0x7F008
STUCK_FOR = 200 * MS


def lost_wakeup() -> Story:
    """Completed, never ready, while the vCPU goes on for 200 ms."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, gva=PAGE, without=ANSWER)
    return story.progress(start=LATER + MS, end=LATER + STUCK_FOR)


def in_flight() -> Story:
    """The trace ends 300 us after not_present."""
    story = Story()
    calm(story)
    story.pv_life(
        at=LATER, gva=PAGE, without=ANSWER | {"completed", "finished", "worker_back", "from_worker"}
    )
    return story


def left_truncated() -> Story:
    """The first ready is for an id that was given out before the trace began."""
    story = Story()
    story.event(START, "kvm_async_pf_ready", story.tid(0), 0, token=0x5000, gva=PAGE)
    story.pv_life(at=START + MS, token=0x6000)
    return story


def lost_interrupt() -> Story:
    """Vector 243 is accepted and never injected; other interrupts are."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, gva=PAGE, without=ACK | {"injected"})
    take_interrupts(story)
    return story


def missing_ack() -> Story:
    """Injected, but the guest never writes the ACK."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, gva=PAGE, without=ACK)
    take_interrupts(story)
    return story


def take_interrupts(story: Story) -> None:
    """Let the vCPU take other interrupts for 200 ms after LATER."""
    for n in range(40):
        story.interrupt(at=LATER + (n + 1) * 5 * MS)


def lost_work() -> Story:
    """Queued and never started, while five later items of the CPU start."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, gva=PAGE, without=never_started())
    calm(story, lives=5, start=LATER + 50 * MS)
    return story.progress(start=LATER + S, end=LATER + S + STUCK_FOR)


def never_started() -> frozenset[str]:
    """Everything that follows the start of the work item."""
    worker = {"to_worker", "worker_sleeps", "worker_back", "from_worker"}
    return ANSWER | worker | {"started", "finished", "completed", "kick_exit", "entry_ready"}


def late_wakeup() -> Story:
    """The page takes 300 ms to come."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, gva=PAGE, completed=LATER + 300 * MS)
    return story


def spurious_ready() -> Story:
    """A ready for a token that no not_present gave out."""
    story = Story()
    calm(story)
    return story.event(LATER, "kvm_async_pf_ready", story.tid(0), 0, token=0x99000, gva=PAGE)


def duplicate_ready() -> Story:
    """A second ready of the last token, 1 ms after its ACK."""
    story = Story()
    calm(story)
    token = story.pv_life(at=LATER, gva=PAGE)
    return story.event(LATER + 2 * MS, "kvm_async_pf_ready", story.tid(0), 0, token=token, gva=PAGE)


def wake_all() -> Story:
    """The guest turns async page faults on."""
    story = Story().enable(at=START)
    calm(story, start=START + MS)
    return story


def wrong_vector() -> Story:
    """After a restore the page-ready comes on vector 0."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, gva=PAGE, vector=0, without=ACK | {"injected"})
    return story


def token_reuse() -> Story:
    """Two pages wait under one token."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, token=0x80000, gva=PAGE, completed=LATER + 5 * MS)
    story.pv_life(at=LATER + MS, token=0x80000, gva=PAGE + 0x1000, completed=LATER + 8 * MS)
    return story


def token_zero() -> Story:
    """A host without the fix gives out token 0."""
    story = Story()
    story.pv_life(at=START, token=0, gva=PAGE)
    calm(story, start=START + 10 * MS)
    return story


def setup_refused() -> Story:
    """A try of which nothing came."""
    story = Story()
    calm(story)
    refused_try(story, at=LATER)
    return story.progress(start=LATER + MS, end=LATER + 5 * MS)


def refused_try(story: Story, *, at: int, gva: int = PAGE) -> None:
    """Add a try without not_present."""
    story.event(at, "kvm_try_async_get_page", story.tid(0), 0, gva=gva, gfn=gva >> 12)
    story.event(at + 200 * US, "kvm_entry", story.tid(0), 0, vcpu_id=0)


def sync_faults() -> Story:
    """Three faults of the guest's kernel, in which the vCPU thread sleeps for 1, 2 and 3 ms."""
    story = Story()
    calm(story)
    for n in range(1, 4):
        sync_fault(story, at=LATER + n * 10 * MS, slept=n * MS)
    return story.progress(start=LATER + 50 * MS, end=LATER + 60 * MS)


KERNEL_RIP, USER_RIP = 0xFFFFFFFF8109D380, 0x401F1C


def sync_fault(
    story: Story,
    *,
    at: int,
    slept: int,
    rip: int = KERNEL_RIP,
    gva: int = PAGE,
    vcpu: int = 0,
    state: int = 2,
    entry: bool = True,
) -> None:
    """Add a fault of the vCPU in which its thread is switched out, in state D, and comes back."""
    tid, cpu = story.tid(vcpu), vcpu % story.cpus
    story.event(at, "kvm_exit", tid, cpu, exit_reason=0x400, isa=2, guest_rip=rip)
    fault = {"fault_address": gva, "error_code": 0x100000004, "guest_rip": rip, "vcpu_id": vcpu}
    story.event(at + US, "kvm_page_fault", tid, cpu, **fault)
    asleep(story, tid, since=at + 2 * US, until=at + 2 * US + slept, state=state, cpu=cpu)
    if entry:
        story.event(at + 5 * US + slept, "kvm_entry", tid, cpu, vcpu_id=vcpu, rip=rip)


def asleep(story: Story, tid: int, *, since: int, until: int, state: int = 2, cpu: int = 0) -> None:
    """Switch a thread out, in state D, and in again; nobody else runs meanwhile."""
    story.switch(since, tid, 0, state=state, cpu=cpu)
    story.switch(until, 0, tid, cpu=cpu)


def repeated_fault_storm() -> Story:
    """150 repeated faults on a page that is on its way."""
    story = Story()
    calm(story, halt=True)
    storm(story, 150)
    return story


def storm(story: Story, hits: int) -> None:
    """Add a life of 8 ms with ``hits`` repeated faults."""
    story.halt_life(at=LATER, gva=PAGE, completed=LATER + 8 * MS)
    for n in range(hits):
        story.repeated(at=LATER + 100 * US + n * 50 * US, gva=PAGE)


def refault_loop() -> Story:
    """One page, four times in a row, each right after the ready of the one before."""
    story = Story()
    calm(story)
    for n in range(4):
        story.pv_life(at=LATER + n * MS, gva=PAGE)
    return story


def page_malfunction() -> Story:
    """The vCPU thread gets SIGBUS for a page whose ready came just before."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, gva=PAGE)
    tid = story.tid(0)
    return story.event(LATER + MS, "signal_generate", tid, 0, sig=7, code=4, pid=tid, comm="CPU 0/KVM")


def fatal_fault() -> Story:
    """The page was ready, faults again at once, and KVM_RUN ends with -EFAULT."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, gva=PAGE)
    tid = story.tid(0)
    story.event(LATER + MS, "kvm_page_fault", tid, 0, fault_address=PAGE, error_code=4)
    return story.event(LATER + MS + 9 * US, "kvm_userspace_exit", tid, 0, reason=0, errno=-14)


def apf_disabled() -> Story:
    """The guest takes the CPU offline while a fault is open."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, gva=PAGE, without=ANSWER)
    story.disable(at=LATER + MS)
    return story.progress(start=LATER + 2 * MS, end=LATER + 3 * MS)


def send_always() -> Story:
    """The guest asks for faults in kernel mode too."""
    return Story().enable(at=START, value=0xD93800B)


def legacy_protocol() -> Story:
    """The guest enables without interrupt delivery."""
    story = Story()
    return story.event(START, "kvm_msr", story.tid(0), 0, write=1, ecx=MSR_EN, data=0xD938001)


def vcpu_spin() -> Story:
    """2,000 hlt exits in 10 ms while a completed life waits."""
    story = Story()
    calm(story)
    story.halt_life(at=LATER, gva=PAGE, ready=LATER + 15 * MS)
    halts(story, count=2000, start=LATER + 2 * MS, every=5 * US)
    return story


def halts(story: Story, *, count: int, start: int, every: int) -> None:
    """Add exits for HLT that end at once."""
    for n in range(count):
        at = start + n * every
        story.event(at, "kvm_exit", story.tid(0), 0, exit_reason=0x78, isa=2)
        story.event(at + every // 2, "kvm_entry", story.tid(0), 0, vcpu_id=0)


def events_lost() -> Story:
    """Seven records of CPU 0 are missing between two faults."""
    story = Story()
    calm(story)
    story.lost(at=LATER, cpu=0, count=7)
    calm(story, start=LATER + MS)
    return story


def unbalanced_accounting() -> Story:
    """Five ACKs that nothing was handed over for."""
    story = Story()
    calm(story)
    for n in range(5):
        at = LATER + n * MS
        story.event(at, "kvm_exit", story.tid(0), 0, exit_reason=0x7C, isa=2)
        story.event(at + 400, "kvm_msr", story.tid(0), 0, write=1, ecx=MSR_ACK, data=1)
        story.event(at + 600, "kvm_entry", story.tid(0), 0, vcpu_id=0)
    return story


def vcpu_reset() -> Story:
    """A fault is open when the guest, reset by its VMM, enables async page faults again."""
    story = Story()
    story.enable(at=START - 10 * MS)
    calm(story)
    story.pv_life(at=LATER, gva=PAGE, without=ANSWER)
    return story.enable(at=LATER + 2 * MS).progress(start=LATER + 3 * MS, end=LATER + 4 * MS)


def vm_ended() -> Story:
    """The vCPU thread exits with a fault open."""
    story = Story()
    calm(story)
    story.pv_life(at=LATER, gva=PAGE, without=ANSWER)
    story.event(
        LATER + MS, "sched_process_exit", story.tid(0), 0, comm="CPU 0/KVM", pid=story.tid(0), prio=120
    )
    return story.progress(vcpu=1, start=LATER, end=LATER + 5 * MS)


def vm_stopped() -> Story:
    """One VM falls silent with a fault open, another goes on for two seconds."""
    story = Story()
    calm(story)
    calm(story, vm=1, vcpu=1, start=START + 300 * US)
    story.pv_life(at=LATER, gva=PAGE, without=ANSWER)
    return story.progress(vm=1, vcpu=1, start=LATER, end=LATER + 2 * S)


HISTORIES: dict[str, Callable[[], Story]] = {
    f.__name__.replace("_", "-"): f
    for f in (
        lost_wakeup, in_flight, left_truncated, lost_interrupt, missing_ack, lost_work, late_wakeup,
        spurious_ready, duplicate_ready, wake_all, wrong_vector, token_reuse, token_zero, setup_refused, sync_faults,
        repeated_fault_storm, refault_loop, page_malfunction, fatal_fault, apf_disabled, send_always,
        legacy_protocol, vcpu_spin, vcpu_reset, vm_ended, vm_stopped, events_lost, unbalanced_accounting,
    )
}  # fmt: skip
"""History by rule id."""
