"""Kernel, host and job: from a sidecar, from the path, from the trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from apftrace.batch.items import SIDECAR
from apftrace.batch.labels import BadPattern, Labels, compiled, folder_of
from tests.batch.conftest import RunBatch, lines
from tests.batch.packing import tarred

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{kernel}/{host}/*.dat", "in/a.zip/6.12/lab1/trace.dat", {"kernel": "6.12", "host": "lab1"}),
        ("{kernel}/**/{job}.dat", "6.1/a/b/c/boot.dat", {"kernel": "6.1", "job": "boot"}),
        ("{kernel}/**/{job}.dat", "6.1/boot.dat", {"kernel": "6.1", "job": "boot"}),
        ("v{kernel}-{job}/{}/trace.dat", "v6.1-boot/17/trace.dat", {"kernel": "6.1", "job": "boot"}),
        ("{job}/trace.???", "fio/trace.dat", {"job": "fio"}),
        ("{job}/trace.???", "fio/trace.da", {}),
        ("{kernel}/trace.dat", "a/b/trace.dat", {"kernel": "b"}),
        ("{kernel}[1]/trace.dat", "a[1]/trace.dat", {"kernel": "a"}),
    ],
)
def test_patterns(pattern: str, path: str, found: dict[str, str]):
    assert Labels([pattern]).of(path) == found


def test_the_first_pattern_that_fits_counts():
    labels = Labels(["{kernel}/boot/*.dat", "{job}/*/*.dat"])
    assert labels.of("6.1/boot/x.dat") == {"kernel": "6.1"}
    assert labels.of("6.1/fio/x.dat") == {"job": "6.1"}


@pytest.mark.parametrize("pattern", ["*.dat", "{kernel}/{kernel}", "{cpu}/x", "{}"])
def test_patterns_that_mean_nothing(pattern: str):
    with pytest.raises(BadPattern):
        compiled(pattern)


def test_nearer_sidecars_win_over_farther_and_over_patterns():
    labels = Labels(["{job}/*.dat"])
    assert labels.sidecar("in", b'{"kernel": "mainline", "host": "far", "extra": 3}') is None
    assert labels.sidecar("in/near", b'{"host": "near", "job": "told"}') is None
    assert labels.of("in/near/x.dat") == {"kernel": "mainline", "host": "near", "job": "told"}
    assert labels.of("in/else/x.dat") == {"kernel": "mainline", "host": "far", "job": "else"}
    assert labels.of("elsewhere/x.dat") == {"job": "elsewhere"}


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"kernel": 6}', b'{"job": null}', b"[" * 10_000])
def test_a_sidecar_that_is_none_is_told(content: bytes):
    assert Labels().sidecar("in", content)


@pytest.mark.parametrize(
    ("kernel", "folder"),
    [
        ("6.10", "kernel=v6.10"),
        ("v6.12", "kernel=v6.12"),
        ("next-20261124", "kernel=next-20261124"),
        ("../../x y=%2f\n", "kernel=.._.._x_y__2f_"),
        ("ä" * 300, "kernel=" + "_" * 100),
    ],
)
def test_a_folder_of_the_data_set_is_a_plain_name(kernel: str, folder: str):
    assert folder_of(kernel) == folder


def test_labels_reach_lines_and_tables(batch: RunBatch, made: dict[str, bytes], tmp_path: Path):
    # The sidecar comes last in the archive, and counts all the same.
    sidecar = b'{"kernel": "6.10", "host": "lab9"}'
    archive = tarred(
        [("fio/trace.dat", made["late"]), ("boot/trace.dat", made["late"]), (f"fio/{SIDECAR}", sidecar)]
    )
    (tmp_path / "a.tar").write_bytes(archive)
    batch(tmp_path / "a.tar", patterns=("{job}/trace.dat",))
    found = {name: (x["kernel"], x["host"], x["job"]) for name, x in lines(tmp_path / "out").items()}
    assert found == {
        "a.tar/fio/trace.dat": ("6.10", "lab9", "fio"),
        "a.tar/boot/trace.dat": ("6.12.0-custom", "lab1", "boot"),
    }
    rows = pl.read_parquet(tmp_path / "out" / "faults", hive_partitioning=True)
    assert set(rows.select("kernel", "host", "job").unique().rows()) == {
        ("v6.10", "lab9", "fio"),
        ("v6.12.0-custom", "lab1", "boot"),
    }
