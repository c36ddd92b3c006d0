"""Real guests as lines of text that a test can change: cut, shift, drop, move to another clock."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import polars as pl

from apftrace_parsers.base import PassResult
from apftrace_parsers.registry import open_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PRINTED = {
    "task_wait": "task_wait: (kvm_async_pf_task_wait_schedule+0x0/0x1b0) token={token}",
    "task_wake": "task_wake: (kvm_async_pf_task_wake+0x0/0x170) token={token}",
    "asyncpf_irq": "asyncpf_irq: (__sysvec_kvm_asyncpf_interrupt+0x0/0xb0)",
    "sched_switch": "sched_switch: prev_comm={prev_comm} prev_pid={prev_pid} prev_prio={prev_prio} "
    "prev_state={state} ==> next_comm={next_comm} next_pid={next_pid} next_prio={next_prio}",
    "sched_wakeup": "sched_wakeup: comm={comm_} pid={pid} prio={prio} target_cpu={target_cpu:03d}",
    "page_fault_user": "page_fault_user: address={address:#x} ip={ip:#x} error_code={error_code:#x}",
}
_STATES = {0: "R", 1: "S", 2: "D", 128: "I", 256: "R+"}


@dataclass(frozen=True)
class Line:
    """One record: when in ns of the clock that it is shown in, where, who, and ``event: payload``."""

    ts: int
    cpu: int
    tid: int
    text: str

    @property
    def event(self) -> str:
        """Name of the event."""
        return self.text.partition(":")[0]

    @property
    def token(self) -> int | None:
        """Token that it shows."""
        found = re.search(r"token=(\d+)", self.text)
        return int(found[1]) if found else None

    def moved(self, move: Callable[[int], float]) -> Line:
        """Return it at another time."""
        return replace(self, ts=round(move(self.ts)))

    def concerns(self, tid: int) -> bool:
        """Say whether it tells of a thread."""
        return self.tid == tid or bool(re.search(rf"pid={tid}\b", self.text))


@cache
def lines_of(path: Path) -> tuple[Line, ...]:
    """Return the records of a guest's trace.dat, in order, on the clock that the file's reader gives them."""
    source = open_source(path)
    out: list[Line] = []
    for form, batch in source.tables(list(_PRINTED), PassResult()):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        for row in frame.iter_rows(named=True):
            fields = {"comm_": "touch", **row}
            if form.name == "sched_switch":
                fields["state"] = _STATES.get(row["prev_state"], "R")
            out.append(Line(row["ts"], row["cpu"], row["tid"], _PRINTED[form.name].format(**fields)))
    source.close()
    return tuple(sorted(out, key=lambda line: (line.ts, line.cpu)))


def written(lines: list[Line] | tuple[Line, ...], path: Path, *, ticks: bool = False) -> Path:
    """Write lines as tracefs text, to the ns; or as ticks of a counter."""
    n = len(lines)
    text = [f"# tracer: nop\n#\n# entries-in-buffer/entries-written: {n}/{n}   #P:2\n#\n"]
    for line in sorted(lines, key=lambda line: line.ts):
        at = str(line.ts) if ticks else f"{line.ts // 10**9}.{line.ts % 10**9:09d}"
        lost = line.text.startswith("CPU:")
        who = f"touch-{line.tid}" if line.tid else "<idle>-0"
        text.append(f"{line.text}\n" if lost else f" {who:>20} [{line.cpu:03d}] d.... {at}: {line.text}\n")
    path.write_text("".join(text))
    return path
