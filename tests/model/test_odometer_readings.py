"""The odometer, both engines: what it counts per thread, and what threads did in phases that lasted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apftrace.model import readings
from apftrace.model import tracepoints as tp
from tests.model.fold import (
    HOG,
    OTHER_VCPU,
    PAGE,
    TOKEN,
    VCPU,
    VECTOR,
    WORKER,
    anchors,
    fed,
    row,
    spent,
    switch,
    taken,
)

if TYPE_CHECKING:
    from types import ModuleType


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
