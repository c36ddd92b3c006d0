"""The folder of results: one file per distinct input, written whole, named by what was in the input.

``.apftrace`` in the output folder holds them, per version and settings that decide what a result is, beside the
lock that keeps a second batch out and the temporary files of the one that runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apftrace.batch import wire
from apftrace.batch.sources import MARK
from apftrace.batch.wire import Damaged, Message
from apftrace.errors import ApftraceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apftrace.batch.children import Caps

SHORT = 16
"""Hexadecimal digits of a digest that name a run where people see it."""

_LIMITED = frozenset({"timeout", "memory"})


class Busy(ApftraceError):
    """Another batch writes into the same folder."""


class Store:
    """Results by digest of the input.

    Attributes:
        folder: the output folder.
        temporary: folder for temporary files, gone when the store is closed.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], caps: Caps) -> None:
        """Open or make an output folder.

        Args:
            folder: the output folder.
            settings: all that decides what a result is; results of other settings are not used.
            caps: what a task may take now; one that took more than less is tried again.

        Raises:
            Busy: another batch is at work in it.
            OSError: it cannot be made or written.
        """
        self.folder = folder
        self._caps = caps
        own = folder / MARK
        own.mkdir(parents=True, exist_ok=True)
        self._lock = (own / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise Busy(f"{folder}: another batch is writing here") from None
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:SHORT]
        self._results = own / "results" / name
        self._pages = own / "pages" / name
        for place in (self._results, self._pages):
            self._keep_only(place)
        shutil.rmtree(own / "tmp", ignore_errors=True)  # of a batch that was killed
        (own / "tmp").mkdir()
        self.temporary = Path(tempfile.mkdtemp(dir=own / "tmp"))
        self._known = {path.name: None for path in self._results.iterdir()}

    @staticmethod
    def _keep_only(place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        for other in place.parent.iterdir():
            if other != place:
                shutil.rmtree(other, ignore_errors=True)

    def is_known(self, digest: str) -> bool:
        """Say whether there is a result for these bytes that still stands."""
        if digest not in self._known:
            return False
        found = self.load(digest)
        if found is None or found.data["status"] not in _LIMITED:
            return found is not None
        then = found.data["caps"]
        return bool(self._caps.seconds <= then["seconds"] and self._caps.memory <= then["memory"])

    def digests(self) -> list[str]:
        """Return the digests of all inputs whose results still stand."""
        return [digest for digest in self._known if self.is_known(digest)]

    def load(self, digest: str) -> Message | None:
        """Return the result for these bytes; null when there is none, or none that is whole."""
        try:
            return wire.decode((self._results / digest).read_bytes())
        except (OSError, Damaged):
            return None

    def save(self, digest: str, result: Message) -> None:
        """Keep a result.

        What a dying worker left behind is not kept: the next batch tries again.
        """
        status = result.data["status"]
        if status == "crashed":
            return
        if status in _LIMITED:
            result = Message(
                result.data | {"caps": {"seconds": self._caps.seconds, "memory": self._caps.memory}}
            )
        self.put(result.encode(), self._results / digest)
        self._known[digest] = None

    def page(self, digest: str, path: str) -> Path:
        """Return where the report on an input is kept; it names the input, so it belongs to its path too."""
        return self._pages / f"{digest[:SHORT]}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:SHORT]}.html"

    def put(self, data: bytes, target: Path) -> None:
        """Write a file whole: nobody ever sees half of it."""
        handle, name = tempfile.mkstemp(dir=self.temporary)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(target)

    def close(self) -> None:
        """Remove the temporary files and let others in."""
        shutil.rmtree(self.folder / MARK / "tmp", ignore_errors=True)
        self._lock.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextlib.contextmanager
    def replacing(self, names: tuple[str, ...]) -> Iterator[Path]:
        """Give a folder for new versions of some files and folders; when all are there they take their places.

        Each is whole at any moment. What is in ``names`` and was not made anew is removed.
        """
        fresh = self.temporary / "fresh"
        fresh.mkdir()
        yield fresh
        old = self.temporary / "old"
        old.mkdir()
        for name in names:
            target = self.folder / name
            if target.is_dir() and not target.is_symlink():
                target.rename(old / name)  # a folder cannot be renamed over one that has files
            elif not (fresh / name).exists():
                target.unlink(missing_ok=True)
            if (fresh / name).exists():
                (fresh / name).rename(target)
        shutil.rmtree(old, ignore_errors=True)
