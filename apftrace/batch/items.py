"""What a walk finds: inputs, how a worker gets at their bytes, labels beside them, and what is no input."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from apftrace.batch.containers import is_tar, is_zip
from apftrace.batch.unpack import compression

if TYPE_CHECKING:
    from typing import Any

    from apftrace.batch.limits import Spooled

HEAD = 512
"""Bytes of a file's beginning by which it is told what it is."""

SIDECAR = "apftrace-labels.json"
"""A file of this name says what kernel, host and job the traces beside and below it belong to."""

_COMPANION = re.compile(
    r".*\.(?:c|cfg|conf|config|css|csv|gitignore|h|html?|ini|jpe?g|js|json|jsonl|lock|log|md|parquet|patch|png|py|rst"
    r"|sh|svg|tap|toml|txt|xml|ya?ml)",
    re.I | re.S,
)
"""Names of what lies beside traces in every CI; such a file is a trace only when a parser knows it."""

_TRACE_NAME = re.compile(r".*(?:\.dat|\.data|trace|\.perf)(?:\.\d+)?", re.I | re.S)


class Access(Protocol):
    """How a worker gets at the bytes of an input."""

    def task(self) -> dict[str, Any]:
        """Return it as plain values that can be sent to a worker."""


@dataclass(frozen=True)
class OnDisk:
    """A file that a worker opens itself; ``spooled`` keeps a temporary one alive."""

    path: str
    spooled: Spooled | None = None

    def task(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"file": self.path}


@dataclass(frozen=True)
class InZip:
    """A member of a zip on disk, unpacked by the worker."""

    path: str
    index: int
    spooled: Spooled | None = None

    def task(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"zip": self.path, "index": self.index}


@dataclass(frozen=True)
class AtUrl:
    """A file that a worker fetches with fsspec."""

    url: str

    def task(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"url": self.url}


@dataclass(frozen=True)
class Item:
    """One input.

    Attributes:
        path: as reports name it: the source as the user named it, then the way inside.
        name: the way inside the source, by which runs of two batches are compared.
        access: how to read it; null when ``problem`` says why it is not.
        status: ``refused``, ``unreadable`` or ``skipped`` when it is not read.
        problem: why.
        weight: bytes that it accounts for in the progress.
        identity: what it really is; the same file found twice is one input.
    """

    path: str
    name: str
    access: Access | None
    status: str = ""
    problem: str = ""
    weight: int = 0
    identity: str = ""


@dataclass(frozen=True)
class Sidecar:
    """Labels that a file among the traces gives to all in its folder."""

    folder: str
    content: bytes


def is_companion(name: str, head: bytes) -> bool:
    """Say whether a file is one of those that lie beside traces in every CI, by its name or because it is text."""
    if _COMPANION.fullmatch(name):
        return True
    is_text = not head.translate(None, bytes(range(32, 127)) + b"\t\r\n")
    return is_text and not _TRACE_NAME.fullmatch(name)


def is_archive(head: bytes) -> bool:
    """Say whether a file that starts with ``head`` is an archive or compressed."""
    return is_zip(head) or is_tar(head) or compression(head) is not None


def is_trace(head: bytes) -> bool:
    """Say whether a parser knows a file that starts with ``head``."""
    from apftrace_parsers.registry import BUILTIN, plugins

    return any(parser.sniff(head) for parser in (*BUILTIN, *plugins()))


def failed(path: str, name: str, status: str, problem: str, weight: int = 0, identity: str = "") -> Item:
    """Return an input that is named but not read."""
    return Item(path, name, None, status, problem, weight, identity or path)
