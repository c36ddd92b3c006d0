"""The tables themselves: a folder of Parquet files, one per table, with the schemas of :mod:`apftrace.schema`."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from apftrace.errors import ReportError
from apftrace.schema import TABLES
from apftrace_reports.base import STDOUT, Report

if TYPE_CHECKING:
    import pyarrow as pa

    from apftrace.analysis import Analysis
    from apftrace.schema import Table

_MARK = b"apftrace:table"


class ParquetReport(Report):
    """A folder with ``faults.parquet``, ``findings.parquet`` and so on, for polars, pyarrow or DuckDB."""

    name = "parquet"
    suffixes = (".parquet",)

    def write(self, analysis: Analysis, path: str | Path) -> None:
        """Write the folder ``path``, whole or not at all.

        Raises:
            ReportError: it cannot be written, or something else than such a folder is in its place.
        """
        if str(path) == STDOUT:
            raise ReportError("a parquet report is a folder and cannot go to standard output")
        target = Path(path)
        if (target.exists() or target.is_symlink()) and not is_ours(target):
            raise ReportError(f"{path}: is there already and is no folder that apftrace wrote")
        try:
            _replace(analysis, target)
        except OSError as error:
            raise ReportError(f"{path}: cannot be written: {error.strerror or error}") from error


def is_ours(folder: Path) -> bool:
    """Say whether ``folder`` holds the tables of a report and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    found = {path.name: path for path in folder.iterdir()}
    tables = {_file(table): table.name for table in TABLES}
    return bool(found) and all(
        name in tables and _table_in(path) == tables[name] for name, path in found.items()
    )


def arrow_table(analysis: Analysis, table: Table) -> pa.Table:
    """Return a table of the analysis with exactly its declared Arrow schema."""
    import polars as pl

    frame: pl.DataFrame = table.conform(getattr(analysis, table.name))
    # The oldest level has no string views, which readers of Parquet meet with less certainty.
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(table.arrow())


def _replace(analysis: Analysis, target: Path) -> None:
    # A folder cannot be renamed over one that has files, so the old one steps aside for a moment.
    with tempfile.TemporaryDirectory(prefix=f".{target.name[:64]}.", dir=target.parent) as work:
        fresh, old = Path(work) / "new", Path(work) / "old"
        fresh.mkdir()
        for table in TABLES:
            _write(arrow_table(analysis, table), fresh / _file(table))
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _write(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")


def _file(table: Table) -> str:
    return f"{table.name}.parquet"


def _table_in(path: Path) -> str | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.is_symlink() or not path.is_file():
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return str(metadata.get(_MARK, b"").decode(errors="replace"))
