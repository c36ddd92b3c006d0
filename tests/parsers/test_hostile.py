"""Traces come from strangers: cut, damaged or made to hurt, they cost rows or one clear error, no more."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apftrace.errors import TraceError, TraceFormatError, TraceUnsupported
from apftrace_parsers.base import Loss, PassResult, Pick
from apftrace_parsers.eventformat import MAX_EVENTS
from apftrace_parsers.registry import open_source
from apftrace_parsers.tracedat.buffers import MAX_CHUNK_PAGES
from apftrace_parsers.tracedat.compression import BlockError, codec
from apftrace_parsers.tracedat.info import MAX_COMMS
from tests.builders import options as opt
from tests.builders.formats import formats
from tests.builders.subbuf import Layout
from tests.builders.tracedat import Event, Missed, TraceDat, compress
from tests.conftest import capture_path

from .conftest import use_interpreted
from .support import drain, streamed, tabled

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["kvm_entry", "kvm_async_pf_ready"]
KINDS = [(6, "none"), (7, "none"), (7, "zlib"), (7, "zstd")]


def small(version: Any, compression: Any) -> bytes:
    """Return a whole file of few kilobytes with everything in it."""
    dat = TraceDat(version, compression, Layout(page_size=128), formats(NAMES), {101: "CPU 0/KVM"})
    dat.options += [
        opt.uname("Linux"),
        opt.trace_id(3),
        opt.cpu_stat(0, overrun=2),
        opt.tsc2nsec(1 << 30, 30),
    ]
    dat.options += [opt.guest("vm", 4, [1, 2]), opt.time_shift(5, [[(1, 2), (5, 6)]], interpolate=True)]
    for i in range(12):
        dat.add(Event(10 * i, i % 2, 101, NAMES[i % 2], {}))
    dat.add(Missed(55, 0, 3), Event(56, 0, 1, "kvm_entry")).add(Event(57, 0, 1, "kvm_entry"), instance="more")
    return dat.to_bytes()


def outcome(path: Path) -> object:
    """Return everything that can be read of a file, or the error."""
    try:
        source = open_source(path)
    except TraceError as error:
        return str(error)
    try:
        return drain(source)
    finally:
        source.close()


@pytest.mark.parametrize(("version", "compression"), KINDS)
def test_cut_at_any_byte(tmp_path: Path, version: Any, compression: Any) -> None:
    whole = small(version, compression)
    path = tmp_path / "trace.dat"
    path.write_bytes(whole)
    rows_before = -1
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        seen = outcome(path)
        if version == 6 and not isinstance(seen, str):
            rows = len(seen)  # type: ignore[arg-type]
            assert rows >= rows_before
            rows_before = rows
    if version == 6:
        assert rows_before > 12


@pytest.mark.parametrize(("version", "compression"), KINDS)
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_read_alike_on_both_engines(
    tmp_path: Path, version: Any, compression: Any, data: st.DataObject
) -> None:
    whole = bytearray(small(version, compression))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(10, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "trace.dat"
    path.write_bytes(whole)
    compiled = outcome(path)
    with pytest.MonkeyPatch.context() as patch:
        use_interpreted(patch)
        assert outcome(path) == compiled


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_behind_a_good_start(tmp_path: Path, noise: bytes) -> None:
    path = tmp_path / "trace.dat"
    for head in (
        b"\x17\x08\x44tracing6\0\0\x08\0\x10\0\0",
        b"\x17\x08\x44tracing7\0\0\x08\0\x10\0\0none\0\0",
    ):
        path.write_bytes(head + noise)
        assert isinstance(outcome(path), str)


def test_names_and_formats_beyond_any_kernel_take_no_memory(tmp_path: Path) -> None:
    (entry, *_) = formats(["kvm_entry"])
    many = [replace(entry, name=f"e{n}", text=f"name: e{n}\nID: 7\n") for n in range(MAX_EVENTS + 9)]
    dat = TraceDat(7, "zstd", formats=(entry, *many), cmdlines=dict.fromkeys(range(1, MAX_COMMS + 9), "a"))
    source = open_source(dat.add(Event(1, 0, 1, "kvm_entry")).write(tmp_path / "trace.dat"))
    assert len(source.formats()) == MAX_EVENTS
    assert len(source.info.comms) == MAX_COMMS
    picks = [Pick((f"{form.system}:{form.name}",), ()) for form in source.formats()]
    (batch,) = source.stream(picks, PassResult())
    assert batch.column("pick").to_pylist() == [0]
    source.close()


def test_a_cut_v6_file_keeps_its_complete_pages(tmp_path: Path) -> None:
    dat = TraceDat(6, formats=formats(NAMES))
    dat.add(*(Event(i, i % 2, 1, "kvm_entry") for i in range(2000)))
    whole = dat.to_bytes()
    path = tmp_path / "trace.dat"
    path.write_bytes(whole[: len(whole) - 5000])
    rows, result = streamed(path)
    kept = [row["ts"] for row in rows if row["cpu"] == 1]
    assert kept == list(range(1, 2 * len(kept), 2))
    assert 0 < len(kept) < 1000
    assert len([row for row in rows if row["cpu"] == 0]) == 1000
    assert result.losses == [Loss(1, "", None, kept[-1], None)]
    assert len(result.notes) == 1
    assert result.notes[0].startswith("CPU 1: the file ends at offset ")


def test_a_cut_capture_of_version_7_is_found_again(tmp_path: Path) -> None:
    whole = capture_path("two-vms/two-vms-v7.dat").read_bytes()
    path = tmp_path / "trace.dat"
    counts = []
    for size in (len(whole), len(whole) - 2000, len(whole) // 2, len(whole) // 3):
        path.write_bytes(whole[:size])
        _, result = tabled(path, ["kvm_entry"])
        counts.append(result.counts["kvm_entry"])
        assert bool(result.notes) == (size < len(whole))
        assert {loss.cpu for loss in result.losses} == (
            {1} if size == len(whole) - 2000 else set()
        ) or counts[1:]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > 0
    assert {loss.cpu for loss in result.losses} == {0, 1}


def test_a_damaged_chunk_costs_its_pages(tmp_path: Path) -> None:
    dat = TraceDat(7, "zstd", Layout(page_size=128), formats(NAMES), chunk_pages=2)
    dat.add(*(Event(i, 0, 1, "kvm_entry") for i in range(60)))
    whole = bytearray(dat.to_bytes())
    pages = dat.subbufs()[0]
    second = compress("zstd", pages[256:512])
    at = whole.index(second)
    whole[at : at + len(second)] = b"\xaa" * len(second)
    path = tmp_path / "trace.dat"
    path.write_bytes(whole)
    rows, result = streamed(path)
    gaps = [row for row in rows if row["pick"] == -1]
    assert len(gaps) == 1
    missing = set(range(60)) - {row["ts"] for row in rows}
    assert missing == set(range(gaps[0]["b"] + 1, gaps[0]["ts"]))
    assert missing
    assert "is damaged" in result.notes[0]


def chunk_offsets(whole: bytes, dat: TraceDat) -> int:
    """Return where the only chunk of CPU 0 starts."""
    return whole.index(compress("zstd", dat.subbufs()[0])) - 8


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 0x7FFFF000, 4096 * (MAX_CHUNK_PAGES + 1), 4097, 0])
def test_a_chunk_cannot_claim_memory(tmp_path: Path, claimed: int) -> None:
    dat = TraceDat(7, "zstd", formats=formats(NAMES)).add(Event(1, 0, 1, "kvm_entry"))
    whole = bytearray(dat.to_bytes())
    at = chunk_offsets(bytes(whole), dat)
    whole[at + 4 : at + 8] = struct.pack("<I", claimed)
    path = tmp_path / "trace.dat"
    path.write_bytes(whole)
    tracemalloc.start()
    try:
        rows, result = streamed(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == []
    assert result.losses == [Loss(0, "", None, None, None)]
    assert "claims" in result.notes[0]
    assert peak < 16 << 20


def test_a_bomb_in_a_chunk_is_not_unpacked(tmp_path: Path) -> None:
    dat = TraceDat(7, "zstd", formats=formats(NAMES)).add(Event(1, 0, 1, "kvm_entry"))
    whole = bytearray(dat.to_bytes())
    at = chunk_offsets(bytes(whole), dat)
    bomb = compress("zstd", bytes(100 << 20))
    whole[at : at + 8 + len(bomb)] = struct.pack("<II", len(bomb), 4096) + bomb
    path = tmp_path / "trace.dat"
    # The option with the size of the CPU's data comes behind the buffer: let it be found by searching.
    path.write_bytes(whole)
    tracemalloc.start()
    try:
        outcome(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_a_zstd_frame_cannot_claim_memory() -> None:
    # With a content size in the frame, the library makes room for that whatever the limit.
    bomb = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(100 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BlockError, match="claims 104857600 bytes instead of 4096"):
            codec("zstd")(bomb, 4096)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_cpus_cannot_share_their_pages(tmp_path: Path) -> None:
    layout = Layout()
    dat = TraceDat(7, formats=formats(NAMES)).add(Event(1, 0, 1, "kvm_entry"))
    whole = dat.to_bytes()
    page_at = whole.index(dat.subbufs()[0])
    honest = opt.buffer_v7(layout, 0, "", "local", 4096, [(0, page_at, 4096)]).pack(layout)
    start = whole.index(honest[14:])
    section = struct.unpack_from("<Q", honest, 6)
    assert section == (0,)
    # CPU 0 stays; a second lane over the same page is refused. The table grows, so write at the end.
    buffer_at = struct.unpack_from("<Q", whole, start - 8)[0]
    body = opt.buffer_v7(layout, buffer_at, "", "local", 4096, [(c, page_at, 4096) for c in range(50)])
    old_options = struct.unpack_from("<Q", whole, whole.index(b"none\0\0") + 6)[0]
    end = struct.unpack_from("<Q", whole, old_options + 8)[0] + old_options + 16
    facts = whole[old_options + 16 : start - 14]
    new = facts + body.pack(layout) + opt.done(0).pack(layout)
    forged = bytearray(whole[:end] + struct.pack("<HHIQ", 0, 0, 0, len(new)) + new)
    struct.pack_into("<Q", forged, whole.index(b"none\0\0") + 6, end)
    path = tmp_path / "trace.dat"
    path.write_bytes(forged)
    rows, result = streamed(path)
    assert len(rows) == 1
    assert len(result.losses) == 49
    assert "overlaps" in result.notes[0]


def test_options_that_point_at_each_other_end(tmp_path: Path) -> None:
    whole = bytearray(TraceDat(7, formats=formats(NAMES)).add(Event(1, 0, 1, "kvm_entry")).to_bytes())
    options_at = struct.unpack_from("<Q", whole, whole.index(b"none\0\0") + 6)[0]
    size = struct.unpack_from("<Q", whole, options_at + 8)[0]
    struct.pack_into("<Q", whole, options_at + 16 + size - 8, options_at)
    path = tmp_path / "trace.dat"
    path.write_bytes(whole)
    started = time.monotonic()
    rows, _ = streamed(path)
    assert len(rows) == 1
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (b"", TraceFormatError, "found an empty file at offset 0"),
        (b"hello world", TraceFormatError, "found bytes 68 65 6c 6c 6f 20 77 6f at offset 0"),
        (b"\x1f\x8b\x08", TraceUnsupported, "gzip compressed"),
        (b"PERFILE2" + bytes(100), TraceUnsupported, "perf.data"),
        (b"\x17\x08\x44tracing5\0", TraceUnsupported, "version '5'"),
        (b"\x17\x08\x44tracing7\0\0\x08\0\x10\0\0lzma\0\0", TraceUnsupported, "compression 'lzma'"),
        (b"\x17\x08\x44tracing6\0\x02", TraceFormatError, "byte order 2"),
        (b"\x17\x08\x44tracing6\0\0\x05", TraceFormatError, "a long of 5 bytes"),
        (
            b"\x17\x08\x44tracing6\0\0\x08\xff\xff\xff\xff",
            TraceFormatError,
            "sub-buffers of 4294967295 bytes",
        ),
    ],
)
def test_what_is_no_trace_is_told_in_one_line(
    tmp_path: Path, content: bytes, error: type[TraceError], sentence: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        open_source(path)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_directory_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(TraceUnsupported, match="a directory"):
        open_source(tmp_path)


def test_text_of_a_latency_tracer_is_told_apart(tmp_path: Path) -> None:
    whole = TraceDat(6, formats=formats(NAMES)).add(Event(1, 0, 1, "kvm_entry")).to_bytes()
    path = tmp_path / "trace.dat"
    path.write_bytes(whole.replace(b"flyrecord\0", b"latency  \0"))
    with pytest.raises(TraceUnsupported, match="text of a latency tracer"):
        open_source(path)


def test_a_pipe_is_no_trace() -> None:
    # As a shell's <(zcat trace.dat.gz) hands it over.
    reads, writes = os.pipe()
    os.write(writes, b"\x17\x08\x44tracing")
    os.close(writes)
    try:
        with pytest.raises(TraceUnsupported, match="a pipe, and a trace must be a file"):
            open_source(f"/dev/fd/{reads}")
    finally:
        os.close(reads)
