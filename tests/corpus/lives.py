"""Find the records of each life in a capture, from the complete evidence, before anything is changed."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .reader import Capture, Rec

PAGE_READY = 0xF3
MSR_EN, MSR_ACK = 0x4B564D02, 0x4B564D07
EOI = 0x80B
WAKE_ALL = 0xFFFFFFFF
EXIT_MSR = {(1, 32), (2, 0x7C)}


@dataclass(eq=False)
class Life:
    """The records of one life; null where the capture has none."""

    tid: int
    token: int
    gfn: int
    not_present: Rec
    try_: Rec | None = None
    exception: Rec | None = None
    completed: Rec | None = None
    ready: Rec | None = None
    accepted: Rec | None = None
    injected: Rec | None = None
    injected_again: list[Rec] = field(default_factory=list)
    """Further injections of the same interrupt: the guest faulted while it took it."""
    eoi: list[Rec] = field(default_factory=list)
    """The guest's EOI: exit, MSR write and the entry after it."""
    ack: list[Rec] = field(default_factory=list)
    """The guest's ACK: exit, MSR write and the entry after it."""

    @property
    def pv(self) -> bool:
        return self.accepted is not None

    @property
    def whole(self) -> bool:
        """Say whether every step of its kind is there."""
        told = bool(self.injected and self.ack and self.exception) if self.pv else True
        return bool(self.try_ and self.completed and self.ready) and told

    def answer(self) -> list[Rec]:
        """Return everything that shows that its wakeup was given."""
        steps = [self.ready, self.accepted, self.injected, *self.injected_again, *self.eoi, *self.ack]
        return [r for r in steps if r is not None]

    def records(self) -> list[Rec]:
        """Return all records of the life; the exit and the page fault before it stay a plain fault."""
        steps = [self.try_, self.not_present, self.exception, self.completed, *self.answer()]
        return [r for r in steps if r is not None]


class Lives:
    """All lives of a capture, and the time lines of its threads."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.threads: dict[int, list[Rec]] = defaultdict(list)
        for rec in capture.records:
            self.threads[rec.tid].append(rec)
        self._place = {id(r): n for recs in self.threads.values() for n, r in enumerate(recs)}
        self.all = [life for tid, recs in self.threads.items() for life in self._of_thread(tid, recs)]
        self._join_completed()

    @cached_property
    def vcpus(self) -> list[int]:
        """Threads that had lives."""
        return sorted({life.tid for life in self.all})

    @cached_property
    def end(self) -> int:
        return self.capture.records[-1].ts

    @cached_property
    def totals(self) -> list[int]:
        """Times from not_present to ready, sorted."""
        return sorted(x.ready.ts - x.not_present.ts for x in self.all if x.ready)

    @cached_property
    def _by_thread(self) -> dict[int, list[Life]]:
        return {tid: [x for x in self.all if x.tid == tid] for tid in self.vcpus}

    @cached_property
    def _entries(self) -> dict[int, list[int]]:
        return {tid: [r.ts for r in self.threads[tid] if r.name == "kvm_entry"] for tid in self.vcpus}

    def of(self, tid: int) -> list[Life]:
        return self._by_thread[tid]

    def after(self, rec: Rec, count: int | None = None) -> list[Rec]:
        """Return the following records of the same thread."""
        recs, at = self.threads[rec.tid], self._place[id(rec)] + 1
        return recs[at:] if count is None else recs[at : at + count]

    def before(self, rec: Rec) -> Rec | None:
        at = self._place[id(rec)]
        return self.threads[rec.tid][at - 1] if at else None

    @cached_property
    def losses(self) -> list[int]:
        """Instants at which the capture itself says that records were lost before."""
        return [r.ts for r in self.capture.records if r.missed is not None]

    def last_entry(self, tid: int) -> int:
        """Return when the thread entered the guest for the last time."""
        return max(self._entries[tid], default=self.capture.records[0].ts)

    def ends_early(self, tid: int) -> bool:
        """Say whether the thread fell silent well before the trace ended."""
        span = self.end - self.capture.records[0].ts
        return self.end - self.threads[tid][-1].ts > span // 50

    def entries_after(self, tid: int, ts: int) -> int:
        """Return how often the thread entered the guest after an instant."""
        stamps = self._entries[tid]
        return len(stamps) - bisect_right(stamps, ts)

    def later(self, life: Life) -> list[Life]:
        """Return lives of the same thread that began after this one."""
        return [x for x in self.of(life.tid) if x.not_present.ts > life.not_present.ts]

    def _of_thread(self, tid: int, recs: list[Rec]) -> list[Life]:
        lives: list[Life] = []
        open_: dict[int, Life] = {}
        told: Life | None = None
        for n, rec in enumerate(recs):
            if rec.name == "kvm_async_pf_not_present":
                life = Life(tid, rec["token"], rec["gva"] >> 12, rec)
                lives.append(life)
                open_[life.token] = life
                life.try_ = recs[n - 1] if n and recs[n - 1].name == "kvm_try_async_get_page" else None
                life.exception = self._exception(recs, n)
            elif rec.name == "kvm_async_pf_ready":
                answered = open_.pop(rec["token"], None)
                accepted = _accept(recs, n + 1)
                if answered:
                    answered.ready = rec
                    answered.accepted = accepted
                if accepted:
                    told = answered
            elif told and rec.name == "kvm_inj_virq" and rec["vector"] == PAGE_READY:
                if told.injected:
                    told.injected_again.append(rec)
                told.injected = told.injected or rec
                told.eoi = _write(recs, n + 1, EOI)
            elif told and rec.name == "kvm_exit" and told.injected and (ack := _write(recs, n, MSR_ACK)):
                told.ack = ack
                told = None
        return lives

    def _exception(self, recs: list[Rec], n: int) -> Rec | None:
        """Return the injection of #PF before the next entry; the ready may come in between."""
        for rec in recs[n + 1 : n + 40]:
            if rec.name in {"kvm_entry", "kvm_async_pf_not_present"}:
                return None
            if rec.name == "kvm_inj_exception" and rec["exception"] == 14 and not rec["reinjected"]:
                return rec
        return None

    def _join_completed(self) -> None:
        """Give each life the work's end: same page, first come first served, the page's VM by its address."""
        waiting: dict[int, list[Life]] = defaultdict(list)
        for life in self.all:
            waiting[life.not_present["gva"]].append(life)
        for lives in waiting.values():
            lives.sort(key=lambda x: x.not_present.ts)
        for rec in self.capture.records:
            if rec.name != "kvm_async_pf_completed":
                continue
            fits = [x for x in waiting[rec["gva"]] if not x.completed and x.not_present.ts < rec.ts]
            if len(fits) > 1:  # two vCPUs or two VMs wait for it: leave those lives alone
                for life in fits:
                    waiting[rec["gva"]].remove(life)
            elif fits:
                fits[0].completed = rec


def _accept(recs: list[Rec], start: int) -> Rec | None:
    """Return the accept of the page-ready vector after a ready; host interrupts may come between."""
    for rec in recs[start : start + 12]:
        if rec.name == "kvm_apic_accept_irq" and rec["vec"] == PAGE_READY:
            return rec
        if rec.name in {"kvm_entry", "kvm_exit", "kvm_async_pf_ready", "kvm_msr", "kvm_inj_virq"}:
            return None
    return None


def _write(recs: list[Rec], start: int, msr: int) -> list[Rec]:
    """Return exit, MSR write and entry when the next exit of the thread, from ``start`` on, writes ``msr``.

    A ready may come between exit and write; then only exit and write are its own, and the list is longer.
    """
    found = [r for r in recs[start : start + 12] if r.name != "sched_switch" and r.name != "sched_wakeup"]
    while found and found[0].name == "kvm_entry":
        found = found[1:]
    if not found or found[0].name != "kvm_exit" or (found[0]["isa"], found[0]["exit_reason"]) not in EXIT_MSR:
        return []
    for n, rec in enumerate(found[1:], 1):
        if rec.name == "kvm_msr":
            entry = found[n + 1] if n + 1 < len(found) and found[n + 1].name == "kvm_entry" else None
            hit = rec["write"] and rec["ecx"] == msr
            return [found[0], rec, *([entry] if entry else [])] if hit else []
        if rec.name not in {"kvm_async_pf_ready", "kvm_apic_accept_irq"}:
            return []
    return []
