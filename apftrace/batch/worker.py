"""A worker process: reads tasks from stdin, writes answers to stdout, and dies with its parent.

    python -m apftrace.batch.worker

It first tells the digest of an input and is told whether to go on. Started as a fresh interpreter: polars and
fork do not mix.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from apftrace.batch import wire
from apftrace.batch.job import Task, run
from apftrace.batch.wire import Message

if TYPE_CHECKING:
    from typing import BinaryIO

_ORPHANED = 3
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer tasks until there are no more."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever else prints, prints elsewhere
    _die_with_parent()
    _first_to_go()
    import polars as pl  # before the first task, whose time it would count in
    import pyarrow as pa

    import apftrace.model.analyse

    pa.set_cpu_count(1)
    _ = pl, apftrace.model.analyse
    tasks = os.fdopen(0, "rb", buffering=0)
    _send(answers, Message({"ready": True}))
    while (message := wire.read(tasks.read)) is not None:
        _send(answers, _answer(Task.of(message), tasks, answers))


def _answer(task: Task, tasks: BinaryIO, answers: BinaryIO) -> Message:
    def go_on(digest: str, size: int) -> bool:
        _send(answers, Message({"sha256": digest, "size": size}))
        reply = wire.read(tasks.read)
        return reply is not None and bool(reply.data["go_on"])

    try:
        return run(task, go_on)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        words = " ".join(str(error).split())[:300]
        return Message({"status": "crashed", "reason": f"{type(error).__name__}: {words} ({place})"})


def _send(answers: BinaryIO, message: Message) -> None:
    left = memoryview(message.encode())
    while left:
        left = left[answers.write(left) :]


def _die_with_parent() -> None:
    # Twice: the kernel's way also ends a loop that never lets go of the GIL.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    # The parent holds the other end of stdin; when it is gone nobody wants the answer.
    poll = select.poll()
    poll.register(0, 0)
    poll.poll()
    os._exit(_ORPHANED)


def _first_to_go() -> None:
    # Where memory runs out, the kernel shall take this process rather than its parent.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", "ascii")


if __name__ == "__main__":
    main()
