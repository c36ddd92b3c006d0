"""Both engines of the compiled modules, and the real captures."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apftrace_parsers import columns, gather, stream, subbuf, walk
from tests.conftest import MORE, SAMPLES

if TYPE_CHECKING:
    from types import ModuleType

CAPTURE_ROOTS = (SAMPLES, MORE)
MAGIC = b"\x17\x08\x44tracing"


def captures() -> list[Path]:
    """Return every trace.dat among the samples, whatever its name."""
    files = [f for root in CAPTURE_ROOTS for f in sorted(root.rglob("*")) if f.is_file()]
    return [f for f in files if _head(f) == MAGIC]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(MAGIC))


def interpreted(name: str) -> ModuleType:
    """Load a module of the parsers from its source, even where a compiled one lies beside it."""
    source = Path(walk.__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"interpreted_{name}", source)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INTERPRETED = {name: interpreted(name) for name in ("subbuf", "gather")}


@pytest.fixture(params=["compiled", "interpreted"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with the compiled and with the interpreted modules."""
    if request.param == "compiled":
        assert subbuf.COMPILED, "subbuf is not compiled: build the extension modules"
        assert gather.COMPILED, "gather is not compiled: build the extension modules"
    else:
        use_interpreted(monkeypatch)
    return str(request.param)


def use_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the parsers use the uncompiled modules."""
    for module in (columns, stream, walk):
        for name, plain in INTERPRETED.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, plain)
