"""Option CPUSTAT: the text of per_cpu/cpuN/stats, one per CPU, instances after the top one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from apftrace_parsers.ringsource import BufferStat

if TYPE_CHECKING:
    from collections.abc import Iterable

_LINE = re.compile(r"^(CPU|Buffer|overrun|dropped events):\s*(.*?)\s*$", re.MULTILINE)


def parse_cpustats(texts: Iterable[str]) -> list[BufferStat]:
    """Return how much each CPU's buffer lost, for those that say so."""
    stats = []
    instance = ""
    cpu = overrun = None
    for text in texts:
        for key, value in _LINE.findall(text):
            if key == "Buffer":
                instance = value
            elif not value.isdigit():
                continue
            elif key == "CPU":
                cpu, overrun = int(value), None
            elif key == "overrun":
                overrun = int(value)
            elif cpu is not None and overrun is not None:
                stats.append(BufferStat(cpu, instance, overrun + int(value)))
    return stats
