"""The odometer, both engines: which events become anchors, and what their readings say."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apftrace.model import ledger, readings
from apftrace.model import tracepoints as tp
from tests.model.conftest import INTERPRETED, compiled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

Row = tuple[int, int, int, int, int, int, int]
"""ts, cpu, tid, kind, and the fields a, b, c."""

VCPU, OTHER_VCPU, WORKER, HOG = 101, 102, 50, 900
PAGE = 0x7F008
TOKEN = 0x1000
ASYNC_PF_EXECUTE = 0xC0A51230
VECTOR = 0xF3


def row(ts: int, kind: int, a: int = 0, b: int = 0, c: int = 0, *, tid: int = VCPU, cpu: int = 0) -> Row:
    return ts, cpu, tid, kind, a, b, c


def fed(engine: ModuleType, batches: Sequence[Sequence[Row]], *, lasting: int = 1) -> Any:
    """Return an odometer that took these batches."""
    meter = engine.Odometer(lasting)
    for rows in batches:
        meter.feed(
            *(array(code, values) for code, values in zip("qiiiqqq", zip(*rows, strict=True), strict=True))
        )
    meter.finish()
    return meter


def taken(meter: Any) -> list[dict[str, int]]:
    """Return its anchors in the order of their rows."""
    found = []
    for kind in meter.ledger.kinds():
        columns = {
            name: array("i" if name in ledger.NARROW else "q", bytes(column))
            for name, column in meter.ledger.take(kind).items()
        }
        assert tuple(columns) == (*ledger.EVENT, *readings.READINGS.get(kind, ()))
        found += [
            {"kind": kind, **dict(zip(columns, values, strict=True))}
            for values in zip(*columns.values(), strict=True)
        ]
    return sorted(found, key=lambda anchor: anchor["seq"])


def anchors(engine: ModuleType, *rows: Row) -> list[dict[str, int]]:
    return taken(fed(engine, [rows]))


def spent(engine: ModuleType, *rows: Row, lasting: int = 1, worker: bool = False) -> list[dict[str, Any]]:
    """Return what the phases of vCPUs, or of workers, had that lasted, each with the event that ``ends`` it."""
    found = taken(fed(engine, [rows], lasting=lasting))
    after = {a["seq"] - 1: (a["ts"], a["kind"]) for a in found}
    phases = [{**a, "ends": after[a["seq"]]} for a in found if a["kind"] == tp.SPENT]
    return [phase for phase in phases if (phase["ends"][1] == tp.COMPLETED) is worker]


def kinds(engine: ModuleType, *rows: Row) -> list[int]:
    return [anchor["kind"] for anchor in anchors(engine, *rows)]


def switch(ts: int, before: int, after: int, state: int = 0, *, cpu: int = 0) -> Row:
    return row(ts, tp.SWITCH, before, state, after, tid=before, cpu=cpu)


def test_every_engine_is_what_it_says(engine: ModuleType) -> None:
    assert engine.COMPILED is not engine.__file__.endswith(".py")


def test_entries_are_counted_up_to_each_anchor(engine: ModuleType) -> None:
    first, second = anchors(
        engine,
        row(1, tp.ENTRY),
        row(2, tp.NOT_PRESENT, TOKEN, PAGE),
        row(3, tp.ENTRY),
        row(4, tp.ENTRY, tid=OTHER_VCPU),
        row(5, tp.ENTRY),
        row(6, tp.NOT_PRESENT, TOKEN + 0x1000, PAGE),
    )
    assert (first["entries"], second["entries"]) == (1, 3)
    assert (second["ts"], second["tid"], second["a"], second["b"]) == (6, VCPU, TOKEN + 0x1000, PAGE)


@pytest.mark.parametrize("reason", [12, 0x78])
def test_hlt_exits_are_counted_on_both_vendors(engine: ModuleType, reason: int) -> None:
    (waited,) = spent(
        engine,
        row(0, tp.EXIT, reason),
        row(1, tp.NOT_PRESENT, TOKEN, PAGE),
        row(2, tp.COMPLETED, PAGE, tid=WORKER),
        *(row(3 + n, tp.EXIT, reason) for n in range(5)),
        row(9, tp.EXIT, 1),
        row(11, tp.READY, TOKEN, PAGE),
    )
    assert waited["hlts"] == 5


def test_no_exit_seen_reads_as_long_ago(engine: ModuleType) -> None:
    (anchor,) = anchors(engine, row(10, tp.TRY, PAGE))
    assert anchor["exit_ts"] == readings.NEVER


def test_time_is_booked_by_what_the_thread_did(engine: ModuleType) -> None:
    (waited,) = spent(
        engine,
        row(-50, tp.NOT_PRESENT, TOKEN, PAGE),
        row(0, tp.COMPLETED, PAGE, tid=WORKER, cpu=1),
        switch(100, VCPU, HOG),  # preempted
        switch(130, HOG, VCPU),
        switch(150, VCPU, HOG, tp.TASK_UNINTERRUPTIBLE),
        row(190, tp.WAKEUP, VCPU, tid=HOG),
        switch(200, HOG, VCPU),
        switch(210, VCPU, HOG, 1),  # asleep
        row(260, tp.WAKING, VCPU, tid=HOG),
        switch(265, HOG, VCPU),
        row(300, tp.READY, TOKEN, PAGE),
    )
    told = {name: waited[name] for name in readings.SHARES}
    assert told == {"ran": 100 + 20 + 10 + 35, "waited": 30 + 10 + 5, "slept": 50, "blocked": 40}
    assert (waited["a"], waited["tid"], waited["ends"]) == (0, VCPU, (300, tp.READY))


def test_the_thread_that_had_the_cpu_for_the_longest_wait_is_named(engine: ModuleType) -> None:
    first, second = spent(
        engine,
        row(-2, tp.NOT_PRESENT, TOKEN, PAGE),
        row(-1, tp.COMPLETED, PAGE, tid=HOG, cpu=1),
        switch(0, VCPU, HOG),
        switch(10, HOG, VCPU),
        switch(20, VCPU, WORKER),
        switch(90, WORKER, VCPU),
        row(100, tp.READY, TOKEN, PAGE),
        row(101, tp.ACCEPT, VECTOR),
        row(110, tp.INJ_VIRQ, VECTOR),
    )
    assert (first["hog"], second["hog"]) == (WORKER, 0)


def test_of_the_msrs_only_writes_of_the_three_are_kept(engine: ModuleType) -> None:
    rows = [
        row(n, tp.MSR, write, ecx, 1)
        for n, (write, ecx) in enumerate(
            [(1, tp.MSR_EN), (1, tp.MSR_INT), (1, tp.MSR_ACK), (0, tp.MSR_EN), (0, tp.MSR_ACK), (1, 0x6E0)]
        )
    ]
    assert [anchor["b"] for anchor in anchors(engine, *rows)] == [tp.MSR_EN, tp.MSR_INT, tp.MSR_ACK]


def test_of_the_exceptions_only_page_faults_and_machine_checks_are_kept(engine: ModuleType) -> None:
    rows = [row(vector, tp.INJ_EXCEPTION, vector) for vector in range(32)]
    assert [anchor["a"] for anchor in anchors(engine, *rows)] == [14, 18]


def test_of_the_runs_that_end_only_failures_are_kept(engine: ModuleType) -> None:
    rows = [row(n, tp.USERSPACE_EXIT, 0, errno) for n, errno in enumerate((0, -4, -14, 5))]
    assert [anchor["b"] for anchor in anchors(engine, *rows)] == [-14]


def test_a_page_fault_is_kept_only_on_the_page_just_made_ready(engine: ModuleType) -> None:
    rows = [
        row(1, tp.PAGE_FAULT, PAGE),
        row(2, tp.READY, TOKEN, PAGE),
        row(3, tp.PAGE_FAULT, PAGE + 0x1000),
        row(4, tp.PAGE_FAULT, PAGE + 0x10),
        row(5, tp.PAGE_FAULT, PAGE, tid=OTHER_VCPU),
    ]
    assert [(a["ts"], a["kind"]) for a in anchors(engine, *rows)] == [(2, tp.READY), (4, tp.PAGE_FAULT)]


def test_the_work_function_is_learned_from_the_row_after_not_present(engine: ModuleType) -> None:
    other = 0xBEEF
    rows = [
        row(1, tp.QUEUE_WORK, 7, other),
        row(2, tp.NOT_PRESENT, TOKEN, PAGE),
        row(3, tp.QUEUE_WORK, 8, ASYNC_PF_EXECUTE),
        row(4, tp.QUEUE_WORK, 9, other),
        row(5, tp.EXECUTE_START, 9, other, tid=WORKER),
        row(6, tp.EXECUTE_END, 9, tid=WORKER),
        row(7, tp.EXECUTE_START, 8, ASYNC_PF_EXECUTE, tid=WORKER),
        row(8, tp.EXECUTE_END, 8, tid=WORKER),
    ]
    assert [a["ts"] for a in anchors(engine, *rows)] == [2, 3, 7, 8]


def test_the_work_function_is_learned_before_5_8_from_the_row_before(engine: ModuleType) -> None:
    rows = [
        row(1, tp.TRY, PAGE),
        row(2, tp.QUEUE_WORK, 8, ASYNC_PF_EXECUTE),
        row(3, tp.NOT_PRESENT, TOKEN, PAGE),
        row(4, tp.EXECUTE_START, 8, ASYNC_PF_EXECUTE, tid=WORKER),
    ]
    assert [(a["ts"], a["kind"]) for a in anchors(engine, *rows)] == [
        (2, tp.QUEUE_WORK), (3, tp.NOT_PRESENT), (4, tp.EXECUTE_START),
    ]  # fmt: skip


def test_the_accept_right_after_a_ready_is_marked(engine: ModuleType) -> None:
    rows = [
        row(1, tp.READY, TOKEN, PAGE),
        row(2, tp.ACCEPT, VECTOR, tid=OTHER_VCPU),
        row(3, tp.ACCEPT, VECTOR),
        row(4, tp.ACCEPT, VECTOR),
        row(5, tp.ACCEPT, 0xEC),
    ]
    found = anchors(engine, *rows)
    accepts = [(a["ts"], a["c"]) for a in found if a["kind"] == tp.ACCEPT]
    assert accepts == [(2, -1), (3, found[0]["seq"]), (4, -1)]


def test_any_vector_right_after_a_ready_is_kept(engine: ModuleType) -> None:
    rows = [row(1, tp.READY, TOKEN, PAGE), row(2, tp.ACCEPT, 0)]
    assert kinds(engine, *rows) == [tp.READY, tp.ACCEPT]


def test_vectors_are_learned_from_the_write_of_int(engine: ModuleType) -> None:
    rows = [
        row(1, tp.INJ_VIRQ, 0x51),
        row(2, tp.MSR, 1, tp.MSR_INT, 0x51),
        row(3, tp.INJ_VIRQ, 0x51),
        row(4, tp.INJ_VIRQ, VECTOR),
        row(5, tp.INJ_VIRQ, 0xEC),
        row(6, tp.ACCEPT, VECTOR),
    ]
    found = anchors(engine, *rows)
    assert [a["ts"] for a in found] == [2, 3, 4, 6]
    assert found[-1]["virqs"] == 4


def test_vcpus_that_wait_for_one_page_are_served_in_order(engine: ModuleType) -> None:
    rows = [
        row(1, tp.ENTRY),
        row(2, tp.NOT_PRESENT, 0x1000, PAGE),
        row(3, tp.NOT_PRESENT, 0x1001, PAGE, tid=OTHER_VCPU),
        row(14, tp.COMPLETED, PAGE, 0x7F0000, tid=WORKER),
        row(26, tp.COMPLETED, PAGE, 0x7F0000, tid=HOG),
        row(38, tp.READY, 0x1000, PAGE),
        row(40, tp.READY, 0x1001, PAGE, tid=OTHER_VCPU),
        row(52, tp.COMPLETED, PAGE, 0x7F0000, tid=WORKER),
    ]
    done = [(a["ts"], a["c"]) for a in anchors(engine, *rows) if a["kind"] == tp.COMPLETED]
    assert done == [(14, -1), (26, -1), (52, -1)]
    waits = [(a["tid"], a["a"], a["ends"][0]) for a in spent(engine, *rows)]
    assert waits == [(VCPU, 14, 38), (OTHER_VCPU, 26, 40)]


def test_a_phase_is_told_only_if_it_lasted_and_of_one_that_holds_the_slot_a_tenth(engine: ModuleType) -> None:
    def phases(*ends: int) -> list[int]:
        done, ready, injected, acked = ends
        rows = [
            row(0, tp.NOT_PRESENT, TOKEN, PAGE),
            row(done, tp.COMPLETED, PAGE, tid=WORKER),
            row(ready, tp.READY, TOKEN, PAGE),
            row(ready, tp.ACCEPT, VECTOR),
            row(injected, tp.INJ_VIRQ, VECTOR),
            row(acked, tp.MSR, 1, tp.MSR_ACK),
        ]
        return [a["ends"][1] for a in spent(engine, *rows, lasting=100)]

    assert phases(10, 109, 118, 127) == []
    assert phases(10, 110, 119, 129) == [tp.READY, tp.MSR]
    assert phases(10, 20, 30, 39) == [tp.INJ_VIRQ]


def test_a_vector_injected_again_begins_no_handler(engine: ModuleType) -> None:
    rows = [
        row(10, tp.ACCEPT, VECTOR),
        row(20, tp.INJ_VIRQ, VECTOR),
        row(30, tp.INJ_VIRQ, VECTOR),
        row(50, tp.MSR, 1, tp.MSR_ACK),
    ]
    assert [(a["a"], a["ts"]) for a in spent(engine, *rows)] == [(10, 20), (20, 50)]


def test_a_completed_life_without_a_ready_keeps_its_counts(engine: ModuleType) -> None:
    rows = [
        row(1, tp.ENTRY),
        row(2, tp.NOT_PRESENT, 0x1000, PAGE),
        row(3, tp.NOT_PRESENT, 0x2000, 2 * PAGE),
        row(4, tp.NOT_PRESENT, 0x3000, 3 * PAGE),
        row(5, tp.EXIT, 0x78),
        row(6, tp.COMPLETED, PAGE, tid=WORKER),
        row(7, tp.ENTRY),
        row(8, tp.EXIT, 0x78),
        row(9, tp.COMPLETED, 3 * PAGE, tid=WORKER),
        row(10, tp.READY, 0x3000, 3 * PAGE),
    ]
    (left,) = [a for a in anchors(engine, *rows) if a["kind"] == tp.UNANSWERED]
    assert (left["ts"], left["tid"], left["a"], left["b"], left["hlts"]) == (6, VCPU, 0, 1, 1)


def test_a_new_life_of_the_page_takes_the_place_of_the_old(engine: ModuleType) -> None:
    rows = [
        row(1, tp.NOT_PRESENT, 0x1000, PAGE),
        row(2, tp.NOT_PRESENT, 0x2000, PAGE),
        row(3, tp.COMPLETED, PAGE, 0x7F0000, tid=WORKER),
    ]
    assert [a["c"] for a in anchors(engine, *rows) if a["kind"] == tp.COMPLETED] == [1]


def test_completed_names_the_only_vcpu_that_waits(engine: ModuleType) -> None:
    rows = [
        row(10, tp.NOT_PRESENT, TOKEN, PAGE),
        row(50, tp.COMPLETED, PAGE, 0x7F0000, tid=WORKER),
        row(60, tp.COMPLETED, 2 * PAGE, 0x7F0000, tid=WORKER),
    ]
    done = [(a["c"], a["vcpu_tid"]) for a in anchors(engine, *rows) if a["kind"] == tp.COMPLETED]
    assert done == [(0, VCPU), (-1, -1)]


def test_of_a_worker_is_told_what_it_did_since_its_completed_before(engine: ModuleType) -> None:
    rows = [
        row(-9, tp.NOT_PRESENT, TOKEN, PAGE),
        row(0, tp.COMPLETED, PAGE, 0x7F0000, tid=WORKER),
        row(5, tp.NOT_PRESENT, TOKEN + 0x1000, 2 * PAGE),
        switch(10, WORKER, HOG, tp.TASK_UNINTERRUPTIBLE),
        switch(40, HOG, WORKER),
        row(45, tp.COMPLETED, 2 * PAGE, 0x7F0000, tid=WORKER),
    ]
    assert [[work[name] for name in readings.SHARES] for work in spent(engine, *rows, worker=True)] == [
        [0, 0, 0, 0],
        [15, 0, 0, 30],
    ]
    assert spent(engine, *rows, lasting=41, worker=True) == []


def test_of_a_worker_s_first_page_is_told_what_it_did_since_it_was_first_seen(engine: ModuleType) -> None:
    rows = [
        row(0, tp.NOT_PRESENT, TOKEN, PAGE),
        row(2, tp.WAKING, WORKER, tid=VCPU),
        switch(5, HOG, WORKER, cpu=1),
        switch(10, WORKER, HOG, tp.TASK_UNINTERRUPTIBLE, cpu=1),
        switch(90, HOG, WORKER, cpu=1),
        row(95, tp.COMPLETED, PAGE, 0x7F0000, tid=WORKER, cpu=1),
    ]
    (work,) = spent(engine, *rows, worker=True)
    assert (work["blocked"], work["a"]) == (80, 2)


def test_rows_of_lives_count_on_over_batches(engine: ModuleType) -> None:
    first = [row(1, tp.SIGNAL, 7), row(2, tp.NOT_PRESENT, TOKEN, PAGE)]
    found = taken(fed(engine, [first, [row(3, tp.COMPLETED, PAGE, 0x7F0000, tid=WORKER)]]))
    assert [a["c"] for a in found if a["kind"] == tp.COMPLETED] == [1]


def test_a_try_stands_beside_what_it_became(engine: ModuleType) -> None:
    rows = [
        row(1, tp.TRY, PAGE, 0x7F),
        row(2, tp.NOT_PRESENT, TOKEN, PAGE),
        row(3, tp.TRY, PAGE, 0x7F),
        row(4, tp.REPEATED, PAGE, 0x7F),
        row(5, tp.REPEATED, PAGE, 0x7F),
        row(6, tp.NOT_PRESENT, TOKEN + 0x1000, PAGE),
    ]
    found = anchors(engine, *rows)
    assert [(a["ts"], a["c"]) for a in found] == [(2, 0x7F), (4, 1), (5, 0), (6, -1)]
    assert (found[0]["tried"], found[-1]["tried"]) == (1, readings.NEVER)


def test_a_try_that_became_nothing_is_kept(engine: ModuleType) -> None:
    rows = [
        row(1, tp.ENTRY),
        row(2, tp.TRY, PAGE, 0x7F),
        row(3, tp.ENTRY),
        row(4, tp.TRY, PAGE + 0x1000, 0x80),
        row(5, tp.NOT_PRESENT, TOKEN, PAGE),
        row(6, tp.TRY, PAGE, 0x7F),
    ]
    tries = [a for a in anchors(engine, *rows) if a["kind"] == tp.TRY]
    told = [(a["ts"], a["c"], a["entries"], a["first"]) for a in tries]
    assert told == [(2, 0, 1, 1), (4, 0, 2, 0), (6, 1, 2, 0)]


def test_a_ready_names_the_life_that_it_answers(engine: ModuleType) -> None:
    rows = [
        row(1, tp.NOT_PRESENT, TOKEN, PAGE),
        row(2, tp.NOT_PRESENT, TOKEN, PAGE, tid=OTHER_VCPU),
        row(3, tp.READY, TOKEN, PAGE, tid=OTHER_VCPU),
        row(4, tp.READY, TOKEN, PAGE),
        row(5, tp.READY, TOKEN, PAGE),
        row(6, tp.READY, TOKEN + 0x1000, PAGE),
    ]
    assert [a["c"] for a in anchors(engine, *rows)][2:] == [1, 0, -1, -1]


def test_an_exception_names_the_life_that_it_may_tell_of(engine: ModuleType) -> None:
    rows = [
        row(1, tp.NOT_PRESENT, TOKEN, PAGE),
        row(2, tp.INJ_EXCEPTION, 14),
        row(3, tp.ENTRY),
        row(4, tp.INJ_EXCEPTION, 14),
        row(5, tp.INJ_EXCEPTION, 14, tid=OTHER_VCPU),
    ]
    assert [a["told"] for a in anchors(engine, *rows) if a["kind"] == tp.INJ_EXCEPTION] == [0, -1, -1]


def test_work_is_tied_to_its_life_in_either_order(engine: ModuleType) -> None:
    rows = [
        row(1, tp.NOT_PRESENT, TOKEN, PAGE),
        row(2, tp.QUEUE_WORK, 8, ASYNC_PF_EXECUTE),
        row(3, tp.QUEUE_WORK, 9, ASYNC_PF_EXECUTE),
        row(4, tp.NOT_PRESENT, TOKEN + 0x1000, PAGE + 0x1000),
    ]
    first, after, before, second = anchors(engine, *rows)
    assert (first["queued"], after["c"], before["c"], second["queued"]) == (
        -1,
        first["seq"],
        -1,
        before["seq"],
    )


def test_a_loss_is_no_anchor(engine: ModuleType) -> None:
    assert anchors(engine, row(5, tp.LOST, 7, 2, cpu=3)) == []


def test_threads_have_a_final_reading(engine: ModuleType) -> None:
    rows = [
        row(1, tp.ENTRY, 3),
        row(4, tp.EXIT, 0x78),
        row(6, tp.ENTRY, 3),
        row(7, tp.INJ_VIRQ, 0xEC),
        switch(9, VCPU, HOG, 0x10),
    ]
    threads = fed(engine, [rows]).threads()
    at = threads["tid"].index(VCPU)
    told = {name: values[at] for name, values in threads.items() if name != "state"}
    assert told == {
        "tid": VCPU, "first": 1, "last": 9, "entries": 2, "entry_ts": 6, "hlts": 1, "virqs": 1, "vcpu": 3,
        "gone": 9,
    }  # fmt: skip


def test_the_cpus_of_a_thread_are_remembered(engine: ModuleType) -> None:
    meter = fed(engine, [[row(1, tp.ENTRY, cpu=0), row(2, tp.ENTRY, cpu=5), switch(3, HOG, VCPU, cpu=2)]])
    assert meter.cpus_of[VCPU] == {0, 2, 5}


def test_more_threads_than_there_is_room_for_at_first(engine: ModuleType) -> None:
    entries = [row(n, tp.ENTRY, tid=1 + 7 * n) for n in range(3000)]
    faults = [row(5000 + n, tp.NOT_PRESENT, TOKEN, PAGE, tid=1 + 7 * n) for n in range(3000)]
    again = taken(fed(engine, [entries, faults]))
    assert [a["tid"] for a in again] == [1 + 7 * n for n in range(3000)]
    assert {a["entries"] for a in again} == {1}


def test_more_anchors_than_there_is_room_for_at_first(engine: ModuleType) -> None:
    found = anchors(engine, *(row(n, tp.TRY, n) for n in range(40_000)))
    assert [a["a"] for a in found] == list(range(40_000))


def test_no_rows_give_no_anchors(engine: ModuleType) -> None:
    meter = engine.Odometer()
    meter.feed(*(array(code) for code in "qiiiqqq"))
    meter.finish()
    assert taken(meter) == []


_PIDS = st.sampled_from([0, -1, WORKER, HOG, VCPU, OTHER_VCPU, 1023, 1024 + 50])
_VALUES = st.one_of(
    st.sampled_from(
        [
            0,
            1,
            2,
            -1,
            14,
            18,
            12,
            0x78,
            PAGE,
            PAGE + 0x1000,
            TOKEN,
            0xFFFFFFFF,
            VECTOR,
            0x51,
            ASYNC_PF_EXECUTE,
        ]
    ),
    st.sampled_from([tp.MSR_EN, tp.MSR_INT, tp.MSR_ACK]),
    st.integers(-(2**63), 2**63 - 1),
)
_KINDS = st.sampled_from([*range(len(tp.TRACEPOINTS)), tp.LOST])


@st.composite
def streams(draw: st.DrawFn) -> list[list[Row]]:
    """Batches of rows in time order; pids are where the kernel has pids, all else is anything."""
    ts = draw(st.integers(0, 2**40))
    batches = []
    for size in draw(st.lists(st.integers(1, 30), min_size=1, max_size=4)):
        rows = []
        for _ in range(size):
            ts += draw(st.one_of(st.integers(0, 1000), st.integers(0, 2**58)))
            kind = draw(_KINDS)
            a, b, c = draw(_VALUES), draw(_VALUES), draw(_VALUES)
            if kind in (tp.SWITCH, tp.WAKING, tp.WAKEUP):
                a, c = draw(_PIDS), draw(_PIDS)
            rows.append((ts, draw(st.integers(0, 3)), draw(_PIDS), kind, a, b, c))
        batches.append(rows)
    return batches


def _run(engine: ModuleType, batches: Sequence[Sequence[Row]]) -> tuple[object, ...]:
    meter = fed(engine, batches)
    cpus = {tid: set(cpus) for tid, cpus in meter.cpus_of.items()}
    return taken(meter), meter.threads(), cpus, set(meter.vectors()), set(meter.seen_vectors())


@settings(max_examples=300, deadline=None)
@given(streams())
def test_both_engines_read_random_streams_alike(batches: list[list[Row]]) -> None:
    assert _run(compiled(), batches) == _run(INTERPRETED, batches)


@settings(max_examples=100, deadline=None)
@given(streams())
def test_the_cut_into_batches_changes_nothing(batches: list[list[Row]]) -> None:
    whole = [[row for rows in batches for row in rows]]
    assert _run(compiled(), batches) == _run(compiled(), whole)


def test_an_entry_at_the_reset_vector_is_kept_once_a_row(engine: ModuleType) -> None:
    rows = [(1, 0x401F1C), (2, tp.RESET_RIP), (3, tp.RESET_RIP), (4, 0x7C00), (5, tp.RESET_RIP)]
    found = anchors(engine, *(row(ts, tp.ENTRY, 3, rip) for ts, rip in rows))
    assert [(x["kind"], x["ts"], x["a"], x["entries"]) for x in found] == [
        (tp.RESET, 2, 3, 1),
        (tp.RESET, 5, 3, 4),
    ]
    first = anchors(engine, row(1, tp.ENTRY, 0, tp.RESET_RIP), row(2, tp.ENTRY, 0, tp.RESET_RIP))
    assert [(x["ts"], x["entries"]) for x in first] == [(1, 0)]


def test_init_and_sipi_are_no_interrupts_of_a_vector(engine: ModuleType) -> None:
    nmi, kick = 0x400, 0x300
    modes = (tp.DM_INIT, tp.DM_SIPI, nmi, kick)
    meter = fed(engine, [[row(n, tp.ACCEPT, VECTOR, 1, mode) for n, mode in enumerate(modes)]])
    assert [(x["kind"], x["a"], x["b"], x["c"]) for x in taken(meter)] == [
        (tp.STARTUP, tp.DM_INIT, 1, VECTOR),
        (tp.STARTUP, tp.DM_SIPI, 1, VECTOR),
    ]
    assert VECTOR not in meter.seen_vectors()


def test_an_nmi_right_after_a_ready_is_not_its_interrupt(engine: ModuleType) -> None:
    rows = [row(1, tp.READY, TOKEN, PAGE), row(2, tp.ACCEPT, 2, 0, 0x400)]
    assert kinds(engine, *rows) == [tp.READY]
