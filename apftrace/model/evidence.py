"""Anchors as text, the way the kernel prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.model import tracepoints as tp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from apftrace.model.recording import Recording

_M64 = 0xFFFFFFFFFFFFFFFF


def _hex(value: int) -> str:
    return f"{value & _M64:#x}"


def _token(a: int, b: int, c: int) -> str:
    return f"token {_hex(a)} gva {_hex(b)}"


def _gfn(a: int, b: int, c: int) -> str:
    return f"gva = {_hex(a)}, gfn = {_hex(b)}"


def _exception(a: int, b: int, c: int) -> str:
    name = {tp.PF_VECTOR: "#PF", tp.MC_VECTOR: "#MC"}.get(a, str(a))
    return f"{name} ({_hex(b)})" + (" [reinjected]" if c else "")


def _msr(a: int, b: int, c: int) -> str:
    return f"msr_{'write' if a else 'read'} {b & 0xFFFFFFFF:x} = {_hex(c)}"


_AS = {tp.RESET: tp.ENTRY, tp.STARTUP: tp.ACCEPT}
"""Kinds that the odometer makes of another's hits."""

_MODES = {tp.DM_INIT: "INIT", tp.DM_SIPI: "SIPI"}

# One printer per kind; each takes the fields a, b, c in the order of tracepoints.TRACEPOINTS.
_TEXT: dict[int, Callable[[int, int, int], str]] = {
    tp.TRY: _gfn,
    tp.REPEATED: _gfn,
    tp.NOT_PRESENT: _token,
    tp.READY: _token,
    tp.COMPLETED: lambda a, b, c: f"gva {_hex(a)} address {_hex(b)}",
    tp.ENTRY: lambda a, b, c: f"vcpu {a}",
    tp.RESET: lambda a, b, c: f"vcpu {a}, rip {_hex(b)}",
    tp.STARTUP: lambda a, b, c: f"apicid {b:x} vec {c} ({_MODES[a]})",
    tp.EXIT: lambda a, b, c: f"exit_reason {_hex(a)}",
    tp.SWITCH: lambda a, b, c: f"prev_pid={a} prev_state={_hex(b)} ==> next_pid={c}",
    tp.WAKING: lambda a, b, c: f"pid={a}",
    tp.WAKEUP: lambda a, b, c: f"pid={a}",
    tp.MSR: _msr,
    tp.INJ_EXCEPTION: _exception,
    tp.ACCEPT: lambda a, b, c: f"apicid {b:x} vec {a}",
    tp.APICV_ACCEPT: lambda a, b, c: f"apicid {b:x} vec {a}",
    tp.INJ_VIRQ: lambda a, b, c: f"IRQ {_hex(a)}",
    tp.PAGE_FAULT: lambda a, b, c: f"address 0x{a & _M64:016x} error_code {_hex(b)}",
    tp.USERSPACE_EXIT: lambda a, b, c: f"reason {a} errno {b}",
    tp.QUEUE_WORK: lambda a, b, c: f"work struct {_hex(a)}: function async_pf_execute",
    tp.EXECUTE_START: lambda a, b, c: f"work struct {_hex(a)}: function async_pf_execute",
    tp.EXECUTE_END: lambda a, b, c: f"work struct {_hex(a)}",
    tp.SIGNAL: lambda a, b, c: f"sig={a} code={b} pid={c}",
    tp.MEMORY_FAILURE: lambda a, b, c: f"pfn {_hex(a)}: type {b} result {c}",
    tp.SMM: lambda a, b, c: "entering SMM" if a else "leaving SMM",
    tp.CR: lambda a, b, c: f"cr_{'write' if a else 'read'} {b} = {_hex(c)}",
    tp.PROCESS_EXIT: lambda a, b, c: f"pid={a}",
}


def text_of(kind: int, a: int, b: int, c: int) -> str:
    """Return the payload of a stream row as text."""
    return _TEXT[kind](a, b, c) if kind in _TEXT else ""


def texts(rec: Recording, seqs: Iterable[int]) -> dict[int, dict[str, object]]:
    """Return the evidence row (ts, cpu, tid, event, text) of each anchor, by its seq."""
    return {
        seq: {
            "ts": ts,
            "cpu": cpu,
            "tid": tid,
            "event": tp.NAMES.get(_AS.get(kind, kind), "?"),
            "text": text_of(kind, a, b, c),
        }
        for seq, ts, cpu, tid, kind, a, b, c in rec.anchors.at(seqs).iter_rows()
    }
