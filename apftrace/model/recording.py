"""One machine's trace, reduced to anchors."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from apftrace.ahead import made_ahead
from apftrace.model import tracepoints as tp
from apftrace.model.anchors import Anchors
from apftrace.model.asleep import Asleep
from apftrace.model.loss import busy_cpus, settled_threads, silent_ends
from apftrace.model.odometer import Odometer
from apftrace.model.unmarked import unmarked
from apftrace_parsers.base import Loss, PassResult
from apftrace_parsers.stream import view

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from apftrace_parsers.base import Source, SourceInfo

_ALWAYS_HIT = frozenset({tp.ENTRY, tp.EXIT, tp.SWITCH, tp.WAKING, tp.WAKEUP, tp.QUEUE_WORK, tp.EXECUTE_START})
"""Tracepoints that a host with running guests hits all the time: no hit means that they were off."""


_MOST_CPUS = 1 << 16

_WOKEN = 4
"""Sleeps that somebody ended for each that nobody did: with fewer, records of wakeups are not kept all."""

_MOST_CHOSEN = 500
"""Tracepoints that anyone turns on by name; a kernel has three times as many."""

_COARSE_CLOCKS = frozenset({"counter", "uptime"})
"""trace_clock_counter counts events; trace_clock_jiffies gives jiffies_64_to_clock_t."""

_HIT_WITH_FAULTS = frozenset({tp.TRY, tp.READY, tp.COMPLETED, tp.MSR, tp.ACCEPT, tp.PAGE_FAULT})
"""Tracepoints that a guest with faults never goes without: no hit beside a not_present means that they were off."""


@dataclass(frozen=True)
class Recording:
    """What the model keeps of a trace.

    Attributes:
        machine: ``host`` or the guest's name.
        clock: trace clock.
        anchors: the events that matter, each with its thread's reading.
        threads: final reading per thread: tid, first, last, entries, entry_ts, hlts, virqs, vcpu, gone, comm, tgid.
        cpus_of: CPUs on which each thread was seen.
        losses: gaps in the record, those too that only a broken chain of switches, or of entries and exits, shows.
        uncovered: CPUs without any record: filtered out, cut off, or idle. A thread may have been there unseen.
        cpu_spans: first and last record of each CPU.
        counts: hits per tracepoint name, of all tracepoints in the trace.
        recorded: kinds of tracepoint that were on.
        silent: those of them without a hit although faults were due one: no fault was answered.
        asleep: the page faults that a vCPU thread slept through itself, a row per thread: see ``asleep_of``.
        describes_all: the source describes the whole kernel's tracepoints, not only those that were on.
        fields: kinds mapped to the field names that the trace has for a, b, c (null where it lacks one).
        vectors: page-ready vectors: 243, and what guests wrote to MSR_KVM_ASYNC_PF_INT.
        seen_vectors: vectors accepted at other times than right after a ready.
        first_ns: first instant; 0 when the trace is empty.
        last_ns: last instant.
        guests: VM name by host thread id, where the trace names its guests.
        unwoken: sleeps from which a thread came back though nobody had woken it, where that is an exception.
    """

    machine: str
    clock: str
    anchors: Anchors
    threads: pl.DataFrame
    cpus_of: dict[int, frozenset[int]]
    losses: tuple[Loss, ...]
    uncovered: tuple[Loss, ...]
    cpu_spans: dict[int, tuple[int, int]]
    counts: dict[str, int]
    recorded: frozenset[int]
    fields: dict[int, tuple[str | None, ...]]
    vectors: frozenset[int]
    seen_vectors: frozenset[int]
    first_ns: int
    last_ns: int
    guests: dict[int, str] = field(default_factory=dict)
    silent: frozenset[int] = frozenset()
    describes_all: bool = False
    unwoken: tuple[tuple[int, int], ...] = ()
    asleep: pl.DataFrame = field(default_factory=lambda: asleep_of({"tid": [], "vcpu": []}, Asleep()))

    def kind(self, *kinds: int) -> pl.DataFrame:
        """Return the anchors of these kinds, in time order."""
        return self.anchors.kind(*kinds)

    @cached_property
    def settled(self) -> frozenset[int]:
        """Threads seen so often that they use no other CPUs than those of ``cpus_of``."""
        return settled_threads(self)

    @cached_property
    def busy_cpus(self) -> frozenset[int]:
        """CPUs where a thread that was not seen there may all the same have been."""
        return busy_cpus(self)

    @cached_property
    def silences(self) -> tuple[Loss, ...]:
        """CPUs whose data begin later or end earlier than chance, or the sleeps of threads, explain."""
        return silent_ends(self)

    @property
    def tells_deliveries(self) -> bool:
        """False where nothing shows which readies were delivered by interrupt and which only ended a halt."""
        return bool(self.recorded & {tp.ACCEPT, tp.INJ_EXCEPTION})

    @property
    def measures_time(self) -> bool:
        """False where stamps order events but do not time them: event counts, clock ticks of 10 ms."""
        return self.clock not in _COARSE_CLOCKS

    def has(self, *kinds: int) -> bool:
        """Say whether all these tracepoints were on."""
        return self.recorded.issuperset(kinds)


def record(source: Source, machine: str = "host", *, lasting: int = 0) -> tuple[Recording, PassResult]:
    """Reduce a whole source to a Recording, in bounded memory.

    Args:
        source: an opened trace.
        machine: what it is called.
        lasting: how long a phase must last for what its thread did meanwhile to be kept, in units of the trace clock.
    """
    odometer = Odometer(lasting)
    result = PassResult()
    for batch in made_ahead(source.stream(tp.PICKS, result)):
        odometer.feed(*map(view, batch.columns))
    odometer.finish()
    # What the batches took is needed for frames, which have another allocator.
    pa.default_memory_pool().release_unused()
    return assemble(odometer, result, machine, source), result


def assemble(
    odometer: Odometer,
    result: PassResult,
    machine: str,
    source: Source,
) -> Recording:
    """Put the anchors of one pass and what the pass counted together."""
    recorded, fields = recorded_kinds(source, result)
    threads = odometer.threads()
    return Recording(
        machine=machine,
        clock=source.info.clock,
        anchors=Anchors(odometer.ledger),
        threads=threads_of(threads, source.info),
        cpus_of={tid: frozenset(cpus) for tid, cpus in odometer.cpus_of.items()},
        losses=(*result.losses, *unmarked(odometer, recorded, result)),
        uncovered=tuple(uncovered_cpus(source.info.cpus, result)),
        cpu_spans={
            cpu: (first, result.cpu_last_ns.get(cpu, first)) for cpu, first in result.cpu_first_ns.items()
        },
        counts=dict(result.counts),
        recorded=recorded,
        fields=fields,
        vectors=odometer.vectors(),
        seen_vectors=odometer.seen_vectors(),
        first_ns=result.first_ns or 0,
        last_ns=result.last_ns or 0,
        guests={tid: g.name for g in source.info.guests for tid in g.vcpu_tids.values()},
        describes_all=len(source.formats()) > _MOST_CHOSEN,
        unwoken=tuple(odometer.unwoken()) if odometer.woken >= _WOKEN * odometer.unwoken_met else (),
        asleep=asleep_of(threads, odometer.asleep),
    )


def uncovered_cpus(n_cpus: int, result: PassResult) -> Iterator[Loss]:
    """Yield the CPUs of which a pass saw no record, as gaps that are the whole record."""
    if result.first_ns is None or result.last_ns is None:
        return
    for cpu in range(min(n_cpus, _MOST_CPUS)):
        if cpu not in result.cpu_first_ns:
            yield Loss(cpu, "", None, None, None)


def recorded_kinds(
    source: Source, result: PassResult
) -> tuple[frozenset[int], dict[int, tuple[str | None, ...]]]:
    """Return the kinds of tracepoint that were on during a whole pass, and the fields that each has."""
    recorded = set()
    fields: dict[int, tuple[str | None, ...]] = {}
    resolved = source.resolve(tp.PICKS)
    begins = resolved[tp.NOT_PRESENT]
    faults = begins is not None and _count(result.counts, begins.event) > 0
    due = _ALWAYS_HIT | _HIT_WITH_FAULTS if faults else _ALWAYS_HIT
    for kind, found in enumerate(resolved):
        if found is None:
            continue
        fields[kind] = found.fields
        if _count(result.counts, found.event) or kind not in due:
            recorded.add(kind)
    return frozenset(recorded), fields


def _count(counts: dict[str, int], event: str) -> int:
    return counts.get(event, 0) or counts.get(event.rsplit(":", maxsplit=1)[-1], 0)


def asleep_of(threads: Mapping[str, list[int]], asleep: Asleep) -> pl.DataFrame:
    """Return what each thread slept through: tid, vcpu, count, slept and the other sums of ``asleep.SUMS``.

    ``slept`` is in ns, ``in_user`` and ``in_kernel`` count the faults by where the guest's code was, ``doubtful``
    those with a gap in the record, which ``count`` leaves out; ``most`` to ``end_cpu`` are of the longest.
    """
    sums = {name: threads[name] for name in ("tid", "vcpu")} | asleep.take(len(threads["tid"]))
    table = pl.DataFrame(sums, schema=dict.fromkeys(sums, pl.Int64))
    return table.filter((pl.col("count") > 0) | (pl.col("doubtful") > 0)).sort("first", "tid")


def threads_of(threads: Mapping[str, list[int]], info: SourceInfo) -> pl.DataFrame:
    """Return the final reading per thread, with its name and process where the trace says so."""
    table = pl.DataFrame(threads, schema_overrides={"tid": pl.Int32})
    tids = table["tid"].to_list()
    return table.with_columns(
        pl.Series("comm", _looked_up(tids, info.comms), pl.String),
        pl.Series("tgid", _looked_up(tids, info.tgids), pl.Int64),
    )


def _looked_up(tids: Iterable[int], table: Mapping[int, object]) -> list[object]:
    return [table.get(tid) for tid in tids]
