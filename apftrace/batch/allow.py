"""The allow-list: what is known, where, why, and until when."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from apftrace.batch.labels import LABELS
from apftrace.errors import ApftraceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCOPES = (*LABELS, "path")
_KEYS = {"rule", "scope", "reason", "expires"}


class BadAllowList(ApftraceError):
    """An allow-list that does not say what it must."""


@dataclass
class Entry:
    """One thing that is allowed.

    Attributes:
        rule: a rule, or a change such as ``slower:p2``; may be a glob.
        scope: globs by label or path; a run must fit all of them.
        reason: why it is allowed.
        expires: last day on which it is.
        used: findings and changes that it covered.
    """

    rule: str
    scope: dict[str, str]
    reason: str
    expires: date
    used: int = 0

    def covers(self, rule: str, where: Mapping[str, str]) -> bool:
        """Say whether it is about this rule at this place; a place that a scope names must be known."""
        return fnmatchcase(rule, self.rule) and all(
            label in where and fnmatchcase(where[label], pattern) for label, pattern in self.scope.items()
        )


@dataclass
class AllowList:
    """All entries, those that have expired apart.

    Attributes:
        entries: in force.
        expired: no longer.
    """

    entries: list[Entry] = field(default_factory=list)
    expired: list[Entry] = field(default_factory=list)

    def reason(self, rule: str, where: Mapping[str, str], count: int = 1) -> str | None:
        """Return why something is allowed, null when it is not; remembers that the entry was needed."""
        for entry in self.entries:
            if entry.covers(rule, where):
                entry.used += count
                return entry.reason
        return None

    def remarks(self) -> list[str]:
        """Return what somebody should tidy up."""
        out = [f"expired on {one.expires}: {one.rule} ({one.reason})" for one in self.expired]
        return out + [f"covers nothing: {one.rule} ({one.reason})" for one in self.entries if not one.used]


def today() -> date:
    """Return the date that counts: that of SOURCE_DATE_EPOCH where it is set, so that a run can be repeated."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    return (datetime.fromtimestamp(int(fixed), UTC) if fixed.isdecimal() else datetime.now(UTC)).date()


def read_allow_list(path: Path, on: date) -> AllowList:
    """Read an allow-list.

    Args:
        path: a TOML file of ``[[allow]]`` tables with rule, scope, reason and expires.
        on: the day for which it is asked.

    Raises:
        BadAllowList: an entry lacks something, or has something that is not known.
        OSError: the file cannot be read.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadAllowList(f"{path}: no TOML: {error}") from None
    tables = data.pop("allow", [])
    if data or not isinstance(tables, list):
        raise BadAllowList(f"{path}: expected nothing but [[allow]] tables")
    out = AllowList()
    for number, table in enumerate(tables, 1):
        entry = _entry(table, f"{path}: entry {number}")
        (out.entries if on <= entry.expires else out.expired).append(entry)
    return out


def _entry(table: Any, where: str) -> Entry:
    if not isinstance(table, dict) or set(table) - _KEYS:
        raise BadAllowList(f"{where}: expected only {', '.join(sorted(_KEYS))}")
    for key in ("rule", "reason"):
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise BadAllowList(f"{where}: {key} is missing or no text")
    expires = table.get("expires")
    if isinstance(expires, datetime):
        expires = expires.date()
    if not isinstance(expires, date):
        raise BadAllowList(f"{where}: expires is missing or no date such as 2027-01-31")
    scope = table.get("scope")
    if (
        not isinstance(scope, dict)
        or set(scope) - set(SCOPES)
        or not all(isinstance(v, str) for v in scope.values())
    ):
        raise BadAllowList(f"{where}: scope must be a table of {', '.join(SCOPES)}; {{}} is everywhere")
    return Entry(table["rule"], scope, table["reason"], expires)
