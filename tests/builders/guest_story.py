"""Write what a guest saw of the host's history: ftrace text with probes on the async page fault functions.

    host = Story()
    token = host.pv_life(at=START)
    guest = GuestStory(booted=4 * S)                 # its clock is 4 s behind the host's
    guest.life(at=START, token=token)                # times are the host's: the builder moves them

Each life emits wait, sleep, interrupt, wake, wakeup, switch and return; every event has a label and can be
left out with ``without``. The defaults fit those of ``Story.pv_life``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

WAIT, WAKE, IRQ = (
    "kvm_async_pf_task_wait_schedule",
    "kvm_async_pf_task_wake",
    "__sysvec_kvm_asyncpf_interrupt",
)
WOKEN = frozenset({"irq", "wake", "waking"})
"""All that shows that the guest was told."""
RAN = frozenset({"in", "return"})
"""All that shows that the thread ran again."""


class GuestStory:
    """What one guest recorded; times may be given in any order.

    Args:
        booted: host time at which the guest's clock was 0.
        cpus: of the guest.
    """

    def __init__(self, *, booted: int = 0, cpus: int = 2) -> None:
        self.booted = booted
        self.cpus = cpus
        self.lines: list[tuple[int, int, str]] = []

    def event(self, at: int, cpu: int, tid: int, text: str, *, flags: str = "d....") -> GuestStory:
        """Add any record, ``event: payload``."""
        comm = "<idle>" if tid == 0 else f"touch{tid}"
        self.lines.append((at, cpu, f"{comm:>16}-{tid:<7} [{cpu:03d}] {flags} {{}}: {text}"))
        return self

    def lost(self, at: int, cpu: int, count: int = 5) -> GuestStory:
        """Add a loss: records of this CPU are missing before ``at``."""
        self.lines.append((at, cpu, f"CPU:{cpu} [LOST {count} EVENTS]"))
        return self

    def hit(
        self, at: int, cpu: int, tid: int, name: str, function: str, token: int | None = None
    ) -> GuestStory:
        """Add a hit of a probe on a function."""
        shown = f" token={token}" if token is not None else ""
        return self.event(at, cpu, tid, f"{name}: ({function}+0x0/0x1b0){shown}")

    def life(
        self,
        *,
        at: int,
        token: int,
        vcpu: int = 0,
        tid: int = 200,
        waited: int | None = None,
        irq: int | None = None,
        slept: bool = True,
        runs: int | None = None,
        runs_on: int | None = None,
        without: Collection[str] = (),
    ) -> GuestStory:
        """Add what the guest sees of a life.

        Args:
            at: the host's not_present.
            token: its token.
            vcpu: guest CPU.
            tid: guest thread that waits.
            waited: when the wait begins; default 4 us after ``at``.
            irq: when the handler is entered; default 526 us after ``at``, before the default ACK.
            slept: whether the thread leaves the CPU before its wake.
            runs: when it is switched in again; default 40 us after ``irq``.
            runs_on: guest CPU for that.
            without: labels of events to leave out.
        """
        waited = waited if waited is not None else at + 4_000
        irq = irq if irq is not None else at + 526_000
        runs = runs if runs is not None else irq + 40_000
        runs_on = runs_on if runs_on is not None else vcpu
        current = 0 if slept else tid

        def add(label: str, when: int, cpu: int, own: int, text: str) -> None:
            if label not in without:
                self.event(when, cpu, own, text)

        add("wait", waited, vcpu, tid, f"task_wait: ({WAIT}+0x0/0x1b0) token={token}")
        if slept:
            add("out", waited + 2_000, vcpu, tid, _switch(tid, "D", 0, vcpu))
        add("irq", irq, vcpu, current, f"asyncpf_irq: ({IRQ}+0x0/0xb0)")
        add("wake", irq + 2_000, vcpu, current, f"task_wake: ({WAKE}+0x0/0x170) token={token}")
        if slept:
            woken = f"comm=touch{tid} pid={tid} prio=120 target_cpu={runs_on:03d}"
            add("waking", irq + 3_000, vcpu, current, f"sched_waking: {woken}")
            add("in", runs, runs_on, 0, _switch(0, "R", tid, runs_on))
        add("return", runs + 5_000, runs_on, tid, f"task_back: (__kvm_handle_async_pf+0x4f/0xb0 <- {WAIT})")
        return self

    def wake_all(self, at: int, cpu: int) -> GuestStory:
        """Add a wake-all."""
        return self.event(at, cpu, 0, "wake_all: (apf_task_wake_all+0x0/0xf0)")

    def tick(self, at: int, cpu: int) -> GuestStory:
        """Add a record that only shows that the CPU was recorded."""
        return self.event(at, cpu, 0, "local_timer_entry: vector=236")

    def write(self, path: Path) -> Path:
        """Write the text, as tracefs shows it, to the ns."""
        n = len(self.lines)
        head = f"# tracer: nop\n#\n# entries-in-buffer/entries-written: {n}/{n}   #P:{self.cpus}\n#\n"
        body = (line.format(_seconds(at - self.booted)) for at, _, line in sorted(self.lines))
        path.write_text(head + "".join(f"{line}\n" for line in body))
        return path


def _seconds(at: int) -> str:
    assert at >= 0, "before the guest booted"
    return f"{at // 1_000_000_000:5d}.{at % 1_000_000_000:09d}"


def _switch(prev: int, state: str, following: int, cpu: int) -> str:
    names = [f"swapper/{cpu}" if tid == 0 else f"touch{tid}" for tid in (prev, following)]
    return (
        f"sched_switch: prev_comm={names[0]} prev_pid={prev} prev_prio=120 prev_state={state} ==> "
        f"next_comm={names[1]} next_pid={following} next_prio=120"
    )
