"""What reports show, as plain values that a test can compare; :mod:`apftrace_reports.prepare` fills them.

No string in here holds a control character: a renderer only adds the escaping of its own medium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apftrace.schema import PHASES
from apftrace_reports.escape import visible
from apftrace_reports.units import duration, instant

if TYPE_CHECKING:
    from apftrace.analysis import Analysis, NotRun
    from apftrace_reports.accounting import AccountingLine, Term
    from apftrace_reports.catalogue import RuleWords
    from apftrace_reports.causes import CauseRow
    from apftrace_reports.environment import InputFacts
    from apftrace_reports.gaps import Gaps

LIFE_PHASES = ("p1", "p2", "p12", "p3", "p4", "p5", "p6", "p7")

_PHASE_NAMES = {
    "total": ("until told", "not_present until the guest was told"),
    "p12": ("queue, fault-in", ""),
    "e2e": ("until it ran", "not_present until the guest's task ran again"),
}


@dataclass(frozen=True)
class Evidence:
    """One event that shows a finding."""

    ts: int | None
    cpu: int | None
    tid: int | None
    event: str
    text: str


@dataclass(frozen=True)
class Finding:
    """One finding, ready to be shown; ``token``, ``gva`` and ``blocker`` are hexadecimal text."""

    id: str
    rule: str
    severity: str
    confidence: str
    machine: str | None
    vm: str | None
    vcpu: int | None
    tid: int | None
    token: str | None
    gva: str | None
    ts: int | None
    end: int | None
    phase: str | None
    cause: str | None
    blocker: str | None
    message: str
    evidence: tuple[Evidence, ...]
    ruled_out: tuple[str, ...]
    not_ruled_out: tuple[str, ...]
    excerpt: tuple[str, ...]

    @property
    def lasted(self) -> int | None:
        """How long it lasted, null when an end is unknown."""
        return None if self.ts is None or self.end is None else self.end - self.ts


@dataclass(frozen=True)
class Group:
    """The findings of one rule: all of them counted, the first few in full; ``causes`` sums up late wakeups."""

    rule: str
    severity: str
    count: int
    severities: tuple[tuple[str, int], ...]
    confidences: tuple[tuple[str, int], ...]
    first: int | None
    last: int | None
    where: tuple[str, ...]
    findings: tuple[Finding, ...]
    words: RuleWords
    causes: tuple[CauseRow, ...] = ()

    @property
    def hidden(self) -> int:
        """How many of them are counted but not carried in full."""
        return self.count - len(self.findings)


@dataclass(frozen=True)
class LatencyRow:
    """One row of the phase table."""

    phase: str
    label: str
    name: str
    doc: str
    kind: str
    n: int
    min: int | None
    p50: int | None
    p95: int | None
    p99: int | None
    max: int | None
    late_after: int | None


@dataclass(frozen=True)
class Step:
    """One step of a life's story: ns since not_present, the phase that ended there, and what happened."""

    after: int
    phase: str | None
    text: str


@dataclass(frozen=True)
class Life:
    """A lost life or one of the slowest, and its story where it was looked at closely."""

    token: str
    where: str
    kind: str
    outcome: str
    not_present: int | None
    total: int
    e2e: int | None
    phases: dict[str, int | None]
    blocker: str | None
    steps: tuple[Step, ...]

    @property
    def took(self) -> int:
        """How long it took with all that is known of it: until the guest's task ran, where its trace shows that."""
        return max(self.total, self.e2e or 0)

    def lasted(self, unit: str) -> str:
        """Return in words how long it took, which is what the steps of its story add up to."""
        told = duration(self.took, unit)
        if self.outcome == "lost":
            return f"lost, open for {told}"
        if self.e2e is None:
            return told
        if self.e2e == self.took:
            return f"{told} until its task ran"
        return f"{told} in all, its task ran after {duration(self.e2e, unit)}"


@dataclass(frozen=True)
class VcpuRow:
    """One vCPU thread; ``values`` holds the remaining columns of table ``vcpus``."""

    where: str
    comm: str
    values: dict[str, Any]


REDACTED = "Redacted: addresses, comms, paths, host and guest names are pseudonyms."
"""What a reader must know before asking for the page at an address."""


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows, in the order of importance.

    ``life_phases`` are the phases that the slowest lives have, ``quiet`` the rules that looked and found
    nothing; the other names are those of the analysis.
    """

    verdict: str
    headline: str
    unsafe: tuple[str, ...]
    protocol: str
    unit: str
    several: bool
    lives: int
    outcomes: tuple[tuple[str, int], ...]
    severities: tuple[tuple[str, int], ...]
    groups: tuple[Group, ...]
    latency: tuple[LatencyRow, ...]
    lost: tuple[Life, ...]
    slowest: tuple[Life, ...]
    life_phases: tuple[str, ...]
    accounting: tuple[AccountingLine, ...]
    asides: tuple[Term, ...]
    broken: tuple[str, ...]
    vcpus: tuple[VcpuRow, ...]
    inputs: tuple[InputFacts, ...]
    gaps: Gaps
    not_run: tuple[NotRun, ...]
    quiet: tuple[str, ...]
    redacted: bool

    @property
    def findings(self) -> int:
        """Number of all findings."""
        return sum(group.count for group in self.groups)

    @property
    def followed(self) -> bool:
        """Whether a fault was followed until the guest's task ran again."""
        return any(row.phase == "e2e" for row in self.latency)

    @property
    def whole(self) -> tuple[LatencyRow, ...]:
        """The rows that tell how long faults took from end to end: until the task ran, until the guest was told."""
        firsts = {row.phase: row for row in reversed(self.latency)}
        return tuple(firsts[phase] for phase in ("e2e", "total") if phase in firsts)

    @property
    def told(self) -> tuple[Life, ...]:
        """The lives that are told step by step, the lost ones first."""
        return self.lost + tuple(life for life in self.slowest if life.steps and life.outcome != "lost")

    @property
    def lacking(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """What the record lacks and the rules that could not look for it, the most often missed first."""
        rules: dict[tuple[str, ...], list[str]] = {}
        for one in self.not_run:
            rules.setdefault(one.missing, []).append(one.rule)
        return tuple(
            (missing, tuple(named)) for missing, named in sorted(rules.items(), key=lambda r: -len(r[1]))
        )


def time_unit(analysis: Analysis) -> str:
    """Return ``ticks`` when the host's trace counts in ticks, else ``ns``; guests are on its clock."""
    return "ticks" if any(one.clock_unit == "ticks" for one in analysis.inputs[:1]) else "ns"


def phase_label(phase: str) -> str:
    """Return how a phase is called in a table: ``p4`` is ``P4``, ``p12`` is ``P1+P2``."""
    return {"p12": "P1+P2", "total": "total", "e2e": "e2e"}.get(phase, phase.upper())


def phase_words(phase: str) -> tuple[str, str]:
    """Return the short name of a phase and what it spans."""
    name, doc = _PHASE_NAMES.get(phase, ("", ""))
    head, _, tail = PHASES.get(phase, "").rpartition(": ")
    return name or head, doc or tail


def place(row: dict[str, Any], *, several: bool) -> str:
    """Return where a row belongs: ``vCPU 0``, with the VM in front when there are several."""
    vcpu = "" if row["vcpu"] is None else f"vCPU {row['vcpu']}"
    if not several:
        return vcpu
    machine = row["machine"] if row["machine"] not in ("host", row["vm"]) else None
    parts = (machine, row["vm"])
    return " ".join(part for part in (*(visible(one) for one in parts if one), vcpu) if part)


def named_records(finding: Finding, unit: str) -> tuple[list[int], bool]:
    """Return which lines of the excerpt are those of the evidence, and whether it has all of them there."""
    stamps = {f" {instant(one.ts, unit)}: " for one in finding.evidence if one.ts is not None}
    at = [at for at, line in enumerate(finding.excerpt) if any(stamp in line for stamp in stamps)]
    return at, all(any(stamp in line for line in finding.excerpt) for stamp in stamps)


def whereabouts(finding: Finding, unit: str) -> str:
    """Return how sure a finding is, whom it concerns and when, in one line."""
    parts = [
        finding.confidence,
        f"vCPU {finding.vcpu}" if finding.vcpu is not None else "",
        f"tid {finding.tid}" if finding.tid is not None else "",
        f"vm {finding.vm}" if finding.vm else "",
        f"on {finding.machine}" if finding.machine not in {None, "host"} else "",
        f"token {finding.token}" if finding.token else "",
        f"gva {finding.gva}" if finding.gva else "",
        phase_label(finding.phase) if finding.phase else "",
        f"at {instant(finding.ts, unit)}" if finding.ts is not None else "",
        f"for {duration(finding.lasted, unit)}" if finding.lasted else "",
    ]
    return ", ".join(part for part in parts if part)
