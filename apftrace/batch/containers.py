"""What archives hold: zip and tar, one member after the other, never unpacked under a name of theirs."""

from __future__ import annotations

import stat
import struct
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace.batch.limits import CHUNK, Limits, Readable, Refused, in_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import BinaryIO

_CENTRAL_DIRECTORY = 128 << 20
_HEADER = 1 << 20
"""Bytes of a tar header with its extensions: names, not content."""
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)
_ENCRYPTED = 1
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, struct.error, RuntimeError)
"""What the readers of archives raise on bytes that are not theirs."""


@dataclass(frozen=True)
class Member:
    """One member.

    Attributes:
        name: as the archive spells it; nothing on this machine is ever called so.
        size: bytes, unpacked.
        packed: bytes that it takes in the archive, null where that cannot be told.
        refusal: why it is left alone, null when it can be read.
        index: its place in a zip's directory, where it can be found again.
        open: gives its content; of a tar only until the next member is asked for.
    """

    name: str
    size: int
    packed: int | None
    refusal: str | None
    index: int | None
    open: Callable[[], Readable]


def special(mode: int) -> str | None:
    """Return what a file mode says that it is, when that is neither a file nor a folder."""
    return next((words for test, words in _KINDS if test(mode)), None)


def is_zip(head: bytes) -> bool:
    """Say whether a file starts as a zip, the empty one included."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def is_tar(head: bytes) -> bool:
    """Say whether a file starts as a tar of a kind that names itself."""
    return head[257:262] == b"ustar"


def zip_members(file: BinaryIO, limits: Limits) -> Generator[Member]:
    """Yield the members of a zip in the order of its directory.

    Raises:
        Refused: the archive as a whole is more than one may be.
        zipfile.BadZipFile: it is damaged.
    """
    _check_directory(file)
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        overlaps = _overlapping(infos)
        total = 0
        for index, info in enumerate(infos):
            if index >= limits.count:
                raise Refused(f"more than {limits.count:,} members; the rest was left alone")
            if info.is_dir():
                continue
            refusal = (
                "shares its bytes with another member" if index in overlaps else _zip_refusal(info, limits)
            )
            total += 0 if refusal else info.file_size
            if total > limits.total:
                raise Refused(f"unpacks to more than the limit of {in_bytes(limits.total)}")
            yield Member(
                info.filename, info.file_size, info.compress_size, refusal, index,
                lambda info=info: archive.open(info),  # type: ignore[misc]
            )  # fmt: skip


def _check_directory(file: BinaryIO) -> None:
    # The standard library reads the whole directory at once: look at its size before it does.
    end = file.seek(0, 2)
    tail_at = max(0, end - (1 << 16) - 22)
    file.seek(tail_at)
    tail = file.read((1 << 16) + 22)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise zipfile.BadZipFile("no directory at its end: it is cut off or no zip")
    (size,) = struct.unpack_from("<I", tail, at + 12)
    wide = tail.rfind(b"PK\x06\x06", 0, at)
    if size == 0xFFFFFFFF and 0 <= wide <= len(tail) - 48:
        (size,) = struct.unpack_from("<Q", tail, wide + 40)
    if size > _CENTRAL_DIRECTORY:
        raise Refused(f"its directory alone is {in_bytes(size)}")
    file.seek(0)


def _overlapping(infos: list[zipfile.ZipInfo]) -> frozenset[int]:
    # Members that share their packed bytes make a small file unpack to petabytes.
    order = sorted(range(len(infos)), key=lambda n: infos[n].header_offset)
    found, end = set(), -1
    for n in order:
        one = infos[n]
        if one.header_offset < end:
            found.add(n)
        end = max(end, one.header_offset + 30 + one.compress_size)
    return frozenset(found)


def _zip_refusal(info: zipfile.ZipInfo, limits: Limits) -> str | None:
    mode = info.external_attr >> 16
    if info.create_system == 3 and (kind := special(mode)):
        return kind
    if info.flag_bits & _ENCRYPTED:
        return "encrypted"
    try:
        limits.check_ratio(info.file_size, info.compress_size)
        limits.check_size(info.file_size)
    except Refused as refused:
        return str(refused)
    return None


class _Forward:
    """A stream with the little of ``seek`` that reading a tar from front to back needs."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._at = 0
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER:
            raise Refused("a header of more than 1 MiB")
        self.last = self._stream.read(size)
        self._at += len(self.last)
        return self.last

    def tell(self) -> int:
        return self._at

    def seek(self, to: int, whence: int = 0) -> int:
        if whence or to < self._at:
            raise tarfile.ReadError("a header that points back")
        skip = getattr(self._stream, "skip", None)
        if skip is not None:  # a plain file: nothing in between needs to be read
            skip(to - self._at)
            self._at = to
        while self._at < to and self.read(min(to - self._at, CHUNK)):
            pass
        return self._at


def tar_members(stream: Readable, limits: Limits) -> Generator[Member]:
    """Yield the members of a tar while it streams by.

    Raises:
        Refused: the archive as a whole is more than one may be.
        tarfile.TarError: it is damaged.
    """
    number = total = 0
    forward = _Forward(stream)
    archive = tarfile.TarFile(fileobj=forward, mode="r")  # type: ignore[arg-type]
    while (info := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # it would remember every one
        number += 1
        if number > limits.count:
            raise Refused(f"more than {limits.count:,} members; the rest was left alone")
        if info.isdir():
            continue
        refusal = _tar_refusal(info, limits)
        total += 0 if refusal else info.size
        if total > limits.total:
            raise Refused(f"unpacks to more than the limit of {in_bytes(limits.total)}")
        yield Member(
            info.name, info.size, None, refusal, None,
            lambda info=info: _content(archive, info),  # type: ignore[misc]
        )  # fmt: skip
    # To the standard library a header that makes no sense is an end like another.
    if forward.last.strip(b"\0"):
        raise tarfile.ReadError(f"no header where one is due after {number:,} members")


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Readable:
    content = archive.extractfile(info)
    if content is None:
        raise tarfile.ReadError("a member without content")
    return content


def _tar_refusal(info: tarfile.TarInfo, limits: Limits) -> str | None:
    if info.issym():
        return "a symbolic link"
    if info.islnk():
        return "a hard link"
    if not info.isfile():
        return "neither a file nor a folder"
    try:
        limits.check_size(info.size)
    except Refused as refused:
        return str(refused)
    return None
