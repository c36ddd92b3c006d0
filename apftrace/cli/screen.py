"""What reaches the terminal: one line for an error, and no control character of anybody else's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from pathlib import Path


def say(message: str) -> None:
    """Print one line about the work on stderr."""
    from apftrace_reports.escape import visible

    click.echo(f"apftrace: {visible(message)}", err=True)


def fail(message: str, status: int) -> NoReturn:
    """Print one line about what went wrong and leave with ``status``."""
    say(message)
    sys.exit(status)


def refuse_to_overwrite(trace: Path, output: Path | None) -> None:
    """Fail when the output would replace the trace itself."""
    if output is not None and output.exists() and trace.exists() and output.samefile(trace):
        raise click.UsageError("the output is the trace itself")
