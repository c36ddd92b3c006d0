"""The odometer, both engines: which events become anchors, and which rows they name."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from apftrace.model import readings
from apftrace.model import tracepoints as tp
from tests.model.fold import (
    ASYNC_PF_EXECUTE,
    HOG,
    OTHER_VCPU,
    PAGE,
    TOKEN,
    VCPU,
    VECTOR,
    WORKER,
    anchors,
    fed,
    kinds,
    row,
    spent,
    taken,
)

if TYPE_CHECKING:
    from types import ModuleType


def test_every_engine_is_what_it_says(engine: ModuleType) -> None:
    assert engine.COMPILED is not engine.__file__.endswith(".py")


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


def test_more_anchors_than_there_is_room_for_at_first(engine: ModuleType) -> None:
    found = anchors(engine, *(row(n, tp.TRY, n) for n in range(40_000)))
    assert [a["a"] for a in found] == list(range(40_000))


def test_no_rows_give_no_anchors(engine: ModuleType) -> None:
    meter = engine.Odometer()
    meter.feed(*(array(code) for code in "qiiiqqq"))
    meter.finish()
    assert taken(meter) == []


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
