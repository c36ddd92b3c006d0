"""Every container gives what was put in, in a stable order, under names that tell where it was."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apftrace.batch.items import SIDECAR, Sidecar
from apftrace.batch.limits import Limits
from apftrace.batch.sources import Walk
from tests.batch.conftest import content, items
from tests.batch.packing import ARCHIVES, COMPRESSIONS, tarred, zipped

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"\x17\x08\x44tracing"
NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name not in {".", "..", SIDECAR})
FILES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join),
    st.binary(max_size=3000).map(lambda b: MAGIC + b),
    min_size=1,
    max_size=5,
)


def without_prefixes(files: dict[str, bytes]) -> dict[str, bytes]:
    # A name that is also a folder of another cannot exist on disk.
    return {n: b for n, b in files.items() if not any(o.startswith(f"{n}/") for o in files)}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_what_an_archive_holds_comes_out(kind, tmp_path_factory):
    @given(FILES)
    @settings(max_examples=25, deadline=None)
    def holds(files):
        folder = tmp_path_factory.mktemp("archive")
        archive = folder / f"traces.{kind}"
        archive.write_bytes(ARCHIVES[kind](files.items()))
        found = items(Walk(Limits(), folder), archive)
        assert {one.name: content(one) for one in found} == {
            f"{archive.name}/{n}": b for n, b in files.items()
        }
        assert [one.path for one in found] == [f"{archive}/{name}" for name in files]
        del found
        assert [path.name for path in folder.iterdir()] == [
            archive.name
        ]  # nothing was unpacked under any name

    holds()


@pytest.mark.parametrize("outer", ["zip", "tar", "tar.zst"])
@pytest.mark.parametrize("inner", ["zip", "tar.gz", "tar.xz"])
def test_an_archive_in_an_archive(walk: Walk, tmp_path: Path, outer: str, inner: str):
    packed = ARCHIVES[inner]([("run/trace.dat", MAGIC + b"1"), ("run/more.dat", MAGIC + b"2")])
    archive = tmp_path / f"all.{outer}"
    archive.write_bytes(ARCHIVES[outer]([("a", MAGIC + b"0"), (f"job.{inner}", packed), ("z", MAGIC + b"3")]))
    found = items(walk, archive)
    assert [one.name for one in found] == [
        f"all.{outer}/{inside}"
        for inside in ("a", f"job.{inner}/run/trace.dat", f"job.{inner}/run/more.dat", "z")
    ]
    assert [content(one) for one in found] == [MAGIC + number for number in (b"0", b"1", b"2", b"3")]


def test_the_third_archive_in_each_other_is_refused(walk: Walk, tmp_path: Path):
    deepest = zipped([("trace.dat", MAGIC)])
    middle = tarred([("deepest.zip", deepest), ("beside.dat", MAGIC)])
    (tmp_path / "outer.zip").write_bytes(zipped([("middle.tar", middle)]))
    refused, beside = items(walk, tmp_path / "outer.zip")
    assert (refused.status, refused.problem) == ("refused", "archives within each other, 3 deep")
    assert beside.name == "outer.zip/middle.tar/beside.dat"
    assert content(beside) == MAGIC


@pytest.mark.parametrize("how", COMPRESSIONS)
def test_a_compressed_trace_is_a_trace(walk: Walk, tmp_path: Path, how: str):
    data = MAGIC + os.urandom(200_000) + bytes(300_000)
    (tmp_path / f"trace.dat.{how}").write_bytes(COMPRESSIONS[how](data))
    (found,) = items(walk, tmp_path / f"trace.dat.{how}")
    assert found.name == f"trace.dat.{how}"
    assert content(found) == data


@pytest.mark.parametrize("how", COMPRESSIONS)
def test_streams_that_follow_each_other_are_one(walk: Walk, tmp_path: Path, how: str):
    pack = COMPRESSIONS[how]
    (tmp_path / "trace").write_bytes(pack(MAGIC + b"first ") + pack(b"second") + bytes(512))
    (found,) = items(walk, tmp_path / "trace")
    assert content(found) == MAGIC + b"first second"


def test_a_folder_in_order_with_what_is_no_trace_named(walk: Walk, tmp_path: Path):
    folder = tmp_path / "nightly"
    for name, data in {
        "b/trace.dat": MAGIC, "a/trace.dat": MAGIC, "a/build.log": b"make: done\n", "a/empty.dat": b"",
        "a/strange.bin": b"\0\1\2\3", "README": b"read me",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "latest").symlink_to("a")
    (folder / "again.dat").symlink_to("a/trace.dat")
    os.mkfifo(folder / "pipe")
    found = {one.name: (one.status, one.problem) for one in items(walk, folder)}
    assert found == {
        "README": ("skipped", "not a trace"),
        "again.dat": ("refused", "a symbolic link"),
        "latest": ("refused", "a symbolic link"),
        "pipe": ("refused", "a named pipe"),
        "a/build.log": ("skipped", "not a trace"),
        "a/empty.dat": ("unreadable", "an empty file"),
        "a/strange.bin": ("", ""),  # the parsers will say what it is not
        "a/trace.dat": ("", ""),
        "b/trace.dat": ("", ""),
    }
    assert walk.total == sum(
        p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()
    )


def test_globs_and_what_is_named_twice(walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one.dat", "two.dat", "deep/er/three.dat"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(MAGIC)
    assert [one.path for one in items(walk, "*.dat", "./one.dat", "**/*.dat", tmp_path)] == [
        "one.dat",
        "two.dat",
        "deep/er/three.dat",
    ]


def test_what_is_not_there_is_named(walk: Walk, tmp_path: Path):
    missing, unmatched = items(walk, tmp_path / "missing.dat", tmp_path / "*.none")
    assert (missing.status, missing.problem) == ("unreadable", "No such file or directory")
    assert (unmatched.status, unmatched.problem) == ("unreadable", "no file matches")


def test_a_name_that_a_tar_holds_twice(walk: Walk, tmp_path: Path):
    (tmp_path / "t.tar").write_bytes(tarred([("trace.dat", MAGIC + b"1"), ("trace.dat", MAGIC + b"2")]))
    first, second = items(walk, tmp_path / "t.tar")
    assert (first.name, second.name) == ("t.tar/trace.dat", "t.tar/trace.dat#2")


def test_folders_of_results_are_left_out(tmp_path: Path):
    (tmp_path / "old" / ".apftrace").mkdir(parents=True)
    (tmp_path / "old" / "trace.dat").write_bytes(MAGIC)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "trace.dat").write_bytes(MAGIC)
    (tmp_path / "trace.dat").write_bytes(MAGIC)
    walk = Walk(Limits(), tmp_path, skip=tmp_path / "out")
    assert [one.name for one in items(walk, tmp_path)] == ["trace.dat"]


def test_sidecars_are_found_everywhere(walk: Walk, tmp_path: Path):
    (tmp_path / SIDECAR).write_bytes(b"{}")
    (tmp_path / "a.zip").write_bytes(zipped([(f"run/{SIDECAR}", b"[1]"), ("run/trace.dat", MAGIC)]))
    found = [one for one in walk.sources([str(tmp_path)]) if isinstance(one, Sidecar)]
    assert found == [Sidecar(f"{tmp_path}/a.zip/run", b"[1]"), Sidecar(str(tmp_path), b"{}")]


@pytest.mark.parametrize("kind", ARCHIVES)
def test_what_is_not_wanted_is_passed_over(tmp_path: Path, kind: str):
    (tmp_path / "a").write_bytes(ARCHIVES[kind]([("one.dat", MAGIC + b"1"), ("two.dat", MAGIC + b"2")]))
    walk = Walk(Limits(), tmp_path, wanted=lambda path: path.endswith("two.dat"))
    (found,) = items(walk, tmp_path / "a")
    assert content(found) == MAGIC + b"2"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.zst"])
def test_the_weights_are_most_of_the_bytes(walk: Walk, tmp_path: Path, kind: str):
    (tmp_path / "a").write_bytes(
        ARCHIVES[kind]([(f"{n}.dat", MAGIC + os.urandom(300_000)) for n in range(9)])
    )
    found = items(walk, tmp_path / "a")
    assert 0.8 * walk.total < sum(one.weight for one in found) <= walk.total
