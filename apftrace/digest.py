"""SHA-256 of the inputs, for the reports that name them, and of the code that reads them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apftrace.analysis import Analysis


def with_digests(analysis: Analysis) -> Analysis:
    """Return the analysis with the digest of each input file.

    Raises:
        OSError: an input cannot be read any more.
    """
    inputs = tuple(replace(i, sha256=sha256(i.path)) for i in analysis.inputs)
    return replace(analysis, inputs=inputs)


def sha256(path: str) -> str:
    """Return the SHA-256 of a file, as hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code() -> str:
    """Return the SHA-256 of apftrace's own sources, as hex: another analysis may come to other results."""
    import apftrace
    import apftrace_parsers
    import apftrace_reports

    whole = hashlib.sha256()
    for package in (apftrace, apftrace_parsers, apftrace_reports):
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            whole.update(f"{path.relative_to(folder)}\n".encode())
            whole.update(path.read_bytes())
    return whole.hexdigest()
