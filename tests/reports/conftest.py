from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import analyses

if TYPE_CHECKING:
    from apftrace.analysis import Analysis

BUILDERS = {
    "empty": analyses.empty,
    "single": analyses.single,
    "rich": analyses.rich,
    "lossy": analyses.lossy,
    "hostile": analyses.hostile,
    "many": analyses.many,
}


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep the chart library's cache out of the developer's home, and filled once per session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def built() -> dict[str, Analysis]:
    """Every analysis of the suite, built once."""
    return {name: build() for name, build in BUILDERS.items()}


@pytest.fixture(params=BUILDERS)
def analysis(request: pytest.FixtureRequest, built: dict[str, Analysis]) -> Analysis:
    """Each analysis in turn."""
    return built[request.param]
