"""The program ``apftrace``, and ``python -m apftrace``."""

import atexit
import gc
import os
import sys

INTERRUPTED = 130

_OBJECTS = 50_000
"""New objects after which cycles are looked for. Importing modules makes many objects and hardly a cycle: at the
default of 700 a twentieth of a small run goes into looking."""


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, also while modules are being imported."""
    gc.set_threshold(_OBJECTS)
    try:
        from apftrace.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        leave(end)


def leave(end: SystemExit) -> None:
    """End the process, and let the system have its memory back at once.

    To take the interpreter and its tables apart, object by object, is a tenth of a small run. What libraries have to
    tidy up, as folders of their downloads, they do before.

    Raises:
        SystemExit: ``end``, where something is left to be said or cannot be written.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        raise end from None
    if not isinstance(end.code, int):
        raise end
    atexit._run_exitfuncs()
    os._exit(end.code)


if __name__ == "__main__":
    main()
