"""What the compiled modules use of Cython, for interpreters that run their source as it stands."""

from __future__ import annotations

from contextlib import nullcontext

compiled = False
nogil = nullcontext()
