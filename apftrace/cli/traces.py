"""What the command line says of several traces: names, TSC offsets, and what is left where one cannot be read."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from apftrace.cli.screen import say
from apftrace.errors import InputsError, TraceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apftrace.analysis import Analysis
    from apftrace.model.guest.tsc import TscOffset
    from apftrace_parsers.base import Source

Named = tuple[str | None, Path]
"""A guest's trace with the name to use, or null."""


def named_trace(text: str) -> Named:
    """Take ``NAME=TRACE`` apart; a file that is called so wins."""
    name, equals, path = text.partition("=")
    if not equals or not name or "/" in name or Path(text).exists():
        return None, Path(text)
    return name, Path(path)


def tsc_offsets_of(texts: Iterable[str]) -> dict[str | None, TscOffset]:
    """Take ``[NAME=]TICKS[*RATIO]`` apart."""
    out: dict[str | None, TscOffset] = {}
    for text in texts:
        from fractions import Fraction

        from apftrace.model.guest.tsc import TscOffset

        name, equals, value = text.rpartition("=")
        ticks, _, ratio = value.partition("*")
        try:
            offset = TscOffset(int(ticks, 0), Fraction(ratio) if ratio else Fraction(1))
        except (ValueError, ZeroDivisionError):
            offset = TscOffset(0, Fraction(0))
        if offset.ratio <= 0 or abs(offset.offset) >= 1 << 63:
            raise click.BadParameter(f"{text!r} is not a number of ticks", param_hint="--tsc-offset")
        out[name if equals else None] = offset
    return out


def analysed(
    traces: Sequence[Path],
    guests: Sequence[Named],
    offsets: dict[str | None, TscOffset],
    late_after: int | None,
) -> Analysis:
    """Analyse one trace, or several of one session.

    Of several, one that cannot be read costs a line and makes the verdict unsafe; the others are analysed.

    Raises:
        ApftraceError: a single trace, or all of them, cannot be read.
    """
    from apftrace.api import Trace, analyze

    if len(traces) == 1 and not guests:
        analysis = analyze(traces[0], late_after_ns=late_after, tsc_offsets=offsets)
        _refuse_unused(offsets, analysis)
        return analysis
    with ExitStack() as files:
        problems: list[Exception] = []
        opened = _opened([(None, path) for path in traces], files, problems)
        named = _opened(guests, files, problems)
        if not opened:
            raise problems[0]
        first, *others = (source for _, source in opened)
        trace = Trace(first, tuple(others), tuple(named))
        try:
            analysis = analyze(trace, late_after_ns=late_after, tsc_offsets=offsets)
        except InputsError as error:
            if problems:
                raise problems[0] from error
            raise click.UsageError(str(error)) from None
    for problem in problems:
        say(_line(problem))
    _refuse_unused(offsets, analysis, problems)
    missing = tuple(f"not read: {_line(problem)}" for problem in problems)
    unread = tuple(name for problem in problems if (name := _file_of(problem)) is not None)
    return replace(analysis, unsafe=(*analysis.unsafe, *missing), unread=unread)


def _refuse_unused(
    offsets: dict[str | None, TscOffset], analysis: Analysis, problems: Sequence[Exception] = ()
) -> None:
    both = analysis.guests and any(one.machine == "host" for one in analysis.inputs)
    if offsets and not both and not problems:
        raise click.UsageError("--tsc-offset is that of a guest beside its host, and there is none")


def _opened(
    paths: Iterable[Named], files: ExitStack, problems: list[Exception]
) -> list[tuple[str | None, Source]]:
    from apftrace_parsers.registry import open_source

    out = []
    for name, path in paths:
        try:
            source = open_source(path)
        except (TraceError, OSError) as error:
            problems.append(error)
            continue
        files.callback(source.close)
        out.append((name, source))
    return out


def _file_of(problem: Exception) -> str | None:
    return problem.path if isinstance(problem, TraceError) else getattr(problem, "filename", None)


def _line(problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.filename:
        return f"{problem.filename}: {problem.strerror}"
    return str(problem)
