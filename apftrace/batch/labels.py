"""Which kernel, host and job a run belongs to: from a sidecar, from its path, or from the trace itself."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from apftrace.errors import ApftraceError

if TYPE_CHECKING:
    from collections.abc import Iterable

LABELS = ("kernel", "host", "job")
UNKNOWN = "unknown"
_LONGEST = 200
_TOKEN = re.compile(r"\{(\w*)\}|(\*\*/)|(\*)|(\?)")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")


class BadPattern(ApftraceError):
    """A path pattern that means nothing."""


@dataclass
class Labels:
    """All that says which labels an input has.

    Attributes:
        patterns: paths with ``{kernel}``, ``{host}`` and ``{job}`` in them, the first that fits counts.
    """

    patterns: Iterable[str] = ()
    _patterns: list[re.Pattern[str]] = field(default_factory=list)
    _sidecars: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._patterns = [compiled(pattern) for pattern in self.patterns]

    def sidecar(self, folder: str, content: bytes) -> str | None:
        """Take in a sidecar; return what is wrong with it, null when nothing is."""
        try:
            data = json.loads(content)
        except (ValueError, RecursionError):
            return "no JSON"
        if not isinstance(data, dict) or not all(isinstance(data.get(one, ""), str) for one in LABELS):
            return "no object with texts for kernel, host and job"
        self._sidecars[folder] = {one: data[one][:_LONGEST] for one in LABELS if data.get(one)}
        return None

    def of(self, path: str) -> dict[str, str]:
        """Return the labels of an input that its surroundings tell; those of a nearer sidecar win."""
        found = self._by_pattern(path)
        parts = path.split("/")
        for at in range(len(parts)):
            found |= self._sidecars.get("/".join(parts[:at]), {})
        return found

    def _by_pattern(self, path: str) -> dict[str, str]:
        for pattern in self._patterns:
            match = pattern.search(path)
            if match:
                return {one: text[:_LONGEST] for one, text in match.groupdict().items() if text}
        return {}


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a path pattern as a regular expression that fits the end of a path.

    ``{kernel}``, ``{host}`` and ``{job}`` each stand for (a part of) one folder or file name, ``{}`` for one that
    does not matter; ``*``, ``?`` and ``**/`` are as in the shell.

    Raises:
        BadPattern: it names something else, or the same twice.
    """
    out, at, seen = [], 0, set()
    for match in _TOKEN.finditer(pattern):
        out.append(re.escape(pattern[at : match.start()]))
        at = match.end()
        name, deep, star, _ = match.groups()
        if name:
            if name not in LABELS or name in seen:
                raise BadPattern(
                    f"{pattern}: {{{name}}} is not one of {{kernel}}, {{host}} and {{job}}, each once"
                )
            seen.add(name)
            out.append(f"(?P<{name}>[^/]+)")
        else:
            out.append("(?:[^/]+/)*" if deep else "[^/]*" if star else "[^/]+" if name == "" else "[^/]")
    out.append(re.escape(pattern[at:]))
    if not seen:
        raise BadPattern(f"{pattern}: none of {{kernel}}, {{host}} and {{job}} is in it")
    return re.compile(f"(?:^|/){''.join(out)}$", re.S)


def folder_of(kernel: str) -> str:
    """Return the name of a partition folder; never a number, or readers would make 6.1 of 6.10."""
    safe = _UNSAFE.sub("_", kernel)[:100]
    return f"kernel={'v' if safe[:1].isdigit() else ''}{safe or UNKNOWN}"
