r"""Text of the function_graph tracer, written again as records.

What trace_functions_graph.c prints is no table: every column is an option, the thread is only told when it
changes, and a closing brace is named by its indentation.

      110.594925 |   0)   apftest-181   |               |  kvm_async_pf_task_wait_schedule() {
     1) ! 642.917 us  |    kvm_async_pf_task_wake();
     ------------------------------------------
     1)   apftouc-1    =>    <idle>-0
     ------------------------------------------
     1) * 11253.16 us |  } /* kvm_async_pf_task_wait_schedule */

Each line becomes the record that was behind it, as trace-cmd report would show it: ``funcgraph_entry: f() {``
and ``funcgraph_exit: } /* f */``. A function that calls nothing is one line for two records; its end then
stands at the instant of its start, marked as a leaf. Durations come from another clock than stamps and
are left out. Text without a column of time gets the number of the record instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from apftrace_parsers.ftracetext.lines import RECORD, whole_lines
from apftrace_parsers.importlog import ImportLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apftrace_parsers.ftracetext.text import Text

ENTRY, EXIT = b"funcgraph_entry", b"funcgraph_exit"
LEAF = b" leaf"
RECORDED = frozenset({ENTRY, EXIT, b"fgraph_retaddr_entry"})
"""Records of the tracer as trace-cmd report names them; the last has a return address (since 6.13)."""
UNKNOWN_TID = 999_999_999
"""Stands for a thread that the text does not tell: above PID_MAX_LIMIT of include/linux/threads.h."""
COMM = 15
"""Bytes of the longest comm; print_graph_proc() shows 7 of them."""
LOOKED_AT = 256
"""Lines that tell the form of a text without a header."""
MAX_DEPTHS = 1 << 12
MAX_TASKS = 1 << 16

# Every run of blanks is taken at once (possessive) or bounded: no line takes more than linear time.
_NAME = rb"[^\s(){};]{1,512}(?: \[[\w.-]{1,64}\])?"
_SAID = rb"(?: /\*[^\n]*|) *+\r?)"
_BODY = (
    rb"(?:(?P<func>"
    + _NAME
    + rb")(?P<args>\([^\n{};]{0,2048}\))(?P<opens> \{|;)(?P<said>"
    + _SAID
    + rb"|(?P<closes>\})(?P<tail>"
    + _SAID
    + rb"|/\* (?P<event>[\w.]{1,128}: [^\n]*?) \*/ *+\r?"
    rb"|(?P<irq><?={10,}+>?)[ |]*+\r?)$"
)
_SHOWN_CALL = rb"(?:(?P<took>[^\n|]{0,40}+)\|)?(?P<indent> {0,1024}+)" + _BODY
LINE = re.compile(
    rb"^ *+(?:(?P<seconds>\d{1,9})\.(?P<fraction>\d{6}) \| *+)?(?:(?P<elapsed>\d{1,14}) us \| *+)?"
    rb"(?:(?P<cpu>\d{1,5})\) )?(?: {0,16}+(?P<comm>[^\n]{0,15}?)-(?P<tid>\d{1,9}) {1,16}+\| )?"
    rb"(?: {0,4}+[^\s|]{4,6} {1,4}+\| )?" + _SHOWN_CALL,
    re.MULTILINE,
)
SWITCH = re.compile(
    rb"^ *+(?:(?P<cpu>\d{1,5})\) *+)?(?P<prev>[^\n]{0,15}?)-(?P<prev_tid>\d{1,9}) {1,16}+=> {1,16}+"
    rb"(?P<next>[^\n]{0,15}?)-(?P<next_tid>\d{1,9}) *+\r?$",
    re.MULTILINE,
)
_RULER = re.compile(rb"^ ?-{20,} *\r?$")
_TRACER = re.compile(rb"^# tracer: (?:function_graph|\S*graph\S*)\s", re.MULTILINE)
_COMMENT = re.compile(rb" */\* (?!=|<-|ret=)(" + _NAME + rb")")
_SHOWN = re.compile(_SHOWN_CALL)


def as_records(text: Text) -> Text:
    """Return a text as it is, or that of the function_graph tracer as records."""
    start = next(text.pieces(ImportLog()), b"")
    return graph_text(text) if is_graph(start) else text


def is_graph(start: bytes) -> bool:
    """Say whether a text that begins so is that of the function_graph tracer."""
    if _TRACER.search(start):
        return True
    # Comms may look like anything, so the more lines decide.
    calls = records = 0
    for line in start.split(b"\n", LOOKED_AT)[:LOOKED_AT]:
        if _is_call(line):
            calls += 1
        elif RECORD.match(line):
            records += 1
    return calls > records


def _is_call(line: bytes) -> bool:
    found = LINE.match(line)
    if found is None:
        return bool(SWITCH.match(line))
    return bool(found["cpu"]) or found["took"] is not None


@dataclass(frozen=True)
class GraphText:
    """The text of a function_graph tracer as records; a `text.Text`.

    Attributes:
        text: as the tracer prints it.
        first_tasks: comm and thread id that each CPU (null: not told) begins with, where a line tells it.
        timed: stamps are absolute (``seconds``), since the start (``elapsed``), or missing (empty).
    """

    text: Text
    first_tasks: dict[bytes | None, tuple[bytes, bytes]]
    timed: str

    def pieces(self, log: ImportLog) -> Iterator[bytes]:
        """Yield the records, piece by piece."""
        writer = _Writer(self, log)
        for block in whole_lines(self.text.pieces(log), log):
            yield b"".join(writer.lines(block))


def graph_text(text: Text) -> GraphText:
    """Return the text of a function_graph tracer as records; it is read through once."""
    first: dict[bytes | None, tuple[bytes, bytes]] = {}
    timed: str | None = None
    log = ImportLog()
    for block in whole_lines(text.pieces(log), log):
        for found in SWITCH.finditer(block):
            if len(first) < MAX_TASKS:
                first.setdefault(found["cpu"], (found["prev"], found["prev_tid"]))
        if timed is None and (line := LINE.search(block)):
            timed = "seconds" if line["seconds"] else "elapsed" if line["elapsed"] else ""
    return GraphText(text, first, timed or "")


@dataclass
class _Writer:
    # What lasts from line to line.
    graph: GraphText
    log: ImportLog
    number: int = 0
    task: dict[bytes | None, tuple[bytes, bytes]] = field(default_factory=dict)
    entered: dict[tuple[bytes | None, int], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.task = dict(self.graph.first_tasks)

    def lines(self, block: bytes) -> Iterator[bytes]:
        for line in block.split(b"\n")[:-1]:
            # First, because a comm may look like a brace; calls and comments never end with a thread id.
            switch = SWITCH.match(line) if b"=>" in line else None
            found = None if switch else LINE.match(line)
            if found is not None:
                yield from self._records(found)
            elif switch:
                if len(self.task) < MAX_TASKS:
                    self.task[switch["cpu"]] = (switch["next"], switch["next_tid"])
            elif not _RULER.match(line):
                yield line + b"\n"

    def _records(self, found: re.Match[bytes]) -> Iterator[bytes]:
        if found["irq"]:
            return
        head = self._head(found)
        if head is None:
            self.log.count("lines of the function graph without a stamp, left out", 1)
            return
        if found["event"]:
            yield head + found["event"] + b"\n"
            return
        key = found["cpu"] or found["tid"]
        yield from _named(head, found, key, self.entered)

    def _head(self, found: re.Match[bytes]) -> bytes | None:
        self.number += 1
        if found["cpu"] is None:
            self.log.note(
                "CPUs that are not told", "lines of the function graph name no CPU: taken as CPU 0", 0
            )
        comm, tid = (
            (found["comm"], found["tid"])
            if found["tid"]
            else self.task.get(found["cpu"], (b"<...>", b"%d" % UNKNOWN_TID))
        )
        if self.graph.timed == "seconds":
            stamp = found["seconds"] and found["seconds"] + b"." + found["fraction"]
        elif self.graph.timed == "elapsed":
            stamp = found["elapsed"] and b"%d.%06d" % divmod(int(found["elapsed"]), 10**6)
        else:
            stamp = b"%d" % self.number
        if not stamp:
            return None
        cpu = int(found["cpu"] or b"0")
        return b"%16b-%-7b [%03d] %12b: " % (comm.strip()[-COMM:], tid, cpu, stamp)


def _named(
    head: bytes, found: re.Match[bytes], key: bytes | None, entered: dict[tuple[bytes | None, int], bytes]
) -> Iterator[bytes]:
    # The record or the two records of a line; closing braces are told apart as the kernel does it, by depth.
    place = (key, len(found["indent"]))
    if found["func"]:
        call = found["func"] + found["args"]
        yield head + ENTRY + b": " + call + found["opens"] + found["said"] + b"\n"
        if found["opens"] == b";":
            yield head + EXIT + b": } /* " + found["func"] + b" */" + LEAF + b"\n"
        elif len(entered) < MAX_DEPTHS:
            entered[place] = found["func"]
        return
    told = _COMMENT.match(found["tail"])
    func = told[1] if told else entered.pop(place, b"") if key else b""
    name = b" /* " + func + b" */" if func else b""
    yield head + EXIT + b": }" + name + (b"" if told else found["tail"]) + b"\n"


@dataclass(frozen=True)
class NamedText:
    """Records of a function graph in text, closing braces with their names; a `text.Text`.

    trace-cmd report shows a brace without the name of its function, and one line for the two records of a
    function that calls nothing.

    Attributes:
        text: with records of ``funcgraph_entry`` and ``funcgraph_exit``.
    """

    text: Text

    def pieces(self, log: ImportLog) -> Iterator[bytes]:
        """Yield the records, piece by piece."""
        entered: dict[tuple[bytes | None, int], bytes] = {}
        for block in whole_lines(self.text.pieces(log), log):
            yield b"".join(_renamed(line, entered) for line in block.splitlines(keepends=True))


def _renamed(line: bytes, entered: dict[tuple[bytes | None, int], bytes]) -> bytes:
    record = RECORD.match(line) if b"graph_" in line else None
    shown = _SHOWN.match(record[8]) if record and record[7] in RECORDED else None
    if record is None or shown is None or shown["event"] or shown["irq"]:
        return line
    return b"".join(_named(line[: record.start(7)], shown, record[2], entered))
