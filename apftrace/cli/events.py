"""``apftrace events``: tracepoints as a table."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import click

from apftrace.ahead import made_ahead
from apftrace.api import ASYNC_PF_EVENTS
from apftrace.cli.screen import refuse_to_overwrite, say
from apftrace.cli.streams import Output, Printable, named

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from apftrace_parsers.base import Source

FORMATS = ("arrow", "parquet", "csv", "jsonl")


@click.command()
@click.argument("trace", metavar="TRACE", type=click.Path(path_type=Path, readable=False))
@click.option(
    "-e",
    "--event",
    "names",
    multiple=True,
    metavar="EVENT",
    help="event, system:event or a glob; may be repeated. Default: the five async page fault events, in a "
    "guest's trace the events that show its waits and wakeups.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, readable=False), help="Write here instead of to stdout."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="Default: by suffix of -o, else jsonl. A pipe gets an Arrow stream, a file an Arrow file (Feather).",
)
def events(trace: Path, names: tuple[str, ...], output: Path | None, format_: str | None) -> None:
    """Write events of TRACE as a table: ts, cpu, tid, comm, event, instance, and the payload's own fields.

    Times are ns of the trace clock; rows are in time order.

    Exit status: 0 written, also where records were lost (stderr tells), 2 usage, 3 TRACE cannot be read or the
    table not be written.

    \b
    Example:
      apftrace events trace.dat -o async-pf.parquet
      apftrace events trace.dat -e sched:sched_switch -e 'kvm:kvm_e*' --format csv
    """
    chosen = format_ or _by_suffix(output)
    refuse_to_overwrite(trace, output)
    from apftrace.api import read_trace
    from apftrace.eventtable import in_time_order
    from apftrace_parsers.base import PassResult

    with read_trace(trace) as opened:
        result = PassResult()
        try:
            rows = in_time_order(
                opened.source, _fitting(opened.source, names) or _present(opened.source), result
            )
        except KeyError as error:
            name = str(error.args[0])
            raise click.UsageError(
                f"{trace} does not describe the event {name!r}{_meant(opened.source, name)}"
            ) from None
        _write(rows, chosen, output)
    for note in result.notes:
        say(f"{trace}: {note}")
    for cpu in sorted({loss.cpu for loss in result.losses}):
        say(f"{trace}: records of CPU {cpu} were lost")


def _meant(source: Source, name: str) -> str:
    from difflib import get_close_matches

    own = {f"{form.system}:{form.name}" if ":" in name else form.name for form in source.formats()}
    near = get_close_matches(name, sorted(own), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _fitting(source: Source, names: tuple[str, ...]) -> tuple[str, ...]:
    from apftrace_parsers.base import is_glob, matches

    for name in names:
        if is_glob(name) and not any(matches(form, name) for form in source.formats()):
            raise KeyError(name)
    return names


def _present(source: Source) -> tuple[str, ...]:
    """Return the async page fault events that the trace describes, else a guest's; all of them without any."""
    from apftrace.eventtable import RENAMED, systems_of
    from apftrace.model.guest.hooks import hits_of

    systems = systems_of(source.formats())
    found = []
    for name in ASYNC_PF_EVENTS:
        own = systems.get(name) or systems.get(RENAMED.get(name, ""))
        if own:
            # Another system may have an event of that name, such as a probe of its function.
            found.append(f"kvm:{name}" if "kvm" in own else name)
    return tuple(found) or hits_of(source) or ASYNC_PF_EVENTS


def _by_suffix(output: Path | None) -> str:
    if output is None or str(output) == "-":
        return "jsonl"
    suffix = {".arrow": "arrow", ".feather": "arrow", ".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl"}
    if output.suffix not in suffix:
        raise click.UsageError(f"no format for {output}: use --format or one of {' '.join(suffix)}")
    return suffix[output.suffix]


def _write(rows: pa.RecordBatchReader, format_: str, output: Path | None) -> None:
    if output is None or str(output) == "-":
        out = sys.stdout.buffer
        bare = format_ == "csv" and sys.stdout.isatty()
        _WRITERS[format_](rows, cast("BinaryIO", Printable(out)) if bare else out)
        return
    shown, output = str(output), output.resolve()
    if output.exists() and not output.is_file():
        with io.BufferedWriter(Output(output, shown)) as file:
            _WRITERS[format_](rows, file)
        return
    # A reader of a file may jump in it, that of a pipe cannot.
    write = _arrow_file if format_ == "arrow" else _WRITERS[format_]
    # A file that is half written must not look whole.
    part = output.with_name(f".{output.name}.part")
    try:
        with io.BufferedWriter(Output(part, shown)) as file:
            write(rows, file)
        with named(shown):
            part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def _arrow(rows: pa.RecordBatchReader, file: BinaryIO) -> None:
    import pyarrow as pa

    _copy(rows, pa.ipc.new_stream(file, rows.schema))


def _arrow_file(rows: pa.RecordBatchReader, file: BinaryIO) -> None:
    import pyarrow as pa

    _copy(rows, pa.ipc.new_file(file, rows.schema))


def _copy(rows: pa.RecordBatchReader, writer: pa.RecordBatchWriter) -> None:
    with writer:
        for batch in rows:
            writer.write_batch(batch)


def _parquet(rows: pa.RecordBatchReader, file: BinaryIO) -> None:
    import pyarrow.parquet as pq

    # A dictionary pays for names; for stamps and addresses it only costs time. Readers skip by time and thread.
    named, sought = ["comm", "event", "instance"], ["ts", "tid"]
    with pq.ParquetWriter(
        file, rows.schema, compression="zstd", use_dictionary=named, write_statistics=sought
    ) as writer:
        for batch in made_ahead(rows):
            writer.write_batch(batch)


def _csv(rows: pa.RecordBatchReader, file: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.csv as pc

    flat = pa.schema([f.with_type(pa.string()) if _is_nested(f.type) else f for f in rows.schema])
    with pc.CSVWriter(file, flat) as writer:
        for batch in rows:
            columns = [_flat(column) for column in batch.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=flat))


def _is_nested(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_nested(kind) or pa.types.is_dictionary(kind))


def _flat(column: pa.Array) -> pa.Array:
    """Return a column as CSV can hold it: a dictionary by its values, a list as JSON text."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return column.cast(pa.string())
    if pa.types.is_nested(column.type):
        import json

        return pa.array([None if v is None else json.dumps(v) for v in column.to_pylist()], pa.string())
    return column


def _jsonl(rows: pa.RecordBatchReader, file: BinaryIO) -> None:
    import json

    for batch in rows:
        for row in batch.to_pylist():
            kept = {k: v for k, v in row.items() if v is not None}
            file.write(json.dumps(kept, default=str).encode() + b"\n")


_WRITERS: dict[str, Callable[[pa.RecordBatchReader, BinaryIO], None]] = {
    "arrow": _arrow,
    "parquet": _parquet,
    "csv": _csv,
    "jsonl": _jsonl,
}
