"""Write edited records back, with the capture's own formats, names, clock, CPUs and options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.builders.options import Option
from tests.builders.subbuf import Layout
from tests.builders.tracedat import Missed, Raw, Record, TraceDat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .reader import Capture, Rec


def write(capture: Capture, records: Iterable[Rec], path: Path) -> Path:
    """Write ``records`` to ``path`` in the capture's version and compression."""
    by_instance: dict[str, list[Rec]] = {"": []}
    for rec in records:
        by_instance.setdefault(rec.instance, []).append(rec)
    dat = TraceDat(
        version=capture.version,  # type: ignore[arg-type]
        compression=capture.compression,  # type: ignore[arg-type]
        layout=Layout(page_size=capture.page_size),
        formats=capture.formats,
        cmdlines=capture.cmdlines,
        cpus=max(capture.cpus, 1 + max(r.cpu for rs in by_instance.values() for r in rs)),
        clock=capture.clock,
        options=[_verbatim(number, data) for number, data in capture.options],
    )
    for instance, recs in by_instance.items():
        dat.add(*_raw(recs), instance=instance)
    return dat.write(path)


def _verbatim(number: int, data: bytes) -> Option:
    return Option(number, lambda _: data)


def _raw(recs: list[Rec]) -> Iterator[Record]:
    for rec in sorted(recs, key=lambda r: r.ts):
        if rec.missed is not None:
            yield Missed(rec.ts, rec.cpu, None if rec.missed < 0 else rec.missed)
        yield Raw(rec.ts, rec.cpu, rec.payload)
