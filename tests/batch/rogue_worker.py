"""A worker that does what the name of its input says: hangs, dies, eats memory, talks nonsense."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

from apftrace.batch import job, worker

KEPT: list[bytearray] = []


def _rogue(task: job.Task) -> None:
    name = Path(task.inputs[0][0]).name
    if name.startswith("hang"):
        with (Path(sys.argv[1]) / "hangs").open("a") as file:
            file.write(".")
        time.sleep(600)
    elif name.startswith("loop"):
        re.match(r"(a+)+$", "a" * 60 + "b")  # never lets go of the GIL
    elif name.startswith("eat"):
        hoard = []
        while True:
            hoard.append(bytearray(b"x") * (8 << 20))
    elif name.startswith("keep"):
        KEPT.append(bytearray(b"x") * (400 << 20))
    elif name.startswith("die"):
        os.kill(os.getpid(), signal.SIGSEGV)
    elif name.startswith("raise"):
        raise ZeroDivisionError("by\nnothing")
    elif name.startswith("nonsense"):
        os.write(_answers(), b"nonsense" * 100)
    elif name.startswith("once"):
        mark = Path(sys.argv[1]) / name
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def _answers() -> int:
    """Return the descriptor on which the parent listens: the pipe that is not stdin."""
    links = (fd for fd in Path("/proc/self/fd").iterdir() if int(fd.name) > 2 and fd.is_symlink())
    return next(int(fd.name) for fd in links if str(fd.readlink()).startswith("pipe:"))


_answer = job._answer


def _patched(task: job.Task, files):
    _rogue(task)
    return _answer(task, files)


job._answer = _patched
worker.main()
