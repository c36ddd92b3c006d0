"""Which guest is which VM, and how its clock is brought to the host's: recorded, by the TSC, or inferred."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model.guest import inference
from apftrace.model.guest.candidates import hits_of, host_lives
from apftrace.model.guest.clock import GIVEN, SYNCHRONISED, TSC, Alignment, ClockMap
from apftrace.model.guest.inference import RIVAL_VM, Attempt
from apftrace.model.guest.tsc import TscOffset, tsc_map

if TYPE_CHECKING:
    from apftrace.model.correlate import Case
    from apftrace.model.guest.recording import GuestRecording
    from apftrace_parsers.base import SourceInfo


GROUP = "vm-"
"""How a VM is called that is only known as threads with one guest memory."""

_TEXT_GRAIN = 1000
"""ns to which text rounds its stamps, at both ends of a comparison; ticks are whole."""


@dataclass(frozen=True)
class HostClock:
    """What the host's side offers for bringing clocks together.

    Attributes:
        case: its lives and threads.
        info: facts of its trace.
        tsc_offsets: last TSC offset by vCPU thread, where traced.
    """

    case: Case
    info: SourceInfo
    tsc_offsets: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GuestClock:
    """A guest's side of the same.

    Attributes:
        rec: its hits.
        info: facts of its trace.
        given: how its TSC relates to the host's, where the user says so.
    """

    rec: GuestRecording
    info: SourceInfo
    given: TscOffset | None = None


def align(host: HostClock, guests: tuple[GuestClock, ...]) -> tuple[Alignment, ...]:
    """Find for each guest its VM and its clock; no VM is taken twice.

    What the files say of each other (trace ids) comes first. Then the guest and the VM with most tokens that
    agree belong together, and so on with the rest.
    """
    by_vm = {str(vm): host_lives(host.case, vm) for vm in host.case.threads["vm"].unique(maintain_order=True)}
    tries = [_attempts(host, guest, by_vm) for guest in guests]
    out: dict[int, Alignment] = {}
    taken: set[str] = set()
    while len(out) < len(guests):
        left = [
            (attempt.votes, -i, vm)
            for i, found in enumerate(tries) if i not in out
            for vm, attempt in found.items() if vm not in taken and attempt.alignment.refused is None
        ]  # fmt: skip
        if not left:
            break
        votes, at, vm = max(left)
        attempt = tries[-at][vm]
        kin = _also(vm, tries[-at], by_vm)
        rivals = [
            v for v, i, other in left
            if i == at and other != vm and other not in kin and v >= max(1, RIVAL_VM * votes)
        ]  # fmt: skip
        if rivals:
            refused = f"the tokens fit {1 + len(rivals)} VMs alike"
            out[-at] = Alignment(attempt.alignment.machine, refused=refused)
            continue
        also = _also(vm, tries[-at], {v: lives for v, lives in by_vm.items() if v not in taken})
        if also:
            attempt = _attempt_all(host, guests[-at], [vm, *also], by_vm)
        out[-at] = attempt.alignment
        taken |= {vm, *also}
    return tuple(out[i] if i in out else _unplaced(guest, tries[i], taken) for i, guest in enumerate(guests))


def _also(vm: str, found: dict[str, Attempt], by_vm: dict[str, pl.DataFrame]) -> list[str]:
    """Return the other groups of vCPU threads that are of the same VM.

    Where the host's trace does not show guest memory, every thread is a group of its own. Those that the same
    guest fits at the same time, and that are other vCPUs, are one VM.
    """
    if not vm.startswith(GROUP):
        return []
    a = found[vm].alignment
    vcpus = set(by_vm[vm]["vcpu"])
    out = []
    for other, attempt in found.items():
        b = attempt.alignment
        if other == vm or not other.startswith(GROUP) or other not in by_vm or b.clock is None:
            continue
        own = set(by_vm[other]["vcpu"])
        if own.isdisjoint(vcpus) and _overlap(a, b):
            out.append(other)
            vcpus |= own
    return out


def _overlap(a: Alignment, b: Alignment) -> bool:
    if a.offset is None or b.offset is None or a.within is None or b.within is None:
        return False
    return abs(a.offset - b.offset) <= a.within + b.within


def _attempt_all(
    host: HostClock, guest: GuestClock, vms: list[str], by_vm: dict[str, pl.DataFrame]
) -> Attempt:
    lives = pl.concat([by_vm[vm] for vm in vms]).sort("life")
    attempt = _attempt(host, guest, vms[0], lives, hits_of(guest.rec))
    return Attempt(replace(attempt.alignment, also=tuple(vms[1:])), attempt.votes)


def _unplaced(guest: GuestClock, found: dict[str, Attempt], taken: set[str]) -> Alignment:
    """Return the refusal that tells most: of the only VM, or of the one that came nearest."""
    free = {vm: attempt for vm, attempt in found.items() if vm not in taken} or found
    if not free:
        return Alignment(guest.rec.machine, refused="the host's trace shows no vCPU with async page faults")
    told = max(free.values(), key=lambda attempt: attempt.alignment.bounds).alignment
    if told.refused is None:
        return Alignment(guest.rec.machine, refused="another guest fits its VM better")
    return told if len(free) == 1 else replace(told, vm=None)


def _attempts(host: HostClock, guest: GuestClock, by_vm: dict[str, pl.DataFrame]) -> dict[str, Attempt]:
    named = [g.name for g in host.info.guests if g.trace_id == guest.info.trace_id and g.trace_id]
    hits = hits_of(guest.rec)
    if named:
        # The host's file names this one. Its VM may have had no async page fault at all.
        vm = named[0]
        lives = by_vm.get(vm, host_lives(host.case, vm))
        return {vm: _attempt(host, guest, vm, lives, hits)}
    return {vm: _attempt(host, guest, vm, lives, hits) for vm, lives in by_vm.items()}


def _attempt(host: HostClock, guest: GuestClock, vm: str, lives: pl.DataFrame, hits: pl.DataFrame) -> Attempt:
    """Try the ways in order of trust, and say why the earlier ones were passed over."""
    told: list[str] = []
    in_text = any("text" in i.format and i.clock_unit == "ns" for i in (host.info, guest.info))
    grain = _TEXT_GRAIN if in_text else 0
    for method, start in _stated(host, guest, vm):
        attempt = inference.confirm(lives, hits, guest.rec, vm, start, method, grain=grain)
        if attempt.alignment.refused is None:
            return _with_notes(attempt, told)
        told.append(f"{method} was not used: {attempt.alignment.refused}")
    same_unit = host.info.clock_unit == guest.info.clock_unit
    attempt = inference.infer(lives, hits, guest.rec, vm, same_unit=same_unit, grain=grain)
    return _with_notes(attempt, told)


def _with_notes(attempt: Attempt, told: list[str]) -> Attempt:
    if not told:
        return attempt
    return Attempt(replace(attempt.alignment, notes=(*told, *attempt.alignment.notes)), attempt.votes)


def _stated(host: HostClock, guest: GuestClock, vm: str) -> list[tuple[str, ClockMap]]:
    """Return what the traces or the user say of the two clocks, the surest first."""
    out: list[tuple[str, ClockMap]] = []
    first = guest.rec.first_ns
    if guest.given is not None:
        given = tsc_map(host.info, guest.info, guest.given, first)
        out += [(GIVEN, given)] if given else []
    merged = guest.info.path == host.info.path  # one report of both, on one clock
    if merged or (guest.info.peer is not None and guest.info.peer == host.info.trace_id):
        out.append((SYNCHRONISED, ClockMap(first, first)))
    tids = host.case.threads.select("tid", "vm").iter_rows()
    offsets = {host.tsc_offsets[tid] for tid, of in tids if of == vm and tid in host.tsc_offsets}
    for offset in sorted(offsets):
        traced = tsc_map(host.info, guest.info, TscOffset(offset), first)
        out += [(TSC, traced)] if traced else []
    return out
