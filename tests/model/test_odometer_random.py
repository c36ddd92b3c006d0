"""The odometer on random streams: both engines alike, and however the rows are cut into batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from apftrace.model import tracepoints as tp
from tests.model.conftest import INTERPRETED, compiled
from tests.model.fold import (
    ASYNC_PF_EXECUTE,
    HOG,
    OTHER_VCPU,
    PAGE,
    TOKEN,
    VCPU,
    VECTOR,
    WORKER,
    Row,
    fed,
    taken,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


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
