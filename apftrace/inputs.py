"""Several traces of one session: which is the host's, which are guests', and what the guests are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from apftrace.errors import InputsError
from apftrace.model.guest.identity import guest_name, is_guest, serves_pages
from apftrace.model.guest.pair import GuestInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from apftrace.model.guest.tsc import TscOffset
    from apftrace_parsers.base import Source


@dataclass(frozen=True)
class Session:
    """What belongs together: one host, null when only a guest was recorded, and its guests."""

    host: Source | None
    guests: tuple[GuestInput, ...]


def session(
    sources: Sequence[Source],
    guests: Sequence[tuple[str | None, Source]] = (),
    tsc: Mapping[str | None, TscOffset] | None = None,
) -> Session:
    """Sort traces into a host and its guests, by what they hold.

    Args:
        sources: traces of unknown role.
        guests: traces that are guests' because the user says so, with the name to use or null.
        tsc: TSC offsets by guest name; null for every guest that is not named.

    Raises:
        InputsError: several hosts, or several guests without a host.
    """
    parts = [part for source in sources for part in _parts(source)]
    hosts = [part for part in parts if not _is_guest(part, parts)]
    if len(hosts) > 1:
        # A guest without probes shows nothing that a host would not; but it serves no pages.
        hosts = [part for part in hosts if part.info.guests or serves_pages(part)] or hosts
    if len(hosts) > 1:
        names = ", ".join(_named(host) for host in hosts)
        raise InputsError(f"several host traces: {names}; analyse them one by one, name guests with --guest")
    host = hosts[0] if hosts else None
    found = [(None, part) for part in parts if part is not host]
    forced = [(name, part) for name, source in guests for part in _parts(source)]
    every = [*found, *forced]
    if host is None and len(every) > 1:
        names = ", ".join(_named(part) for _, part in every)
        raise InputsError(f"no host trace among {names}; analyse guests without their host one by one")
    return Session(host, tuple(_inputs(host, every, tsc or {})))


def _parts(source: Source) -> list[Source]:
    return [source.machine(name) for name in source.machines] or [source]


def _is_guest(part: Source, parts: Sequence[Source]) -> bool:
    if part.info.guests:
        return False
    named = {g.trace_id for other in parts if other is not part for g in other.info.guests}
    if part.info.trace_id is not None and part.info.trace_id in named:
        return True
    return is_guest(part)


def _inputs(
    host: Source | None, guests: Iterable[tuple[str | None, Source]], tsc: Mapping[str | None, TscOffset]
) -> Iterable[GuestInput]:
    taken = {"host"}
    for given, source in guests:
        base = name = given or guest_name(source.info, host.info if host is not None else None)
        number = 2
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name)
        yield GuestInput(source, name, tsc.get(name, tsc.get(None)))


def _named(source: Source) -> str:
    machine = source.info.options.get("machine")
    path = PurePath(source.info.path).name
    return f"{path} ({machine})" if machine else path
