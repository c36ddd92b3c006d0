"""Windows: what is read does not depend on their size, nor on who fills them."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import zstandard

from apftrace_parsers import walk
from apftrace_parsers.importlog import ImportLog
from apftrace_parsers.registry import open_source
from apftrace_parsers.stream import view
from apftrace_parsers.tracedat import compression
from apftrace_parsers.tracedat.buffers import ChunkLane
from tests.conftest import SAMPLES

from .conftest import use_interpreted
from .support import look

if TYPE_CHECKING:
    from pathlib import Path

    from apftrace_parsers.base import PassResult

PAGE = 1 << 16


def read(path: Path, **bounds: int) -> tuple[list[dict[str, Any]], PassResult]:
    return look(open_source(path), **bounds)


@pytest.mark.parametrize(
    "name", ["host-v7-zstd.dat", "k612-two-vms-v7.dat", "overrun-b64.dat", "host-v6-none.dat"]
)
@pytest.mark.parametrize("window", [1 << 13, 1 << 20])
def test_threads_fill_what_one_would(name: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(SAMPLES / name)
    monkeypatch.setattr(walk, "THREADS_FROM", 0)
    monkeypatch.setattr(walk, "LARGEST_AHEAD", window)
    assert read(SAMPLES / name) == expected


def test_threads_fill_packed_pages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "THREADS_FROM", 1)
    for name, ahead in (("host-v7-zstd.dat", True), ("host-v6-none.dat", False)):
        source = open_source(SAMPLES / name)
        with walk.Pass(source._ring) as run:  # type: ignore[attr-defined]
            assert set(run._fills_ahead) == {ahead}
            assert (run._threads is not None) is ahead


def misplaced(path: Path, page: int, by: int) -> Path:
    """Write a copy of a capture in which a page of CPU 0 is one from later, and return its path."""
    source = SAMPLES / "host-v6-none.dat"
    lane = open_source(source)._ring.lanes[0]  # type: ignore[attr-defined]
    content = bytearray(source.read_bytes())
    at, later = (lane.offset + n * lane.page_size for n in (page, page + by))
    content[at : at + lane.page_size] = content[later : later + lane.page_size]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("by", [2, 40])
@pytest.mark.parametrize("page", range(6, 11))
def test_a_page_from_later_is_told_at_the_end_of_a_window_too(
    tmp_path: Path, page: int, by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = misplaced(tmp_path / "t.dat", page, by)
    monkeypatch.setattr(walk, "LARGEST_WINDOW", 1 << 20)
    expected, result = read(path)
    assert sum("is out of the order of time" in note for note in result.notes) == 1
    assert not any("more damaged pages" in note for note in result.notes)
    for window in (1 << 12, 1 << 13, 1 << 15):
        monkeypatch.setattr(walk, "LARGEST_WINDOW", window)
        rows, found = read(path)
        assert rows == expected
        assert found == result


def test_the_interpreted_engine_sees_as_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = misplaced(tmp_path / "t.dat", 7, 40)
    bounds = {"end_ns": read(path)[1].first_ns + 5_000_000}  # type: ignore[operator]
    monkeypatch.setattr(walk, "LARGEST_WINDOW", 1 << 15)
    expected = read(path, **bounds)
    use_interpreted(monkeypatch)
    assert read(path, **bounds) == expected


@pytest.mark.parametrize("left", [0, 1, 4095, 4096, 4097, 3 * 4096 - 1])
def test_a_cut_behind_a_window_is_told_where_it_is(
    tmp_path: Path, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SAMPLES / "host-v6-none.dat"
    lane = open_source(source)._ring.lanes[-1]  # type: ignore[attr-defined]
    path = tmp_path / "t.dat"
    path.write_bytes(source.read_bytes()[: lane.offset + 8 * lane.page_size + left])
    monkeypatch.setattr(walk, "LARGEST_WINDOW", 1 << 20)
    expected = read(path)
    assert expected[1].losses
    for window in (1 << 12, 1 << 13, 1 << 15):
        monkeypatch.setattr(walk, "LARGEST_WINDOW", window)
        assert read(path) == expected


@pytest.mark.parametrize("sizes", [(1, 10, 10), (16, 1, 16, 3)])
def test_chunks_may_be_larger_than_the_first(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    parts = [bytes([n + 1]) * (size * PAGE) for n, size in enumerate(sizes)]
    packed = [zstandard.compress(part) for part in parts]
    chunks = [struct.pack("<II", len(p), len(part)) + p for p, part in zip(packed, parts, strict=True)]
    path = tmp_path / "chunks"
    path.write_bytes(struct.pack("<I", len(chunks)) + b"".join(chunks))
    with path.open("rb") as file:
        lane = ChunkLane(0, "", PAGE, file.fileno(), 0, path.stat().st_size - 4, "zstd", False, 16 * PAGE)
        log = ImportLog()
        pages, window, found = lane.pages(log), bytearray(lane.least), b""
        while n := pages.fill(memoryview(window)):
            found += window[:n]
    assert found == b"".join(parts)
    assert not log.sentences()
    assert not pages.cut


def test_notes_of_threads_come_in_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SAMPLES / "k612-two-vms-v7.dat"
    content = bytearray(source.read_bytes())
    for lane in open_source(source)._ring.lanes:  # type: ignore[attr-defined]
        packed, _ = lane.chunk_head(lane.offset + 4)
        content[lane.offset + 12 + packed // 2] ^= 0xFF
    path = tmp_path / "t.dat"
    path.write_bytes(content)
    expected = read(path)[1].notes
    assert len(expected) > 1
    monkeypatch.setattr(walk, "THREADS_FROM", 0)
    for _ in range(10):
        assert read(path)[1].notes == expected


def test_logs_are_joined() -> None:
    one, other = ImportLog(), ImportLog()
    for n in range(2):
        one.note("holes", f"hole {n}")
    for n in range(2, 7):
        other.note("holes", f"hole {n}")
    other.count("others", 4)
    one.add(other)
    assert one.sentences() == ["hole 0", "hole 1", "hole 2", "4 more holes", "4 others"]


def test_each_thread_unpacks_in_a_context_of_its_own() -> None:
    with ThreadPoolExecutor(1) as other:
        theirs = other.submit(lambda: compression._CONTEXTS.zstd).result()
    assert theirs is not compression._CONTEXTS.zstd


def test_a_damaged_block_leaves_the_context_as_good_as_it_was() -> None:
    content = bytes(range(256)) * 160
    packed = zstandard.compress(content)
    unpack = compression.codec("zstd")
    for at in range(0, len(packed), 7):
        damaged = bytearray(packed)
        damaged[at] ^= 0xFF
        for bad in (bytes(damaged), packed[:at]):
            with suppress(compression.BlockError):
                unpack(bad, len(content))
            assert unpack(packed, len(content)) == content


def test_a_large_section_is_unpacked_too() -> None:
    content = bytes(range(256)) * (1 << 13)
    assert compression.codec("zstd")(zstandard.compress(content), len(content)) == content


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64()])
def test_a_view_begins_where_its_column_does(kind: pa.DataType) -> None:
    column = pa.array([7, 8, 9, 10], kind)
    assert list(view(column)) == [7, 8, 9, 10]
    assert list(view(column.slice(1, 2))) == [8, 9]
    assert list(view(column.slice(4))) == []
