"""Sources behind a URL, read with fsspec: object stores, web servers, and chains such as ``zip://*.dat::s3://...``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from apftrace.batch.items import HEAD, AtUrl, Item, OnDisk, Sidecar, failed, is_archive
from apftrace.batch.limits import NoRoom, Refused, spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apftrace.batch.sources import Walk

_IN_ARCHIVE = re.compile(r"(?:zip|tar)://(?P<members>.*?)::(?P<archive>.*)", re.S)
_OURS_ONLY = frozenset({"memory"})
"""File systems that another process does not see."""


def walk_url(walk: Walk, source: str) -> Iterator[Item | Sidecar]:
    """Yield the inputs behind a URL; one that cannot be read is one input with its reason."""
    chained = _IN_ARCHIVE.fullmatch(source)
    url = chained["archive"] if chained else source
    only = _matcher(chained["members"]) if chained else None
    try:
        yield from _Remote(walk, source, url, only).files()
    except NoRoom:
        raise
    except ImportError as error:
        yield failed(source, source, "unreadable", f"a driver is missing: {error}")
    except Exception as error:
        yield failed(source, source, "unreadable", _told(error))


def _matcher(pattern: str) -> Callable[[str], bool]:
    if not pattern:
        return lambda _: True
    from fsspec.utils import glob_translate

    found = re.compile(glob_translate(pattern))
    return lambda name: found.match(name) is not None


def _told(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


class _Remote:
    def __init__(self, walk: Walk, source: str, url: str, only: Callable[[str], bool] | None) -> None:
        from fsspec.core import url_to_fs

        self.walk = walk
        self.source = source
        self.only = only
        self.fs: Any
        self.fs, self.root = url_to_fs(url)
        # A chain's file system cannot be named by the URL of one of its files.
        self.chained = "::" in url
        self.wild = bool(re.search(r"[*?\[]", self.root))

    def files(self) -> Iterator[Item | Sidecar]:
        for path, size in self._listed():
            inner = self._inner(path)
            shown = self.source if path == self.root else f"{self._base()}/{inner}"
            try:
                yield from self._file(path, size, shown, inner)
            except NoRoom:
                raise
            except Refused as refused:
                yield failed(shown, inner, "refused", str(refused))
            except Exception as error:
                yield failed(shown, inner, "unreadable", _told(error))

    def _listed(self) -> list[tuple[str, int]]:
        if self.wild:
            found = self.fs.glob(self.root, detail=True)
        elif self.fs.isdir(self.root):
            found = self.fs.find(self.root, detail=True)
        else:
            return [(self.root, self.fs.info(self.root).get("size") or 0)]
        if not found:
            raise FileNotFoundError("no file matches")
        return sorted(
            (path, one.get("size") or 0) for path, one in found.items() if one.get("type") == "file"
        )

    def _base(self) -> str:
        # What stands before the first wildcard, as the user wrote it.
        if not self.wild:
            return self.source.rstrip("/")
        return re.split(r"[*?\[]", self.source, maxsplit=1)[0].rpartition("/")[0]

    def _inner(self, path: str) -> str:
        base = re.split(r"[*?\[]", self.root, maxsplit=1)[0].rpartition("/")[0] if self.wild else self.root
        return path[len(base) :].lstrip("/") or path.rpartition("/")[2]

    def _file(self, path: str, size: int, shown: str, inner: str) -> Iterator[Item | Sidecar]:
        walk = self.walk
        walk.total += size
        identity = f"{self.fs.unstrip_protocol(path)}"
        head = self.fs.cat_file(path, start=0, end=HEAD)
        if is_archive(head):
            with self.fs.open(path, "rb") as file:
                yield from walk.archive(
                    file, head, shown, inner, size, real=None, only=self.only or (lambda _: True)
                )
        elif self.only is not None:
            yield failed(shown, inner, "unreadable", "no archive", size, identity)
        elif walk.wanted(shown):
            if self.chained or self.fs.protocol in _OURS_ONLY or identity.partition("://")[0] in _OURS_ONLY:
                with self.fs.open(path, "rb") as file:
                    copy = spool(file, walk.spool, walk.limits)
                yield walk.judged(head, shown, inner, OnDisk(copy.path, copy), size, identity, explicit=False)
            else:
                yield walk.judged(
                    head, shown, inner, AtUrl(identity), size, identity, explicit=path == self.root
                )
