"""What reaches the terminal: one line for an error, and no control character of anybody else's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from pathlib import Path


def printable(line: str) -> str:
    """Return a line with control characters made visible."""
    return "".join(ch if ch.isprintable() else f"\\x{ord(ch):02x}" for ch in line)


def say(message: str) -> None:
    """Print one line about the work on stderr."""
    click.echo(f"apftrace: {printable(message)}", err=True)


def fail(message: str, status: int) -> NoReturn:
    """Print one line about what went wrong and leave with ``status``."""
    say(message)
    sys.exit(status)


def refuse_to_overwrite(trace: Path, output: Path | None) -> None:
    """Fail when the output would replace the trace itself."""
    if output is not None and output.exists() and trace.exists() and output.samefile(trace):
        raise click.UsageError("the output is the trace itself")
