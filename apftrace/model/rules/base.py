"""What a rule is, and the few helpers that every rule uses to state a finding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, cast

import polars as pl
import pyarrow as pa

from apftrace import amounts
from apftrace.grades import CONFIDENCES, SEVERITIES
from apftrace.model import tracepoints as tp
from apftrace.model.guest.hooks import FUNCTIONS
from apftrace.schema import FINDINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from apftrace.model.correlate import Case
    from apftrace.model.guest.recording import GuestRecording

GUEST_TRACE = "a guest's trace"
"""What a rule about guests misses where there is none."""

Row = dict[str, Any]
"""One row of a frame, by column name."""

ERROR, WARNING, INFO = SEVERITIES
PROVED, LIKELY, POSSIBLE = CONFIDENCES


class Finding(TypedDict, total=False):
    """What a rule states; the table ``findings`` says what each key means. ``seqs`` are anchor rows.

    ``machine`` is the host where it is not stated; ``seen`` is evidence from a guest.
    """

    severity: str
    confidence: str
    tid: int | None
    machine: str
    token: int | None
    gva: int | None
    ts: int | None
    end: int | None
    phase: str | None
    cause: str | None
    blocker: int | None
    message: str
    seqs: list[int | None]
    seen: list[dict[str, object]]
    ruled_out: list[str]
    not_ruled_out: list[str]


@dataclass(frozen=True)
class Rule:
    """One entry of the catalogue.

    Attributes:
        id: stable, kebab-case.
        severities: those that its findings can have, the worst first.
        title: a few words.
        means: what it means to the guest.
        shown_by: the evidence that decides.
        look_alikes: what must not be confused with it.
        needs: kinds of tracepoint without which the rule cannot look.
        helps: kinds that would make it surer.
        stand_ins: for a kind that it needs, those that together tell the same where it was off.
        remedy: what to do or record next.
        bugs: known kernel bugs with this signature.
        times: it compares durations, so it needs a clock that measures time.
        guest: kinds of hit (``guest.hooks``) that a guest's trace must show.
        nouns: what one finding is called in a sentence, and what several are; empty where the id says it.
        find: the rule itself; what it states is a frame with the keys of ``Finding`` where there may be very much.
    """

    id: str
    severities: tuple[str, ...]
    title: str
    means: str
    shown_by: str
    look_alikes: str
    needs: tuple[int, ...]
    find: Callable[[Case], Iterable[Finding] | pl.DataFrame]
    helps: tuple[int, ...] = ()
    stand_ins: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    remedy: str = ""
    bugs: tuple[str, ...] = field(default=())
    times: bool = False
    guest: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()

    def missing(self, case: Case) -> tuple[str, ...]:
        """Return what the rule needs and the trace does not have: names of tracepoints, a usable clock."""
        missing = self.missing_of_host(case.rec.recorded)
        missing += self.missing_of_guests([side.rec for side in case.guests])
        return (
            missing
            if case.rec.measures_time or not self.times
            else (*missing, "a trace clock that measures time")
        )

    def missing_of_host(self, recorded: frozenset[int]) -> tuple[str, ...]:
        """Return the names of the tracepoints that the rule needs and the host's trace does not have."""
        return tuple(
            tp.NAMES[k]
            for k in self.needs
            if k not in recorded and not (k in self.stand_ins and recorded.issuperset(self.stand_ins[k]))
        )

    def missing_of_guests(self, guests: Sequence[GuestRecording]) -> tuple[str, ...]:
        """Return what the rule needs of a guest and none of these traces has: names of functions, or a trace at all."""
        if self.guest and not guests:
            return (GUEST_TRACE,)
        lacking = [kind for kind in self.guest if not any(rec.has(kind) for rec in guests)]
        return tuple(f"{function_of(kind)} in the guest" for kind in lacking)


def function_of(kind: str) -> str:
    """Return the guest's function that a kind of hit shows."""
    return next((name for name, of in FUNCTIONS.items() if of == kind), kind)


TWIN = "one record that stands in the trace twice: both bear the same stamp"
"""What two events of one thread at one instant may be instead."""

EVIDENCE_PER_RULE = 1000
"""Findings of one rule that carry their events; further ones state everything else."""

LIFE_SEQS = ("life", "completed_seq", "ready_seq", "acc_seq", "inj_seq", "ack_seq")
"""Columns of ``lives`` that name the anchors of a life, in the order of a life."""


def finding(**stated: Any) -> Finding:
    """Return a finding from values that come out of a frame's row."""
    return cast("Finding", stated)


def about(life: Row, **stated: Any) -> Finding:
    """Return a finding about one life (a row of ``case.lives``)."""
    return finding(
        tid=life["tid"],
        token=life["token"],
        gva=life["gva"],
        ts=life["not_present"],
        end=life["end"],
        seqs=[life[c] for c in LIFE_SEQS],
        **stated,
    )


def rows(frame: pl.DataFrame) -> Iterable[Row]:
    """Iterate over a frame's rows as dicts."""
    return frame.iter_rows(named=True)


def framed(columns: dict[str, pa.Array]) -> pl.DataFrame:
    """Return Arrow columns as a frame."""
    frame = pl.from_arrow(pa.table(columns))
    assert isinstance(frame, pl.DataFrame)
    return frame


def listed(name: str, values: Sequence[Sequence[object]]) -> pl.Series:
    """Return a column of lists of the table ``findings``; polars itself takes ten times as long to make one."""
    return framed({name: pa.array(values, FINDINGS.arrow().field(name).type)})[name]


def duration(case: Case, value: int | float | None) -> str:
    """Return a duration of the case's clock with its unit."""
    return "?" if value is None else amounts.duration(int(value), "ns" if case.clock_is_ns else "ticks")


def hexed(value: int | None) -> str:
    """Return a token or an address as the kernel prints it."""
    return "?" if value is None else f"0x{value & 0xFFFFFFFFFFFFFFFF:x}"
