"""The same work on a Dask cluster that is already there: its workers each keep a child that does it.

The child is what bounds time and memory and survives a crash, as on one machine; Dask brings the tasks to where
there is room, and to another worker when one is lost. A worker must be able to open what the client names: files on a
file system that both see, or URLs. Members of compressed tars travel with their task.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from apftrace.batch.children import Caps, Child, Outcome
from apftrace.batch.job import Task, file_of
from apftrace.batch.wire import Message
from apftrace.errors import ApftraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
_AHEAD = 2
"""Tasks that wait per thread of the cluster."""

_TOLD = 1 << 20
"""Bytes of digests that may travel with a task."""

_DIGEST = 32
_WAIT = 30
_CARRIED = 256 << 20
"""Bytes of an input that may travel with its task."""

_here = threading.local()


class NoCluster(ApftraceError):
    """A cluster that cannot be used."""


class Cluster(Generic[T]):
    """Runs tasks on a Dask cluster."""

    def __init__(self, address: str, caps: Caps) -> None:
        """Connect.

        Args:
            address: of the scheduler.
            caps: what one task may take.

        Raises:
            NoCluster: there is no scheduler at the address, or distributed is not installed.
        """
        try:
            from distributed import Client
        except ImportError:
            raise NoCluster("--cluster needs the extra cluster: pip install 'apftrace[cluster]'") from None
        try:
            self._client: Any = cast("Any", Client)(address, timeout=_WAIT, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            words = str(error).splitlines()
            raise NoCluster(f"{address}: no Dask scheduler answers: {words[0] if words else error}") from None
        self._caps = caps

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def run(
        self, items: Iterable[T], task_of: Callable[[T], Task | None], digests: Iterable[str] = ()
    ) -> Iterator[tuple[T, Outcome | None]]:
        """Yield each item with its outcome, as they come; without one where there is nothing to do.

        Args:
            items: what to work through.
            task_of: what to do for an item, null for nothing.
            digests: inputs whose results are there already.
        """
        from distributed import as_completed

        known = b"".join(map(bytes.fromhex, digests))
        if len(known) > _TOLD:  # it goes with every task: doing some again is cheaper
            known = b""
        coming: Any = cast("Any", as_completed)(loop=self._client.loop)
        item_of: dict[str, tuple[T, Task]] = {}
        remaining = iter(items)
        idle: deque[T] = deque()
        exhausted = False
        while True:
            while not exhausted and len(item_of) < _AHEAD * self._threads():
                item = next(remaining, None)
                if item is None:
                    exhausted = True
                elif (task := task_of(item)) is None:
                    idle.append(item)
                else:
                    future = self._submitted(task, known)
                    item_of[future.key] = (item, task)
                    coming.add(future)
                    del future
            while idle:
                yield idle.popleft(), None
            if not item_of:
                return
            future = next(coming)
            item, task = item_of.pop(future.key)
            outcome = _outcome(future)
            if outcome.answer.data.get("status") == "absent":
                # That worker does not see this machine's files: the bytes have to travel.
                again = self._submitted(_carrying(task), known)
                item_of[again.key] = (item, task)
                coming.add(again)
                continue
            yield item, outcome
            del item, future

    def _threads(self) -> int:
        threads: int = sum(self._client.nthreads().values())
        return max(1, threads)

    def _submitted(self, task: Task, known: bytes) -> Any:
        # Impure: equal arguments are still two inputs.
        caps = (self._caps.seconds, self._caps.memory)
        return self._client.submit(work, task.message().encode(), known, caps, pure=False)


def _outcome(future: Any) -> Outcome:
    from distributed import KilledWorker

    try:
        frame, sha256, size, took = future.result()
    except KilledWorker:
        return Outcome(
            Message({"status": "crashed", "reason": "the cluster's workers died over it"}), None, None, 0.0
        )
    from apftrace.batch import wire

    return Outcome(wire.decode(frame), sha256, size, took)


def _carrying(task: Task) -> Task:
    """Return a task with the bytes of its files in it."""
    inputs = []
    for shown, access in task.inputs:
        with contextlib.ExitStack() as stack:
            path = Path(stack.enter_context(file_of(access, task)))
            if path.stat().st_size > _CARRIED:
                raise NoCluster(f"{shown}: the cluster does not see it, and it is too large to be sent along")
            inputs.append((shown, {"hex": path.read_bytes().hex()}))
    return replace(task, inputs=tuple(inputs))


def work(frame: bytes, known: bytes, caps: tuple[float, int]) -> tuple[bytes, str | None, int | None, float]:
    """Do one task in a worker of a cluster; the function that the client submits.

    Args:
        frame: the task.
        known: digests of inputs whose results are there already, one after the other.
        caps: seconds and bytes that it may take.

    Returns:
        The answer's frame, digest and size of the input, and seconds.
    """
    from apftrace.batch import wire

    task = Task.of(wire.decode(frame))
    with contextlib.ExitStack() as stack:
        # The client's folder for temporary files is the client's.
        task = replace(task, spool=stack.enter_context(tempfile.TemporaryDirectory(prefix="apftrace-")))
        if any(_is_absent(access) for _, access in task.inputs):
            return Message({"status": "absent"}).encode(), None, None, 0.0
        digests = frozenset(known[at : at + _DIGEST].hex() for at in range(0, len(known), _DIGEST))
        done = _child(Caps(*caps)).do(task, digests.__contains__)
    return done.answer.encode(), done.sha256, done.size, done.took


def _is_absent(access: dict[str, Any]) -> bool:
    path = access.get("file") or access.get("zip")
    return path is not None and not Path(path).exists()


def _child(caps: Caps) -> Child:
    """Return the child of this thread, which outlives a task."""
    child: Child | None = getattr(_here, "child", None)
    if child is None or child.caps != caps:
        child = _here.child = Child(caps)
    return child
