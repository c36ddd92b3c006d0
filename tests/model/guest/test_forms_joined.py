"""A real guest, told again in every form in which it could have been traced, joins its host alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

import apftrace
from apftrace_parsers.base import PassResult
from apftrace_parsers.registry import open_source
from tests.builders.guest import Call, GraphColumns, Guest
from tests.builders.guest_events import IRQ, WAIT, WAKE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apftrace import Analysis

    Capture = Callable[[str], Path]

HOST, GUEST = "host-guest/agent-v7-h.dat", "host-guest/agent-v7-h-vm1.dat"
BOOTED = 3_500_000_000
"""How far the guest's own clock is ahead here."""
FUNCTIONS = {"task_wait": WAIT, "task_wake": WAKE, "asyncpf_irq": IRQ}
TOLERANCE_NS = 20_000
"""The inferred clock says itself that it is no better, and text has microseconds."""


@pytest.fixture(scope="module")
def guest(capture: Capture) -> Guest:
    """Return what the capture of the guest holds, on a clock of its own."""
    source = open_source(capture(GUEST))
    guest = Guest(comms={0: "<idle>", **source.info.comms})
    for form, batch in source.tables(["*"], PassResult()):
        for row in batch.to_pylist():
            ts, cpu, tid = row["ts"] + BOOTED, row["cpu"], row["tid"]
            if form.name in FUNCTIONS:
                guest.call(ts, tid, FUNCTIONS[form.name], cpu=cpu, token=row.get("token", 0))
            elif form.name == "sched_switch":
                state = row["prev_state"] & 0xFF
                guest.switch(ts, row["prev_pid"], row["next_pid"], cpu=cpu, state=state)
            elif form.name == "sched_wakeup":
                guest.wakeup(ts, tid, row["pid"], cpu=cpu, target=row["target_cpu"])
    source.close()
    return guest


@pytest.fixture(scope="module")
def recorded(capture: Capture) -> Analysis:
    return apftrace.analyze([capture(HOST), capture(GUEST)])


FORMS: dict[str, Callable[[Guest, Path], Path]] = {
    "kprobes": lambda guest, path: guest.dat(path),
    "kprobes as text": lambda guest, path: guest.text(path),
    "functions": lambda guest, path: guest.dat(path, "function"),
    "functions as text": lambda guest, path: guest.text(path, "function"),
    "functions with arguments": lambda guest, path: guest.dat(path, "function_args"),
    "functions with arguments as text": lambda guest, path: guest.text(path, "function_args"),
    "graph": lambda guest, path: guest.dat(path, "graph"),
    "graph as text": lambda guest, path: guest.text(path, "graph", GraphColumns(task=True)),
    "legacy names": lambda guest, path: _renamed(guest.text(path), WAIT, "kvm_async_pf_task_wait"),
}


def _renamed(path: Path, old: str, new: str) -> Path:
    path.write_text(path.read_text().replace(old, new))
    return path


def apart(one: Analysis, other: Analysis, *columns: str) -> pl.DataFrame:
    """Return the lives that two analyses follow into the guest differently."""
    both = one.faults.join(
        other.faults, on=["tid", "token", "not_present"], suffix="_b", maintain_order="left"
    )
    assert both.height == one.faults.height == other.faults.height
    far = [
        (pl.col(c).is_null() != pl.col(f"{c}_b").is_null())
        | ((pl.col(c) - pl.col(f"{c}_b")).abs() > TOLERANCE_NS).fill_null(value=False)
        for c in columns
    ]
    return both.filter(pl.any_horizontal(far))


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_every_life_is_joined_as_from_the_kprobes(
    capture: Capture, guest: Guest, recorded: Analysis, tmp_path: Path, write: Callable[[Guest, Path], Path]
) -> None:
    analysis = apftrace.analyze([capture(HOST), write(guest, tmp_path / "vm1.trace")])
    assert analysis.faults["wait"].is_not_null().sum() == 361
    assert apart(recorded, analysis, "wait", "wake", "running").height == 0
    assert sorted(analysis.findings["rule"]) == sorted(recorded.findings["rule"])


@pytest.mark.parametrize("hooks", ["kprobe", "function"])
def test_without_the_scheduler_nobody_knows_when_a_thread_ran(
    capture: Capture, guest: Guest, recorded: Analysis, tmp_path: Path, hooks: str
) -> None:
    bare = Guest(comms=guest.comms, events=[e for e in guest.events if isinstance(e, Call)])
    analysis = apftrace.analyze([capture(HOST), bare.text(tmp_path / "vm1.txt", hooks)])
    assert apart(recorded, analysis, "wait", "wake").height == 0
    shown = analysis.faults.filter(pl.col("running").is_not_null())
    # Only where the interrupt came in the thread's own context it is sure to go on at once.
    assert 0 < shown.height < 200
    assert (shown["running"] == shown["wake"]).all()
    assert not set(analysis.findings["rule"]) & {"lost-in-guest", "orphan-wake", "wake-before-wait"}
    assert analysis.verdict in ("clean", "warnings")
