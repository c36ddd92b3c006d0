"""A whole batch on a few traces: every input has its line, every good one its rows, and readers agree on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pyarrow.dataset as pds
import pytest

from apftrace.api import analyze
from apftrace.batch.run import MADE
from apftrace.batch.store import Taken
from tests.batch.conftest import Heard, RunBatch, bytes_of, lines, tree
from tests.batch.packing import tarred, zipped, zstd
from tests.model import histories

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def archive(tmp_path: Path, made: dict[str, bytes]) -> Path:
    """Return a folder as CI leaves it: loose files, archives, logs, and what is broken."""
    folder = tmp_path / "ci"
    (folder / "loose").mkdir(parents=True)
    (folder / "loose" / "trace.dat").write_bytes(made["calm"])
    (folder / "loose" / "console.log").write_bytes(b"all is well\n")
    (folder / "a.zip").write_bytes(zipped([("x/trace.dat", made["lost"]), ("x/cut.dat", made["lost"][:200])]))
    (folder / "b.tar.zst").write_bytes(
        zstd(tarred([("y/trace.dat", made["late"]), ("y/no.dat", b"\1\2\3\4")]))
    )
    (folder / "other.dat").write_bytes(
        bytes_of(histories.late_wakeup(), tmp_path, release="6.1.0", host="lab2")
    )
    return folder


def test_every_input_has_its_line(batch: RunBatch, archive: Path, tmp_path: Path, heard: Heard):
    done = batch(archive)
    found = lines(tmp_path / "out")
    assert list(found) == sorted(found)
    assert {name: (line["status"], line["verdict"]) for name, line in found.items()} == {
        "a.zip/x/cut.dat": ("unreadable", None),
        "a.zip/x/trace.dat": ("analysed", "anomaly"),
        "b.tar.zst/y/no.dat": ("unreadable", None),
        "b.tar.zst/y/trace.dat": ("analysed", "warnings"),
        "loose/console.log": ("skipped", None),
        "loose/trace.dat": ("analysed", "clean"),
        "other.dat": ("analysed", "warnings"),
    }
    assert found["b.tar.zst/y/no.dat"]["reason"].startswith(
        "found bytes 01 02 03 04 at offset 0, expected a trace"
    )
    lost = found["a.zip/x/trace.dat"]
    assert lost["counts"]["findings"]["error"] == 1
    assert lost["counts"]["rules"]["lost-wakeup"] == {"error": 1}
    assert lost["loss"] == {"events": 0, "cpus": []}
    assert (lost["kernel"], lost["host"], lost["job"]) == ("6.12.0-custom", "lab1", "unknown")
    assert len(lost["sha256"]) == 64
    assert lost["seconds"] > 0
    assert [line["path"] for line in done.failed] == [
        f"{archive}/a.zip/x/cut.dat",
        f"{archive}/b.tar.zst/y/no.dat",
    ]
    assert sorted(heard.inputs) == sorted((line["path"], line["status"]) for line in found.values())


def test_the_lines_are_those_of_single_analyses(batch: RunBatch, made: dict[str, bytes], tmp_path: Path):
    for name, data in made.items():
        (tmp_path / f"{name}.dat").write_bytes(data)
    batch(*(tmp_path / f"{name}.dat" for name in made))
    found = lines(tmp_path / "out")
    rows = pl.read_parquet(tmp_path / "out" / "faults" / "**" / "*.parquet")
    for name in made:
        alone = analyze(tmp_path / f"{name}.dat")
        line = found[f"{name}.dat"]
        assert line["verdict"] == alone.verdict
        assert line["counts"]["lives"] == alone.faults.height
        own = rows.filter(path=str(tmp_path / f"{name}.dat")).select(alone.faults.columns)
        assert own.equals(alone.faults)


def test_three_readers_see_the_same(batch: RunBatch, archive: Path, tmp_path: Path):
    batch(archive)
    out = tmp_path / "out"
    for table in ("faults", "findings"):
        by_polars = pl.read_parquet(out / table, hive_partitioning=True)
        by_arrow = pds.dataset(out / table, partitioning="hive").to_table()
        by_duck = duckdb.sql(
            f"select * from read_parquet('{out}/{table}/**/*.parquet', hive_partitioning=true)"
        )
        assert by_polars["kernel"].unique().sort().to_list() == ["v6.1.0", "v6.12.0-custom"]
        columns = [c for c in by_polars.columns if c not in {"evidence", "ruled_out", "not_ruled_out"}]
        keys = [c for c in ("path", "not_present", "ts", "id", "tid") if c in columns]
        expected = by_polars.select(columns).sort(keys).to_dicts()
        assert pl.from_arrow(by_arrow).select(columns).sort(keys).to_dicts() == expected
        assert by_duck.pl().select(columns).sort(keys).to_dicts() == expected
        assert sorted(map(str, by_duck.columns)) == sorted(by_polars.columns)
    kinds = {str(field.type) for field in pds.dataset(out / "faults", partitioning="hive").schema}
    assert kinds <= {"large_string", "string", "int32", "int64", "uint64", "bool"}


def test_a_batch_without_any_trace_still_has_its_tables(batch: RunBatch, tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "no.dat").write_bytes(b"")
    done = batch(tmp_path / "in")
    assert done.analysed == []
    assert pl.read_parquet(tmp_path / "out" / "faults", hive_partitioning=True).is_empty()


def test_again_nothing_is_done_and_nothing_changes(batch: RunBatch, archive: Path, tmp_path: Path):
    batch(archive)
    before = tree(tmp_path / "out")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / ".apftrace" / "results").rglob("*")}
    batch(archive, jobs=2)
    assert tree(tmp_path / "out") == before
    assert stamps == {
        p: p.stat().st_mtime_ns for p in (tmp_path / "out" / ".apftrace" / "results").rglob("*")
    }


def test_another_folder_has_the_same_bytes(batch: RunBatch, archive: Path, tmp_path: Path):
    batch(archive, output="one")
    batch(archive, output="two", jobs=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_other_settings_are_other_results(batch: RunBatch, made: dict[str, bytes], tmp_path: Path):
    (tmp_path / "calm.dat").write_bytes(made["calm"])
    batch(tmp_path / "calm.dat")
    assert lines(tmp_path / "out")["calm.dat"]["verdict"] == "clean"
    batch(tmp_path / "calm.dat", late_after=1)
    assert lines(tmp_path / "out")["calm.dat"]["verdict"] == "warnings"
    batch(tmp_path / "calm.dat", output="fresh", late_after=1)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_results_of_other_code_are_not_taken(
    batch: RunBatch, made: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "calm.dat").write_bytes(made["calm"])
    batch(tmp_path / "calm.dat")
    (old,) = (tmp_path / "out" / ".apftrace" / "results").iterdir()
    monkeypatch.setattr("apftrace.digest.code", lambda: "another")
    batch(tmp_path / "calm.dat")
    (new,) = (tmp_path / "out" / ".apftrace" / "results").iterdir()
    assert new.name != old.name
    assert len(list(new.iterdir())) == 1


def test_copies_are_lines_of_their_own_that_say_so(batch: RunBatch, made: dict[str, bytes], tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(zipped([("one.dat", made["calm"]), ("two.dat", made["calm"])]))
    batch(tmp_path / "a.zip")
    found = lines(tmp_path / "out")
    assert found["a.zip/one.dat"]["copy_of"] is None
    assert found["a.zip/two.dat"]["copy_of"] == f"{tmp_path}/a.zip/one.dat"
    assert len(list((tmp_path / "out" / ".apftrace" / "results").rglob("*"))) == 2  # a folder with one result


def test_what_no_batch_wrote_is_not_replaced(batch: RunBatch, made: dict[str, bytes], tmp_path: Path):
    (tmp_path / "a.dat").write_bytes(made["lost"])
    for number, name in enumerate(MADE):
        out = tmp_path / f"out-{number}"
        out.mkdir()
        if MADE[name]:
            (out / name).mkdir()
            (out / name / "mine.txt").write_text("mine", "utf-8")
        else:
            (out / name).symlink_to("nowhere")
        before = sorted(out.rglob("*"))
        with pytest.raises(Taken, match=f"holds {name}, which no apftrace batch wrote"):
            batch(tmp_path / "a.dat", output=out.name)
        assert sorted(out.rglob("*")) == before  # no mark either, or the next one would go on


def test_other_files_in_the_folder_stay(batch: RunBatch, made: dict[str, bytes], tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    (tmp_path / "a.dat").write_bytes(made["lost"])
    batch(tmp_path / "a.dat", output=".")
    (report,) = (tmp_path / "reports").iterdir()
    mine = [tmp_path / name for name in ("mine.txt", "reports/mine.html", "faults/notes/mine.parquet")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine", "utf-8")
    (tmp_path / "a.dat").write_bytes(made["late"])
    batch(tmp_path / "a.dat", output=".", reports=0)
    assert not report.exists()
    assert all(path.read_text("utf-8") == "mine" for path in mine)


def test_a_kernel_that_is_gone_leaves_no_folder(batch: RunBatch, made: dict[str, bytes], tmp_path: Path):
    (tmp_path / "a.dat").write_bytes(made["lost"])
    batch(tmp_path / "a.dat", patterns=("{kernel}.dat",))
    (tmp_path / "a.dat").rename(tmp_path / "b.dat")
    batch(tmp_path / "b.dat", patterns=("{kernel}.dat",))
    for name in ("faults", "findings"):
        assert [path.name for path in (tmp_path / "out" / name).iterdir()] == ["kernel=b"]


def test_results_that_are_not_all_replaced_have_no_sign(
    batch: RunBatch, made: dict[str, bytes], tmp_path: Path
):
    (tmp_path / "a.dat").write_bytes(made["calm"])
    batch(tmp_path / "a.dat")
    (tmp_path / "out" / "junit.xml").unlink()
    (tmp_path / "out" / "junit.xml").mkdir()
    with pytest.raises(IsADirectoryError):
        batch(tmp_path / "a.dat")
    assert not (tmp_path / "out" / "batch.json").exists()
