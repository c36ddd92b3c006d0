"""What every report is: a name, the suffixes it answers to, and something made from one analysis."""

from __future__ import annotations

import os
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from apftrace.errors import ReportError

if TYPE_CHECKING:
    from apftrace.analysis import Analysis

STDOUT = "-"
"""The path that means standard output."""


class Report(ABC):
    """One way to show an analysis.

    Attributes:
        name: what ``--format`` calls it.
        suffixes: file name endings that choose it, the usual one first.
        wants_sha256: it shows the digest of the inputs, so the caller should compute them.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    wants_sha256: ClassVar[bool] = False

    @abstractmethod
    def write(self, analysis: Analysis, path: str | Path) -> None:
        """Write the report to ``path``, whole or not at all.

        Raises:
            ReportError: it cannot be written there.
        """


class Rendered(Report):
    """A report that is one run of bytes: a file, or standard output."""

    @abstractmethod
    def render(self, analysis: Analysis) -> bytes:
        """Return the whole report; the same analysis gives the same bytes."""

    def write(self, analysis: Analysis, path: str | Path) -> None:
        """Write the report to ``path``, whole or not at all; ``-`` is standard output.

        Raises:
            ReportError: the file cannot be written.
        """
        save(self.render(analysis), path)


def tool_version() -> str:
    """Return the version of apftrace, ``unknown`` in a checkout that is not installed."""
    # Here, because this import takes longer than most reports.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("apftrace")
    except PackageNotFoundError:
        return "unknown"


def save(data: bytes, path: str | Path) -> None:
    """Put ``data`` into ``path`` so that no reader ever sees half of it; ``-`` is standard output.

    Raises:
        ReportError: the file cannot be written.
    """
    if str(path) == STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        replace(data, Path(path))
    except OSError as error:
        raise ReportError(f"{path}: cannot be written: {error.strerror or error}") from error


def replace(data: bytes, target: Path) -> None:
    """Write a temporary file beside ``target`` and rename it over; raises OSError."""
    if target.exists() and not target.is_file():  # a device or a pipe: nothing to rename over
        target.write_bytes(data)
        return
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:64]}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    # mkstemp gives 0600; a report is an ordinary file, so it gets what open() would have given it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
