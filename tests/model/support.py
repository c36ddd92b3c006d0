"""Short words for the tests of the model: a calm background, tracepoints turned off, rows as lines.

    story = Story()
    calm(story)                                     # twenty faults that nothing is wrong with
    token = story.pv_life(at=LATER, without=ANSWER)
    analysis = analyse(story, off=["kvm_msr"])
    assert lines(analysis.faults, "token outcome")[-1] == "0x15000 in_flight"

A history is on top of each test, what must come of it below. Times are ns of the trace clock.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import apftrace
from tests.builders import options as opt
from tests.builders.formats import COMMON, Format, formats, parse
from tests.builders.story import ANSWER, Story
from tests.builders.tracedat import Event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import polars as pl

    from apftrace import Analysis
    from tests.builders.tracedat import Record

US, MS, S = 1_000, 1_000_000, 1_000_000_000
START = 10 * S
LATER = 11 * S
"""Long after ``calm``, which begins at START, has come to its end."""
STUCK = 0x15000
"""Token of the life that comes after ``calm``."""
UNDONE = ANSWER | {"completed", "finished", "worker_back", "from_worker"}
"""What a life leaves out whose work does not end."""

FIVE = (
    "kvm_try_async_get_page",
    "kvm_async_pf_repeated_fault",
    "kvm_async_pf_not_present",
    "kvm_async_pf_completed",
    "kvm_async_pf_ready",
)
SCHED_EVENTS = ("sched_switch", "sched_wakeup", "sched_waking")
WORKQUEUE_EVENTS = (
    "workqueue_queue_work",
    "workqueue_activate_work",
    "workqueue_execute_start",
    "workqueue_execute_end",
)

PROCESS_EXIT = parse(
    "sched",
    f"name: sched_process_exit\nID: 399\nformat:\n{COMMON}"
    """\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:int prio;\toffset:28;\tsize:4;\tsigned:1;

print fmt: "comm=%s pid=%d prio=%d", REC->comm, REC->pid, REC->prio
""",
)
"""The builders do not have it; the layout is that of include/trace/events/sched.h."""


def calm(
    story: Story,
    *,
    lives: int = 20,
    vcpu: int = 0,
    vm: int = 0,
    start: int = START,
    every: int = 2 * MS,
    halt: bool = False,
) -> None:
    """Add faults that were answered as usual, 0.56 ms each, so that the analysis knows what is usual."""
    write = story.halt_life if halt else story.pv_life
    for n in range(lives):
        write(at=start + n * every, vcpu=vcpu, vm=vm)


def known_formats() -> tuple[Format, ...]:
    """Return every tracepoint of the builders, and PROCESS_EXIT."""
    return (*formats(), PROCESS_EXIT)


def write(story: Story, path: Path, *, off: Collection[str] = (), whole: bool = True, **options: Any) -> Path:
    """Write a history as a file in which the tracepoints ``off`` do not exist.

    Args:
        story: the history.
        path: of the file.
        off: names of tracepoints.
        whole: the vCPUs enter and leave the guest by turns, whatever the parts of the history say.
        options: those of TraceDat.
    """
    records = by_turns(story) if whole else story.records
    kept = [record for record in records if getattr(record, "name", None) not in off]
    recorded = tuple(form for form in known_formats() if form.name not in off)
    missing = set(off) - {form.name for form in known_formats()}
    assert not missing, f"no such tracepoint: {missing}"
    thinned = Story(isa=story.isa, cpus=story.cpus, worker=story.worker)
    thinned.records, thinned.comms = kept, story.comms
    return thinned.write(path, formats=recorded, **options)


def by_turns(story: Story) -> list[Record]:
    """Return the records of a history, with the exit between two entries and the entry between two exits."""
    if not {"kvm_entry", "kvm_exit"} <= {r.name for r in story.records if isinstance(r, Event)}:
        return story.records
    records: list[Record] = []
    last: dict[int, str] = {}
    vcpus: dict[int, Any] = {}
    for record in sorted(story.records, key=lambda r: r.ts):
        if isinstance(record, Event) and record.name in ("kvm_entry", "kvm_exit"):
            again = last.get(record.tid) == record.name
            if record.name == "kvm_entry":
                vcpus[record.tid] = record.fields["vcpu_id"]
                missing, fields = "kvm_exit", {"exit_reason": 0x60, "isa": story.isa}
            else:
                missing, fields = "kvm_entry", {"vcpu_id": vcpus.get(record.tid, 0)}
            if again:
                records.append(Event(record.ts, record.cpu, record.tid, missing, dict(fields)))
            last[record.tid] = record.name
        records.append(record)
    return records


def analyse(
    story: Story, *, off: Collection[str] = (), late_after: int | None = None, **options: Any
) -> Analysis:
    """Return the analysis of a history; options are those of TraceDat."""
    with tempfile.TemporaryDirectory() as directory:
        path = write(story, Path(directory) / "trace.dat", off=off, **options)
        return apftrace.analyze(path, late_after_ns=late_after)


BLIND = pytest.mark.parametrize("blind", ["mark", "statistics", "unrecorded"])
"""The ways in which ``analyse_blind`` makes records be lost."""


def analyse_blind(story: Story, blind: str, *, at: int, off: Collection[str] = ()) -> Analysis:
    """Return the analysis of a history of which records are lost.

    Args:
        story: the history.
        blind: ``mark``: a record of CPU 0 is lost before ``at``; ``statistics``: at a time that only the counts of
            the buffer tell of; ``unrecorded``: a third CPU has no record at all.
        at: when.
        off: tracepoints that do not exist.
    """
    if blind == "mark":
        return analyse(story.lost(at=at, cpu=0, count=1), off=off)
    if blind == "statistics":
        return analyse(story, off=off, options=[opt.cpu_stat(0, dropped=4), opt.cpu_stat(1)])
    assert blind == "unrecorded"
    return analyse(story, off=off, cpus=3)


def rover() -> Story:
    """Return a history of a vCPU that uses both CPUs by turns, until the data of CPU 1 end, shortly before LATER.

    Nothing tells of that end but the records of another vCPU, which go on.
    """
    story = Story()
    for n in range(200):
        story.pv_life(at=START + n * 4 * MS, cpu=n % 2)
        story.pv_life(vcpu=1, at=LATER + n * 4 * MS, cpu=0)
    return story


def only(*recorded: str) -> list[str]:
    """Return the tracepoints to turn ``off`` so that only these are left."""
    return [form.name for form in known_formats() if form.name not in recorded]


def found(analysis: Analysis, rule: str) -> list[dict[str, Any]]:
    """Return the findings of one rule."""
    return [row for row in analysis.findings.to_dicts() if row["rule"] == rule]


def rules(analysis: Analysis, *severities: str) -> set[str]:
    """Return the rules that found something, at these severities or at all."""
    return {
        row["rule"] for row in analysis.findings.to_dicts() if not severities or row["severity"] in severities
    }


def life(analysis: Analysis, token: int, *, use: int = 1, tid: int | None = None) -> dict[str, Any]:
    """Return the one life of a token."""
    rows = [
        row
        for row in analysis.faults.to_dicts()
        if row["token"] == token and row["use"] == use and tid in (None, row["tid"])
    ]
    assert len(rows) == 1, f"{len(rows)} lives of token {token:#x}"
    return rows[0]


def outcomes(analysis: Analysis) -> dict[str, int]:
    """Return how many lives had each outcome."""
    out: dict[str, int] = {}
    for outcome in analysis.faults["outcome"].to_list():
        out[outcome] = out.get(outcome, 0) + 1
    return out


def total(analysis: Analysis) -> dict[str, Any]:
    """Return the last row of the accounting: all vCPUs together."""
    row = analysis.accounting.to_dicts()[-1]
    assert row["tid"] is None
    return row


def lines(frame: pl.DataFrame, columns: str) -> list[str]:
    """Return the rows as lines of text, tokens and addresses in hex, absent values as a dash."""
    return [" ".join(_cells(row, columns.split())) for row in frame.to_dicts()]


def _cells(row: dict[str, Any], columns: Iterable[str]) -> Iterable[str]:
    for name in columns:
        value = row[name]
        if value is None:
            yield "-"
        elif name in ("token", "gva", "gfn", "hva", "blocker"):
            yield hex(value)
        elif isinstance(value, bool):
            yield "true" if value else "false"
        else:
            yield str(value)
