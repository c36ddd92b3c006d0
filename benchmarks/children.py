"""Run a command to its end and tell what it took: wall time, processor time, peak memory."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Usage:
    """What one run took; ``peak`` is the largest resident set, in bytes."""

    wall: float
    cpu: float
    peak: int


class Failed(Exception):
    """A command that ended as it should not."""


def run(command: Sequence[str], statuses: Sequence[int] = (0,)) -> Usage:
    """Run a command with its output thrown away.

    Raises:
        Failed: it ended with another status than one of ``statuses``.
    """
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        said = child.stderr.read()  # to its end, so that a full pipe stops nobody
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in statuses:
        raise Failed(
            f"{' '.join(command)}: status {child.returncode}: {said.decode(errors='replace')[-300:]}"
        )
    return Usage(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def middle(usages: Sequence[Usage]) -> Usage:
    """Return the medians of several runs."""
    return Usage(
        median(u.wall for u in usages),
        median(u.cpu for u in usages),
        int(median(u.peak for u in usages)),
    )
