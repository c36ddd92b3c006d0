"""How the program ends: at once where all is said, as Python does where something is not."""

from __future__ import annotations

import os
import sys

import pytest

from apftrace import __main__ as program


class Closed:
    """A stream that nothing can be written to."""

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the statuses with which the process would have ended."""
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    return statuses


@pytest.mark.parametrize("status", [0, 4])
def test_the_process_ends_with_its_status(ended: list[int], status: int) -> None:
    program.leave(SystemExit(status))
    assert ended == [status]


def test_what_is_left_to_be_said_is_said(ended: list[int]) -> None:
    with pytest.raises(SystemExit, match="why"):
        program.leave(SystemExit("why"))
    assert ended == []


def test_what_cannot_be_written_is_not_passed_over(ended: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(SystemExit):
        program.leave(SystemExit(0))
    assert ended == []
