"""Archives that want to harm: nothing is written where they say, nothing grows, each is named with its reason."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import random
import resource
import stat
import struct
import tarfile
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard

from apftrace.batch.limits import Limits
from apftrace.batch.sources import Walk
from tests.batch.conftest import content, items
from tests.batch.packing import ARCHIVES, tarred, zipped
from tests.batch.test_sources import MAGIC

if TYPE_CHECKING:
    from pathlib import Path

    from apftrace.batch.items import Item

MIB = 1 << 20


def one(found: list[Item]) -> Item:
    (item,) = found
    assert item.access is None
    return item


def zeros(pack, mib: int) -> bytes:
    """Return many zeros, packed without having them all in memory."""
    out = [pack.compress(bytes(MIB)) for _ in range(mib)]
    return b"".join([*out, pack.flush()])


BOMBS = {
    "gzip": lambda: zeros(zlib.compressobj(9, zlib.DEFLATED, 31), 300),
    "xz": lambda: zeros(lzma.LZMACompressor(preset=0), 300),
    "zstd": lambda: zeros(zstandard.ZstdCompressor().compressobj(), 300),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_unpacks_to_zeros_without_end(walk: Walk, tmp_path: Path, kind: str):
    (tmp_path / "bomb").write_bytes(BOMBS[kind]())
    refused = one(items(walk, tmp_path / "bomb"))
    assert (refused.status, refused.problem) == ("refused", "unpacks to more than 250 times its size")
    assert not list((tmp_path / "spool").iterdir())


def test_a_zip_member_that_unpacks_to_zeros_without_end(walk: Walk, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("trace.dat", "w") as member:
            for _ in range(60):
                member.write(bytes(MIB))
        archive.writestr("good.dat", MAGIC)
    bomb, good = items(walk, tmp_path / "bomb.zip")
    assert (bomb.status, bomb.problem) == ("refused", "unpacks to more than 250 times its size")
    assert content(good) == MAGIC


def test_a_member_larger_than_allowed(tmp_path: Path):
    data = MAGIC + random.Random(1).randbytes(3 * MIB)
    for kind, pack in ARCHIVES.items():
        (tmp_path / kind).write_bytes(pack([("large.dat", data), ("good.dat", MAGIC)]))
        large, good = items(Walk(Limits(size=2 * MIB), tmp_path), tmp_path / kind)
        assert (large.status, large.problem) == ("refused", "3 MiB unpacked, more than the limit of 2 MiB")
        assert content(good) == MAGIC


def test_three_gigabytes_of_a_member_are_never_written(walk: Walk, tmp_path: Path):
    # A sparse file: its tar has the size of a few headers on disk.
    with (tmp_path / "huge.tar").open("wb") as file:
        info = tarfile.TarInfo("huge.dat")
        info.size = 3 << 30
        file.write(info.tobuf(tarfile.PAX_FORMAT))
        file.truncate(512 + info.size)
        file.seek(0, 2)
        file.write(tarred([("good.dat", MAGIC)]))
    huge, good = items(walk, tmp_path / "huge.tar")
    assert (huge.status, huge.problem) == ("refused", "3 GiB unpacked, more than the limit of 64 MiB")
    assert content(good) == MAGIC


def test_a_zip_that_lies_about_a_size_is_held_to_the_limit(tmp_path: Path):
    data = bytearray(zipped([("trace.dat", MAGIC + random.Random(2).randbytes(MIB))]))
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 100_000)  # file_size in the directory
    (tmp_path / "a.zip").write_bytes(data)
    (found,) = items(Walk(Limits(), tmp_path), tmp_path / "a.zip")
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        content(found)


def test_members_that_share_their_bytes(walk: Walk, tmp_path: Path):
    # The trick of the smallest bombs: many entries of the directory mean the same packed bytes.
    plain = zipped([("a.dat", MAGIC + bytes(1000))])
    at = plain.index(b"PK\x01\x02")
    end = plain.index(b"PK\x05\x06")
    entry = plain[at:end]
    count = 50
    tail = bytearray(plain[end:])
    struct.pack_into("<HHI", tail, 8, count, count, len(entry) * count)
    (tmp_path / "a.zip").write_bytes(plain[:at] + entry * count + tail)
    first, *others = items(walk, tmp_path / "a.zip")
    assert content(first).startswith(MAGIC)
    assert {other.problem for other in others} == {"shares its bytes with another member"}
    assert len(others) == count - 1


def test_a_directory_that_says_it_is_enormous(walk: Walk, tmp_path: Path):
    data = bytearray(zipped([("a.dat", MAGIC)]))
    struct.pack_into("<I", data, data.index(b"PK\x05\x06") + 12, 0xF0000000)
    (tmp_path / "a.zip").write_bytes(data)
    assert one(items(walk, tmp_path / "a.zip")).problem == "its directory alone is 3.8 GiB"


TRAVERSAL = [
    "../../evil.dat",
    "/etc/evil.dat",
    "..\\evil.dat",
    "a/../../evil.dat",
    "\x1b[2Jevil.dat",
    "x" * 300,
]


@pytest.mark.parametrize("kind", ARCHIVES)
def test_names_that_lead_elsewhere_are_only_names(tmp_path: Path, kind: str):
    (tmp_path / "in").mkdir()
    (tmp_path / "spool").mkdir()
    (tmp_path / "in" / "a").write_bytes(ARCHIVES[kind]([(name, MAGIC) for name in TRAVERSAL]))
    found = items(Walk(Limits(), tmp_path / "spool"), tmp_path / "in" / "a")
    assert [content(item) for item in found] == [MAGIC] * len(TRAVERSAL)
    assert [item.name for item in found] == [f"a/{name}" for name in TRAVERSAL]
    del found
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["in", "in/a", "spool"]


def test_special_members_of_a_tar(walk: Walk, tmp_path: Path):
    kinds = {
        tarfile.SYMTYPE: "a symbolic link",
        tarfile.LNKTYPE: "a hard link",
        tarfile.FIFOTYPE: "neither a file nor a folder",
        tarfile.CHRTYPE: "neither a file nor a folder",
        tarfile.BLKTYPE: "neither a file nor a folder",
    }
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, kind in enumerate(kinds):
            info = tarfile.TarInfo(f"{number}.dat")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    found = items(walk, tmp_path / "a.tar")
    assert [(item.status, item.problem) for item in found] == [("refused", words) for words in kinds.values()]


def test_special_members_of_a_zip(walk: Walk, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, mode in {"link": stat.S_IFLNK, "pipe": stat.S_IFIFO, "disk": stat.S_IFBLK}.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (mode | 0o644) << 16
            archive.writestr(info, "/etc/passwd")
    data = bytearray((tmp_path / "a.zip").read_bytes() + b"")
    (tmp_path / "a.zip").write_bytes(data)
    assert [item.problem for item in items(walk, tmp_path / "a.zip")] == [
        "a symbolic link",
        "a named pipe",
        "a block device",
    ]


def test_an_encrypted_member(walk: Walk, tmp_path: Path):
    data = bytearray(zipped([("a.dat", MAGIC)]))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert one(items(walk, tmp_path / "a.zip")).problem == "encrypted"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_ten_thousand_empty_members(walk: Walk, tmp_path: Path, kind: str):
    (tmp_path / "a").write_bytes(ARCHIVES[kind]((f"{n}/trace.dat", b"") for n in range(10_000)))
    found = items(walk, tmp_path / "a")
    assert len(found) == 10_000
    assert {(item.status, item.problem) for item in found} == {("unreadable", "an empty file")}


@pytest.mark.parametrize("kind", ["zip", "tar.zst"])
def test_more_members_than_allowed(tmp_path: Path, kind: str):
    (tmp_path / "a").write_bytes(ARCHIVES[kind]((f"{n}.dat", MAGIC) for n in range(20)))
    *read, rest = items(Walk(Limits(count=10), tmp_path), tmp_path / "a")
    assert len(read) == 10
    assert (rest.name, rest.status, rest.problem) == (
        "a",
        "refused",
        "more than 10 members; the rest was left alone",
    )


@pytest.mark.parametrize("kind", ["zip", "tar.zst"])
def test_more_bytes_than_allowed(tmp_path: Path, kind: str):
    data = MAGIC + random.Random(3).randbytes(MIB)
    (tmp_path / "a").write_bytes(ARCHIVES[kind]((f"{n}.dat", data) for n in range(5)))
    *_, rest = items(Walk(Limits(total=3 * MIB), tmp_path), tmp_path / "a")
    assert (rest.name, rest.problem) == ("a", "unpacks to more than the limit of 3 MiB")


def test_a_tar_header_of_gigabytes(walk: Walk, tmp_path: Path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 3 << 30
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(info.tobuf())
        file.truncate(512 + info.size)
    assert one(items(walk, tmp_path / "a.tar")).problem == "a header of more than 1 MiB"


def test_a_tar_with_rubbish_in_the_middle_says_so(walk: Walk, tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(tarred([("a.dat", MAGIC)])[:1024] + b"rubbish" * 300)
    good, rest = items(walk, tmp_path / "a.tar")
    assert content(good) == MAGIC
    assert (rest.status, rest.problem) == (
        "unreadable",
        "damaged archive: no header where one is due after 1 members",
    )


def test_a_dictionary_that_takes_all_memory(walk: Walk, tmp_path: Path):
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    data = bytearray(lzma.compress(tarred([("a.dat", MAGIC)]), filters=filters))
    at = data.index(bytes([0x21, 1]), 12) + 2  # filter id, size of its properties, then the dictionary
    data[at] = 38  # 3 GiB
    size = (data[12] + 1) * 4
    struct.pack_into("<I", data, 12 + size - 4, zlib.crc32(data[12 : 12 + size - 4]))
    (tmp_path / "a.tar.xz").write_bytes(data)
    assert "Memory usage limit" in one(items(walk, tmp_path / "a.tar.xz")).problem


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_cut_or_changed_anywhere(tmp_path: Path, kind: str):
    source = random.Random(kind)
    whole = ARCHIVES[kind]([(f"{n}.dat", MAGIC + source.randbytes(2000)) for n in range(4)])
    (tmp_path / "spool").mkdir()
    archive = tmp_path / "a"
    for _ in range(60):
        data = bytearray(whole)
        if source.random() < 0.5:
            del data[source.randrange(1, len(data)) :]
        else:
            for _ in range(source.randrange(1, 6)):
                data[source.randrange(len(data))] = source.randrange(256)
        archive.write_bytes(data)
        for item in items(Walk(Limits(), tmp_path / "spool"), archive):
            if item.access is None:
                assert item.problem
            else:
                with contextlib.suppress(zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError):
                    content(item)
            del item
    assert not list((tmp_path / "spool").iterdir())


def test_memory_stays_flat_over_a_large_archive(tmp_path: Path):
    # 400 MiB stream by; what a hundred members leave behind would show.
    data = MAGIC + random.Random(4).randbytes(4 * MIB)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number in range(100):
            info = tarfile.TarInfo(f"{number}.dat")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(out.getvalue(), 0))
    del out
    (tmp_path / "spool").mkdir()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for item in Walk(Limits(), tmp_path / "spool").sources([str(tmp_path / "a.tar.gz")]):
        assert item
        assert len(list((tmp_path / "spool").iterdir())) <= 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10
