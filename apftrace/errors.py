"""What apftrace raises on purpose; the errors of a batch stand in its own modules.

ApftraceError
 ├── TraceError            an input; carries its path
 │    ├── TraceFormatError     bytes that are not what the format says; carries the offset
 │    └── TraceUnsupported     a true format that this version cannot read
 ├── InputsError           inputs that do not belong together
 └── ReportError           a report that cannot be made as asked
"""

from __future__ import annotations


class ApftraceError(Exception):
    """Base of all errors that the command line shows as one line."""


class TraceError(ApftraceError):
    """An input that cannot be read.

    Args:
        path: the input as the user named it.
        problem: what was found, in one clause.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class TraceFormatError(TraceError):
    """Bytes that contradict the format.

    Args:
        path: the input as the user named it.
        offset: byte offset of the contradiction in the file.
        found: what is there.
        expected: what the format wants there.
    """

    def __init__(self, path: str, *, offset: int, found: str, expected: str) -> None:
        super().__init__(path, f"found {found} at offset {offset}, expected {expected}")
        self.offset = offset
        self.found = found
        self.expected = expected


class TraceUnsupported(TraceError):
    """A trace in a known format that this version cannot read, with the reason."""


class InputsError(ApftraceError):
    """Traces that cannot be analysed together: two hosts, guests without their host."""


class ReportError(ApftraceError):
    """A report that cannot be written as asked."""
