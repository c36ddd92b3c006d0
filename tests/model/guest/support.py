"""Short ways to record a guest and look at its hits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.model.guest.recording import GuestRecording, record_guest
from apftrace_parsers.registry import open_source
from tests.builders.guest import Guest
from tests.builders.guest_events import WAKE_ALL

if TYPE_CHECKING:
    from pathlib import Path

FUNCTION_KINDS = frozenset(
    {"wait", "wait_return", "wake", "wake_return", "wake_all", "irq", "irq_return", "enable", "offline"}
)


def history() -> Guest:
    """Return three faults: one that sleeps, one that is answered before it can, one after a broadcast."""
    guest = Guest(comms={0: "<idle>", 128: "touch a[0]", 129: "x-1 [0] 5: w:"})
    ts = guest.fault(1_000_000, 128, 0x1001)
    ts = guest.fault(ts, 128, 0x2001, sleeps=False)
    guest.call(ts, 129, WAKE_ALL, cpu=1).call(ts + 1000, 129, WAKE_ALL, cpu=1, returns=True)
    guest.fault(ts + 5_000, 129, 0xFFF3001, cpu=1)
    return guest


def recorded(path: Path) -> GuestRecording:
    source = open_source(path)
    try:
        return record_guest(source, "vm1")[0]
    finally:
        source.close()


def calls(rec: GuestRecording, *columns: str) -> list[tuple[object, ...]]:
    """Return the hits that are functions, by default all that every form can tell."""
    chosen = columns or ("ts", "cpu", "tid", "kind", "token")
    return rec.kind(*FUNCTION_KINDS).select(chosen).rows()


def scheduled(rec: GuestRecording) -> list[tuple[object, ...]]:
    """Return the hits that are scheduling events."""
    return rec.kind("switch", "waking", "wakeup").select("ts", "cpu", "tid", "kind", "a", "b", "c").rows()
