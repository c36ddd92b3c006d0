"""The events in which a guest's async page faults can be traced: the functions behind them, and their formats.

Addresses are those of a real kernel without KASLR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .formats import COMMON, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .formats import Format

WAIT = "kvm_async_pf_task_wait_schedule"
WAKE = "kvm_async_pf_task_wake"
IRQ = "__sysvec_kvm_asyncpf_interrupt"
WAKE_ALL = "apf_task_wake_all"
HANDLER = "__kvm_handle_async_pf"
SYSVEC = "sysvec_kvm_asyncpf_interrupt"
ADDRESSES = {
    WAIT: 0xFFFFFFFF8107D280,
    WAKE: 0xFFFFFFFF8107D630,
    IRQ: 0xFFFFFFFF8107DD30,
    WAKE_ALL: 0xFFFFFFFF8107DB10,
    "schedule": 0xFFFFFFFF81A00000,
    HANDLER: 0xFFFFFFFF81CE5D80,
    SYSVEC: 0xFFFFFFFF81CE5E60,
}
PARENTS = {WAIT: HANDLER, WAKE: IRQ, IRQ: SYSVEC, WAKE_ALL: "kvm_guest_cpu_offline"}
KALLSYMS = "".join(f"{at:016x} T {name}\n" for name, at in sorted(ADDRESSES.items(), key=lambda i: i[1]))
TASK_UNINTERRUPTIBLE = 2
NOTHING = '""'

_SIZES = {"u8": 1, "u16": 2, "u32": 4, "s32": 4, "u64": 8, "s64": 8}


def _format(
    system: str, name: str, number: int, *fields: tuple[str, int, bool], shown: str | None = None
) -> Format:
    lines, at = [], 8
    for declaration, size, signed in fields:
        lines.append(f"\tfield:{declaration};\toffset:{at};\tsize:{size};\tsigned:{int(signed)};\n")
        at += size
    head = f"name: {name}\nID: {number}\nformat:\n{COMMON}"
    return parse(system, head + "".join(lines) + f"\nprint fmt: {shown or NOTHING}\n")


def probe(
    name: str, number: int, fields: Mapping[str, str], *, system: str = "apf", returns: bool = False
) -> Format:
    """Return the format of a probe event as trace_kprobe.c and trace_fprobe.c declare it.

    Args:
        name: of the event.
        number: its id.
        fields: names of its arguments, each with its type (u32, s64 ...).
        system: its group.
        returns: it shows a function's return.
    """
    places = ("__probe_func", "__probe_ret_ip") if returns else ("__probe_ip",)
    args = "".join(f" {arg}=%{'lld' if kind[0] == 's' else 'llu'}" for arg, kind in fields.items())
    shown = '"(%lx <- %lx)' if returns else '"(%lx)'
    values = ", ".join(f"REC->{name}" for name in (*reversed(places), *fields))
    return _format(
        system,
        name,
        number,
        *((f"unsigned long {place}", 8, False) for place in places),
        *((f"{kind} {arg}", _SIZES[kind], kind[0] == "s") for arg, kind in fields.items()),
        shown=f'{shown}{args}", {values}',
    )


_ARGS = ("unsigned long args[]", 0, False)
_CALL = (("unsigned long ip", 8, False), ("unsigned long parent_ip", 8, False))
_ENTERED = (("unsigned long func", 8, False), ("int depth", 4, True))
_LEFT = (
    ("unsigned long func", 8, False),
    ("int depth", 4, True),
    ("unsigned int overrun", 4, False),
    ("unsigned long long calltime", 8, False),
    ("unsigned long long rettime", 8, False),
)
FUNCTION = _format("ftrace", "function", 1, *_CALL)
FUNCTION_ARGS = _format("ftrace", "function", 1, *_CALL, _ARGS)
GRAPH_EXIT = _format("ftrace", "funcgraph_exit", 10, *_LEFT)
GRAPH_ENTRY = _format("ftrace", "funcgraph_entry", 11, *_ENTERED)
GRAPH_ENTRY_ARGS = _format("ftrace", "funcgraph_entry", 11, *_ENTERED, ("int pad", 4, True), _ARGS)
TRACERS = {
    "function": (FUNCTION,),
    "function_args": (FUNCTION_ARGS,),
    "graph": (GRAPH_ENTRY, GRAPH_EXIT),
    "graph_args": (GRAPH_ENTRY_ARGS, GRAPH_EXIT),
    "graph_retaddr": (GRAPH_ENTRY_ARGS, GRAPH_EXIT),
}
PROBES = {
    (WAIT, False): probe("task_wait", 1361, {"token": "u32"}),
    (WAKE, False): probe("task_wake", 1362, {"token": "u32"}),
    (IRQ, False): probe("asyncpf_irq", 1363, {}),
    (WAKE_ALL, False): probe("wake_all", 1364, {}),
    (WAIT, True): probe("waited", 1365, {}, returns=True),
    (WAKE, True): probe("woke", 1366, {"ret": "u64"}, returns=True),
    (IRQ, True): probe("irq_done", 1367, {}, returns=True),
}
"""Function and whether it returns, to the probe on it."""
