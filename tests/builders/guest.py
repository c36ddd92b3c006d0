"""Write a guest's async page faults in every form in which a guest can be traced.

    guest = Guest()
    guest.fault(at=1_000_000, tid=128, token=0x1001, sleeps=True)
    guest.dat(path, hooks="kprobe")          # or fprobe, function, function_args, graph, graph_args
    guest.text(path, hooks="kprobe")         # what tracefs ``trace`` prints; graph: GraphColumns

Times are ns, in text only their microseconds are seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .formats import formats
from .guest_events import ADDRESSES, IRQ, KALLSYMS, PARENTS, PROBES, TASK_UNINTERRUPTIBLE, TRACERS, WAIT, WAKE
from .tracedat import Event, TraceDat

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from .formats import Format, Value


@dataclass(frozen=True)
class Call:
    """A function entered or left."""

    ts: int
    cpu: int
    tid: int
    function: str
    returns: bool = False
    token: int = 0


@dataclass(frozen=True)
class Other:
    """Any other tracepoint, with its text."""

    ts: int
    cpu: int
    tid: int
    name: str
    fields: dict[str, Value]
    text: str


@dataclass(frozen=True)
class GraphColumns:
    """Options of the function_graph tracer."""

    time: bool = True
    elapsed: bool = False
    cpu: bool = True
    task: bool = False
    flags: bool = False
    duration: bool = True
    tail: bool = False
    args: bool = False


@dataclass
class Guest:
    """What happened in a guest, in any order."""

    comms: dict[int, str] = field(default_factory=lambda: {0: "<idle>"})
    events: list[Call | Other] = field(default_factory=list)

    def comm(self, tid: int) -> str:
        return self.comms.get(tid, f"touch{tid}")

    def call(
        self, ts: int, tid: int, function: str, *, cpu: int = 0, returns: bool = False, token: int = 0
    ) -> Guest:
        """Add a function entered or left."""
        self.events.append(Call(ts, cpu, tid, function, returns, token))
        return self

    def switch(self, ts: int, prev: int, following: int, *, cpu: int = 0, state: int = 0) -> Guest:
        """Add a sched_switch; state is that of the thread that leaves the CPU."""
        letter = "D" if state == TASK_UNINTERRUPTIBLE else "S" if state else "R"
        text = (
            f"prev_comm={self.comm(prev)} prev_pid={prev} prev_prio=120 prev_state={letter} ==> "
            f"next_comm={self.comm(following)} next_pid={following} next_prio=120"
        )
        fields: dict[str, Value] = {
            "prev_comm": self.comm(prev), "prev_pid": prev, "prev_prio": 120, "prev_state": state,
            "next_comm": self.comm(following), "next_pid": following, "next_prio": 120,
        }  # fmt: skip
        self.events.append(Other(ts, cpu, prev, "sched_switch", fields, text))
        return self

    def wakeup(
        self, ts: int, tid: int, woken: int, *, cpu: int = 0, target: int = 0, name: str = "sched_wakeup"
    ) -> Guest:
        """Add a sched_wakeup, or a sched_waking by ``name``."""
        text = f"comm={self.comm(woken)} pid={woken} prio=120 target_cpu={target:03d}"
        fields: dict[str, Value] = {
            "comm": self.comm(woken), "pid": woken, "prio": 120, "target_cpu": target
        }  # fmt: skip
        self.events.append(Other(ts, cpu, tid, name, fields, text))
        return self

    def fault(
        self, at: int, tid: int, token: int, *, cpu: int = 0, sleeps: bool = True, step: int = 10_000
    ) -> int:
        """Add a whole life: wait, sleep, interrupt, wake, run and return; return the time after it."""
        ts = iter(range(at, at + 100 * step, step))
        self.call(next(ts), tid, WAIT, cpu=cpu, token=token)
        waker = tid
        if sleeps:
            waker = 0
            self.switch(next(ts), tid, 0, cpu=cpu, state=TASK_UNINTERRUPTIBLE)
        self.call(next(ts), waker, IRQ, cpu=cpu)
        self.call(next(ts), waker, WAKE, cpu=cpu, token=token)
        if sleeps:
            self.wakeup(next(ts), waker, tid, cpu=cpu, target=cpu)
        self.call(next(ts), waker, WAKE, cpu=cpu, returns=True)
        self.call(next(ts), waker, IRQ, cpu=cpu, returns=True)
        if sleeps:
            self.switch(next(ts), 0, tid, cpu=cpu)
        self.call(next(ts), tid, WAIT, cpu=cpu, returns=True)
        return next(ts)

    def trace_dat(
        self,
        hooks: str = "kprobe",
        *,
        probes: Mapping[tuple[str, bool], Format] = PROBES,
        kallsyms: str = KALLSYMS,
        entry_offset: int = 0,
        values: Mapping[str, int] | None = None,
    ) -> TraceDat:
        """Return the trace.dat.

        Args:
            hooks: kprobe, function, function_args, graph, graph_args or graph_retaddr.
            probes: the probes, where hooks are those.
            kallsyms: symbols in the file.
            entry_offset: bytes from a function's start to its hook (4 behind endbr64).
            values: of the probes' arguments that are not the token.
        """
        own = TRACERS.get(hooks) or tuple({f.name: f for f in probes.values()}.values())
        context = formats(["sched_switch", "sched_waking", "sched_wakeup", "page_fault_user"])
        dat = TraceDat(formats=(*own, *context), cmdlines=dict(self.comms), kallsyms=kallsyms, clock="mono")
        depth: dict[int, int] = {}
        for event in self._in_order():
            if isinstance(event, Other):
                dat.add(Event(event.ts, event.cpu, event.tid, event.name, event.fields))
                continue
            now = depth.get(event.tid, 0) - event.returns
            depth[event.tid] = now + (not event.returns)
            if record := _record(event, hooks, probes, entry_offset, now, values or {}):
                dat.add(record)
        return dat

    def dat(self, path: Path, hooks: str = "kprobe") -> Path:
        """Write a trace.dat."""
        return self.trace_dat(hooks).write(path)

    def text(
        self,
        path: Path,
        hooks: str = "kprobe",
        columns: GraphColumns | None = None,
        *,
        probes: Mapping[tuple[str, bool], Format] = PROBES,
        values: Mapping[str, int] | None = None,
    ) -> Path:
        """Write what tracefs ``trace`` prints."""
        if hooks == "graph":
            return _write(path, "# tracer: function_graph\n#\n", self._graph(columns or GraphColumns()))
        return _write(path, "# tracer: nop\n#\n", self._lines(hooks, probes, values or {}))

    def _in_order(self) -> list[Call | Other]:
        return sorted(self.events, key=lambda e: e.ts)

    def _lines(
        self, hooks: str, probes: Mapping[tuple[str, bool], Format], values: Mapping[str, int]
    ) -> Iterable[str]:
        for event in self._in_order():
            shown = (
                f"{event.name}: {event.text}"
                if isinstance(event, Other)
                else _shown(event, hooks, probes, values)
            )
            if shown:
                us = event.ts // 1000
                yield (
                    f"{self.comm(event.tid):>16}-{event.tid:<7} [{event.cpu:03d}] d..1. "
                    f"{us // 10**6:>5}.{us % 10**6:06d}: {shown}\n"
                )

    def _graph(self, columns: GraphColumns) -> Iterable[str]:
        # One thread's calls nest; a call that calls nothing is one line.
        events = self._in_order()
        depth: dict[int, int] = {}
        running: dict[int, int] = {}
        entered: dict[tuple[int, int], str] = {}
        leaves = set()
        for n, event in enumerate(events):
            if n in leaves:
                continue
            if not columns.task and running.get(event.cpu, event.tid) != event.tid:
                ruler = " ------------------------------------------\n"
                yield (
                    ruler
                    + f" {event.cpu}) {self._task(running[event.cpu])} => {self._task(event.tid)}\n{ruler}\n"
                )
            running[event.cpu] = event.tid
            now = depth.get(event.tid, 0)
            if isinstance(event, Other):
                body = f"{'  ' * now}/* {event.name}: {event.text} */"
            elif event.returns:
                now -= 1
                depth[event.tid] = now
                known = entered.pop((event.cpu, now), None) == event.function and not columns.tail
                body = "  " * now + "}" + ("" if known else f" /* {event.function} */")
            else:
                args = f"(token={event.token:#x})" if columns.args and event.token else "()"
                body = "  " * now + event.function + args
                leaf = _leaf(events, n)
                if leaf:
                    leaves.add(leaf)
                    body += ";"
                else:
                    body += " {"
                    entered[event.cpu, now] = event.function
                    depth[event.tid] = now + 1
            yield self._prefix(event, columns, body) + body + "\n"

    def _task(self, tid: int) -> str:
        return f"{self.comm(tid)[:7]}-{tid}".center(14)

    def _prefix(self, event: Call | Other, columns: GraphColumns, body: str) -> str:
        us = event.ts // 1000
        out = f"{us // 10**6:5d}.{us % 10**6:06d} |  " if columns.time else ""
        out += f"{us:9d} us |  " if columns.elapsed else ""
        out += f" {event.cpu}) " if columns.cpu else ""
        out += f"{self._task(event.tid)} | " if columns.task else ""
        out += " d..1. | " if columns.flags else ""
        if columns.duration:
            timed = body.lstrip().startswith("}") or body.endswith(";")
            out += "* 13779.11 us |  " if timed else "              |  "
        return out


def _leaf(events: list[Call | Other], n: int) -> int | None:
    # Where the return is of a call that nothing of its CPU comes between.
    call = events[n]
    following = next((m for m in range(n + 1, len(events)) if events[m].cpu == call.cpu), None)
    if following is None:
        return None
    end = events[following]
    return following if isinstance(end, Call) and isinstance(call, Call) and _ends(end, call) else None


def _ends(end: Call, call: Call) -> bool:
    return end == replace(call, ts=end.ts, returns=True, token=end.token)


def _record(
    call: Call,
    hooks: str,
    probes: Mapping[tuple[str, bool], Format],
    offset: int,
    depth: int,
    values: Mapping[str, int],
) -> Event | None:
    at, parent = ADDRESSES[call.function] + offset, ADDRESSES.get(PARENTS.get(call.function, ""), 0)
    args: dict[str, Value] = {"args": [call.token, 0xDEAD]} if hooks.endswith("_args") and call.token else {}
    if hooks == "graph_retaddr":
        args = {"args": [parent]}
    fields: dict[str, Value]
    if hooks.startswith("function"):
        if call.returns:
            return None
        fields = {"ip": at, "parent_ip": parent, **args}
        return Event(call.ts, call.cpu, call.tid, "function", fields)
    if hooks.startswith("graph"):
        name = "funcgraph_exit" if call.returns else "funcgraph_entry"
        fields = {"func": at, "depth": depth, **({} if call.returns else args)}
        return Event(call.ts, call.cpu, call.tid, name, fields)
    form = probes.get((call.function, call.returns))
    if form is None:
        return None
    places = {"__probe_func": ADDRESSES[call.function], "__probe_ret_ip": parent + 0x4F, "__probe_ip": at}
    own = [f.name for f in form.fields if not f.name.startswith("common_")]
    fields = {name: places.get(name, values.get(name, call.token)) for name in own}
    return Event(call.ts, call.cpu, call.tid, form.name, fields)


def _shown(
    call: Call, hooks: str, probes: Mapping[tuple[str, bool], Format], values: Mapping[str, int]
) -> str | None:
    parent = PARENTS.get(call.function, "schedule")
    if hooks.startswith("function"):
        args = f"(token={call.token:#x})" if hooks == "function_args" and call.token else ""
        return None if call.returns else f"{call.function}{args} <-{parent}"
    form = probes.get((call.function, call.returns))
    if form is None:
        return None
    own = [f.name for f in form.fields if not f.name.startswith(("common_", "__probe_"))]
    args = "".join(f" {name}={values.get(name, call.token)}" for name in own)
    if call.returns:
        return f"{form.name}: ({parent}+0x4f/0xb0 <- {call.function}){args}"
    return f"{form.name}: ({call.function}+0x0/0x1b0){args}"


def _write(path: Path, header: str, lines: Iterable[str]) -> Path:
    path.write_text(header + "".join(lines))
    return path
