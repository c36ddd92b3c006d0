"""One guest's trace, reduced to the hits of its hooks and the scheduling of the threads that waited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from apftrace.ahead import made_ahead
from apftrace.model.guest import hooks as hk
from apftrace.model.guest.episodes import Episodes
from apftrace.model.guest.tokens import U32, as_token
from apftrace.model.recording import uncovered_cpus
from apftrace_parsers.base import Loss, PassResult, Pick

if TYPE_CHECKING:
    import pyarrow as pa

    from apftrace_parsers.base import Source

SWITCH = "switch"
WAKING = "waking"
WAKEUP = "wakeup"
PAGE_FAULT = "page_fault"

# The switch is the first: see _Fold.feed.
_CONTEXT: tuple[tuple[str, Pick], ...] = (
    (SWITCH, Pick(("sched:sched_switch",), (("prev_pid",), ("prev_state",), ("next_pid",)))),
    (WAKING, Pick(("sched:sched_waking",), (("pid",), ("target_cpu",)))),
    (WAKEUP, Pick(("sched:sched_wakeup",), (("pid",), ("target_cpu",)))),
    (PAGE_FAULT, Pick(("exceptions:page_fault_user",), (("address",), ("ip",), ("error_code",)))),
    (PAGE_FAULT, Pick(("exceptions:page_fault_kernel",), (("address",), ("ip",), ("error_code",)))),
)

_PIECE_ROWS = 1 << 17
_PID_MAX = 1 << 22
"""PID_MAX_LIMIT: text may not tell the thread, and gives a larger number then."""

HITS = {
    "seq": pl.Int64,
    "ts": pl.Int64,
    "cpu": pl.Int32,
    "tid": pl.Int32,
    "kind": pl.String,
    "token": pl.Int64,
    "a": pl.Int64,
    "b": pl.Int64,
    "c": pl.Int64,
}
"""Columns of the hits."""


@dataclass(frozen=True)
class GuestRecording:
    """What the model keeps of a guest's trace.

    Attributes:
        machine: the guest's name.
        clock: its trace clock.
        clock_unit: ``ns``, or ``ticks``.
        hits: in order of time (``seq``), tid the guest's thread in whose context it happened; where the trace
            does not tell, as text of a graph in which a CPU never switches, negative and one per CPU:
            ``wait`` ``wait_return`` ``wake`` ``wake_return`` ``wake_all`` ``irq`` ``irq_return`` ``enable``
            ``offline``: the function was entered or left; token as u32, null where the hook shows none; a of a
            return is 1 where only the instant of the start is known, a lower bound.
            ``switch``: tid left the CPU with prev_state a, thread b got it. Kept of threads that wait, and
            of the CPU where such a thread is runnable and not running.
            ``waking`` ``wakeup``: tid is who woke, a the thread woken, b the CPU that it goes to, c the
            thread that has that CPU at the time, null where no switch told it yet.
            ``page_fault``: of tid, the first after its wait; a is the address, b the instruction.
        comms: thread id to comm, of the threads in ``hits``.
        counts: hits per tracepoint, of all tracepoints in the trace.
        losses: gaps in the record.
        uncovered: CPUs without any record.
        hooks: kind to the tracepoints that gave it or could have; a kind without any is not there.
        first_ns: first instant; 0 when the trace is empty.
        last_ns: last instant.
        notes: what could not be told for sure, one sentence each.
    """

    machine: str
    clock: str
    clock_unit: str
    hits: pl.DataFrame
    comms: dict[int, str]
    counts: dict[str, int]
    losses: tuple[Loss, ...]
    uncovered: tuple[Loss, ...]
    hooks: dict[str, tuple[str, ...]]
    first_ns: int
    last_ns: int
    notes: tuple[str, ...] = field(default=())

    def kind(self, *kinds: str) -> pl.DataFrame:
        """Return the hits of these kinds, in order of time."""
        return self.hits.filter(pl.col("kind").is_in(kinds))

    def has(self, *kinds: str) -> bool:
        """Say whether something was on that gives each of these kinds."""
        return self.hooks.keys() >= set(kinds)


def record_guest(source: Source, machine: str) -> tuple[GuestRecording, PassResult]:
    """Reduce a guest's trace to a GuestRecording, in memory bounded by its async page faults."""
    hooks = hk.find_hooks(source)
    fold = _Fold(hooks, hk.Places(source.symbols()))
    result = PassResult()
    picks = [*(h.pick for h in hooks), *(pick for _, pick in _CONTEXT)]
    for batch in made_ahead(source.stream(picks, result)):
        fold.feed(batch)
    hits = fold.hits()
    # A wakeup has in c who ran on the CPU meanwhile, maybe the only sign of that thread.
    tids = {tid for column in ("tid", "a", "b", "c") for tid in hits[column].to_list()}
    return GuestRecording(
        machine=machine,
        clock=source.info.clock,
        clock_unit=source.info.clock_unit,
        hits=hits,
        comms={tid: comm for tid, comm in source.info.comms.items() if tid in tids},
        counts=dict(result.counts),
        losses=tuple(result.losses),
        uncovered=tuple(uncovered_cpus(source.info.cpus, result)),
        hooks=_served(source, fold, result),
        first_ns=result.first_ns or 0,
        last_ns=result.last_ns or 0,
        notes=tuple(fold.notes()),
    ), result


class _Fold:
    # Turns rows of the stream into hits.
    def __init__(self, hooks: tuple[hk.Hook, ...], places: hk.Places) -> None:
        self.hooks = hooks
        self._rows: list[tuple[int | str | None, ...]] = []
        self._pieces: list[pl.DataFrame] = []
        self._n = 0
        self.gave: dict[str, set[str]] = {}
        self._places = places
        self._kind_of: list[dict[int, str | None]] = [{} for _ in hooks]
        self._episodes = Episodes(self._keep)
        self._by_name: set[tuple[str, str]] = set()

    def feed(self, batch: pa.RecordBatch) -> None:
        """Take a batch."""
        n_hooks = len(self.hooks)
        # Most rows are switches that concern no wait: they are passed over here.
        switch, episodes = n_hooks, self._episodes
        waiting, running, runnable_on = episodes.open, episodes.running, episodes.runnable_on
        for ts, cpu, tid, pick, a, b, c in zip(*map(_values, batch.columns), strict=True):
            if pick == switch:
                running[cpu] = c
                if a in waiting or c in waiting or (waiting and runnable_on.get(cpu)):
                    episodes.switch(ts, cpu, a, b, c)
            elif pick > switch:
                episodes.context(_CONTEXT[pick - n_hooks][0], ts, cpu, tid, a, b, c)
            elif pick >= 0:
                kinds = self._kind_of[pick]
                kind = kinds[a] if a in kinds else self._place(pick, a)
                if kind:
                    self._hit(kind, self.hooks[pick], ts, cpu, tid if tid <= _PID_MAX else -1 - cpu, b)
        if len(self._rows) >= _PIECE_ROWS:
            self._pack()

    def hits(self) -> pl.DataFrame:
        """Return all hits."""
        self._pack()
        return pl.concat(self._pieces)

    def _pack(self) -> None:
        # A row as a tuple takes five times the memory of one in a frame.
        self._pieces.append(pl.DataFrame(self._rows, schema=HITS, orient="row"))
        self._rows = []

    def notes(self) -> list[str]:
        """Return what was not told by addresses."""
        return [
            f"{event} is taken for {kind} by its name: no symbol tells on which function it sits"
            for event, kind in sorted(self._by_name)
        ]

    def _place(self, pick: int, place: int) -> str | None:
        hook = self.hooks[pick]
        kind = self._places.kind(hook, place)
        if kind or self._places.is_known(place):
            self._kind_of[pick][place] = kind
        if kind:
            self.gave.setdefault(kind, set()).add(hook.event)
            if not self._places.is_known(place):
                self._by_name.add((hook.event, kind))
        return kind

    def _hit(self, kind: str, hook: hk.Hook, ts: int, cpu: int, tid: int, token: int) -> None:
        shown = self._token(hook, token) if hook.token is not None and kind in (hk.WAIT, hk.WAKE) else None
        self._keep(kind, ts, cpu, tid, 1 if hook.returns and token else None, token=shown)
        self._episodes.hit(kind, tid, shown)

    def _token(self, hook: hk.Hook, value: int) -> int | None:
        if hook.is_probe:
            return as_token(value)
        # A function's arguments are whole registers, only recorded with option func-args; without it, option
        # funcgraph-retaddr of newer kernels puts the return address there.
        return value if 0 < value <= U32 else None

    def _keep(
        self,
        kind: str,
        ts: int,
        cpu: int,
        tid: int,
        a: int | None = None,
        b: int | None = None,
        c: int | None = None,
        token: int | None = None,
    ) -> None:
        self._rows.append((self._n, ts, cpu, tid, kind, token, a, b, c))
        self._n += 1


def _values(column: pa.Array) -> list[int]:
    # Columns of the stream have no nulls; this is several times faster than to_pylist().
    numbers = memoryview(column.buffers()[1]).cast("B").cast("q" if column.type.bit_width == 64 else "i")
    return numbers[column.offset : column.offset + len(column)].tolist()


def _served(source: Source, fold: _Fold, result: PassResult) -> dict[str, tuple[str, ...]]:
    # Of a probe that never hit only its name can tell what it would have shown.
    served = {kind: set(events) for kind, events in fold.gave.items()}
    for hook in fold.hooks:
        kind = (hk.RETURNS.get(hook.by_name or "") if hook.returns else hook.by_name) or ""
        found = source.resolve([hook.pick])[0]
        if kind and found and not result.counts.get(found.event):
            served.setdefault(kind, set()).add(hook.event)
    for kind, pick in _CONTEXT:
        found = source.resolve([pick])[0]
        if found and result.counts.get(found.event):
            served.setdefault(kind, set()).add(pick.events[0])
    return {kind: tuple(sorted(events)) for kind, events in sorted(served.items())}
