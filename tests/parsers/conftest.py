"""Both engines of the compiled modules, and the real captures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apftrace_parsers import columns, gather, lanes, rowwriter, stamps, stream, subbuf, walk
from tests import engines
from tests.conftest import MORE, SAMPLES

from .support import LAYOUTS, layout_id

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from tests.builders.subbuf import Layout

CAPTURE_ROOTS = (SAMPLES, MORE)
MAGIC = b"\x17\x08\x44tracing"


def captures() -> list[Path]:
    """Return every trace.dat among the samples, whatever its name."""
    files = [f for root in CAPTURE_ROOTS for f in sorted(root.rglob("*")) if f.is_file()]
    return [f for f in files if _head(f) == MAGIC]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(MAGIC))


COMPILED = (gather, stamps, rowwriter, lanes, subbuf)
INTERPRETED = engines.interpreted(COMPILED)


@pytest.fixture(params=["compiled", "interpreted"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with the compiled and with the interpreted modules."""
    if request.param == "compiled":
        engines.compiled(COMPILED)
    else:
        use_interpreted(monkeypatch)
    return str(request.param)


def use_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the parsers use the uncompiled modules."""
    for module in (columns, stream, walk):
        for name, plain in INTERPRETED.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, plain)


@pytest.fixture
def walker_module(engine: str) -> ModuleType:
    """Return the module of the walker, of each engine."""
    return subbuf if engine == "compiled" else INTERPRETED["subbuf"]


@pytest.fixture(params=LAYOUTS, ids=layout_id)
def layout(request: pytest.FixtureRequest) -> Layout:
    """Run a test with every layout of pages."""
    return request.param
