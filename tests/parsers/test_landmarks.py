"""A look at a span after a whole pass sees what a fresh look does, though it skips what lies before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apftrace.model import tracepoints as tp
from apftrace_parsers import walk
from apftrace_parsers.base import PassResult
from apftrace_parsers.landmarks import Landmarks
from apftrace_parsers.registry import open_source
from tests.conftest import SAMPLES

from .conftest import use_interpreted
from .support import look

if TYPE_CHECKING:
    from pathlib import Path

    from apftrace_parsers.base import Source

CAPTURES = ("host-v6-none.dat", "host-v7-zstd.dat", "overrun-b64.dat", "k612-two-vms-v7.dat")
PARTS = 9


def spans(path: Path) -> list[tuple[int, int]]:
    _, result = look(open_source(path))
    assert result.first_ns is not None
    assert result.last_ns is not None
    step = (result.last_ns - result.first_ns) // PARTS
    return [
        (result.first_ns + n * step, result.first_ns + n * step + step // 50) for n in range(-1, PARTS + 1)
    ]


def skips(source: Source, start: int) -> int:
    run = walk.Pass(source._ring, start)  # type: ignore[attr-defined]
    return sum(page > 0 for page in run._page)


@pytest.mark.parametrize("name", CAPTURES)
@pytest.mark.parametrize("whole", [1 << 13, 1 << 14])
def test_a_look_after_a_whole_pass_sees_the_same(
    name: str, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The windows of the whole pass are as large as those of the looks, or larger and filled ahead.
    path = SAMPLES / name
    passed = open_source(path)
    with monkeypatch.context() as patch:
        patch.setattr(walk, "LARGEST_WINDOW", whole)
        patch.setattr(walk, "LARGEST_AHEAD", whole)
        patch.setattr(walk, "THREADS_FROM", 0)
        look(passed)
    monkeypatch.setattr(walk, "LARGEST_WINDOW", 1 << 13)
    skipped = 0
    for start, stop in spans(path):
        rows, result = look(passed, start_ns=start, end_ns=stop)
        fresh_rows, fresh = look(open_source(path), start_ns=start, end_ns=stop)
        assert rows == fresh_rows
        assert (result.counts, result.losses) == (fresh.counts, fresh.losses)
        skipped += skips(passed, start)
    assert skipped > PARTS


def test_the_interpreted_engine_skips_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "LARGEST_WINDOW", 1 << 14)
    path = SAMPLES / "overrun-b64.dat"
    _, whole = look(open_source(path))
    assert whole.first_ns is not None
    assert whole.last_ns is not None
    bounds = {"start_ns": (whole.first_ns + 9 * whole.last_ns) // 10, "end_ns": whole.last_ns}
    expected, _ = look(open_source(path), **bounds)
    use_interpreted(monkeypatch)
    passed = open_source(path)
    look(passed)
    assert look(passed, **bounds)[0] == expected
    assert skips(passed, bounds["start_ns"])


def test_a_pass_that_was_not_finished_leaves_no_landmarks() -> None:
    source = open_source(SAMPLES / "host-v6-none.dat")
    batches = source.stream(tp.PICKS, PassResult())
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert source._ring.landmarks == []  # type: ignore[attr-defined]


def test_nothing_behind_a_disorder_is_a_landmark() -> None:
    marks = Landmarks()
    for page, stamp in enumerate([10, 20, 30, 40, 5, 50, 60, 70]):
        marks.note(stamp, page, (page,))
    assert marks.before(10**9) == (1, (1,))
    assert marks.before(35) is None


def test_a_damaged_file_has_no_landmarks(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    sound = open_source(SAMPLES / CAPTURES[0])
    lane = sound._ring.lanes[0]  # type: ignore[attr-defined]
    at = lane.offset + 8 * lane.page_size
    data = bytearray((SAMPLES / CAPTURES[0]).read_bytes())
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    damaged = open_source(path)
    _, whole = look(damaged)
    assert any("time stamp out of range" in note for note in whole.notes)
    look(sound)
    assert sound._ring.landmarks  # type: ignore[attr-defined]
    assert damaged._ring.landmarks == []  # type: ignore[attr-defined]


def test_landmarks_of_a_long_lane_are_thinned_out() -> None:
    marks = Landmarks()
    for page in range(100_000):
        marks.note(10 * page, page, (page,))
    assert len(marks._stamps) <= 512
    for page in (5_000, 50_000, 99_999):
        place = marks.before(10 * page)
        assert place is not None
        assert page - 2_000 < place[0] < page - 2


def test_a_window_that_begins_with_the_span_is_not_enough() -> None:
    # Records of the same stamp may end the window before.
    marks = Landmarks()
    for page, stamp in enumerate([10, 20, 30, 40, 50]):
        marks.note(stamp, page, (page,))
    assert marks.before(50) == (1, (1,))
    assert marks.before(51) == (2, (2,))
