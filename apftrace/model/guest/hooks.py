"""Which events of a guest's trace show that an async page fault function was entered or left.

Guests have no tracepoints for it, so people put probes on the functions, under any names, or trace them as
functions. A hook is therefore found by the function that it sits on:

    p:apf/task_wait kvm_async_pf_task_wait_schedule token=%di:u32     __probe_ip in the records
    r:back kvm_async_pf_task_wait_schedule                            __probe_func
    function and function_graph tracers                               ip, func

Only where the trace cannot tell functions by their addresses (no kallsyms, or a cut one) names decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace.model.guest.tokens import says_token, token_field
from apftrace_parsers.base import PassResult, Pick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apftrace_parsers.base import EventFormat, Source, Symbols

WAIT = "wait"
WAIT_RETURN = "wait_return"
WAKE = "wake"
WAKE_RETURN = "wake_return"
WAKE_ALL = "wake_all"
IRQ = "irq"
IRQ_RETURN = "irq_return"
ENABLE = "enable"
OFFLINE = "offline"

FUNCTIONS: dict[str, str] = {
    "kvm_async_pf_task_wait_schedule": WAIT,
    # Until 5.8 (6bca69ada4bc).
    "kvm_async_pf_task_wait": WAIT,
    "kvm_async_pf_task_wake": WAKE,
    "apf_task_wake_all": WAKE_ALL,
    "__sysvec_kvm_asyncpf_interrupt": IRQ,
    "kvm_guest_cpu_init": ENABLE,
    "kvm_guest_cpu_offline": OFFLINE,
}
"""Functions of arch/x86/kernel/kvm.c to the kind of hit that entering them is."""

RETURNS = {WAIT: WAIT_RETURN, WAKE: WAKE_RETURN, IRQ: IRQ_RETURN}
"""Kinds of hit whose function's return matters."""

FROM_START = 16
"""A probe this many bytes into a function still shows its start: behind endbr64 and the call of ftrace."""

# Names that people and perf-probe give; the first that matches.
_MEANS = (
    (WAKE_ALL, re.compile(r"wake_?all", re.IGNORECASE)),
    (WAKE, re.compile(r"wake|wakeup", re.IGNORECASE)),
    (WAIT, re.compile(r"wait", re.IGNORECASE)),
    (IRQ, re.compile(r"sysvec|irq|interrupt", re.IGNORECASE)),
)
_ABOUT_ASYNC_PF = re.compile(r"apf|async_?pf", re.IGNORECASE)


@dataclass(frozen=True)
class Hook:
    """One event that may be a hit.

    Attributes:
        event: its name, with its system.
        pick: where it hit as a; as b the token, of a return whether its instant is that of the start.
        returns: it shows a function's end.
        token: which field holds the token; null where none does.
        by_name: the kind that its name means, null where it means none; only used without symbols.
    """

    event: str
    pick: Pick
    returns: bool
    token: str | None
    by_name: str | None

    @property
    def is_probe(self) -> bool:
        """Say whether somebody chose its name and fields."""
        return not self.event.startswith("ftrace:")


class Places:
    """Kinds of hit by the place where a hook sits.

    Args:
        symbols: of the trace.
    """

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self._starts = [(at, kind) for name, kind in FUNCTIONS.items() for at in symbols.find(name)]
        self._named: dict[int, str] = {}

    def kind(self, hook: Hook, place: int) -> str | None:
        """Return the kind of a hit, null where it is none that matters."""
        kind = self._entered(hook, place)
        return RETURNS.get(kind or "") if hook.returns else kind

    def is_known(self, place: int) -> bool:
        """Say whether a place is told by symbols, not by the hook's name."""
        return bool(self._starts) and self._symbols.covers(place)

    def _entered(self, hook: Hook, place: int) -> str | None:
        if not self.is_known(place):
            if hook.by_name and not hook.returns:
                self._named[place] = hook.by_name
            # What sits on the place of a hook whose name says it, sits on that function.
            return hook.by_name or self._named.get(place)
        return next((kind for at, kind in self._starts if 0 <= place - at <= FROM_START), None)


def find_hooks(source: Source) -> tuple[Hook, ...]:
    """Return the events of a trace that may be hits."""
    return (*_probes(source), *_tracers(source))


def hits_of(source: Source) -> tuple[str, ...]:
    """Return the events of a trace that show async page fault functions, by a pass over their records."""
    found = {event for name in source.machines for event in hits_of(source.machine(name))}
    hooks, places = find_hooks(source), Places(source.symbols())
    if hooks and not source.machines:
        for batch in source.stream([hook.pick for hook in hooks], PassResult()):
            hits = zip(batch.column("pick").to_pylist(), batch.column("a").to_pylist(), strict=True)
            found |= {hooks[n].event for n, place in set(hits) if n >= 0 and places.kind(hooks[n], place)}
    return tuple(sorted(found))


def _probes(source: Source) -> Iterator[Hook]:
    for form in source.probes():
        event = _name(form)
        found = source.resolve([Pick((event,), (("__probe_ip",), ("__probe_func",)))])[0]
        if found is None:
            continue
        entered, left, _ = found.fields
        token = token_field(source, form) if entered else None
        where = entered or left
        if where is None:
            continue
        yield Hook(
            event=event,
            pick=Pick((event,), ((where,), () if token is None else (token,))),
            returns=entered is None,
            token=token,
            by_name=_meaning(form),
        )


def _tracers(source: Source) -> Iterator[Hook]:
    for event, place, returns in (
        ("ftrace:function", "ip", False),
        ("ftrace:funcgraph_entry", "func", False),
        ("ftrace:fgraph_retaddr_entry", "func", False),
        ("ftrace:funcgraph_exit", "func", True),
    ):
        pick = Pick((event,), ((place,), ("leaf",) if returns else ("args",)))
        found = source.resolve([pick])[0]
        if found and found.fields[0]:
            yield Hook(event, pick, returns, None if returns else found.fields[1], None)


def _name(form: EventFormat) -> str:
    return f"{form.system}:{form.name}" if form.system else form.name


def _meaning(form: EventFormat) -> str | None:
    name = _name(form)
    if not _ABOUT_ASYNC_PF.search(name) and not any(says_token(f.name) for f in form.schema):
        return None
    return next((kind for kind, means in _MEANS if means.search(form.name)), None)
