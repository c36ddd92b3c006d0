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
    from collections.abc import Iterator, Mapping

    from apftrace.batch.children import Caps

SHORT = 16
"""Hexadecimal digits of a digest that name a run where people see it."""

_LIMITED = frozenset({"timeout", "memory"})


class Busy(ApftraceError):
    """Another batch writes into the same folder."""


class Taken(ApftraceError):
    """What is in the folder is somebody else's."""


class Store:
    """Results by digest of the input.

    Attributes:
        folder: the output folder.
        temporary: folder for temporary files, gone when the store is closed.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], caps: Caps, made: Mapping[str, str]) -> None:
        """Open or make an output folder.

        Args:
            folder: the output folder.
            settings: all that decides what a result is; results of other settings are not used.
            caps: what a task may take now; one that took more than less is tried again.
            made: names of all that a batch leaves in the folder, each with the pattern of the files below
                it, which is empty where it is a file itself; last the one that says that all are there.

        Raises:
            Taken: something has one of these names, and no batch ever wrote into the folder.
            Busy: another batch is at work in it.
            OSError: it cannot be made or written.
        """
        self.folder = folder
        self._caps = caps
        self._made = made
        own = folder / MARK
        taken = [name for name in made if os.path.lexists(folder / name)]
        if taken and not (own / "lock").exists():
            raise Taken(
                f"{folder}: holds {', '.join(taken)}, which no apftrace batch wrote; choose another folder"
            )
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
    def replacing(self) -> Iterator[Path]:
        """Give a folder for new versions of all that is made; when all are there they take their places.

        Each file is whole at any moment, and all are of one batch where the last is there: it goes first and comes
        last. What an earlier batch made and this one did not is removed; what others put beside it stays.
        """
        fresh = self.temporary / "fresh"
        fresh.mkdir()
        yield fresh
        (self.folder / list(self._made)[-1]).unlink(missing_ok=True)
        for name, pattern in self._made.items():
            if pattern:
                _replace_files(self.folder / name, fresh / name, pattern)
            else:
                _replace_file(self.folder / name, fresh / name)


def _replace_file(target: Path, fresh: Path) -> None:
    if fresh.exists():
        fresh.replace(target)
    else:
        target.unlink(missing_ok=True)


def _replace_files(target: Path, fresh: Path, pattern: str) -> None:
    for old in list(target.glob(pattern)):
        if not (fresh / old.relative_to(target)).exists():
            old.unlink()
            with contextlib.suppress(OSError):  # it holds others
                if old.parent != target:
                    old.parent.rmdir()
    target.mkdir(exist_ok=True)
    for new in list(fresh.glob(pattern)):
        place = target / new.relative_to(fresh)
        place.parent.mkdir(exist_ok=True)
        new.replace(place)
