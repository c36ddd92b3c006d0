"""The command line: one file per verb, and the errors and exit statuses that all share.

Exit statuses: 0 no finding at ``--fail-on``, 1 there is one, 2 wrong usage, 3 an input that cannot be
read, 4 readable but the verdict is unsafe.
"""

from __future__ import annotations

import sys

import click

from apftrace.cli.analyze import analyze
from apftrace.cli.events import events
from apftrace.cli.info import info
from apftrace.errors import ApftraceError

COMMANDS: tuple[click.Command, ...] = (analyze, info, events)
UNREADABLE = 3


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    commands={c.name: c for c in COMMANDS if c.name},
)
@click.version_option(package_name="apftrace", message="%(prog)s %(version)s")
def cli() -> None:
    """Tell from recorded traces whether KVM asynchronous page faults were answered.

    \b
    Example:
      trace-cmd record -e kvm -e sched:sched_switch -e sched:sched_waking sleep 10
      apftrace analyze trace.dat
    """


def main() -> None:
    """Run the command line; every foreseen error becomes one line on stderr."""
    try:
        cli(prog_name="apftrace")
    except ApftraceError as error:
        fail(str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            sys.exit(0)
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def fail(message: str) -> None:
    """Print one line, with control characters made visible, and leave with the status for bad input."""
    line = "".join(ch if ch.isprintable() else f"\\x{ord(ch):02x}" for ch in message)
    click.echo(f"apftrace: {line}", err=True)
    sys.exit(UNREADABLE)
