"""The tables of all runs as one Parquet data set, partitioned by kernel."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from apftrace.batch.labels import UNKNOWN, folder_of
from apftrace.batch.runs import run_id
from apftrace.filenames import as_text
from apftrace.schema import FAULTS, FINDINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from apftrace.batch.store import Store
    from apftrace.schema import Table

TABLES: tuple[Table, ...] = (FAULTS, FINDINGS)
"""The tables of the data set, in the order of a result's blobs."""

_ROWS_OF_A_GROUP = 1 << 17
_ROWS_OF_A_FILE = 1 << 21
_RUN = {
    "run": "First 16 digits of what names the result in runs.jsonl: the SHA-256 of the input, or of several.",
    "path": "The input, as runs.jsonl names it.",
    "host": "Its host.",
    "job": "Its job.",
}
"""Columns that tell whose rows they are; the kernel is in the folder's name."""


def schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table of the data set."""
    import pyarrow as pa

    own = [pa.field(name, pa.large_string(), metadata={"unit": "", "doc": doc}) for name, doc in _RUN.items()]
    plain = table.arrow()
    return pa.schema([*own, *plain], metadata=plain.metadata)


def write(lines: Sequence[dict[str, Any]], store: Store, folder: Path) -> None:
    """Write the tables of all analysed inputs below ``folder``; one run's rows are in memory at a time."""
    ordered = sorted(lines, key=lambda line: (folder_of(line["kernel"]), line["path"]))
    for number, table in enumerate(TABLES):
        root = folder / table.name
        for name, runs in groupby(ordered, key=lambda line: folder_of(line["kernel"])):
            _partition(root / name, table, (_rows(line, store, number, table) for line in runs))
        if not ordered:  # readers want at least one file to learn the columns from
            _partition(root / folder_of(UNKNOWN), table, ())


def _rows(line: dict[str, Any], store: Store, number: int, table: Table) -> pa.Table:
    import pyarrow as pa

    result = store.load(line["result"])
    assert result is not None
    # So small a file is read sooner by one thread than handed to another.
    options = pa.ipc.IpcReadOptions(use_threads=False)
    rows = pa.ipc.open_file(result.blobs[number], options=options).read_all()
    values = (run_id(line), as_text(line["path"]), line["host"], line["job"])
    own = [pa.repeat(pa.scalar(value, pa.large_string()), rows.num_rows) for value in values]
    return pa.Table.from_arrays([*own, *rows.columns], schema=schema(table))


def _partition(folder: Path, table: Table, runs: Iterable[pa.Table]) -> None:
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    for number, groups in enumerate(_files(_groups(runs))):
        path = folder / f"part-{number:05d}.parquet"
        with pq.ParquetWriter(path, schema(table), compression="zstd") as writer:
            for rows in groups:
                writer.write_table(rows)


def _groups(runs: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of several runs at a time: readers are slow with many small row groups."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    count = 0
    for rows in runs:
        waiting.append(rows)
        count += rows.num_rows
        if count >= _ROWS_OF_A_GROUP:
            yield pa.concat_tables(waiting)
            waiting, count = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _files(groups: Iterable[pa.Table]) -> Iterator[Iterator[pa.Table]]:
    """Yield the row groups of one file after the other; at least one file."""
    remaining = iter(groups)
    first = next(remaining, None)

    def one_file(rows: pa.Table | None) -> Iterator[pa.Table]:
        nonlocal first
        count = 0
        while rows is not None and count < _ROWS_OF_A_FILE:
            yield rows
            count += rows.num_rows
            rows = next(remaining, None)
        first = rows

    yield one_file(first)
    while first is not None:
        yield one_file(first)
