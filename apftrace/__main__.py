"""The program ``apftrace``, and ``python -m apftrace``."""

import gc
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


if __name__ == "__main__":
    main()
