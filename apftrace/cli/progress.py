"""How far a batch is: a line that moves on a terminal, JSON lines in a pipe."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from apftrace.cli.screen import say
from apftrace.cli.streams import while_read
from apftrace_reports.escape import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apftrace.batch.overview import Batch
    from apftrace.batch.runs import Entry

_OFTEN = 0.1
_WIDTH = 24


class Silent:
    """Tells nothing but what concerns no single input."""

    def done(self, entry: Entry, result: dict[str, Any], took: float, weight: int, total: int) -> None:
        """Ignore it."""

    def say(self, words: str) -> None:
        """Print it."""
        say(words)

    def finished(self, batch: Batch) -> None:
        """Ignore it."""

    def close(self) -> None:
        """Do nothing."""


class JsonLines(Silent):
    """One JSON object per input, as soon as it is done."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._number = 0

    def done(self, entry: Entry, result: dict[str, Any], took: float, weight: int, total: int) -> None:
        """Print one line; ``took`` is what the work cost, which no file of results says."""
        self._number += 1
        line = {
            "event": "input",
            "number": self._number,
            "path": entry.path,
            "sha256": entry.sha256,
            "status": result["status"],
            "reason": result.get("reason") or None,
            "verdict": result.get("verdict"),
            "took_seconds": round(took, 3),
        }
        self._write(line)

    def finished(self, batch: Batch) -> None:
        """Print the last line: the verdict on all of it."""
        self._write(
            {
                "event": "end",
                "verdict": batch.verdict,
                "headline": batch.headline,
                "analysed": len(batch.analysed),
                "failed": len(batch.failed),
                "regressions": len(batch.regressions),
            }
        )

    def _write(self, line: dict[str, Any]) -> None:
        with while_read():
            self._out.write(json.dumps(line, sort_keys=True) + "\n")
            self._out.flush()


class Bar(Silent):
    """A line on a terminal: share of the bytes, inputs, rate, time to go, and what failed."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._start = time.monotonic()
        self._next = 0.0
        self._inputs = self._failed = self._bytes = self._total = 0
        self._after = ""

    def done(self, entry: Entry, result: dict[str, Any], took: float, weight: int, total: int) -> None:
        """Count it, and draw the line anew when it is time."""
        self._inputs += 1
        self._failed += result["status"] not in {"analysed", "skipped"}
        self._bytes += weight
        self._total = total
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _OFTEN
            self._out.write(f"\r\x1b[K{self.line(now - self._start)}")
            self._out.flush()

    def line(self, seconds: float) -> str:
        """Return the line after so many seconds."""
        share = min(1.0, self._bytes / self._total) if self._total else 0.0
        filled = round(share * _WIDTH)
        left = _clock(seconds * (1 - share) / share) if share > 0 and seconds > 1 else "--:--"
        words = f"{'#' * filled}{'.' * (_WIDTH - filled)} {share:4.0%}  {self._inputs} inputs  "
        words += f"{self._inputs / max(seconds, 0.001):.1f}/s  ETA {left}"
        return words + (f"  {self._failed} failed" if self._failed else "")

    def say(self, words: str) -> None:
        """Print a line above the bar."""
        self._out.write("\r\x1b[K")
        say(words)

    def finished(self, batch: Batch) -> None:
        """Print the verdict below the bar."""
        self._after = f"{batch.verdict.upper()}: {batch.headline}"

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._out.write(f"\r\x1b[K{self.line(time.monotonic() - self._start)}\n")
        if self._after:
            self._out.write(f"{visible(self._after)}\n")
        self._out.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def progress() -> Iterator[Silent]:
    """Give what fits: a bar where both streams are terminals, else JSON lines, nothing where stdout is closed."""
    shown = _fitting()
    try:
        yield shown
    finally:
        shown.close()


def _fitting() -> Silent:
    if sys.__stdout__ is None:
        return Silent()
    return Bar(sys.stderr) if sys.stderr.isatty() and sys.stdout.isatty() else JsonLines(sys.stdout)
