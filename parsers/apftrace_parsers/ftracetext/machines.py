r"""Text of several machines in one: trace-cmd report with more than one input.

    h.dat: cpus=2
h-vm1.dat: cpus=2
    h.dat:        CPU 0/KVM-13037 [001]  4717.368464: kvm_exit:   reason EXIT_NPF ...
h-vm1.dat:         apftouch-1     [000]  4723.286628: task_wait:  (ffffffff8107d280) token=10895360

print_handle_file() in trace-cmd's trace-read.c puts the file's name before every line, all of one width. The
``cpus=`` lines tell which names are files; any other name is that of a buffer instance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace_parsers.ftracetext.lines import read_header, whole_lines
from apftrace_parsers.importlog import ImportLog

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from apftrace_parsers.ftracetext.text import Text


def machines_of(text: Text) -> tuple[bytes, ...]:
    """Return the files that the header names when there are several; nothing else makes a text one of several."""
    start = next(whole_lines(text.pieces(ImportLog()), ImportLog()), b"")
    names = tuple(dict.fromkeys(read_header(start).files))
    return names if len(names) > 1 else ()


@dataclass(frozen=True)
class MachineText:
    """The lines of one machine, without its name; a `text.Text`.

    Attributes:
        text: of all machines.
        name: of this one, as the lines write it.
    """

    text: Text
    name: bytes

    def pieces(self, log: ImportLog) -> Iterator[bytes]:
        """Return the lines that begin with the name; a piece may be empty."""
        return _found(self.text, rb"^ *" + re.escape(self.name) + rb": ([^\n]*\n)", log)


@dataclass(frozen=True)
class StrangeText:
    """The lines of no machine; a `text.Text`.

    Attributes:
        text: of all machines.
        names: of the machines, as the lines write them.
    """

    text: Text
    names: Collection[bytes]

    def pieces(self, log: ImportLog) -> Iterator[bytes]:
        """Return the lines that begin with none of the names; a piece may be empty."""
        known = b"|".join(map(re.escape, self.names))
        return _found(self.text, rb"^(?! *(?:" + known + rb"): )[^\n]*\n", log)


def _found(text: Text, line: bytes, log: ImportLog) -> Iterator[bytes]:
    pattern = re.compile(line, re.MULTILINE)
    for block in whole_lines(text.pieces(log), log):
        yield b"".join(pattern.findall(block))
