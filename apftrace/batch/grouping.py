"""Which traces were recorded together: a host's, and those of its guests."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from apftrace.batch.runs import ANALYSED

if TYPE_CHECKING:
    from collections.abc import Sequence

    Line = dict[str, Any]

HOST = "host"


@dataclass(frozen=True)
class Group:
    """A host's trace and those of its guests, by their paths."""

    host: str
    guests: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them, the host's first."""
        return (self.host, *self.guests)


def find_groups(lines: Sequence[Line]) -> list[Group]:
    """Group traces by the ids of their sessions, then by their folders.

    trace-cmd writes into a host's trace which guests it recorded, under the ids that their traces carry. Where
    nobody wrote that, a guest's trace belongs to the host's in its folder, if there is one and only one.
    """
    usable = [line for line in lines if line["status"] == ANALYSED]
    found: dict[str, list[str]] = defaultdict(list)
    hosts = [line for line in usable if line["machine"] == HOST]
    by_folder = defaultdict(list)
    for line in hosts:
        if line["counts"]["lives"]:
            by_folder[_folder(line)].append(line)
    for guest in usable:
        owners = [host for host in hosts if guest["trace_id"] in host["guests"] and host is not guest]
        if owners:
            found[_nearest(owners, guest)].append(guest["path"])
        elif guest["machine"] != HOST:
            beside = by_folder[_folder(guest)]
            if len(beside) == 1 and not beside[0]["guests"]:
                found[beside[0]["path"]].append(guest["path"])
    return [Group(host, tuple(sorted(guests))) for host, guests in sorted(found.items())]


def _folder(line: Line) -> str:
    return str(line["path"]).rpartition("/")[0]


def _nearest(owners: list[Line], guest: Line) -> str:
    # A recording may be archived twice: its guest belongs to the copy beside it.
    def common(host: Line) -> int:
        steps = zip(_folder(host).split("/"), _folder(guest).split("/"), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], steps))

    return str(min(owners, key=lambda host: (-common(host), host["path"]))["path"])
