"""Fixtures that several folders share: the real captures.

Some lie in ``sample-traces`` and must be there. More may lie in the folder that APFTRACE_CAPTURES names, or
beside the checkout; where that folder is, its captures must be there too. Where it is not, the tests that
need them are skipped: the samples alone must do for who has nothing but the repository.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parents[1]
SAMPLES = CHECKOUT / "sample-traces"
MORE = Path(os.environ.get("APFTRACE_CAPTURES", CHECKOUT.parent / "shared" / "samples"))


def only_with_more() -> None:
    """Skip the test where there is no folder of more captures."""
    if not MORE.is_dir():
        pytest.skip("needs the folder of more captures, which APFTRACE_CAPTURES may name")


def capture_path(name: str) -> Path:
    """Return a capture by its path in the folder of more captures, or by its bare name among the samples.

    Without the file the test fails: no sample, no proof. Without the whole folder it is skipped.
    """
    places = (SAMPLES / Path(name).name, MORE / name)
    for place in places:
        if place.is_file():
            return place
    only_with_more()
    pytest.fail(f"capture {name} is missing: looked in " + ", ".join(map(str, places)), pytrace=False)


@pytest.fixture(scope="session")
def capture() -> Callable[[str], Path]:
    """Return the function that finds a capture by name."""
    return capture_path
