"""The result of an analysis: frames and facts. What is written of it is left to :mod:`apftrace_reports`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl


@dataclass(frozen=True)
class Input:
    """What is known of one input file.

    Attributes:
        path: as the user named it.
        format: for example ``trace.dat v7 (zstd)``.
        machine: ``host`` or the guest's name.
        kernel: uname of the traced machine, or null.
        clock: trace clock name.
        clock_unit: ``ns``, or ``ticks`` when no rate is known and all durations are in ticks.
        cpus: number of CPUs in the trace.
        events: hits per tracepoint, all tracepoints of the file.
        lost_events: events known to be lost; null when some loss has no count; 0 when nothing was lost.
        lost_cpus: CPUs with a loss.
        first_ns: first event, null when there is none.
        last_ns: last event.
        notes: what was odd in the file and how it was handled, one sentence each.
        sha256: of the file's bytes; null when no report asked for it.
    """

    path: str
    format: str
    machine: str
    kernel: str | None
    clock: str
    clock_unit: str
    cpus: int
    events: dict[str, int]
    lost_events: int | None
    lost_cpus: tuple[int, ...]
    first_ns: int | None
    last_ns: int | None
    notes: tuple[str, ...] = ()
    sha256: str | None = None


@dataclass(frozen=True)
class Protocol:
    """Which async page fault protocol the trace shows.

    Attributes:
        kind: ``int``, ``legacy``, ``halt-only`` or ``unknown``.
        vector: page-ready vector, null when unknown.
        send_always: whether a guest asked for kernel-mode faults too; null when no enable was traced.
        why: the evidence in one sentence.
    """

    kind: str
    vector: int | None
    send_always: bool | None
    why: str


@dataclass(frozen=True)
class NotRun:
    """A rule that could not look, and what it misses: tracepoints, a guest's trace, a clock that measures time."""

    rule: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class LossSpan:
    """A gap in the record of one CPU.

    Attributes:
        machine: ``host`` or the guest's name.
        cpu: the CPU.
        count: records lost, null when the trace does not say.
        after_ns: last record before the gap; null when the gap reaches back to the start.
        before_ns: first instant after it; null when it reaches to the end or has no known place.
    """

    machine: str
    cpu: int
    count: int | None
    after_ns: int | None
    before_ns: int | None


@dataclass(frozen=True)
class Step:
    """One step of a story: an instant, the phase that ended there (null for the first), and what happened."""

    ts: int
    phase: str | None
    text: str


@dataclass(frozen=True)
class Story:
    """A lost life or one of the slowest, told step by step; the other names are those of table ``faults``.

    ``total`` of a lost one is how long it was open.
    """

    machine: str
    vm: str | None
    vcpu: int | None
    tid: int
    token: int
    not_present: int
    total: int
    kind: str
    outcome: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class ClockFit:
    """How a guest's clock was brought to its host's, and how good that is.

    Attributes:
        machine: the guest's name.
        vm: the VM of the host's trace that it is; null when unknown.
        method: ``synchronised``, ``tsc``, ``given``, ``inferred`` or ``none``.
        offset: host minus guest clock where the guest's trace begins, in the host's unit; null without a clock,
            and where the two count different units.
        rate: host units per guest unit.
        low: least constant offset that the order of events allows; null when nothing bounds it.
        high: greatest.
        within: most by which the clock can be wrong at any instant, drift of 500 ppm allowed; null as above.
        typical: median of that.
        drift_ppm: drift that was found, parts per million; 0 when a constant offset explains everything.
        bounds: inequalities between host and guest that hold.
        broken: those that do not.
        contradictions: the first broken inequalities, one sentence each.
        refused: why there is no common clock, in one sentence; null when there is one.
        notes: what else is worth telling.
    """

    machine: str
    vm: str | None = None
    method: str = "none"
    offset: int | None = None
    rate: float = 1.0
    low: int | None = None
    high: int | None = None
    within: int | None = None
    typical: int | None = None
    drift_ppm: float | None = None
    bounds: int = 0
    broken: int = 0
    contradictions: tuple[str, ...] = ()
    refused: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GuestLink(ClockFit):
    """How a guest's trace was brought to its host's.

    Attributes:
        how: the method in one sentence.
        lives: lives of the VM of which the guest was told, within the guest's record.
        joined: those with a wait or a wake in the guest.
    """

    how: str = ""
    lives: int = 0
    joined: int = 0


@dataclass(frozen=True)
class Analysis:
    """A finished analysis.

    Times are in the unit of the clock of the first of ``inputs``, also where a name says ns.

    Attributes:
        inputs: what is known of each input, the host's first.
        verdict: ``clean``, ``warnings``, ``anomaly``, ``undecided`` or ``unusable``.
        headline: the verdict in one plain sentence.
        unsafe: why the verdict could be wrong (loss, missing tracepoints); empty when it is safe.
        protocol: which protocol host and guest speak.
        faults: table ``faults`` of :mod:`apftrace.schema`.
        findings: table ``findings``, most severe first.
        vcpus: table ``vcpus``.
        accounting: table ``accounting``.
        latency: table ``latency``.
        not_run: rules that could not look.
        late_after: threshold per phase, above which a wakeup counts as late.
        losses: gaps in the record.
        guests: how each guest's trace was brought to the host's; empty without one.
        excerpts: raw trace lines around the worst findings, by finding id.
        stories: the first lost lives, then the slowest, the slowest first.
        redacted: whether names, addresses and paths are pseudonyms.
        unread: inputs that were named beside these and could not be read; ``unsafe`` says why.
    """

    inputs: tuple[Input, ...]
    verdict: str
    headline: str
    unsafe: tuple[str, ...]
    protocol: Protocol
    faults: pl.DataFrame
    findings: pl.DataFrame
    vcpus: pl.DataFrame
    accounting: pl.DataFrame
    latency: pl.DataFrame
    not_run: tuple[NotRun, ...]
    late_after: dict[str, int]
    losses: tuple[LossSpan, ...] = ()
    guests: tuple[GuestLink, ...] = ()
    excerpts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    stories: tuple[Story, ...] = ()
    redacted: bool = False
    unread: tuple[str, ...] = ()

    def write(self, path: str | Path, format: str | None = None) -> None:  # noqa: A002
        """Write a report; ``format`` defaults to what the suffix of ``path`` says.

        Raises:
            ReportError: the suffix or the format is unknown.
        """
        from apftrace_reports.registry import report_for

        report_for(str(path), format).write(self, path)

    def text(self) -> str:
        """Return the plain text report, 72 columns wide."""
        from apftrace_reports.registry import by_name

        return by_name("text").render(self).decode()

    def _repr_html_(self) -> str:
        from apftrace_reports.registry import by_name

        return by_name("html").render(self).decode()
