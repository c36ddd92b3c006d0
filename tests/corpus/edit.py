"""Edit a capture, and say what the analysis ought to make of it.

A mutator is a function ``(Edit) -> list[Expectation]``; it raises ``NotHere`` when the capture has nothing to
change in its way. The label is what the remaining records decide, not what was done to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from tests.builders.formats import kernel_formats
from tests.builders.subbuf import Layout

from .reader import Rec

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence

    from .lives import Life, Lives
    from .reader import Capture

T = TypeVar("T")

CLEAR_ENTRIES = 100
"""Entries into the guest after completed from which on nobody doubts that the vCPU went on ..."""
CLEAR_AGE = 10
"""... and age in multiples of the 99th percentile of the capture's own totals."""


class NotHere(Exception):
    """The capture has no place for this change."""


@dataclass(frozen=True)
class Expectation:
    """What the analysis ought to say about one token of one thread.

    Attributes:
        rule: rules of which one finding is due, where ``verdicts`` has ``found``; otherwise the rules that
            must not be reported.
        tid: thread of the vCPU; null: the whole trace.
        token: null: any.
        verdicts: acceptable ones among found, repaired, quiet, undecided, in-flight, cancelled,
            left-truncated.
        phase: phases that a late-wakeup may name.
        confidence: how sure the finding may be; empty for any.
        free: say nothing about it; other findings on this token are not held against the analysis.
    """

    rule: tuple[str, ...]
    tid: int | None
    token: int | None
    verdicts: frozenset[str]
    phase: tuple[str, ...] = ()
    free: bool = False
    confidence: tuple[str, ...] = ()


def expect(
    rule: str | tuple[str, ...],
    life: Life | None,
    *verdicts: str,
    token: int | None = None,
    phase: tuple[str, ...] = (),
    confidence: tuple[str, ...] = (),
) -> Expectation:
    """Return an expectation about a life (or, without one, about the trace)."""
    rules = (rule,) if isinstance(rule, str) else rule
    token = token if token is not None or life is None else life.token
    tid = life.tid if life else None
    return Expectation(rules, tid, token, frozenset(verdicts), phase, confidence=confidence)


def anything(life: Life) -> Expectation:
    """Return an expectation that excuses whatever is said about a life."""
    return Expectation((), life.tid, life.token, frozenset(), free=True)


def over(edit: Edit, life: Life) -> tuple[str, ...]:
    """Return ``cancelled`` where the capture shows the VM's end: an open life may count as that."""
    return ("cancelled",) if edit.lives.ends_early(life.tid) else ()


MUTATORS: dict[str, Callable[[Edit], list[Expectation]]] = {}


def mutator(function: Callable[[Edit], list[Expectation]]) -> Callable[[Edit], list[Expectation]]:
    """Register a mutator under its name."""
    MUTATORS[function.__name__.replace("_", "-")] = function
    return function


@dataclass
class Edit:
    """A capture under change."""

    capture: Capture
    lives: Lives
    rng: random.Random
    _gone: set[int] = field(default_factory=set)
    _new: list[Rec] = field(default_factory=list)
    _keep: Callable[[Rec], bool] | None = None
    _each: list[Callable[[Rec], Rec]] = field(default_factory=list)

    def drop(self, records: Iterable[Rec | None]) -> None:
        """Take records away."""
        self._gone |= {id(r) for r in records if r is not None}

    def add(self, *records: Rec) -> None:
        """Add records at their time stamps."""
        self._new += records

    def make(self, name: str, ts: int, cpu: int, tid: int, **fields: int) -> Rec:
        """Return a new record of the top buffer; the capture gets to know its tracepoint."""
        form = next((f for f in self.capture.formats if f.name == name), None)
        if form is None:
            free = 1 + max(f.id for f in self.capture.formats)
            form = kernel_formats()[name].with_id(free)
            self.capture.formats = (*self.capture.formats, form)
        return Rec(ts, cpu, "", form, form.pack(Layout(), fields, pid=tid))

    def change(self, record: Rec | None, **values: int) -> Rec:
        """Replace a record by a copy with other values."""
        assert record
        self.drop([record])
        copy = record.but(**values)
        self.add(copy)
        return copy

    def erase(self, lives: Iterable[Life]) -> None:
        """Take whole lives away, as if those pages had been present."""
        for life in lives:
            self.drop(life.records())

    def keep_only(self, keep: Callable[[Rec], bool]) -> None:
        """Drop all records that do not pass."""
        self._keep = keep

    def change_each(self, change: Callable[[Rec], Rec]) -> None:
        """Pass every record through a function at the end."""
        self._each.append(change)

    def records(self) -> list[Rec]:
        """Return what the capture has become, in time order."""
        found = [r for r in self.capture.records if id(r) not in self._gone] + self._new
        if self._keep:
            found = [r for r in found if self._keep(r)]
        for change in self._each:
            found = [change(r) for r in found]
        return sorted(found, key=lambda r: r.ts)

    def pick(self, candidates: Iterable[T]) -> T:
        """Return one of them.

        Raises:
            NotHere: there is none.
        """
        found = list(candidates)
        if not found:
            raise NotHere
        return self.rng.choice(found)

    def need_no_loss(self) -> None:
        """Leave captures alone that lost records themselves.

        Raises:
            NotHere: this one did.
        """
        if self.lives.losses:
            raise NotHere

    def whole(self, *, pv: bool | None = None) -> list[Life]:
        """Return complete lives, of one kind if asked; PV lives of which the ACK let no other ready pass."""
        return [x for x in self.lives.all if x.whole and (pv is None or x.pv == pv) and self.unchained(x)]

    def unchained(self, life: Life) -> bool:
        """Say whether no other ready was traced inside the exit that carried the ACK."""
        if not life.pv:
            return True
        if len(life.ack) < 3:
            return False
        first, last = life.ack[0].ts, life.ack[1].ts
        return not any(x.ready and first < x.ready.ts < last for x in self.lives.of(life.tid))

    def seen_from(self, life: Life) -> bool:
        """Say whether all CPUs were recorded without a loss from not_present on."""
        return not any(ts > life.not_present.ts for ts in self.lives.losses)

    def pick_stuck(self) -> Life:
        """Return a PV life that is stuck for all to see when its wakeup is lost.

        Raises:
            NotHere: there is none.
        """
        return self.pick(x for x in self.whole(pv=True) if self.stuck_clearly(x))

    def stuck_clearly(self, life: Life) -> bool:
        """Say whether the records after ``completed`` would prove that a missing ready is lost.

        The vCPU enters the guest often, for long, never faults on the page again, and later wakeups were
        delivered and ACKed: the slot was free. Nothing was lost after not_present.
        """
        assert life.completed
        totals = self.lives.totals
        age = self.lives.last_entry(life.tid) - life.completed.ts
        later = self.lives.later(life)
        return (
            self.lives.entries_after(life.tid, life.completed.ts) >= CLEAR_ENTRIES
            and age >= CLEAR_AGE * totals[len(totals) * 99 // 100]
            and not any(x.gfn == life.gfn for x in later)
            and self.seen_from(life)
            and any(x.ack and x.ready and x.ready.ts > life.completed.ts for x in later)
        )

    def entry_with_gap(self, life: Life, start: int, end: int) -> tuple[Rec, Rec, Rec]:
        """Return the record before an entry, the entry, and the exit that follows, where an answer fits.

        Nothing else is injected at that entry, and no other delivered ready waits for its ACK there.

        Raises:
            NotHere: no such entry begins between ``start`` and ``end``.
        """
        busy = [
            (x.ready.ts, x.ack[0].ts) for x in self.lives.of(life.tid) if x is not life and x.ready and x.ack
        ]
        thread = self.lives.threads[life.tid]
        for before, entry, leave in zip(thread, thread[1:], thread[2:], strict=False):
            if (
                start <= entry.ts <= end
                and entry.name == "kvm_entry"
                and leave.name == "kvm_exit"
                and before.name in {"kvm_exit", "kvm_msr", "kvm_page_fault"}
                and entry.ts - before.ts >= 10
                and leave.ts - entry.ts >= 20
                and not any(a <= entry.ts <= b for a, b in busy)
            ):
                return before, entry, leave
        raise NotHere


def median(values: Sequence[int]) -> int:
    """Return the middle value, 0 for none."""
    return sorted(values)[len(values) // 2] if values else 0
