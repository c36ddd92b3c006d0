"""Lines of ftrace text as the kernel prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEADER = """\
# tracer: nop
#
# entries-in-buffer/entries-written: {entries}/{written}   #P:4
#
#                                _-----=> irqs-off/BH-disabled
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""


def written(tmp_path: Path, text: str | bytes, name: str = "trace.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def line(
    event: str, text: str = "", *, ts: str = "  1.000000", cpu: int = 0, task: str = "CPU 0/KVM-3099"
) -> str:
    comm, _, tid = task.rpartition("-")
    return f"{comm:>16}-{tid:<7} [{cpu:03d}] d..1. {ts}: {event}: {text}\n"
