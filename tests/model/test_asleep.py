"""Faults that a thread slept through, both engines, held against a reading that keeps every fault."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from apftrace.model import tracepoints as tp
from apftrace.model.asleep import SUMS
from tests.model.conftest import INTERPRETED, compiled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

Row = tuple[int, int, int, int, int, int, int]
"""ts, cpu, tid, kind, a, b, c."""

VCPU, OTHER, IDLE = 101, 102, 7
USER, KERNEL = 0x401F1C, -0x7EF62C80


def fault(ts: int, tid: int = VCPU, rip: int = USER, address: int = 0x7F008) -> Row:
    return ts, 0, tid, tp.PAGE_FAULT, address, 4, rip


def out(ts: int, tid: int = VCPU, state: int = 2) -> Row:
    return ts, 0, tid, tp.SWITCH, tid, state, IDLE


def back(ts: int, tid: int = VCPU) -> Row:
    return ts, 0, IDLE, tp.SWITCH, IDLE, 1, tid


def entry(ts: int, tid: int = VCPU) -> Row:
    return ts, 0, tid, tp.ENTRY, 0, 0, 0


def plain(ts: int, kind: int, tid: int = VCPU) -> Row:
    return ts, 0, tid, kind, 0x7F008, 0x7F, 0


def sums(engine: ModuleType, rows: Sequence[Row]) -> dict[int, dict[str, int]]:
    """Return the sums of each thread that slept in a fault."""
    meter: Any = engine.Odometer()
    if rows:
        meter.feed(
            *(array(code, values) for code, values in zip("qiiiqqq", zip(*rows, strict=True), strict=True))
        )
    meter.finish()
    tids = meter.threads()["tid"]
    columns = meter.asleep.take(len(tids))
    table = {tid: {name: columns[name][n] for name in SUMS} for n, tid in enumerate(tids)}
    return {tid: row for tid, row in table.items() if row["count"] or row["doubtful"]}


def test_the_longest_is_kept_and_all_are_summed(engine: ModuleType) -> None:
    rows = [
        *(fault(10), out(12), back(20), entry(21)),
        *(fault(30, rip=KERNEL, address=0x9000), out(31), back(61), entry(65)),
        *(fault(70, rip=0), out(72), back(73), entry(74)),
    ]
    (row,) = sums(engine, rows).values()
    assert (row["count"], row["slept"], row["in_user"], row["in_kernel"]) == (3, 8 + 30 + 1, 1, 1)
    assert (row["first"], row["last"]) == (10, 74)
    assert (row["most"], row["at"], row["out"], row["end"]) == (30, 30, 31, 65)
    assert (row["address"], row["rip"]) == (0x9000, KERNEL)


def test_a_gap_on_any_cpu_makes_a_fault_doubtful(engine: ModuleType) -> None:
    rows = [fault(10), out(12), (15, 1, 0, tp.LOST, 3, 0, 0), back(20), entry(21)]
    (row,) = sums(engine, rows).values()
    assert (row["count"], row["doubtful"], row["most"]) == (0, 1, 0)


def test_threads_beyond_the_first_room(engine: ModuleType) -> None:
    rows = [r for n in range(300) for r in (fault(n * 10, 1000 + n), out(n * 10 + 1, 1000 + n))]
    rows += [r for n in range(300) for r in (back(4000 + n, 1000 + n), entry(5000 + n, 1000 + n))]
    assert [row["count"] for row in sums(engine, rows).values()] == [1] * 300


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["fault", "out", "preempted", "back", "entry", "try", "repeated", "vmm", "lost"]),
        st.sampled_from([VCPU, OTHER]),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_any_course_reads_as_a_plain_reading_does(steps: list[tuple[str, int]]) -> None:
    rows = [_row(5 + 3 * n, step, tid) for n, (step, tid) in enumerate(steps)]
    expected = _plainly([(5 + 3 * n, step, tid) for n, (step, tid) in enumerate(steps)])
    for engine in (compiled(), INTERPRETED):
        assert {tid: (row["count"], row["doubtful"]) for tid, row in sums(engine, rows).items()} == expected


def _row(ts: int, step: str, tid: int) -> Row:
    match step:
        case "fault":
            return fault(ts, tid)
        case "out":
            return out(ts, tid)
        case "preempted":
            return out(ts, tid, state=0)
        case "back":
            return back(ts, tid)
        case "entry":
            return entry(ts, tid)
        case "lost":
            return ts, 0, 0, tp.LOST, -1, 0, 0
    return plain(ts, {"try": tp.TRY, "repeated": tp.REPEATED, "vmm": tp.USERSPACE_EXIT}[step], tid)


def _plainly(steps: list[tuple[int, str, int]]) -> dict[int, tuple[int, int]]:
    counts: dict[int, list[int]] = {}
    for tid in (VCPU, OTHER):
        own = [step for _, step, of in steps if of == tid or step == "lost"]
        for n, step in enumerate(own):
            if step != "fault":
                continue
            inside = own[n + 1 :]
            end = next(
                (k for k, s in enumerate(inside) if s in {"fault", "try", "repeated", "vmm", "entry"}), None
            )
            if end is None or inside[end] != "entry" or "out" not in inside[:end]:
                continue
            counts.setdefault(tid, [0, 0])["lost" in inside[:end]] += 1
    return {tid: (sure, doubtful) for tid, (sure, doubtful) in counts.items()}
