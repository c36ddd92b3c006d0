"""One input in, one result out: the function that every worker runs, on this machine or on a cluster."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from apftrace import uname
from apftrace.batch.containers import DAMAGE as ARCHIVE_DAMAGE
from apftrace.batch.limits import Limits, NoRoom, Refused, spool
from apftrace.batch.unpack import DAMAGE as STREAM_DAMAGE
from apftrace.batch.wire import Message
from apftrace.errors import ApftraceError, TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    import polars as pl
    import pyarrow as pa

    from apftrace.analysis import Analysis
    from apftrace_parsers.base import Source, SourceInfo

WORST = 5
"""Lives of a trace that its record names, the longest first."""

_ALONE = "trace-guest.dat"

STATISTICS = ("n", "p50", "p95", "p99", "max")


@dataclass(frozen=True)
class Task:
    """What a worker is asked.

    Attributes:
        kind: ``analyse``, or ``page`` for a report of it.
        inputs: pairs of a name for reports and messages and how to read it, see :mod:`apftrace.batch.sources`;
            several are the traces of one session, the host's first.
        late_after: see :func:`apftrace.analyze`.
        spool: folder for temporary files; null for the system's own.
        limits: what may be unpacked.
    """

    kind: str
    inputs: tuple[tuple[str, dict[str, Any]], ...]
    late_after: int | None
    spool: str | None
    limits: Limits

    def message(self) -> Message:
        """Return it for the wire."""
        return Message(self.__dict__ | {"limits": self.limits.__dict__})

    @classmethod
    def of(cls, message: Message) -> Task:
        """Return it from the wire."""
        inputs = tuple((path, access) for path, access in message.data["inputs"])
        return cls(**(message.data | {"limits": Limits(**message.data["limits"]), "inputs": inputs}))


def run(task: Task, go_on: Callable[[str, int], bool]) -> Message:
    """Do a task; whatever is wrong with the input becomes part of the answer.

    Args:
        task: what to do.
        go_on: told digest and size of the input before the work begins; false when its result is there
            already.
    """
    try:
        with ExitStack() as stack:
            files = [(shown, stack.enter_context(file_of(access, task))) for shown, access in task.inputs]
            digest = _digest_of(files)
            if not go_on(digest, sum(os.stat(path).st_size for _, path in files)):  # noqa: PTH116
                return Message({"status": "known"})
            return _answer(task, files)
    except NoRoom as error:
        return _failure("no room", str(error))
    except Refused as refused:
        return _failure("refused", str(refused))
    except (*ARCHIVE_DAMAGE, *STREAM_DAMAGE) as error:
        return _failure("unreadable", _words(error))
    except ImportError as error:
        return _failure("unreadable", f"a driver is missing: {error}")


def session_digest(parts: Sequence[tuple[str, str]]) -> str:
    """Return the digest of traces that are analysed together.

    Args:
        parts: path and digest of each, the host's first; a guest may be called as its file is.
    """
    if len(parts) == 1:
        return parts[0][1]
    text = json.dumps([(path.rpartition("/")[2], digest) for path, digest in parts])
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _digest_of(files: Sequence[tuple[str, str]]) -> str:
    from apftrace.digest import sha256

    return session_digest([(shown, sha256(path)) for shown, path in files])


def _answer(task: Task, files: Sequence[tuple[str, str]]) -> Message:
    try:
        return _page(task, files) if task.kind == "page" else _analyse(task, files)
    except TraceError as error:
        return _failure("unreadable", _shown(error.problem, files))
    except ApftraceError as error:
        return _failure("unreadable", _shown(str(error), files))
    except OSError as error:
        return _failure("unreadable", error.strerror or str(error))
    except MemoryError:
        return _failure("memory", "ran out of memory")


def _shown(text: str, files: Sequence[tuple[str, str]]) -> str:
    """Return a text with the names that the user knows."""
    for shown, path in files:
        text = text.replace(path, shown)
    return text


def _failure(status: str, reason: str) -> Message:
    return Message({"status": status, "reason": reason})


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def file_of(access: dict[str, Any], task: Task) -> Iterator[str]:
    """Give the path of a file that has the input's bytes."""
    if "file" in access:
        yield access["file"]
        return
    with _stream(access) as stream:
        copy = spool(stream, Path(task.spool or _temporary()), task.limits)
    yield copy.path


def _temporary() -> str:
    import tempfile

    return tempfile.gettempdir()


@contextmanager
def _stream(access: dict[str, Any]) -> Iterator[BinaryIO]:
    if "zip" in access:
        archive = _zip(access["zip"], _stamp(access["zip"]))
        with archive.open(archive.infolist()[access["index"]]) as member:
            yield member  # type: ignore[misc]
    elif "url" in access:
        import fsspec

        with fsspec.open(access["url"], "rb") as file:
            yield file
    else:
        yield io.BytesIO(bytes.fromhex(access["hex"]))


@lru_cache(maxsize=2)
def _zip(path: str, _: object) -> zipfile.ZipFile:
    # The directory of an archive of thousands is not to be read for each of them.
    return zipfile.ZipFile(path)


def _stamp(path: str) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116
    return found.st_ino, found.st_mtime_ns


def _page(task: Task, files: Sequence[tuple[str, str]]) -> Message:
    from apftrace_reports.registry import by_name

    analysis, _ = _analysis(task, files)
    inputs = analysis.inputs
    if len(inputs) == len(files):
        inputs = tuple(replace(x, sha256=_digest_of([file])) for x, file in zip(inputs, files, strict=True))
    return Message({"status": "analysed"}, (by_name("html").render(replace(analysis, inputs=inputs)),))


def _analyse(task: Task, files: Sequence[tuple[str, str]]) -> Message:
    from apftrace.schema import FAULTS, FINDINGS
    from apftrace_reports.parquet_report import arrow_table

    analysis, info = _analysis(task, files)
    tables = (arrow_table(analysis, table) for table in (FAULTS, FINDINGS))
    return Message(record(analysis, info), tuple(map(_ipc, tables)))


class _Called:
    """A source under another path, after which a guest may be called."""

    def __init__(self, source: Source, path: str) -> None:
        self._source = source
        self.info = replace(source.info, path=path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def _analysis(task: Task, files: Sequence[tuple[str, str]]) -> tuple[Analysis, SourceInfo]:
    from apftrace.api import Trace, analyze, read_trace

    # A result belongs to the bytes: alone, a guest has no name but this.
    names = [_ALONE] if len(files) == 1 else [shown for shown, _ in files]
    with read_trace([path for _, path in files]) as trace:
        sources = [_Called(one, name) for one, name in zip((trace.source, *trace.others), names, strict=True)]
        first, *others = cast("list[Source]", sources)
        analysis = analyze(Trace(first, tuple(others)), late_after_ns=task.late_after)
        info = trace.info
    inputs = tuple(
        replace(
            one, path=_shown(one.path.replace(_ALONE, files[0][0]), files), notes=_notes(one.notes, files)
        )
        for one in analysis.inputs
    )
    return replace(analysis, inputs=inputs), info


def _notes(notes: Sequence[str], files: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    # In a result, which belongs to any file of these bytes, a note names the file by nothing but "trace".
    return tuple(
        _shown(note, [("trace", path) for _, path in files]).replace(_ALONE, "trace") for note in notes
    )


def _ipc(table: pa.Table) -> bytes:
    import pyarrow as pa

    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def record(analysis: Analysis, info: SourceInfo) -> dict[str, Any]:
    """Return what a line of ``runs.jsonl`` says of a trace, without where it came from."""
    one = analysis.inputs[0]
    return {
        "status": "analysed",
        "format": one.format,
        "release": uname.release(one.kernel),
        "node": uname.node(one.kernel),
        "machine": one.machine,
        "clock": one.clock,
        "clock_unit": one.clock_unit,
        "cpus": one.cpus,
        "machines": [each.machine for each in analysis.inputs],
        "trace_id": info.trace_id and f"{info.trace_id:#x}",
        "guests": {f"{guest.trace_id:#x}": guest.name for guest in info.guests},
        "verdict": analysis.verdict,
        "headline": analysis.headline,
        "unsafe": list(analysis.unsafe),
        "protocol": analysis.protocol.kind,
        "seconds": _span(one.first_ns, one.last_ns, one.clock_unit),
        "counts": {
            "events": sum(one.events.values()),
            "lives": analysis.faults.height,
            "outcomes": _counted(analysis.faults, "outcome"),
            "findings": _counted(analysis.findings, "severity"),
            "rules": _rules(analysis.findings),
            "late": _counted(analysis.findings.filter(rule="late-wakeup"), "phase"),
        },
        "loss": {"events": one.lost_events, "cpus": list(one.lost_cpus)},
        "latency_ns": {
            row["phase"]: {key: row[key] for key in STATISTICS}
            for row in analysis.latency.filter(kind="all").iter_rows(named=True)
        },
        "not_run": [missing.rule for missing in analysis.not_run],
        "worst": _worst(analysis.faults),
        "notes": list(one.notes),
    }


def _span(first: int | None, last: int | None, unit: str) -> float | None:
    return None if first is None or last is None or unit != "ns" else (last - first) / 1e9


def _counted(frame: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(sorted((name, n) for name, n in frame[column].value_counts().iter_rows() if name is not None))


def _rules(findings: pl.DataFrame) -> dict[str, dict[str, int]]:
    out: dict[str, dict[str, int]] = {}
    for rule, severity, n in findings.group_by("rule", "severity").len().sort("rule", "severity").iter_rows():
        out.setdefault(rule, {})[severity] = n
    return out


def _worst(faults: pl.DataFrame) -> list[dict[str, Any]]:
    import polars as pl

    longest = (
        faults.with_columns(
            lasted=pl.coalesce("total", pl.when(outcome="lost").then(pl.col("end") - pl.col("not_present")))
        )
        .filter(pl.col("lasted").is_not_null())
        .sort("lasted", "not_present", "tid", "token", descending=[True, False, False, False])
        .head(WORST)
    )
    phases = [column for column in ("p1", "p2", "p12", "p3", "p4", "p5") if column in longest.columns]
    return [
        {
            "token": f"{row['token']:#x}",
            "vm": row["vm"],
            "vcpu": row["vcpu"],
            "kind": row["kind"],
            "outcome": row["outcome"],
            "not_present": row["not_present"],
            "lasted_ns": row["lasted"],
            "phases": {phase: row[phase] for phase in phases if row[phase] is not None},
        }
        for row in longest.iter_rows(named=True)
    ]
