"""Both engines of the fold: the odometer, and what it stands on and writes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apftrace.model import asleep, breaks, faults, ledger, odometer, threads, waiting
from tests import engines

if TYPE_CHECKING:
    from types import ModuleType

COMPILED = {
    "asleep": asleep, "breaks": breaks, "ledger": ledger, "waiting": waiting, "threads": threads, "faults": faults,
    "odometer": odometer,
}  # fmt: skip
_FRESH = engines.interpreted(list(COMPILED.values()))
INTERPRETED = _FRESH["odometer"]


def compiled() -> ModuleType:
    """Return the compiled odometer; where something is not compiled there is nothing to compare, so the test fails."""
    engines.compiled(list(COMPILED.values()))
    return odometer


def _engine(request: pytest.FixtureRequest, name: str) -> ModuleType:
    compiled()
    return COMPILED[name] if request.param == "compiled" else _FRESH[name]


@pytest.fixture(params=["compiled", "interpreted"])
def engine(request: pytest.FixtureRequest) -> ModuleType:
    """Run a test with the compiled and with the interpreted odometer."""
    return _engine(request, "odometer")


@pytest.fixture(params=["compiled", "interpreted"])
def waiting_engine(request: pytest.FixtureRequest) -> ModuleType:
    """Run a test with the compiled and with the interpreted waiting lives."""
    return _engine(request, "waiting")


@pytest.fixture(params=["compiled", "interpreted"])
def ledger_engine(request: pytest.FixtureRequest) -> ModuleType:
    """Run a test with the compiled and with the interpreted ledger."""
    return _engine(request, "ledger")


@pytest.fixture(params=["compiled", "interpreted"])
def breaks_engine(request: pytest.FixtureRequest) -> ModuleType:
    """Run a test with the compiled and with the interpreted breaks."""
    return _engine(request, "breaks")
