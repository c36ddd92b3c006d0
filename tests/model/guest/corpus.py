"""Faults planted in what a real guest recorded, and what the analysis ought to make of each.

A mutator takes the guest's lines and a random number generator, and returns the changed lines with what is due:
the rule that must be found for a token (or that none may be), beyond what the pair shows as it was recorded.
``python -m tests.model.guest.corpus`` prints the table.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import apftrace
from tests.conftest import capture_path
from tests.model.guest.capture import Line, lines_of, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from apftrace import Analysis

HOST, GUEST = "host-guest/agent-v7-h.dat", "host-guest/agent-v7-h-vm1.dat"
MS = 1_000_000
ALWAYS = frozenset({"late-wakeup", "open-wait", "in-flight", "sync-faults"})
"""Rules that say nothing about what is planted here: the pair is slow, and its record ends somewhere."""


class NotHere(Exception):
    """Nothing in the lines suits the mutator."""


@dataclass(frozen=True)
class Due:
    """What must come of a change.

    Attributes:
        rules: rules that must be found, for ``token`` where there is one.
        token: of the life that was changed.
        may: further rules that this may show.
        undecided: the verdict must be that.
        whole: every life of which the guest was told while it was recorded is followed into it.
    """

    rules: frozenset[str] = frozenset()
    token: int | None = None
    may: frozenset[str] = frozenset()
    undecided: bool = False
    whole: bool = False


@dataclass
class Guest:
    """The lines of a guest, looked up by what they show."""

    lines: list[Line]
    rng: random.Random
    waits: dict[int, Line] = field(init=False)
    wakes: dict[int, Line] = field(init=False)

    def __post_init__(self) -> None:
        self.waits = {ln.token: ln for ln in self.lines if ln.event == "task_wait" and ln.token is not None}
        self.wakes = {ln.token: ln for ln in self.lines if ln.event == "task_wake" and ln.token is not None}

    def victim(self, *, before_end: int = 1200 * MS, slept: bool = True) -> int:
        """Return a token whose thread slept (or not), long before the record ends."""
        end = self.lines[-1].ts - before_end
        found = [
            token for token, wait in self.waits.items()
            if token in self.wakes and wait.ts < end and self.slept(token) == slept
        ]  # fmt: skip
        if not found:
            raise NotHere
        return self.rng.choice(found)

    def slept(self, token: int) -> bool:
        """Say whether the thread left the CPU before its wake."""
        return self.wakes[token].tid != self.waits[token].tid

    def without(self, *gone: Line) -> list[Line]:
        """Return the lines but these."""
        kept = {id(line) for line in gone}
        return [line for line in self.lines if id(line) not in kept]

    def irq_of(self, token: int) -> Line:
        """Return the interrupt that woke a token."""
        wake = self.wakes[token]
        before = [
            ln for ln in self.lines if ln.event == "asyncpf_irq" and ln.cpu == wake.cpu and ln.ts <= wake.ts
        ]
        return before[-1]

    def never_again(self, tid: int, since: int, lines: Iterable[Line]) -> list[Line]:
        """Return lines without any later sign of a thread, nor of the tokens that it waited for later."""
        tokens = {
            ln.token for ln in self.lines if ln.event == "task_wait" and ln.tid == tid and ln.ts > since
        }
        interrupts = ("asyncpf_irq", "task_wake")

        def is_sign(ln: Line) -> bool:
            return ln.token in tokens or (ln.concerns(tid) and ln.event not in interrupts)

        return [ln for ln in lines if ln.ts <= since or not is_sign(ln)]


MUTATORS: dict[str, Callable[[Guest], tuple[list[Line], Due]]] = {}


def mutator(function: Callable[[Guest], tuple[list[Line], Due]]) -> Callable[[Guest], tuple[list[Line], Due]]:
    """Enter a mutator under its name."""
    MUTATORS[function.__name__] = function
    return function


@mutator
def unchanged(guest: Guest) -> tuple[list[Line], Due]:
    return guest.lines, Due(whole=True)


@mutator
def wake_record_dropped(guest: Guest) -> tuple[list[Line], Due]:
    """The thread runs again: the record of the wake is missing, not the wake."""
    token = guest.victim()
    return guest.without(guest.wakes[token]), Due(token=token)


@mutator
def irq_record_dropped(guest: Guest) -> tuple[list[Line], Due]:
    token = guest.victim(slept=guest.rng.random() < 0.5)
    return guest.without(guest.irq_of(token)), Due(token=token)


@mutator
def handler_records_dropped(guest: Guest) -> tuple[list[Line], Due]:
    token = guest.victim()
    return guest.without(guest.irq_of(token), guest.wakes[token]), Due(token=token)


@mutator
def wait_record_dropped(guest: Guest) -> tuple[list[Line], Due]:
    token = guest.victim(slept=guest.rng.random() < 0.5)
    return guest.without(guest.waits[token]), Due(frozenset({"orphan-wake"}), token)


@mutator
def woken_and_never_ran(guest: Guest) -> tuple[list[Line], Due]:
    token = guest.victim()
    kept = guest.never_again(guest.waits[token].tid, guest.wakes[token].ts, guest.lines)
    return kept, Due(frozenset({"lost-in-guest"}), token)


@mutator
def never_woken(guest: Guest) -> tuple[list[Line], Due]:
    """The interrupt came, and its wake was for nobody."""
    token = guest.victim()
    wake = guest.wakes[token]
    kept = guest.never_again(guest.waits[token].tid, wake.ts, guest.without(wake))
    return kept, Due(frozenset({"lost-in-guest"}), token)


@mutator
def woken_and_never_ran_under_loss(guest: Guest) -> tuple[list[Line], Due]:
    token = guest.victim()
    wake = guest.wakes[token]
    kept = guest.never_again(guest.waits[token].tid, wake.ts, guest.lines)
    later = [ln for ln in kept if ln.ts > wake.ts + 50 * MS]
    at = guest.rng.choice(later[: len(later) // 2])
    mark = Line(at.ts - 1, at.cpu, 0, f"CPU:{at.cpu} [LOST {guest.rng.randint(1, 90)} EVENTS]")
    return [*kept, mark], Due(token=token, undecided=True)


@mutator
def record_doubled(guest: Guest) -> tuple[list[Line], Due]:
    token = guest.victim()
    line = guest.rng.choice([guest.waits[token], guest.wakes[token], guest.irq_of(token)])
    at = guest.lines.index(line)
    return [*guest.lines[:at], line, *guest.lines[at:]], Due(token=token)


@mutator
def starts_late(guest: Guest) -> tuple[list[Line], Due]:
    at = guest.rng.randrange(len(guest.lines) * 2 // 3)
    return guest.lines[at:], Due(whole=True)


@mutator
def ends_early(guest: Guest) -> tuple[list[Line], Due]:
    at = guest.rng.randrange(len(guest.lines) * 2 // 3, len(guest.lines))
    return guest.lines[:at], Due(whole=True)


@mutator
def wake_stamped_wrong(guest: Guest) -> tuple[list[Line], Due]:
    """One wake carries a time at which its ACK was long done."""
    token = guest.victim()
    wake = guest.wakes[token]
    moved = replace(wake, ts=wake.ts + guest.rng.randint(60, 120) * MS)
    may = frozenset({"wake-before-wait", "orphan-wake"})
    return [*guest.without(wake), moved], Due(frozenset({"clock-contradiction"}), may=may)


@mutator
def drifts(guest: Guest) -> tuple[list[Line], Due]:
    rate, first = 1 + guest.rng.uniform(-400e-6, 400e-6), guest.lines[0].ts
    return [ln.moved(lambda ts: first + (ts - first) * rate) for ln in guest.lines], Due(whole=True)


@mutator
def shows_no_tokens(guest: Guest) -> tuple[list[Line], Due]:
    return [replace(ln, text=ln.text.partition(" token=")[0]) for ln in guest.lines], Due(whole=True)


@dataclass(frozen=True)
class Case:
    """One case: its name, and what was wrong about what the analysis said; empty when nothing was."""

    name: str
    planted: bool
    missed: tuple[str, ...]
    false: tuple[str, ...]


def analysed(lines: list[Line], booted: int = 0) -> Analysis:
    """Return what comes of the host and a guest whose clock began at ``booted``."""
    with tempfile.TemporaryDirectory() as directory:
        path = written([ln.moved(lambda ts: ts - booted) for ln in lines], Path(directory) / "guest.txt")
        return apftrace.analyze(capture_path(HOST), guests={"vm1": path})


def run_case(name: str, number: int) -> Case | None:
    """Run one mutator; null where the lines do not suit it."""
    rng = random.Random(f"{name}#{number}")
    guest = Guest(list(lines_of(capture_path(GUEST))), rng)
    try:
        lines, due = MUTATORS[name](guest)
    except NotHere:
        return None
    analysis = analysed(lines, rng.randint(0, 4_000_000 * MS))
    said = [
        (row["rule"], row["token"])
        for row in analysis.findings.iter_rows(named=True)
        if row["rule"] not in ALWAYS
    ]
    missed = [
        rule for rule in due.rules if (rule, due.token) not in said and (due.token or rule not in dict(said))
    ]
    expected = {(rule, due.token) for rule in due.rules}
    unexpected = [(r, t) for r, t in said if (r, t) not in expected and r not in due.may]
    false = [
        f"{rule} {token}" for rule, token in unexpected if due.token is not None or rule not in due.rules
    ]
    if due.undecided:
        missed += [] if analysis.verdict == "undecided" else [f"verdict {analysis.verdict}"]
        false = [text for text in false if not text.startswith("events-lost")]
    link = analysis.guests[0]
    # The first record may be of the wait itself, and of a life told just before the last there is none.
    if due.whole and link.joined < link.lives - 1:
        missed.append(f"{link.joined} of {link.lives} lives")
    if link.refused:
        false.append(f"refused: {link.refused}")
    if wrong := wrongly_joined(analysis):
        false.append(f"{wrong} lives out of order")
    return Case(f"{name}#{number}", bool(due.rules), tuple(missed), tuple(false))


def wrongly_joined(analysis: Analysis) -> int:
    """Return how many lives break an inequality of host and guest beyond those that the analysis tells of."""
    import polars as pl

    joined = analysis.faults.filter(pl.col("guest").is_not_null())
    taken = pl.coalesce("accepted", "ready")
    broken = joined.filter(
        (pl.col("wait") < pl.col("not_present")) | (pl.col("wake") < taken) | (pl.col("wake") > pl.col("acked"))
    )  # fmt: skip
    return max(0, broken.height - analysis.guests[0].broken)


def main(numbers: int = 10) -> None:
    """Print per mutator: cases, planted, found, missed, false."""
    print(f"{'mutator':<34}{'cases':>6}{'planted':>9}{'found':>7}{'missed':>8}{'false':>7}")
    for name in MUTATORS:
        sums: Counter[str] = Counter()
        for number in range(numbers):
            case = run_case(name, number)
            if case is None:
                continue
            sums["cases"] += 1
            sums["planted"] += case.planted
            sums["missed"] += bool(case.missed)
            sums["found"] += case.planted and not case.missed
            sums["false"] += bool(case.false)
            if case.missed or case.false:
                print("   ", case.name, "missed", case.missed, "false", case.false)
        print(f"{name:<34}" + "".join(f"{sums[key]:>{width}}" for key, width in
              (("cases", 6), ("planted", 9), ("found", 7), ("missed", 8), ("false", 7))))  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
