"""Fixtures that several folders share: the real captures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parents[1]
CAPTURE_ROOTS = (CHECKOUT / "sample-traces", CHECKOUT.parent / "shared" / "samples")


def capture_path(name: str) -> Path:
    """Return a real capture by its path below the samples, for example ``boot/boot.dat``.

    A capture may lie flat in ``sample-traces``. Without it the test fails: no sample, no proof.
    """
    places = [place for root in CAPTURE_ROOTS for place in (root / name, root / Path(name).name)]
    for place in places:
        if place.is_file():
            return place
    pytest.fail(f"capture {name} is missing: looked in " + ", ".join(str(p) for p in places), pytrace=False)


@pytest.fixture(scope="session")
def capture() -> Callable[[str], Path]:
    """Return the function that finds a capture by name."""
    return capture_path
