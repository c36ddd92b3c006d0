"""Real captures whose files went wrong: holes, pages of another time. Nothing may be blamed for what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import apftrace
from tests.conftest import capture_path

if TYPE_CHECKING:
    from pathlib import Path

CAPTURE = "host/host-v6-none.dat"
PAGE = 4096
LANES = (range(85, 270), range(270, 426))
"""The pages of either CPU, in the file."""
AT = [(lane, lane[len(lane) * n // 9]) for lane in LANES for n in range(2, 8)]


def analysed(tmp_path: Path, data: bytearray) -> apftrace.Analysis:
    path = tmp_path / "damaged.dat"
    path.write_bytes(data)
    return apftrace.analyze(path)


def test_the_pages_are_where_they_are_looked_for() -> None:
    data = capture_path(CAPTURE).read_bytes()
    for lane in LANES:
        stamps = [int.from_bytes(data[PAGE * page :][:8], "little") for page in lane]
        assert stamps == sorted(stamps)
    assert len(data) == PAGE * LANES[-1].stop


@pytest.mark.parametrize(("lane", "at"), AT)
@pytest.mark.parametrize("size", [1, 7])
def test_a_hole_is_a_loss(tmp_path: Path, lane: range, at: int, size: int) -> None:
    data = bytearray(capture_path(CAPTURE).read_bytes())
    size = min(size, lane.stop - at)
    data[PAGE * at : PAGE * (at + size)] = bytes(PAGE * size)
    analysis = analysed(tmp_path, data)
    assert "error" not in set(analysis.findings["severity"])
    assert analysis.verdict == "undecided"
    assert analysis.unsafe
    assert [loss.cpu for loss in analysis.losses] == [LANES.index(lane)]


@pytest.mark.parametrize(("lane", "at"), AT)
@pytest.mark.parametrize("off", [-20, -1, 1, 20])
def test_pages_of_another_time_are_a_loss(tmp_path: Path, lane: range, at: int, off: int) -> None:
    data = bytearray(capture_path(CAPTURE).read_bytes())
    size = min(abs(off), lane.stop - max(at, at + off))
    assert at + off >= lane.start
    assert size
    data[PAGE * at : PAGE * (at + size)] = data[PAGE * (at + off) : PAGE * (at + off + size)]
    analysis = analysed(tmp_path, data)
    assert "error" not in set(analysis.findings["severity"])
    assert analysis.verdict == "undecided"
    # What a vCPU did on the way may be missing too: nobody knows on which CPU.
    assert LANES.index(lane) in {loss.cpu for loss in analysis.losses}
