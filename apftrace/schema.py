"""Every table of an analysis, declared once: name, type, unit and meaning of each column.

The Arrow schemas, the polars schemas and docs/schema.md come from the declarations below. Times are
int64 nanoseconds of the trace clock, or its ticks where no rate is known. Absent is null. Tokens and
addresses are uint64 and stay out of arithmetic with times, because polars widens ``u64 op i64`` to Int128.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

SCHEMA_VERSION = 1

# The kinds of value that a column can hold; one line each keeps Arrow and polars together.
_ARROW = {
    "str": "large_string",
    "bool": "bool_",
    "i32": "int32",
    "i64": "int64",
    "u64": "uint64",
    "f64": "float64",
}
_POLARS = {
    "str": "String",
    "bool": "Boolean",
    "i32": "Int32",
    "i64": "Int64",
    "u64": "UInt64",
    "f64": "Float64",
}


@dataclass(frozen=True)
class Column:
    """One column: ``type`` is a key of the kinds above, or ``list[str]``, or ``evidence``; times have unit ``ns``."""

    name: str
    type: str
    unit: str
    doc: str


@dataclass(frozen=True)
class Table:
    """One table: a name, a sentence, and its columns in order."""

    name: str
    doc: str
    columns: tuple[Column, ...]

    def arrow(self) -> pa.Schema:
        """Return the Arrow schema, with unit and meaning in each field's metadata."""
        import pyarrow as pa

        return pa.schema(
            [
                pa.field(c.name, _arrow_type(c.type), metadata={"unit": c.unit, "doc": c.doc})
                for c in self.columns
            ],
            metadata={"apftrace:table": self.name, "apftrace:schema_version": str(SCHEMA_VERSION)},
        )

    def polars(self) -> dict[str, pl.DataType]:
        """Return the polars schema, column name to dtype."""
        return {c.name: _polars_type(c.type) for c in self.columns}

    def empty(self) -> pl.DataFrame:
        """Return a frame of no rows."""
        import polars as pl

        return pl.DataFrame(schema=self.polars())

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return ``frame`` with exactly these columns, in order and type; absent columns become null."""
        import polars as pl

        have = set(frame.columns)
        return frame.select(
            (
                pl.col(c.name).cast(_polars_type(c.type))
                if c.name in have
                else pl.lit(None, _polars_type(c.type))
            ).alias(c.name)
            for c in self.columns
        )


_EVIDENCE = (
    Column("ts", "i64", "ns", "Instant of the event."),
    Column("cpu", "i32", "", "CPU that recorded it."),
    Column("tid", "i32", "", "Thread that was current."),
    Column("event", "str", "", "Tracepoint name."),
    Column("text", "str", "", "Payload as the kernel prints it, or what the event shows here."),
)


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    if kind == "list[str]":
        return pa.large_list(pa.large_string())
    if kind == "evidence":
        return pa.large_list(pa.struct([pa.field(c.name, _arrow_type(c.type)) for c in _EVIDENCE]))
    return getattr(pa, _ARROW[kind])()


def _polars_type(kind: str) -> pl.DataType:
    import polars as pl

    if kind == "list[str]":
        return pl.List(pl.String)
    if kind == "evidence":
        return pl.List(pl.Struct({c.name: _polars_type(c.type) for c in _EVIDENCE}))
    dtype: pl.DataType = getattr(pl, _POLARS[kind])()
    return dtype


PHASES: dict[str, str] = {
    "p1": "queue: not_present until the worker starts (execute_start)",
    "p2": "fault-in: the worker starts until completed",
    "p12": "not_present until completed, where no workqueue event splits P1 from P2",
    "p3": "undelivered: completed until ready",
    "p4": "interrupt latency: ready's vector accepted until injected",
    "p5": "guest handler: injected until the exit of the ACK",
    "p6": "guest run queue: the guest makes the task runnable until it runs",
    "p7": "return: the task runs until its wait returns",
}
"""Phases in the order of a life; P6 and P7 need the guest's trace."""

INSTANTS: tuple[str, ...] = (
    "try", "not_present", "queued", "started", "completed", "ready", "accepted", "injected", "acked",
)  # fmt: skip
"""Instants of a life that a host trace shows, in their usual order."""

OUTCOMES: dict[str, str] = {
    "answered": "its ready was traced, or is implied by an ACK, an accept or a later life of the page",
    "woken_by_all": "ended by a broadcast wakeup (token 0xffffffff)",
    "cancelled": "the queue was cleared, the vCPU reset or the VM ended; no ready is due",
    "in_flight": "still open at the end of the trace, and nothing shows that it is stuck",
    "lost": "stuck: its lost-wakeup, lost-work, lost-interrupt or wrong-vector finding says how sure that is",
    "undecided": "the records that would tell were lost, or are not there",
}

FAULTS = Table(
    "faults",
    "One row per life: one kvm_async_pf_not_present and what answered it.",
    (
        Column("machine", "str", "", "host, or the guest's name."),
        Column(
            "vm", "str", "", "The VM: tgid, guest name, or the group of vCPU threads that share guest memory."
        ),
        Column("vcpu", "i32", "", "vCPU id."),
        Column("tid", "i32", "", "Host thread of the vCPU."),
        Column("token", "u64", "", "Token as traced: (id << 12) | vcpu on x86."),
        Column("use", "i32", "", "1 for the first life of this token on this thread, 2 for the next."),
        Column("kind", "str", "", "pv (the guest was told), halt (only the vCPU sleeps), unknown."),
        Column("gva", "u64", "", "Field gva: the guest physical address under EPT or NPT."),
        Column("gfn", "u64", "", "Guest frame number from the try event."),
        Column("hva", "u64", "", "Host virtual address from completed."),
        Column("cpu", "i32", "", "CPU of not_present."),
        Column("worker", "i32", "", "Thread that traced completed."),
        Column("try", "i64", "ns", "kvm_try_async_get_page."),
        Column("not_present", "i64", "ns", "kvm_async_pf_not_present."),
        Column("queued", "i64", "ns", "workqueue_queue_work of async_pf_execute."),
        Column("started", "i64", "ns", "workqueue_execute_start of it."),
        Column("completed", "i64", "ns", "kvm_async_pf_completed."),
        Column("ready", "i64", "ns", "kvm_async_pf_ready."),
        Column("accepted", "i64", "ns", "kvm_apic_accept_irq of the page-ready vector, right after ready."),
        Column("injected", "i64", "ns", "kvm_inj_virq of that vector."),
        Column("acked", "i64", "ns", "kvm_exit that carried the ACK write."),
        Column("end", "i64", "ns", "Instant at which the life ended or was last seen open."),
        Column("guest", "str", "", "The guest whose trace shows the life too; null where none does."),
        Column("guest_tid", "i32", "", "Guest thread that waited."),
        Column("guest_cpu", "i32", "", "Guest CPU on which it began to wait."),
        Column(
            "guest_state",
            "str",
            "",
            "What became of it: ran, runnable, asleep at the end of the record; unseen.",
        ),
        Column("wait", "i64", "ns", "The guest began to wait: kvm_async_pf_task_wait_schedule."),
        Column("irq", "i64", "ns", "The guest entered the page-ready interrupt's handler."),
        Column("wake", "i64", "ns", "The guest woke the token: kvm_async_pf_task_wake."),
        Column("wakeup", "i64", "ns", "The guest's scheduler made the thread runnable."),
        Column("running", "i64", "ns", "The thread had its CPU again."),
        Column("retry", "i64", "ns", "The wait returned: the thread retries the instruction."),
        Column("p1", "i64", "ns", "Phase P1."),
        Column("p2", "i64", "ns", "Phase P2."),
        Column("p12", "i64", "ns", "P1 and P2 together: not_present until completed."),
        Column("p3", "i64", "ns", "Phase P3."),
        Column("p4", "i64", "ns", "Phase P4; null for halt lives."),
        Column("p5", "i64", "ns", "Phase P5; null for halt lives."),
        Column("p6", "i64", "ns", "Phase P6; null for a thread that was woken before it could sleep."),
        Column("p7", "i64", "ns", "Phase P7; needs a probe on the return of the wait."),
        Column("steal", "i64", "ns", "Part of P6 during which the host kept that vCPU off its CPUs."),
        Column(
            "total", "i64", "ns", "not_present until the guest was told: acked, else injected, else ready."
        ),
        Column(
            "e2e",
            "i64",
            "ns",
            "not_present until the thread retries: retry, else running; from the guest's trace.",
        ),
        Column("outcome", "str", "", "One of: " + ", ".join(OUTCOMES) + "."),
        Column("repaired", "str", "", "What implied an instant that was not traced; null when all were."),
        Column("repeated", "i32", "", "kvm_async_pf_repeated_fault hits on its gfn while it was open."),
        Column("blocker", "u64", "", "Token whose missing ACK held the page-ready slot during P3."),
        Column("tainted", "bool", "", "Records were lost while it was open on a CPU that its threads used."),
    ),
)

FINDINGS = Table(
    "findings",
    "One row per finding, most severe first.",
    (
        Column("id", "str", "", "Stable id within this analysis: rule and running number."),
        Column("rule", "str", "", "Rule id."),
        Column("severity", "str", "", "error, warning or info."),
        Column("confidence", "str", "", "proved, likely or possible."),
        Column("machine", "str", "", "host, or the guest's name."),
        Column("vm", "str", "", "The VM."),
        Column("vcpu", "i32", "", "vCPU id."),
        Column("tid", "i32", "", "Host thread of the vCPU."),
        Column("token", "u64", "", "Token concerned."),
        Column("gva", "u64", "", "Field gva of the life."),
        Column("ts", "i64", "ns", "Start of what the finding is about."),
        Column("end", "i64", "ns", "End of it."),
        Column("phase", "str", "", "Phase concerned."),
        Column("cause", "str", "", "Cause, in one phrase."),
        Column("blocker", "u64", "", "Token to which the delay is charged."),
        Column("message", "str", "", "The finding in one sentence."),
        Column("evidence", "evidence", "", "Events that show it."),
        Column("ruled_out", "list[str]", "", "Confounders that the trace excludes."),
        Column(
            "not_ruled_out",
            "list[str]",
            "",
            "Confounders that the trace cannot exclude, and what would settle them.",
        ),
    ),
)

VCPUS = Table(
    "vcpus",
    "One row per vCPU thread that had async page fault events.",
    (
        Column("machine", "str", "", "host, or the guest's name."),
        Column("vm", "str", "", "The VM."),
        Column("vcpu", "i32", "", "vCPU id."),
        Column("tid", "i32", "", "Host thread of the vCPU."),
        Column("comm", "str", "", "Its name."),
        Column("faults", "i64", "", "Lives."),
        Column("pv", "i64", "", "Lives of which the guest was told."),
        Column("halt", "i64", "", "Lives in which only the vCPU slept."),
        Column(
            "per_s",
            "f64",
            "1/s",
            "Lives per second between the trace's first and last event; null where the clock counts ticks.",
        ),
        Column("p50", "i64", "ns", "Median of total."),
        Column("p95", "i64", "ns", "95th percentile of total."),
        Column("p99", "i64", "ns", "99th percentile of total."),
        Column("max", "i64", "ns", "Longest total."),
        Column("outstanding_max", "i64", "", "Most lives open at one time; the kernel allows 64."),
        Column("slot_busy", "f64", "", "Share of the trace during which a delivered ready was not ACKed."),
        Column("wake_all", "i64", "", "Broadcast wakeups."),
        Column("refused", "i64", "", "try events with neither not_present nor repeated_fault."),
        Column("repeated", "i64", "", "kvm_async_pf_repeated_fault hits."),
        Column("entries", "i64", "", "kvm_entry hits; null where the tracepoint was off."),
    ),
)

ACCOUNTING = Table(
    "accounting",
    "The sums that must balance, one row per vCPU thread and a last row (tid null) for all.",
    (
        Column("machine", "str", "", "host, or the guest's name."),
        Column("vm", "str", "", "The VM."),
        Column("vcpu", "i32", "", "vCPU id."),
        Column("tid", "i32", "", "Host thread of the vCPU; null in the total."),
        Column("try", "i64", "", "kvm_try_async_get_page hits."),
        Column("not_present", "i64", "", "kvm_async_pf_not_present hits."),
        Column("repeated", "i64", "", "kvm_async_pf_repeated_fault hits."),
        Column("refused", "i64", "", "try hits with neither."),
        Column("headless", "i64", "", "not_present and repeated hits whose try lies before the trace."),
        Column("cut", "i64", "", "try hits of which the trace ends before it tells what they became."),
        Column("ready", "i64", "", "kvm_async_pf_ready hits, broadcasts apart."),
        Column("wake_all", "i64", "", "Broadcast readies (token 0xffffffff)."),
        Column("answered", "i64", "", "Lives with outcome answered."),
        Column("cancelled", "i64", "", "Lives with outcome cancelled or woken_by_all."),
        Column("in_flight", "i64", "", "Lives with outcome in_flight."),
        Column("left_truncated", "i64", "", "readies whose not_present lies before the trace."),
        Column("lost", "i64", "", "Lives with outcome lost."),
        Column("undecided", "i64", "", "Lives with outcome undecided."),
        Column("stray", "i64", "", "readies that answer no life and are not left-truncated."),
        Column("repaired", "i64", "", "Answered lives whose ready was implied, not traced."),
        Column("delivered", "i64", "", "readies and broadcasts whose vector was accepted."),
        Column("acks", "i64", "", "ACK writes."),
        Column("balanced", "bool", "", "All identities hold."),
        Column("broken", "list[str]", "", "The identities that do not hold, with their numbers."),
    ),
)

LATENCY = Table(
    "latency",
    "Distribution of each phase, PV and HALT apart.",
    (
        Column("phase", "str", "", "total, e2e or a phase."),
        Column("kind", "str", "", "all, pv or halt."),
        Column("n", "i64", "", "Lives that have the phase."),
        Column("min", "i64", "ns", "Shortest."),
        Column("p50", "i64", "ns", "Median."),
        Column("p95", "i64", "ns", "95th percentile."),
        Column("p99", "i64", "ns", "99th percentile."),
        Column("max", "i64", "ns", "Longest."),
    ),
)

TABLES: tuple[Table, ...] = (FAULTS, FINDINGS, VCPUS, ACCOUNTING, LATENCY)
