"""What both versions boil down to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from apftrace_parsers.eventformat import MAX_EVENTS
from apftrace_parsers.tracedat.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from apftrace_parsers.cursor import Cursor
    from apftrace_parsers.tracedat.header import Header


@dataclass
class Meta:
    """Everything but the records.

    Attributes:
        header: first fields of the file.
        kernel_long: bytes of the long of the kernel that recorded.
        options: all options.
        event_texts: (system, format text) of every tracepoint.
        cmdlines: saved_cmdlines, lines of pid and comm.
        kallsyms: reads the text of kallsyms, empty where it is missing or damaged.
        cut: the file ends before its last options; more may be missing than they would tell.
    """

    header: Header
    kernel_long: int
    options: Options = field(default_factory=Options)
    event_texts: list[tuple[str, bytes]] = field(default_factory=list)
    cmdlines: bytes = b""
    kallsyms: Callable[[], bytes] = bytes
    cut: bool = False


def read_ftrace_events(cursor: Cursor, meta: Meta) -> None:
    """Read the formats of ftrace's own events (trace-cmd.dat.v6(5): FTRACE EVENT FORMATS)."""
    for _ in range(cursor.u32("a number of ftrace events")):
        _keep(meta, "ftrace", _format(cursor))


def read_event_formats(cursor: Cursor, meta: Meta) -> None:
    """Read the formats of all other tracepoints (trace-cmd.dat.v6(5): EVENT FORMATS)."""
    for _ in range(cursor.u32("a number of event systems")):
        system = cursor.cstring("the name of an event system")
        for _ in range(cursor.u32("a number of events")):
            _keep(meta, system, _format(cursor))


def _keep(meta: Meta, system: str, text: bytes) -> None:
    # What a file describes beyond any kernel would only take memory.
    if len(meta.event_texts) < MAX_EVENTS:
        meta.event_texts.append((system, text))


def _format(cursor: Cursor) -> bytes:
    return cursor.take(cursor.u64("the length of an event format"), "an event format")
