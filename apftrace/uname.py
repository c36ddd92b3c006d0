"""What a trace calls its kernel: a whole ``uname``, as trace-cmd writes it, or the release alone, as ftrace does."""

from __future__ import annotations

import re

_VERSION = re.compile(r"\d+\.\d+")


def release(kernel: str | None) -> str | None:
    """Return the release, ``6.12.0-amd64``; null where none is stated."""
    words = (kernel or "").split()
    if node(kernel) is not None:
        del words[1]
    return next((word for word in words if word[0].isdigit()), None)


def node(kernel: str | None) -> str | None:
    """Return the host's name, the second word of ``Linux buildhost 6.12.0 x86_64``; null where none is stated."""
    words = (kernel or "").split()
    # A host may be called after a version, but then the release comes behind it.
    if len(words) < 3 or (_VERSION.match(words[1]) and not _VERSION.match(words[2])):
        return None
    return words[1]
