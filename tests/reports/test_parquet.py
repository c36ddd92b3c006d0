from __future__ import annotations

import pickle
import stat
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apftrace.errors import ReportError
from apftrace.schema import TABLES
from apftrace_reports.parquet_report import is_ours
from apftrace_reports.registry import by_name

from . import analyses

REPORT = by_name("parquet")
FILES = [f"{table.name}.parquet" for table in TABLES]


@pytest.fixture
def folder(tmp_path) -> Path:
    target = tmp_path / "x.parquet"
    REPORT.write(analyses.rich(), target)
    return target


def test_a_folder_holds_every_table_and_nothing_lies_beside_it(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert list(folder.parent.iterdir()) == [folder]


def test_polars_reads_back_what_was_written(analysis, tmp_path):
    analysis.write(tmp_path / "x.parquet")
    for table in TABLES:
        frame = pl.read_parquet(tmp_path / "x.parquet" / f"{table.name}.parquet")
        assert frame.schema == getattr(analysis, table.name).schema
        assert frame.equals(getattr(analysis, table.name))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_schema_is_the_declared_one(folder, table):
    found, declared = pq.read_schema(folder / f"{table.name}.parquet"), table.arrow()
    assert found.equals(declared)
    assert found.metadata == declared.metadata
    assert [field.metadata for field in found] == [field.metadata for field in declared]
    assert not [field for field in found if pa.types.is_dictionary(field.type)]


def test_evidence_is_a_list_of_structs(folder):
    rows = pq.read_table(folder / "findings.parquet", columns=["evidence"]).to_pylist()
    assert rows[0]["evidence"][0] == {
        "ts": analyses.START + 1_000_000,
        "cpu": 2,
        "tid": 4711,
        "event": "kvm_async_pf_not_present",
        "text": "token 0x26b001 gva 0x7f1200000000",
    }
    assert rows[-1]["evidence"] == []


def test_64_bit_values_keep_all_bits(tmp_path):
    rows = [analyses.finding(1, "token-reuse", token=2**64 - 1, ts=2**53 + 1)]
    REPORT.write(analyses.analysis([], rows), tmp_path / "x.parquet")
    (one,) = pq.read_table(tmp_path / "x.parquet" / "findings.parquet").to_pylist()
    assert (one["token"], one["ts"]) == (2**64 - 1, 2**53 + 1)


def test_the_same_analysis_gives_the_same_bytes(folder, tmp_path):
    REPORT.write(analyses.rich(), tmp_path / "again.parquet")
    for name in FILES:
        assert (folder / name).read_bytes() == (tmp_path / "again.parquet" / name).read_bytes()


def test_its_own_folder_is_replaced_whole(folder):
    REPORT.write(analyses.single(), folder)
    assert pl.read_parquet(folder / "faults.parquet").height == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert list(folder.parent.iterdir()) == [folder]


def _file(target: Path) -> None:
    target.write_bytes(b"precious")


def _empty(target: Path) -> None:
    target.mkdir()


def _stranger(target: Path) -> None:
    target.mkdir()
    (target / "notes.txt").write_text("precious")


def _named_alike(target: Path) -> None:
    target.mkdir()
    pq.write_table(pa.table({"a": [1]}), target / "faults.parquet")


def _garbage(target: Path) -> None:
    target.mkdir()
    (target / "faults.parquet").write_bytes(b"precious")


def _swapped(target: Path) -> None:
    REPORT.write(analyses.single(), target)
    (target / "faults.parquet").rename(target / "vcpus.parquet")


def _added(target: Path) -> None:
    REPORT.write(analyses.single(), target)
    (target / "notes.txt").write_text("precious")


def _link(target: Path) -> None:
    elsewhere = target.with_name("elsewhere")
    REPORT.write(analyses.single(), elsewhere)
    target.symlink_to(elsewhere)


def _dangling(target: Path) -> None:
    target.symlink_to(target.with_name("nowhere"))


def _contents(root: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in root.rglob("*")}


@pytest.mark.parametrize(
    "put", [_file, _empty, _stranger, _named_alike, _garbage, _swapped, _added, _link, _dangling]
)
def test_what_it_did_not_write_is_left_alone(tmp_path, put):
    target = tmp_path / "x.parquet"
    put(target)
    before = _contents(tmp_path)
    with pytest.raises(ReportError, match="is there already and is no folder that apftrace wrote"):
        REPORT.write(analyses.rich(), target)
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_failed_write_keeps_the_old_folder(folder, monkeypatch, fails_at):
    before = _contents(folder.parent)
    rename, calls = Path.rename, []

    def broken(self: Path, target: Path) -> Path:
        calls.append(1)
        if len(calls) == fails_at:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(ReportError, match="cannot be written: No space left on device"):
        REPORT.write(analyses.single(), folder)
    assert _contents(folder.parent) == before


def test_a_failed_table_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", broken)
    with pytest.raises(ReportError, match="No space left on device"):
        REPORT.write(analyses.single(), tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(ReportError, match=r"cannot be written: No such file or directory$"):
        REPORT.write(analyses.single(), tmp_path / "none" / "x.parquet")


def test_standard_output_is_refused():
    with pytest.raises(ReportError, match="a parquet report is a folder"):
        REPORT.write(analyses.single(), "-")


def test_others_may_read_it_as_far_as_the_umask_says(folder):
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(_fresh_folder(folder).stat().st_mode)
    assert stat.S_IMODE((folder / "faults.parquet").stat().st_mode) & 0o600 == 0o600


def _fresh_folder(folder: Path) -> Path:
    fresh = folder.with_name("fresh")
    fresh.mkdir()
    return fresh


def test_a_folder_of_its_tables_is_known(folder):
    assert is_ours(folder)
    (folder / "latency.parquet").unlink()
    assert is_ours(folder)


def test_the_analysis_is_not_changed(tmp_path):
    rich = analyses.rich()
    before = pickle.dumps(rich.findings.to_dicts())
    REPORT.write(rich, tmp_path / "x.parquet")
    assert pickle.dumps(rich.findings.to_dicts()) == before
