"""File names as text: any bytes may be in one."""

from __future__ import annotations


def as_text(name: str) -> str:
    """Return a file name for tables and pages; bytes that are no text stand there as backslash escapes."""
    return name.encode(errors="backslashreplace").decode()
