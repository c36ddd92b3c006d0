"""The modules that Cython compiles, loaded from their sources: the interpreted engine, beside the compiled one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


def interpreted(modules: Sequence[ModuleType]) -> dict[str, ModuleType]:
    """Return the modules by name, fresh from their sources, even where compiled ones lie beside these.

    Args:
        modules: in the order in which they import one another, what is imported first.
    """
    fresh: dict[str, ModuleType] = {}
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            name = module.__name__
            source = Path(module.__file__ or "").parent / f"{name.rpartition('.')[2]}.py"
            spec = importlib.util.spec_from_file_location(name, source)
            assert spec
            assert spec.loader
            fresh[name] = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, name, fresh[name])
            spec.loader.exec_module(fresh[name])
    return {name.rpartition(".")[2]: module for name, module in fresh.items()}


def compiled(modules: Sequence[ModuleType]) -> None:
    """Fail a test where one of the modules is not compiled: there is nothing to compare."""
    for module in modules:
        if not module.COMPILED:
            pytest.fail(f"{module.__name__} is not compiled: build the extension modules", pytrace=False)
