"""The parent's side of one worker process: hand over a task, wait, and end it when it takes too much."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apftrace.batch.limits import NoRoom, in_bytes
from apftrace.batch.wire import Damaged, Decoder, Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from apftrace.batch.job import Task

ATTEMPTS = 3
"""Workers that may die over a task before it is to blame: one may be the victim of somebody else."""

COMMAND = (sys.executable, "-m", "apftrace.batch.worker")
"""A fresh interpreter, not a fork: polars has threads."""

_LOOK = 0.05
_START = 120
_PIPE = 1 << 20
_ROOMY = 1 << 30
"""Memory that a worker may keep between two tasks."""

_ONE_THREAD = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Caps:
    """What one task may take: seconds of wall time, and bytes of memory."""

    seconds: float
    memory: int


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        answer: what the worker said, or what is said of it when it could not.
        sha256: of the input; null when the worker did not get that far.
        size: of the input.
        took: seconds of wall time.
    """

    answer: Message
    sha256: str | None
    size: int | None
    took: float


class _Died(Exception):
    pass


class Child:
    """A worker process that is started when needed, and again after it was ended."""

    def __init__(self, caps: Caps) -> None:
        self.caps = caps
        self._process: subprocess.Popen[bytes] | None = None
        self._decoder = Decoder()
        self._known: tuple[str | None, int | None] = (None, None)

    def do(self, task: Task, is_known: Callable[[str], bool]) -> Outcome:
        """Have a task done.

        Args:
            task: what to do.
            is_known: says of a digest whether its result is there already.

        Raises:
            NoRoom: temporary files cannot be written.
            OSError: no worker can be started.
        """
        start = time.monotonic()
        self._known = (None, None)
        for attempt in range(ATTEMPTS):
            try:
                answer = self._ask(task, is_known)
                break
            except (_Died, Damaged, BrokenPipeError) as error:
                why = self._end() or str(error)
                if attempt + 1 == ATTEMPTS:
                    answer = _said("crashed", f"the worker died {ATTEMPTS} times ({why})")
        if answer.data["status"] == "no room":
            raise NoRoom(answer.data["reason"])
        self._retire_if_fat()
        return Outcome(answer, *self._known, time.monotonic() - start)

    def _ask(self, task: Task, is_known: Callable[[str], bool]) -> Message:
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(task.message().encode())
        process.stdin.flush()
        deadline = time.monotonic() + self.caps.seconds
        while True:
            for message in self._read(process):
                if "sha256" not in message.data:
                    return message
                digest = str(message.data["sha256"])
                self._known = (digest, int(message.data["size"]))
                process.stdin.write(Message({"go_on": not is_known(digest)}).encode())
                process.stdin.flush()
            if time.monotonic() > deadline:
                self._end()
                return _said("timeout", f"took longer than {self.caps.seconds:g} s")
            if _memory(process.pid) > self.caps.memory:
                self._end()
                return _said("memory", f"took more memory than {in_bytes(self.caps.memory)}")

    def _read(self, process: subprocess.Popen[bytes]) -> list[Message]:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        if not select.select([fd], [], [], _LOOK)[0]:
            return []
        piece = os.read(fd, _PIPE)
        if not piece:
            raise _Died("it ended")
        return self._decoder.feed(piece)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._decoder = Decoder()
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
                start_new_session=True,  # the terminal's Ctrl-C is for the parent
            )
            self._wait_until_ready(self._process)
        return self._process

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        # What it imports before is no trace's fault, and not of its time.
        deadline = time.monotonic() + _START
        while not self._read(process):
            if time.monotonic() > deadline:
                raise _Died(f"no worker was ready after {_START} s")

    def _end(self) -> str:
        """End the process; return how it had ended by itself, if it had."""
        process, self._process = self._process, None
        if process is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)  # a pipe may close a moment before its owner ends
        status = process.poll()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        if status is None:
            return ""
        return signal.Signals(-status).name if status < 0 else f"status {status}"

    def _retire_if_fat(self) -> None:
        if self._process is not None and _memory(self._process.pid) > min(_ROOMY, self.caps.memory // 2):
            self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._end()


def _said(status: str, reason: str) -> Message:
    return Message({"status": status, "reason": reason})


def _memory(pid: int) -> int:
    """Return the bytes that a process has for itself: the pages of a mapped trace are not its own."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    found = 0
    for line in status.splitlines():
        if line.startswith((b"RssAnon:", b"RssShmem:")):
            found += int(line.split()[1]) << 10
    return found
