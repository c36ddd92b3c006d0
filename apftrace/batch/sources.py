"""From what the user named to inputs: folders, globs, archives, lists and URLs, walked in a stable order."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from apftrace.batch.containers import DAMAGE as ARCHIVE_DAMAGE
from apftrace.batch.containers import Member, is_tar, is_zip, special, tar_members, zip_members
from apftrace.batch.items import (
    HEAD,
    SIDECAR,
    Access,
    InZip,
    Item,
    OnDisk,
    Sidecar,
    failed,
    is_archive,
    is_companion,
    is_trace,
)
from apftrace.batch.limits import Limits, Readable, Refused, Spooled, spool
from apftrace.batch.unpack import DAMAGE as STREAM_DAMAGE
from apftrace.batch.unpack import Unpacked, compression

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import BinaryIO

MARK = ".apftrace"
"""A folder that holds this is a folder of results, not of traces."""

_SIDECAR_BYTES = 1 << 16
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|.*::")
_WILD = re.compile(r"[*?\[]")


@dataclass
class Walk:
    """Goes through sources.

    Attributes:
        limits: what archives may hold.
        spool: folder for temporary files.
        skip: folder that is left out: where the results go.
        wanted: says of a path whether its content is needed; others are passed over.
        total: bytes of all files found so far, for the progress.
    """

    limits: Limits
    spool: Path
    skip: Path | None = None
    wanted: Callable[[str], bool] = lambda _: True
    total: int = 0
    _seen: set[str] = field(default_factory=set)
    _paths: dict[str, int] = field(default_factory=dict)

    def sources(self, sources: Iterable[str]) -> Iterator[Item | Sidecar]:
        """Yield the inputs of all sources, each once."""
        for source in sources:
            for found in self._source(source):
                if isinstance(found, Sidecar):
                    yield found
                elif found.identity not in self._seen:
                    self._seen.add(found.identity)
                    yield self._under_its_own_path(found)

    def _under_its_own_path(self, item: Item) -> Item:
        # A tar may hold a name twice, and two sources may be spelled alike.
        again = self._paths[item.path] = self._paths.get(item.path, 0) + 1
        if again == 1:
            return item
        more = f"#{again}"
        return Item(
            item.path + more, item.name + more, item.access, item.status, item.problem, item.weight, item.identity
        )  # fmt: skip

    def _source(self, source: str) -> Iterator[Item | Sidecar]:
        if _URL.match(source):
            from apftrace.batch.remote import walk_url

            yield from walk_url(self, source)
            return
        path = Path(source)
        if not path.exists() and _WILD.search(source):
            matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - of the whole pattern
            if not matches:
                yield failed(source, Path(source).name, "unreadable", "no file matches")
            for match in matches:
                yield from self._local(match, match, Path(match).name, explicit=False)
            return
        yield from self._local(source, source.rstrip("/") or source, path.name, explicit=True)

    def _local(self, real: str, path: str, name: str, *, explicit: bool) -> Iterator[Item | Sidecar]:
        try:
            mode = os.stat(real).st_mode  # noqa: PTH116 - a link that the user names is followed
            if not stat.S_ISDIR(mode):
                yield from self._file(real, path, name, explicit=explicit)
                return
        except OSError as error:
            yield failed(path, name, "unreadable", error.strerror or str(error), identity=real)
            return
        yield from self._folder(real, path)

    def _folder(self, real: str, path: str) -> Iterator[Item | Sidecar]:
        def unreadable(error: OSError) -> None:
            problems.append(error)

        problems: list[OSError] = []
        for folder, folders, files in os.walk(real, onerror=unreadable):
            folders[:] = sorted(one for one in folders if not self._left_out(Path(folder, one)))
            links = [one for one in folders if Path(folder, one).is_symlink()]
            for file in sorted([*files, *links]):
                inner = os.path.relpath(os.path.join(folder, file), real)  # noqa: PTH118 - text, not a path to tidy
                yield from self._in_folder(Path(folder, file), f"{path}/{inner}", inner)
        for error in problems:
            inner = os.path.relpath(str(error.filename), real)
            yield failed(f"{path}/{inner}", inner, "unreadable", error.strerror or str(error))

    def _left_out(self, folder: Path) -> bool:
        return (folder / MARK).is_dir() or (self.skip is not None and folder.resolve() == self.skip)

    def _in_folder(self, real: Path, path: str, name: str) -> Iterator[Item | Sidecar]:
        try:
            mode = real.lstat().st_mode
        except OSError as error:
            yield failed(path, name, "unreadable", error.strerror or str(error), identity=str(real))
            return
        if kind := special(mode):
            yield failed(path, name, "refused", kind, identity=str(real))
        else:
            yield from self._file(str(real), path, name, explicit=False)

    def _file(self, real: str, path: str, name: str, *, explicit: bool) -> Iterator[Item | Sidecar]:
        try:
            with Path(real).open("rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    yield failed(path, name, "refused", "no regular file", identity=real)
                    return
                size = os.fstat(file.fileno()).st_size
                self.total += size
                yield from self.open_file(file, path, name, size, Path(real).resolve(), explicit=explicit)
        except OSError as error:
            yield failed(path, name, "unreadable", error.strerror or str(error), identity=real)

    def open_file(
        self, file: BinaryIO, path: str, name: str, size: int, real: Path, *, explicit: bool
    ) -> Iterator[Item | Sidecar]:
        """Yield what a file on disk holds: itself, or the members of an archive."""
        head = file.read(HEAD)
        file.seek(0)
        if is_archive(head):
            yield from self.archive(file, head, path, name, size, real=str(real))
        elif Path(name).name == SIDECAR:
            yield Sidecar(path.rpartition("/")[0], file.read(_SIDECAR_BYTES))
        else:
            yield self.judged(head, path, name, OnDisk(str(real)), size, str(real), explicit=explicit)

    def judged(
        self, head: bytes, path: str, name: str, access: Access, weight: int, identity: str, *, explicit: bool
    ) -> Item:
        """Return an input by its first bytes: what is empty, or a companion of traces, is not read."""
        if not head:
            return failed(path, name, "unreadable", "an empty file", weight, identity)
        if not explicit and is_companion(name, head) and not is_trace(head):
            return failed(path, name, "skipped", "not a trace", weight, identity)
        return Item(path, name, access, weight=weight, identity=identity)

    def archive(
        self,
        file: BinaryIO,
        head: bytes,
        path: str,
        name: str,
        size: int,
        *,
        real: str | None,
        spooled: Spooled | None = None,
        depth: int = 1,
        only: Callable[[str], bool] = lambda _: True,
    ) -> Iterator[Item | Sidecar]:
        """Yield the members of an archive, or the content of a compressed file.

        Args:
            file: the archive, which can seek.
            head: its first bytes.
            path: as reports name it.
            name: the way inside the source.
            size: its bytes, for the progress.
            real: where it lies on disk, so that workers can open it too; null when it does not.
            spooled: keeps it there, when it is temporary.
            depth: 1 for an archive that is not within another.
            only: says of a member's name whether it is meant.
        """
        inner = _Inside(self, path, name, real, spooled, depth, only, size)
        try:
            how = compression(head)
            if how is not None:
                yield from self._compressed(Unpacked(file, how, self.limits), inner, size)
            elif is_zip(head):
                yield from inner.members(zip_members(file, self.limits))
            else:
                yield from inner.members(tar_members(_Counted(file, inner), self.limits))
        except Refused as refused:
            yield failed(path, name, "refused", str(refused), identity=f"{real or path}!")
        except (*ARCHIVE_DAMAGE, *STREAM_DAMAGE) as error:
            told = f"damaged archive: {' '.join(str(error).split()) or type(error).__name__}"
            yield failed(path, name, "unreadable", told, identity=f"{real or path}!")

    def check_depth(self, depth: int) -> None:
        """Refuse archives that lie too deep in each other.

        Raises:
            Refused: they do.
        """
        if depth > self.limits.depth:
            raise Refused(f"archives within each other, {depth} deep")

    def _compressed(self, stream: Unpacked, inner: _Inside, size: int) -> Iterator[Item | Sidecar]:
        head = stream.read(HEAD)
        whole = _Prefixed(head, stream)
        if is_tar(head):
            self.check_depth(inner.depth)
            inner.packed = lambda: stream.packed
            yield from inner.members(tar_members(whole, self.limits))
        elif compression(head) is not None:
            raise Refused("compressed twice")
        else:
            # The content of trace.dat.xz is called trace.dat.
            name = re.sub(r"\.(?:gz|xz|zst|zstd|bz2)$", "", inner.name)
            yield from inner.content(
                Member(name, len(head), None, None, None, lambda: whole), inner.path, inner.name, name, size
            )


class _Prefixed:
    """A stream whose first bytes were looked at already."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        if not self._head:
            return self._stream.read(size)
        head, self._head = self._head[:size], self._head[size:]
        return head if len(head) == size else head + self._stream.read(size - len(head))


class _Counted:
    """A plain file that tells how far it was read."""

    def __init__(self, file: BinaryIO, inner: _Inside) -> None:
        self._file = file
        self._at = 0
        inner.packed = lambda: self._at

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self._at += len(data)
        return data

    def skip(self, size: int) -> None:
        self._file.seek(size, 1)
        self._at += size


@dataclass
class _Inside:
    """The members of one archive, as inputs."""

    walk: Walk
    path: str
    name: str
    real: str | None
    spooled: Spooled | None
    depth: int
    only: Callable[[str], bool]
    whole: int
    packed: Callable[[], int] | None = None
    _told: int = 0

    def members(self, members: Generator[Member]) -> Iterator[Item | Sidecar]:
        with contextlib.closing(members):
            for number, member in enumerate(members):
                if not self.only(member.name):
                    continue
                path, name = f"{self.path}/{member.name}", f"{self.name}/{member.name}"
                weight = self._weight(member)
                identity = f"{self.real or self.path}!{number}"
                if member.refusal:
                    yield failed(path, name, "refused", member.refusal, weight, identity)
                elif member.size == 0:
                    yield failed(path, name, "unreadable", "an empty file", weight, identity)
                else:
                    yield from self._guarded(member, path, name, weight, identity)

    def _weight(self, member: Member) -> int:
        if self.depth > 1:  # an archive in an archive counts with its first member
            fresh, self.whole = self.whole, 0
            return fresh
        if self.packed is None:
            return member.packed or 0
        fresh = self.packed() - self._told
        self._told += fresh
        return fresh

    def _guarded(
        self, member: Member, path: str, name: str, weight: int, identity: str
    ) -> Iterator[Item | Sidecar]:
        try:
            yield from self.content(member, path, name, member.name, weight, identity)
        except Refused as refused:
            yield failed(path, name, "refused", str(refused), weight, identity)
        except (*ARCHIVE_DAMAGE, *STREAM_DAMAGE) as error:
            if self.packed is not None:  # a tar that is damaged has no next member
                raise
            told = f"damaged member: {' '.join(str(error).split()) or type(error).__name__}"
            yield failed(path, name, "unreadable", told, weight, identity)

    def content(
        self, member: Member, path: str, name: str, file_name: str, weight: int, identity: str = ""
    ) -> Iterator[Item | Sidecar]:
        """Yield one member as an input, or what it holds when it is an archive itself."""
        identity = identity or f"{self.real or self.path}!"
        stream = member.open()
        head = stream.read(HEAD)
        if is_archive(head):
            yield from self._nested(head, stream, path, name, weight)
            return
        if file_name.rpartition("/")[2] == SIDECAR:
            rest = stream.read(_SIDECAR_BYTES)
            yield Sidecar(path.rpartition("/")[0], head + rest)
            return
        nothing = OnDisk("")
        item = self.walk.judged(head, path, name, nothing, weight, identity, explicit=False)
        if item.access is None:
            yield item
        elif self.walk.wanted(path):
            yield Item(path, name, self._access(member, head, stream), weight=weight, identity=identity)

    def _access(self, member: Member, head: bytes, stream: Readable) -> Access:
        if member.index is not None and self.real is not None:
            return InZip(self.real, member.index, self.spooled)
        copy = spool(stream, self.walk.spool, self.walk.limits, head=head)
        return OnDisk(copy.path, copy)

    def _nested(
        self, head: bytes, stream: Readable, path: str, name: str, weight: int
    ) -> Iterator[Item | Sidecar]:
        if compression(head) is None:
            self.walk.check_depth(self.depth + 1)
        copy = spool(stream, self.walk.spool, self.walk.limits, head=head)
        with Path(copy.path).open("rb") as file:
            yield from self.walk.archive(
                file, head, path, name, weight, real=copy.path, spooled=copy, depth=self.depth + 1
            )
