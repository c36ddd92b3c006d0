"""Records that were never written: overruns, full or overwritten buffers, tracepoints that were off.

Nothing was lost for the guest in any of these; the analysis may be unsure, never alarmed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.builders import options as opt

from .edit import Edit, Expectation, NotHere, expect, mutator

if TYPE_CHECKING:
    from .reader import Rec

ALARMS = ("lost-wakeup", "lost-interrupt", "lost-work", "missing-ack", "spurious-ready", "duplicate-ready")
MANY = 20
"""Readies that are not missed one by one."""


def _overrun(edit: Edit, cpu: int, *, counted: bool) -> None:
    """Take a stretch of records off a CPU and say so on the one behind it."""
    mine = [r for r in edit.capture.records if r.cpu == cpu]
    length = edit.rng.randint(1, max(2, len(mine) // 10))
    start = edit.rng.randrange(0, max(1, len(mine) - length - 1))
    lost = mine[start : start + length]
    edit.drop(lost)
    edit.change(mine[start + length], missed=length if counted else -1)


@mutator
def overrun(edit: Edit) -> list[Expectation]:
    _overrun(edit, edit.rng.randrange(edit.capture.cpus), counted=True)
    return [expect((), None, "quiet")]


@mutator
def overrun_uncounted(edit: Edit) -> list[Expectation]:
    _overrun(edit, edit.rng.randrange(edit.capture.cpus), counted=False)
    return [expect((), None, "quiet")]


@mutator
def overrun_on_all_cpus(edit: Edit) -> list[Expectation]:
    for cpu in range(edit.capture.cpus):
        _overrun(edit, cpu, counted=edit.rng.random() < 0.5)
    return [expect((), None, "quiet")]


@mutator
def head_overwritten(edit: Edit) -> list[Expectation]:
    """The buffer of one CPU reaches back less far than those of the others."""
    cpu = edit.rng.randrange(edit.capture.cpus)
    mine = [r for r in edit.capture.records if r.cpu == cpu]
    start = edit.rng.randrange(1, len(mine) // 2)
    edit.drop(mine[:start])
    edit.change(mine[start], missed=-1)
    _statistics(edit, cpu, "overrun", start)
    return [expect((), None, "quiet")]


@mutator
def buffer_full(edit: Edit) -> list[Expectation]:
    """A CPU's buffer was full and took no more; only its statistics say that records were dropped."""
    cpu = edit.rng.randrange(edit.capture.cpus)
    mine = [r for r in edit.capture.records if r.cpu == cpu]
    stop = edit.rng.randrange(len(mine) // 2, len(mine) - 1)
    edit.drop(mine[stop:])
    _statistics(edit, cpu, "dropped events", len(mine) - stop)
    return [expect((), None, "quiet")]


def _statistics(edit: Edit, cpu: int, line: str, count: int) -> None:
    """Write a number into the statistics of a CPU's buffer."""
    changed = []
    for number, data in edit.capture.options:
        text = data.decode(errors="replace") if number == opt.CPUSTAT else ""
        mine = f"CPU: {cpu}\n" in text
        changed.append(
            (number, re.sub(rf"(?m)^{line}: \d+", f"{line}: {count}", text).encode() if mine else data)
        )
    if changed == edit.capture.options:
        raise NotHere
    edit.capture.options = changed


def _without(edit: Edit, *names: str) -> list[Expectation]:
    def keep(rec: Rec) -> bool:
        return rec.name not in names

    edit.keep_only(keep)
    return [expect((), None, "quiet")]


@mutator
def tracepoint_off(edit: Edit) -> list[Expectation]:
    """A context tracepoint was not recorded."""
    names = ("kvm_msr", "kvm_inj_virq", "kvm_apic_accept_irq", "kvm_inj_exception", "kvm_page_fault")
    return _without(edit, edit.rng.choice(names))


@mutator
def entries_and_exits_off(edit: Edit) -> list[Expectation]:
    return _without(edit, "kvm_entry", "kvm_exit")


@mutator
def scheduler_off(edit: Edit) -> list[Expectation]:
    return _without(edit, "sched_switch", "sched_wakeup", "sched_waking")


@mutator
def ready_off(edit: Edit) -> list[Expectation]:
    """Readies were not recorded: no life can be called lost for want of one."""
    return _without(edit, "kvm_async_pf_ready")


@mutator
def not_present_off(edit: Edit) -> list[Expectation]:
    return _without(edit, "kvm_async_pf_not_present")


@mutator
def completed_off(edit: Edit) -> list[Expectation]:
    return _without(edit, "kvm_async_pf_completed")


@mutator
def only_async_pf_on(edit: Edit) -> list[Expectation]:
    """The five async page fault tracepoints and nothing else."""
    edit.keep_only(lambda r: r.name.startswith(("kvm_async_pf", "kvm_try_async")))
    return [expect((), None, "quiet")]


@mutator
def cut_before_late_ready(edit: Edit) -> list[Expectation]:
    """The trace ends right before a ready that took its time: whoever calls that lost is wrong."""
    waits = [(x.ready.ts - x.completed.ts, x) for x in edit.whole() if x.ready and x.completed]
    waits.sort(key=lambda pair: pair[0])
    life = edit.pick(x for _, x in waits[-max(3, len(waits) // 20) :])
    assert life.ready
    end = life.ready.ts
    edit.keep_only(lambda r: r.ts < end)
    return [expect(ALARMS, life, "in-flight", "undecided")]


@mutator
def recorder_paused(edit: Edit) -> list[Expectation]:
    """Tracing was switched off with a fault outstanding, and on again: a hole on all CPUs that nothing marks.

    It shows where another thread leaves a CPU than came to it last. A hole that leaves this chain whole on some CPU
    cannot be told from quiet there, and what lies in it is missed.
    """
    life = edit.pick(edit.whole())
    start, stop = life.not_present.ts + 1, max(r.ts for r in life.records())
    stop += edit.rng.randint(1, max(2, (edit.lives.end - edit.capture.records[0].ts) // 50))
    if not all(_breaks(edit, cpu, start, stop) for cpu in {r.cpu for r in edit.capture.records}):
        raise NotHere
    edit.keep_only(lambda r: not start <= r.ts <= stop)
    return [expect((), None, "quiet")]


def _breaks(edit: Edit, cpu: int, start: int, stop: int) -> bool:
    """Say whether the switches of a CPU show that records of a time are missing."""
    switches = [r for r in edit.capture.records if r.name == "sched_switch" and r.cpu == cpu]
    before = [r for r in switches if r.ts < start]
    after = [r for r in switches if r.ts > stop]
    return bool(before and after) and before[-1]["next_pid"] != after[0]["prev_pid"]


@mutator
def ready_off_for_a_time(edit: Edit) -> list[Expectation]:
    """kvm_async_pf_ready was switched off, and on again."""
    start, end = edit.capture.records[0].ts, edit.lives.end
    first = start + (end - start) * edit.rng.randint(10, 60) // 100
    last = first + (end - start) * edit.rng.randint(5, 30) // 100
    # A few that go without one are lost for all that anyone can see.
    if sum(1 for x in edit.lives.all if x.ready and first < x.ready.ts < last) < MANY:
        raise NotHere
    edit.keep_only(lambda r: r.name != "kvm_async_pf_ready" or not first < r.ts < last)
    return [expect((), None, "quiet")]
