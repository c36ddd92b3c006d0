"""Both engines of the fold: the odometer, and the ledger and the waiting lives that it writes to."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apftrace.model import asleep, ledger, odometer, threads, waiting

if TYPE_CHECKING:
    from types import ModuleType

MODULES = (asleep, ledger, waiting, threads, odometer)


def _interpreted() -> dict[str, ModuleType]:
    # From their sources, even where the compiled modules lie beside them; the odometer last, on top of the others.
    fresh: dict[str, ModuleType] = {}
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            name = module.__name__
            spec = importlib.util.spec_from_file_location(
                name, Path(module.__file__ or "").parent / f"{name.rpartition('.')[2]}.py"
            )
            assert spec
            assert spec.loader
            fresh[name] = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, name, fresh[name])
            spec.loader.exec_module(fresh[name])
    return fresh


_FRESH = _interpreted()
INTERPRETED = _FRESH[odometer.__name__]


def compiled() -> ModuleType:
    """Return the compiled module; without it there is nothing to compare, so the test fails."""
    for module in MODULES:
        if not module.COMPILED:
            pytest.fail(f"{module.__name__} is not compiled: build the extension modules", pytrace=False)
    return odometer


@pytest.fixture(params=["compiled", "interpreted"])
def engine(request: pytest.FixtureRequest) -> ModuleType:
    """Run a test with the compiled and with the interpreted odometer."""
    return compiled() if request.param == "compiled" else INTERPRETED


@pytest.fixture(params=["compiled", "interpreted"])
def waiting_engine(request: pytest.FixtureRequest) -> ModuleType:
    """Run a test with the compiled and with the interpreted waiting lives."""
    compiled()
    return waiting if request.param == "compiled" else _FRESH[waiting.__name__]


@pytest.fixture(params=["compiled", "interpreted"])
def ledger_engine(request: pytest.FixtureRequest) -> ModuleType:
    """Run a test with the compiled and with the interpreted ledger."""
    compiled()
    return ledger if request.param == "compiled" else _FRESH[ledger.__name__]
