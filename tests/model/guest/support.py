"""Short ways to record a guest and look at its hits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.model.guest.recording import GuestRecording, record_guest
from apftrace_parsers.registry import open_source

if TYPE_CHECKING:
    from pathlib import Path

FUNCTION_KINDS = frozenset(
    {"wait", "wait_return", "wake", "wake_return", "wake_all", "irq", "irq_return", "enable", "offline"}
)


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
