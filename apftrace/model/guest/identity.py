"""Whose trace it is: the host's or a guest's, and what the guest is called."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from apftrace.filenames import as_text
from apftrace.model import tracepoints as tp
from apftrace.model.guest import hooks as hk
from apftrace_parsers.base import PassResult

if TYPE_CHECKING:
    from apftrace_parsers.base import Source, SourceInfo

_HOST_EVENTS = (tp.TRY, tp.REPEATED, tp.NOT_PRESENT, tp.READY, tp.COMPLETED)


def is_guest(source: Source) -> bool:
    """Say whether a trace is a guest's: it waited for pages, and did not serve any.

    A guest that runs guests of its own and recorded those is a host here.
    """
    if "peer trace id" in source.info.options:
        return True
    hooks = hk.find_hooks(source)
    if source.info.guests or not hooks:
        return False
    return not serves_pages(source) and bool(hk.hits_of(source))


def serves_pages(source: Source) -> bool:
    """Say whether a trace shows that its machine served guests' asynchronous page faults."""
    result = PassResult()
    for _ in source.stream((), result):
        pass
    served = source.resolve([tp.PICKS[kind] for kind in _HOST_EVENTS])
    return any(found and result.counts.get(found.event) for found in served)


def guest_name(guest: SourceInfo, host: SourceInfo | None = None) -> str:
    """Return what a guest is called: as its host's trace names it, else as its file is.

    trace-cmd record -A names the guest's file after the host's: ``trace.dat`` and ``trace-vm1.dat``.

    Args:
        guest: of the guest's trace.
        host: of the host's, where there is one.
    """
    if host is not None and guest.trace_id is not None:
        for known in host.guests:
            # trace-cmd without a name writes the guest's CID there.
            if known.trace_id == guest.trace_id and known.name and not known.name.isdecimal():
                return known.name
    stem = _stem(guest)
    shorter = stem.removeprefix(f"{_stem(host)}-") if host is not None else stem.removeprefix("trace-")
    return shorter or stem


def _stem(info: SourceInfo) -> str:
    name = PurePath(info.options.get("machine", info.path)).name
    for suffix in (".gz", ".txt", ".dat", ".trace"):
        name = name.removesuffix(suffix)
    return as_text(name) or "guest"
