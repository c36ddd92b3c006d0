"""``apftrace analyze``: the verdict, and a report to attach."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from apftrace.cli.screen import refuse_to_overwrite, say
from apftrace.cli.streams import while_read
from apftrace.cli.traces import analysed, named_trace, tsc_offsets_of
from apftrace.errors import ReportError
from apftrace.grades import NEVER, SEVERITIES, at_least
from apftrace_parsers.clock import STAMP_LIMIT

if TYPE_CHECKING:
    from apftrace.analysis import Analysis
    from apftrace_reports.base import Report

FORMATS = ("html", "text", "md", "json", "junit", "parquet")


@click.command()
@click.argument(
    "traces", metavar="TRACE...", type=click.Path(path_type=Path, readable=False), nargs=-1, required=True
)
@click.option(
    "--guest",
    "guests",
    metavar="[NAME=]TRACE",
    multiple=True,
    help="A trace that is a guest's, whatever it holds, and what to call it. May be repeated. "
    "Guests among TRACE... are told by what they hold.",
)
@click.option(
    "--tsc-offset",
    "tsc_offsets",
    metavar="[NAME=]TICKS[*RATIO]",
    multiple=True,
    help="A guest's TSC minus its host's, as debugfs shows it (kvm/PID-FD/vcpu0/tsc-offset), and the guest's "
    "ticks per host tick where KVM scales. Rarely needed: trace-cmd record -A, kvm_write_tsc_offset and the "
    "order of events tell.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, readable=False),
    help="Write the report here; - is stdout.",
)
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), help="Format of the report; default: by suffix of -o."
)
@click.option(
    "--late-after",
    metavar="TIME",
    help="A phase longer than this is late (10ms, 500us, 1s). Default: the larger of 10 ms and ten medians "
    "of the phase.",
)
@click.option(
    "--fail-on",
    type=click.Choice((*SEVERITIES, NEVER)),
    default="error",
    show_default=True,
    help="Exit with 1 when there is a finding at least this severe.",
)
@click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever was found.")
@click.option(
    "--redact",
    is_flag=True,
    help="Replace addresses, comms, host names, guest names and paths by pseudonyms.",
)
def analyze(
    traces: tuple[Path, ...],
    guests: tuple[str, ...],
    tsc_offsets: tuple[str, ...],
    output: Path | None,
    format_: str | None,
    late_after: str | None,
    fail_on: str,
    exit_zero: bool,
    redact: bool,
) -> None:
    """Pair, time and judge the asynchronous page faults of TRACE.

    Several traces are a host and its guests, in any order: they are brought to one clock, and each fault is
    followed into the guest. A guest's trace alone tells which of its tasks wait.

    Prints the verdict in plain text and writes TRACE.apf.html (trace.redacted.apf.html with --redact) into
    the current directory. With -o or --format it writes only that report, and says the verdict in one line
    on stderr.

    \b
    Exit status: 0 no finding at --fail-on, 1 there is one, 2 usage, 3 TRACE cannot be read or the report
    not be written, 4 readable, but records were lost or tracepoints miss, so that the verdict is unsafe.
    1 beats 4: a finding stands whatever was lost.

    \b
    Example:
      apftrace analyze trace.dat
      apftrace analyze trace.dat trace-vm1.dat trace-vm2.dat
      apftrace analyze trace.dat -o report.json --fail-on warning
    """
    threshold = nanoseconds(late_after)
    named = [named_trace(text) for text in guests]
    offsets = tsc_offsets_of(tsc_offsets)
    if any(str(path) == "-" for path in (*traces, *(path for _, path in named))):
        raise click.UsageError("TRACE must be a file: the format needs to seek")
    report = _report_for(output, format_)
    for path in (*traces, *(path for _, path in named)):
        refuse_to_overwrite(path, output)
    analysis = analysed(traces, named, offsets, threshold)
    if report is not None and report.wants_sha256:
        from apftrace.digest import with_digests

        analysis = with_digests(analysis)
    if redact:
        from apftrace.redact import redacted

        analysis = redacted(analysis)
    if report is not None:
        with while_read():
            report.write(analysis, output if output is not None else "-")
        say(f"{analysis.verdict}: {analysis.headline}")
    else:
        _text_and_page(analysis, _page(traces[0], redact=redact))
    sys.exit(0 if exit_zero else status(analysis, fail_on))


def _report_for(output: Path | None, format_: str | None) -> Report | None:
    """Return the report that was asked for, before any work is done; null for text and page."""
    if output is None and format_ is None:
        return None
    from apftrace_reports.base import STDOUT
    from apftrace_reports.registry import FOLDERS, report_for

    try:
        report = report_for(str(output) if output is not None else STDOUT, format_)
    except ReportError as error:
        raise click.UsageError(str(error)) from None
    if (output is None or str(output) == STDOUT) and report in FOLDERS:
        raise click.UsageError(f"--format {report.name} needs -o FOLDER")
    return report


def _page(trace: Path, *, redact: bool) -> Path:
    if redact:
        return Path("trace.redacted.apf.html")  # the trace's own name may tell too much
    # split.dat.1 and split.dat.2 are two traces.
    return Path(f"{trace.name if trace.suffix[1:].isdecimal() else trace.stem}.apf.html")


def _text_and_page(analysis: Analysis, page: Path) -> None:
    # The text first: a page that cannot be written costs the page only.
    with while_read():
        sys.stdout.write(analysis.text())
    older = page.exists()
    analysis.write(page, "html")
    say(f"report written to {page}{', in place of an older one' if older else ''}")


def status(analysis: Analysis, fail_on: str) -> int:
    """Return the exit status: 1 beats 4, because a finding stands whatever else was lost."""
    if analysis.findings["severity"].is_in(at_least(fail_on)).any():
        return 1
    return 4 if analysis.unsafe or analysis.verdict == "unusable" else 0


_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


def nanoseconds(text: str | None) -> int | None:
    """Return a time such as 10ms in ns; null for none.

    Raises:
        click.BadParameter: it is no time.
    """
    if text is None:
        return None
    for unit, size in _UNITS.items():
        number = text.removesuffix(unit)
        if number != text:
            try:
                value = int(float(number) * size)
            except (ValueError, OverflowError):
                break
            if 0 <= value < STAMP_LIMIT:
                return value
    raise click.BadParameter(f"{text!r} is not a time such as 10ms, 500us or 1s", param_hint="--late-after")
