r"""What the lines of ftrace text look like.

The kernel's trace_print_context() in kernel/trace/trace_output.c and libtracecmd's print_event_record():

    CPU 0/KVM-3099    (   3084) [001] d..1.  1741.894739: kvm_entry: vcpu 0, rip 0xffffffff810df0b9
    CPU 0/KVM-3099  [001]  1621.244372: kvm_entry:             vcpu 0 rip 0xffffffff81a592eb

A comm is padded to 16 columns and may hold anything, a whole head of a line too; so the hyphen before the
thread id is looked for in that column first, and only then elsewhere (indented text, names of instances).
Every pattern takes time linear in the length of its line.
"""

from __future__ import annotations

import re
from itertools import accumulate, chain, compress
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from apftrace_parsers.ftracetext.text import DAMAGED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apftrace_parsers.importlog import ImportLog

SHOWN = 60
"""Bytes of a strange line that a note tells."""
UNFINISHED = "unfinished lines"
"""Kind of note: the text ends where no line does."""
MAX_LINE = 1 << 16
"""Most of a line that is kept from one piece to the next: trace_seq of the kernel holds 8 KiB at most."""
COMM_COLUMNS = 16
"""Columns of a comm: TASK_COMM_LEN."""

# Runs of what cannot also match what follows are taken at once (possessive): a fifth less time.
_EVENT = rb"(?:([\w.]{1,128}+):(?=\s)[ \t]*+)?([^\r\n]*+)"
RECORD = re.compile(
    rb"^(.{16}|.*?)-(\d{1,9}+) ++(?:\( *(\d{1,9}|-+)\) +)?\[(\d{1,5}+)\] *+(?:[^\s\d:]\S{2,5} +)?"
    rb"(\d{1,18}+(?=:)|\d{1,9}+(?=\.))(?:\.(\d{1,9}+))?: ++" + _EVENT,
    re.MULTILINE,
)
"""Groups: comm, thread id, thread group, CPU, seconds or ticks, fraction, event, its text."""
LATENCY = re.compile(
    rb"^(.{8}|.*?)-(\d{1,9}) +()(\d{1,5})(?:[^\s\d:]\S{2,5})? +(\d{1,15})()(?:us[^\n:])?: +" + _EVENT,
    re.MULTILINE,
)
"""The same groups of option ``latency-format``, which latency tracers turn on: lat_print_generic()."""
MARK = re.compile(
    rb"^(?:\S{1,64}: *| *)CPU:(\d{1,5}) \[(?:LOST )?(?:(\d{1,18}) )?EVENTS(?: DROPPED)?\][ \t\r]*$"
    rb"|^##### CPU (\d{1,5}) buffer started ####[ \t\r]*$",
    re.MULTILINE,
)
"""A loss, or the first record of a CPU whose older ones were overwritten (test_cpu_buff_start())."""
OTHER = re.compile(
    rb"(?:#.*|[ \t\r]*| => .*|(?:.{0,256}: )?cpus=\d+|version = \d+|CPU \d+ is empty"
    rb"|(?:\S{1,64}: *| *)CPU:\d+ \[[A-Z\d ]+\])\r?"
)
"""Lines that are no records, and are known: headers, stack traces, losses."""

_CPUS = re.compile(rb"^(?: *([^\n]{1,256}): )?cpus=(\d{1,5})\r?$", re.MULTILINE)
_WRITTEN = re.compile(
    rb"^# entries-in-buffer/entries-written: (\d{1,18})/(\d{1,18})\s+#P:(\d{1,5})", re.MULTILINE
)
_TRACER = re.compile(rb"^# tracer: (\S{1,64})", re.MULTILINE)
_KERNEL = re.compile(rb"^# \S{1,64} latency trace v\S+ on (\S{1,256})", re.MULTILINE)


class Columns(NamedTuple):
    """The records of a block, column by column."""

    tasks: Sequence[bytes]
    tids: Sequence[bytes]
    tgids: Sequence[bytes]
    cpus: Sequence[bytes]
    stamps: Sequence[int]
    events: Sequence[bytes]
    texts: Sequence[bytes]

    def where(self, kept: Sequence[bool]) -> Columns:
        """Return the records that are marked."""
        return Columns._make(tuple(compress(column, kept)) for column in self)

    def part(self, first: int, end: int) -> Columns:
        """Return the records from a place up to another."""
        return Columns._make([column[first:end] for column in self])

    def at(self, places: Sequence[int]) -> Columns:
        """Return the records at these places."""
        return Columns._make([column[i] for i in places] for column in self)

    @staticmethod
    def joined(parts: Sequence[Columns]) -> Columns:
        """Return the records of several parts, one after the other."""
        return (
            parts[0]
            if len(parts) == 1
            else Columns._make(map(list, map(chain.from_iterable, zip(*parts, strict=True))))
        )


class Header(NamedTuple):
    """What lines that are no records tell.

    Attributes:
        cpus: CPUs per ``cpus=`` of trace-cmd; several when it merged several files.
        files: names of files before ``cpus=``.
        entries: records in the buffer, records written to it, and CPUs (``#P:``).
        tracer: of the ``# tracer:`` line.
        kernel: release that a latency tracer names.
    """

    cpus: tuple[int, ...]
    files: tuple[bytes, ...]
    entries: tuple[int, int, int] | None
    tracer: str | None
    kernel: str | None


def read_header(block: bytes) -> Header:
    """Return what the lines of a block tell that are no records."""
    written, tracer, kernel = _WRITTEN.search(block), _TRACER.search(block), _KERNEL.search(block)
    told = _CPUS.findall(block)
    return Header(
        cpus=tuple(int(n) for _, n in told),
        files=tuple(name for name, _ in told if name),
        entries=(int(written[1]), int(written[2]), int(written[3])) if written else None,
        tracer=tracer[1].decode("utf-8", "replace") if tracer else None,
        kernel=kernel[1].decode("utf-8", "replace") if kernel else None,
    )


class Grammar:
    """How the records of one text are written.

    Attributes:
        record: pattern of a record; see RECORD for its groups.
        in_us: stamps without a dot are microseconds (latency format), not ticks.
        has_unit: stamps seen so far were ns or µs, not ticks.
    """

    def __init__(self, start: bytes) -> None:
        """Learn it from the first block of a text."""
        latency = None if RECORD.search(start) else LATENCY.search(start)
        self.record = LATENCY if latency else RECORD
        self.in_us = latency is not None and start.startswith(b"us", latency.end(5))
        self.has_unit = self.in_us

    def columns(self, block: bytes) -> Columns | None:
        """Return the records of a block, null when there are none."""
        rows = self.record.findall(block)
        if not rows:
            return None
        tasks, tids, tgids, cpus, seconds, fractions, events, texts = zip(*rows, strict=True)
        return Columns(tasks, tids, tgids, cpus, self._stamps(seconds, fractions), events, texts)

    def strangers(self, block: bytes) -> dict[int, bytes]:
        """Return the lines of a block that are no records and not empty, by their offsets."""
        lines = block.split(b"\n")
        offsets = accumulate((len(line) + 1 for line in lines), initial=0)
        return {
            at: line for at, line in zip(offsets, lines, strict=False) if line and not self.record.match(line)
        }

    def _stamps(self, seconds: Sequence[bytes], fractions: Sequence[bytes]) -> Sequence[int]:
        widths = set(map(len, fractions))
        self.has_unit = self.has_unit or widths != {0}
        if len(widths) > 1:
            return [
                int(s + f.ljust(9, b"0")) if f else int(s) for s, f in zip(seconds, fractions, strict=True)
            ]
        width = widths.pop()
        stamps = list(map(int, map(add, seconds, fractions)))
        scale = 10 ** (9 - width) if width else 1000 if self.in_us else 1
        return stamps if scale == 1 else [stamp * scale for stamp in stamps]


def whole_lines(pieces: Iterator[bytes], log: ImportLog) -> Iterator[bytes]:
    """Yield the pieces of a text again, cut after line ends; lines beyond all measure are left out.

    So is a last line without its end: a token may lack its last digits. The kernel prints no zero byte: where one
    stands, the file has a hole.
    """
    carry, overlong, at = b"", False, 0
    for piece in pieces:
        if b"\0" in piece and not log.has(DAMAGED):
            hole = at + piece.index(b"\0")
            log.note(DAMAGED, f"text at offset {hole} is zeros, a hole in the file: records are missing")
        at += len(piece)
        first = piece.find(b"\n")
        if overlong and first < 0:
            continue
        start = first + 1 if overlong else 0
        overlong = False
        end = piece.rfind(b"\n") + 1
        if end > start:
            yield carry + piece[start:end] if carry else piece[start:end]
            carry = b""
        carry += piece[max(start, end) :]
        if len(carry) > MAX_LINE:
            carry, overlong = b"", True
            log.count("lines beyond all measure, left out", 1)
    if carry.strip(b" \t\r\0"):
        shown = carry[:SHOWN].decode("utf-8", "backslashreplace")
        log.note(UNFINISHED, f"the text ends within a line, which is left out: {shown!r}")


def split_task(task: bytes) -> tuple[str, str]:
    """Return the comm, and the instance that trace-cmd report puts before it (empty: the top one)."""
    comm, prefix = task[-COMM_COLUMNS:], task[:-COMM_COLUMNS].strip()
    if prefix and not prefix.endswith(b":"):
        comm, prefix = task, b""
    return comm.strip().decode("utf-8", "replace"), prefix[:-1].decode("utf-8", "replace")
