"""The command line: one file per verb, and the errors and exit statuses that all share.

Exit statuses: 0 no finding at ``--fail-on``, 1 there is one or a regression, 2 wrong usage, 3 an input that
cannot be read or an output that cannot be written, 4 readable but the verdict is unsafe, or part of a batch failed.
"""

from __future__ import annotations

import sys

import click

from apftrace import __version__
from apftrace.__main__ import INTERRUPTED
from apftrace.cli.analyze import analyze
from apftrace.cli.batch import batch
from apftrace.cli.events import events
from apftrace.cli.info import info
from apftrace.cli.screen import fail
from apftrace.cli.streams import STDOUT, discard_output, open_streams
from apftrace.errors import ApftraceError

COMMANDS: tuple[click.Command, ...] = (analyze, batch, info, events)
UNREADABLE = 3


class _Verbs(click.Group):
    # click turns a broken pipe into status 1, which here means that there is a finding, and Ctrl-C into a blank line.
    def invoke(self, ctx: click.Context) -> object:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # by the interpreter it would be too late for an error of ours
        except BrokenPipeError:
            discard_output()  # the reader has seen enough
            sys.exit(0)
        except KeyboardInterrupt:
            raise click.Abort from None


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    commands={c.name: c for c in COMMANDS if c.name},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Tell from recorded traces whether KVM asynchronous page faults were answered.

    \b
    Example:
      trace-cmd record -C mono -e kvm -e sched:sched_switch -e sched:sched_waking -e workqueue \\
        -b 16384 sleep 30
      apftrace analyze trace.dat
    """


def main() -> None:
    """Run the command line; every foreseen error becomes one line on stderr."""
    open_streams()
    try:
        sys.exit(cli.main(prog_name="apftrace", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.UsageError as error:
        help_for = error.ctx.command_path if error.ctx else "apftrace"
        fail(f"{error.format_message()} (see {help_for} -h)", error.exit_code)
    except click.ClickException as error:
        fail(error.format_message(), error.exit_code)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.filename == STDOUT:
            discard_output()
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), UNREADABLE)
    except ApftraceError as error:
        fail(str(error), UNREADABLE)
    except MemoryError:
        fail("out of memory; a trace takes some 1.1 kB for each async page fault in it", UNREADABLE)
