"""The pool: some worker processes, fed from a walk that never gets far ahead of them."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from apftrace.batch.children import Caps, Child, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from apftrace.batch.job import Task

T = TypeVar("T")
_AHEAD = 2
"""Inputs that wait per worker: each may be a temporary file."""


class Pool(Generic[T]):
    """Runs tasks in worker processes of this machine.

    One thread of this process attends to each worker and sleeps while it works; one more walks the sources.
    """

    def __init__(self, jobs: int, caps: Caps, is_known: Callable[[str], bool]) -> None:
        self._jobs = jobs
        self._caps = caps
        self._is_known = is_known
        self._stop = threading.Event()
        self._work: queue.Queue[tuple[T, Task] | None] = queue.Queue(jobs * _AHEAD)
        self._done: queue.Queue[tuple[T, Outcome] | BaseException | None] = queue.Queue(jobs * _AHEAD)

    def run(
        self, items: Iterable[T], task_of: Callable[[T], Task | None]
    ) -> Iterator[tuple[T, Outcome | None]]:
        """Yield each item with its outcome, as they come; without one where there is nothing to do.

        Args:
            items: what to work through; consumed in another thread.
            task_of: what to do for an item, null for nothing.

        Raises:
            NoRoom: temporary files cannot be written.
            OSError: no worker can be started.
        """
        idle: deque[T] = deque()
        threads = [threading.Thread(target=self._attend) for _ in range(self._jobs)]
        threads.append(threading.Thread(target=self._feed, args=(items, task_of, idle)))
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                done = self._done.get()
                while idle:
                    yield idle.popleft(), None
                if isinstance(done, BaseException):
                    raise done
                if done is None:
                    running -= 1
                else:
                    yield done
        finally:
            self._stop.set()
            self._drain(threads)

    def _feed(self, items: Iterable[T], task_of: Callable[[T], Task | None], idle: deque[T]) -> None:
        try:
            for item in items:
                if self._stop.is_set():
                    return
                task = task_of(item)
                if task is None:
                    idle.append(item)
                else:
                    self._work.put((item, task))
        except BaseException as error:
            self._done.put(error)
        finally:
            for _ in range(self._jobs):
                self._work.put(None)
            self._done.put(None)

    def _attend(self) -> None:
        child = Child(self._caps)
        try:
            while (given := self._work.get()) is not None and not self._stop.is_set():
                item, task = given
                self._done.put((item, child.do(task, self._is_known)))
                del given, item, task
        except BaseException as error:
            self._done.put(error)
        finally:
            child.close()
            self._done.put(None)

    def _drain(self, threads: list[threading.Thread]) -> None:
        # Whoever waits for room in a queue must see that it is over.
        while any(thread.is_alive() for thread in threads):
            for waiting in (self._done, self._work):
                try:
                    while True:
                        waiting.get_nowait()
                except queue.Empty:
                    pass
            for _ in range(self._jobs):
                try:
                    self._work.put_nowait(None)
                except queue.Full:
                    break
            threads[-1].join(0.05)
            for thread in threads[:-1]:
                thread.join(0.01)
