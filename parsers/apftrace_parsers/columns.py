"""Typed tables: the payload fields of whole events as Arrow columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apftrace_parsers.base import EventFormat
    from apftrace_parsers.eventformat import Field
    from apftrace_parsers.walk import Pass


def tabulated(
    run: Pass, events: Sequence[tuple[EventFormat, tuple[Field, ...]]]
) -> Iterator[tuple[EventFormat, pa.RecordBatch]]:
    """Yield the records of a pass as typed batches."""
    yield from ()
