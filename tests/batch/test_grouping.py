"""A host's trace and those of its guests are found by the ids of their sessions, then by their folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from apftrace.api import analyze
from apftrace.batch.grouping import Group, find_groups
from tests.batch.conftest import RunBatch, lines, tree
from tests.batch.packing import tarred, zipped, zstd

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def line(
    path: str, machine: str = "host", trace_id: str | None = None, lives: int = 5, **guests: str
) -> dict[str, Any]:
    return {
        "path": path,
        "status": "analysed",
        "machine": machine,
        "trace_id": trace_id,
        "guests": {f"0x{number}": name for name, number in guests.items()},
        "counts": {"lives": lives},
    }


def test_by_the_ids_of_their_sessions():
    found = find_groups(
        [
            line("a/trace.dat", vm1="11", vm2="12"),
            line("b/far.dat", "guest", trace_id="0x12"),
            line("a/trace-vm1.dat", "guest", trace_id="0x11"),
            line("a/other.dat", "guest", trace_id="0x99"),
        ]
    )
    assert found == [Group("a/trace.dat", ("a/trace-vm1.dat", "b/far.dat"))]


def test_a_copy_of_a_recording_keeps_its_own_guest():
    found = find_groups(
        [
            line("x/a.zip/trace.dat", vm1="11"),
            line("x/a.zip/trace-vm1.dat", "guest", trace_id="0x11"),
            line("x/b.zip/trace.dat", vm1="11"),
            line("x/b.zip/trace-vm1.dat", "guest", trace_id="0x11"),
        ]
    )
    assert found == [
        Group("x/a.zip/trace.dat", ("x/a.zip/trace-vm1.dat",)),
        Group("x/b.zip/trace.dat", ("x/b.zip/trace-vm1.dat",)),
    ]


def test_by_their_folder_where_nobody_wrote_it_down():
    guest = line("a/guest.txt", "guest")
    assert find_groups([line("a/trace.dat"), guest]) == [Group("a/trace.dat", ("a/guest.txt",))]
    assert find_groups([line("b/trace.dat"), guest]) == []
    assert find_groups([line("a/trace.dat"), line("a/more.dat"), guest]) == []
    assert find_groups([line("a/trace.dat", vm1="11"), guest]) == []  # its guest is another
    assert find_groups([line("a/trace.dat", lives=0), guest]) == []


def test_what_failed_is_in_no_group():
    broken = line("a/trace-vm1.dat", "guest", trace_id="0x11") | {"status": "unreadable"}
    assert find_groups([line("a/trace.dat", vm1="11"), broken]) == []


def test_a_pair_in_any_container_is_analysed_as_one(
    batch: RunBatch, capture: Callable[[str], Path], tmp_path: Path
):
    host, guest = (capture(f"host-guest/agent-v7-h{more}.dat") for more in ("", "-vm1"))
    files = [("x/trace-vm1.dat", guest.read_bytes()), ("x/trace.dat", host.read_bytes())]
    (tmp_path / "a.tar.zst").write_bytes(zstd(tarred(files)))
    (tmp_path / "b.zip").write_bytes(zipped(reversed(files)))
    done = batch(tmp_path / "a.tar.zst", tmp_path / "b.zip", jobs=2, reports=2)
    found = lines(tmp_path / "out")
    together = analyze([host, guest])
    for archive in ("a.tar.zst", "b.zip"):
        one, other = found[f"{archive}/x/trace.dat"], found[f"{archive}/x/trace-vm1.dat"]
        assert one["machines"] == [x.machine for x in together.inputs]
        assert one["verdict"] == together.verdict
        assert one["headline"] == together.headline
        assert (other["status"], other["host_trace"]) == ("joined", one["path"])
    rows = pl.read_parquet(tmp_path / "out" / "faults", hive_partitioning=True)
    own = rows.filter(path=found["b.zip/x/trace.dat"]["path"]).select(together.faults.columns)
    assert own.equals(together.faults)
    assert len(done.analysed) == 2
    page = (tmp_path / "out" / found["a.tar.zst/x/trace.dat"]["report"]).read_text("utf-8")
    assert "a.tar.zst/x/trace-vm1.dat" in page
    before = tree(tmp_path / "out")
    batch(tmp_path / "a.tar.zst", tmp_path / "b.zip", reports=2)
    assert tree(tmp_path / "out") == before


def test_traces_that_cannot_be_joined_stand_by_themselves(
    batch: RunBatch, capture: Callable[[str], Path], made: dict[str, bytes], tmp_path: Path
):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "trace.dat").write_bytes(made["late"])
    (folder / "trace-vm1.dat").write_bytes(capture("host-guest/agent-v7-h-vm1.dat").read_bytes())
    batch(folder)
    found = lines(tmp_path / "out")
    assert found["trace.dat"]["verdict"] == "warnings"
    assert {found["trace-vm1.dat"]["status"], *found["trace.dat"]["notes"]} & {"analysed", "joined"}
