"""Both engines of the odometer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apftrace.model import odometer

if TYPE_CHECKING:
    from types import ModuleType


def _interpreted() -> ModuleType:
    # From its source, even where the compiled module lies beside it.
    source = Path(odometer.__file__).with_name("odometer.py")
    spec = importlib.util.spec_from_file_location("interpreted_odometer", source)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INTERPRETED = _interpreted()


def compiled() -> ModuleType:
    """Return the compiled module; without it there is nothing to compare, so the test fails."""
    if not odometer.COMPILED:
        pytest.fail("apftrace.model.odometer is not compiled: build the extension modules", pytrace=False)
    return odometer


@pytest.fixture(params=["compiled", "interpreted"])
def engine(request: pytest.FixtureRequest) -> ModuleType:
    """Run a test with the compiled and with the interpreted odometer."""
    return compiled() if request.param == "compiled" else INTERPRETED
