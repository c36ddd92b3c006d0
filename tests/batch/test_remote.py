"""URLs: any file system of fsspec, folders and globs on it, and archives behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fsspec
import pytest

from apftrace.batch.limits import Limits
from apftrace.batch.sources import Walk
from tests.batch.conftest import RunBatch, content, items, lines
from tests.batch.packing import ARCHIVES, tarred, zipped, zstd
from tests.batch.test_sources import MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    """Return a file system in memory with traces in two folders and in archives."""
    memory = fsspec.filesystem("memory")
    files = {
        "/bucket/6.1/lab1/trace.dat": MAGIC + b"1",
        "/bucket/6.12/lab1/trace.dat": MAGIC + b"2",
        "/bucket/6.12/lab1/console.log": b"well\n",
        "/bucket/artifacts.zip": zipped(
            [("a/trace.dat", MAGIC + b"3"), ("trace.dat", MAGIC + b"4"), ("b.txt", b"x")]
        ),
        "/bucket/night.tar.zst": zstd(tarred([("c/trace.dat", MAGIC + b"5")])),
        "/bucket/empty.dat": b"",
    }
    for path, data in files.items():
        memory.pipe_file(path, data)
    yield memory
    memory.store.clear()


def found(walk: Walk, *urls: str) -> dict[str, tuple[str, bytes]]:
    return {
        item.path: ("", content(item)) if item.access else (item.status, item.problem.encode())
        for item in items(walk, *urls)
    }


def test_a_folder_behind_a_url(walk: Walk, bucket: fsspec.AbstractFileSystem):
    assert found(walk, "memory://bucket") == {
        "memory://bucket/6.1/lab1/trace.dat": ("", MAGIC + b"1"),
        "memory://bucket/6.12/lab1/console.log": ("skipped", b"not a trace"),
        "memory://bucket/6.12/lab1/trace.dat": ("", MAGIC + b"2"),
        "memory://bucket/artifacts.zip/a/trace.dat": ("", MAGIC + b"3"),
        "memory://bucket/artifacts.zip/b.txt": ("skipped", b"not a trace"),
        "memory://bucket/artifacts.zip/trace.dat": ("", MAGIC + b"4"),
        "memory://bucket/empty.dat": ("unreadable", b"an empty file"),
        "memory://bucket/night.tar.zst/c/trace.dat": ("", MAGIC + b"5"),
    }


def test_a_glob_and_a_file_behind_a_url(walk: Walk, bucket: fsspec.AbstractFileSystem):
    assert found(walk, "memory://bucket/*/lab1/*.dat") == {
        "memory://bucket/6.1/lab1/trace.dat": ("", MAGIC + b"1"),
        "memory://bucket/6.12/lab1/trace.dat": ("", MAGIC + b"2"),
    }
    # One source after the other: what was found already is no further input.
    assert found(walk, "memory://bucket/6.1/lab1/trace.dat", "memory://bucket/night.tar.zst") == {
        "memory://bucket/night.tar.zst/c/trace.dat": ("", MAGIC + b"5"),
    }


def test_chains_name_members_of_archives(walk: Walk, bucket: fsspec.AbstractFileSystem):
    assert found(walk, "zip://*.dat::memory://bucket/artifacts.zip") == {
        "zip://*.dat::memory://bucket/artifacts.zip/trace.dat": ("", MAGIC + b"4"),
    }


def test_chains_reach_deep_and_into_several_archives(tmp_path: Path, bucket: fsspec.AbstractFileSystem):
    bucket.pipe_file("/bucket/more.zip", zipped([("x/y/trace.dat", MAGIC + b"6"), ("x/y/no.bin", MAGIC)]))
    walk = Walk(Limits(), tmp_path)
    values = {value for _, value in found(walk, "zip://**/*.dat::memory://bucket/*.zip").values()}
    assert values == {MAGIC + b"3", MAGIC + b"4", MAGIC + b"6"}


def test_chains_of_fsspec_itself(tmp_path: Path, bucket: fsspec.AbstractFileSystem):
    walk = Walk(Limits(), tmp_path)
    ((status, data),) = found(walk, "simplecache::memory://bucket/6.1/lab1/trace.dat").values()
    assert (status, data) == ("", MAGIC + b"1")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://bucket/gone.dat", "FileNotFoundError"),
        ("memory://bucket/*.none", "no file matches"),
        ("nosuch://bucket/x.dat", "ValueError: Protocol not known: nosuch"),
        ("s3://bucket/x.dat", "a driver is missing"),
        ("zip://*.dat::memory://bucket/6.1/lab1/trace.dat", "no archive"),
        ("zip://*.dat::memory://bucket/gone.zip", "FileNotFoundError"),
    ],
)
def test_what_cannot_be_had_is_one_input_with_its_reason(
    walk: Walk, bucket: fsspec.AbstractFileSystem, url: str, words: str
):
    (item,) = items(walk, url)
    assert item.status == "unreadable"
    assert words in item.problem
    assert "\n" not in item.problem


def test_a_hostile_archive_behind_a_url_is_held_to_the_limits(
    tmp_path: Path, bucket: fsspec.AbstractFileSystem
):
    bucket.pipe_file("/bucket/bomb.zip", zipped([("trace.dat", bytes(40 << 20))]))
    (bomb,) = items(Walk(Limits(), tmp_path), "memory://bucket/bomb.zip")
    assert (bomb.status, bomb.problem) == ("refused", "unpacks to more than 250 times its size")
    bucket.pipe_file("/bucket/large.dat", MAGIC + bytes(2 << 20))
    (large,) = items(Walk(Limits(size=1 << 20), tmp_path), "memory://bucket/large.dat")
    assert (large.status, large.problem) == ("refused", "2 MiB unpacked, more than the limit of 1 MiB")


def test_workers_fetch_what_they_can_reach(batch: RunBatch, made: dict[str, bytes], tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "late.dat").write_bytes(made["late"])
    (tmp_path / "in" / "a.zip").write_bytes(ARCHIVES["zip"]([("lost.dat", made["lost"])]))
    batch(f"file://{tmp_path}/in")
    verdicts = {name: line["verdict"] for name, line in lines(tmp_path / "out").items()}
    assert verdicts == {"late.dat": "warnings", "a.zip/lost.dat": "anomaly"}
