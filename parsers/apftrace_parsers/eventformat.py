"""The ``format`` files of tracefs: what a tracepoint records, field by field, and how that looks in Arrow.

    name: kvm_async_pf_ready
    ID: 1234
    format:
        field:unsigned short common_type;	offset:0;	size:2;	signed:0;
        ...
        field:u64 token;	offset:8;	size:8;	signed:0;

    print fmt: ...

A system may have thousands of them: `EventTable` reads only names and ids, and a field list when it is
asked for one. Every offset comes from these texts; they differ between kernels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from apftrace_parsers.base import EventFormat, is_glob, matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_NAME_AND_ID = re.compile(rb"name:\s*(\S+)\s+ID:\s*(\d+)")
_FIELD = re.compile(
    r"^\s*field:\s*(?P<decl>[^;]+?)\s*;\s*offset:\s*(?P<offset>\d+);\s*size:\s*(?P<size>\d+);"
    r"(?:\s*signed:\s*(?P<signed>\d+);)?",
    re.MULTILINE,
)
_DECLARATION = re.compile(r"^(?P<type>.*?)\s*(?P<name>\w+)\s*(?:\[(?P<count>[^\]]*)\])?$", re.DOTALL)
_LOCATION = re.compile(r"^__(?P<how>data|rel)_loc\s+(?P<type>.*?)\s*\[\s*\]$")
_WIDTHS = {
    "bool": 1,
    "_Bool": 1,
    "char": 1,
    "u8": 1,
    "s8": 1,
    "__u8": 1,
    "__s8": 1,
    "uint8_t": 1,
    "int8_t": 1,
}
_WIDTHS |= {"short": 2, "u16": 2, "s16": 2, "__u16": 2, "__s16": 2, "uint16_t": 2, "int16_t": 2}
_WIDTHS |= {"int": 4, "u32": 4, "s32": 4, "__u32": 4, "__s32": 4, "uint32_t": 4, "int32_t": 4}
_WIDTHS |= {"u64": 8, "s64": 8, "__u64": 8, "__s64": 8, "uint64_t": 8, "int64_t": 8}
_LONGS = frozenset({"cpumask_t", "size_t", "ssize_t", "gva_t", "hva_t"})
_WIDE = frozenset(
    {"gpa_t", "gfn_t", "hpa_t", "hfn_t", "kvm_pfn_t"}
)  # include/linux/kvm_types.h, as gva_t and hva_t
_UNSIGNED = {1: pa.uint8(), 2: pa.uint16(), 4: pa.uint32(), 8: pa.uint64()}
_SIGNED = {1: pa.int8(), 2: pa.int16(), 4: pa.int32(), 8: pa.int64()}

MAX_RECORD = 1 << 20
"""No record is larger than a sub-buffer; a field beyond that is none."""
MAX_EVENTS = 1 << 15
"""Tracepoints that are kept, which the walker numbers with 16 bits; a kernel has some 2,700."""
MAX_FIELDS = 1 << 12
"""Fields of a tracepoint that are kept: each takes a byte or more of a page."""
LEADING = (
    pa.field("ts", pa.int64(), nullable=False),
    pa.field("cpu", pa.int32(), nullable=False),
    pa.field("tid", pa.int32(), nullable=False),
    pa.field("instance", pa.string(), nullable=False),
)
"""Columns of every typed table, see `column_names`."""


def column_names(fields: Sequence[str], *further: str) -> list[str]:
    """Return what the columns of an event's own fields are called, in the order of the fields.

    A field is called as the kernel calls it, but for one that would be called like a column of every table:
    it gets as many underscores behind it as it takes until no other field is called so.

    Args:
        fields: names of the fields.
        further: columns that these tables have beside LEADING.
    """
    taken = {field.name for field in LEADING} | set(further)
    used = taken | set(fields)
    names = []
    for name in fields:
        column = name
        while column in taken or (column != name and column in used):
            column += "_"
        taken.add(column)
        names.append(column)
    return names


class Kind(Enum):
    """How the bytes of a field become a column."""

    SCALAR = "an integer"
    ARRAY = "a fixed number of integers"
    TEXT = "char[N], up to NUL"
    BYTES = "bytes that stay as they are"
    LOC_TEXT = "char[] elsewhere in the record"
    LOC_ARRAY = "integers elsewhere in the record"
    TAIL_TEXT = "char[] up to the record's end"
    TAIL_ARRAY = "integers up to the record's end"


@dataclass(frozen=True)
class Field:
    """One field of a tracepoint.

    Attributes:
        name: as the kernel declares it.
        offset: from the start of the record.
        size: bytes at ``offset``.
        width: bytes of one element.
        kind: how to read it.
        type: column type.
        relative: the location counts from the end of the field (``__rel_loc``), not from the record's start.
    """

    name: str
    offset: int
    size: int
    width: int
    kind: Kind
    type: pa.DataType
    relative: bool = False

    @property
    def is_tail(self) -> bool:
        """Say whether it takes what is left of a record, maybe nothing."""
        return self.kind in (Kind.TAIL_TEXT, Kind.TAIL_ARRAY)

    @property
    def stream_width(self) -> int:
        """Width as the walker wants it: negative when signed, 0 when this is no integer; a tail's first element."""
        if self.kind is Kind.TAIL_ARRAY:
            return -self.width if pa.types.is_signed_integer(self.type.value_type) else self.width
        if self.kind is not Kind.SCALAR:
            return 0
        return -self.size if pa.types.is_signed_integer(self.type) else self.size


@dataclass(frozen=True)
class EventText:
    """One format file, unread but for its name and id."""

    system: str
    name: str
    id: int
    text: bytes


class EventTable:
    """All tracepoints that a source describes.

    Args:
        texts: (system, format text).
        long_size: bytes of the kernel's long.
    """

    def __init__(self, texts: Iterable[tuple[str, bytes]], long_size: int) -> None:
        self.events: list[EventText] = []
        self._long_size = long_size
        self._by_name: dict[str, list[EventText]] = {}
        self._fields: dict[tuple[str, str], tuple[Field, ...]] = {}
        for system, text in texts:
            match = _NAME_AND_ID.search(text)
            if match and int(match[2]) < 1 << 16:
                event = EventText(system, match[1].decode("utf-8", "replace"), int(match[2]), text)
                self.events.append(event)
                self._by_name.setdefault(event.name, []).append(event)

    def find(self, name: str) -> EventText | None:
        """Return the event of a name, which may carry its system (``kvm:kvm_entry``)."""
        system, colon, bare = name.rpartition(":")
        for event in self._by_name.get(bare, ()):
            if not colon or event.system == system:
                return event
        return None

    def match(self, patterns: Sequence[str]) -> tuple[EventText, ...]:
        """Return the events that names or globs select, in order of the table.

        Raises:
            KeyError: a name without wildcard that is not there.
        """
        chosen: set[tuple[str, str]] = set()
        for pattern in patterns:
            hits = [e for e in self._candidates(pattern) if matches(e, pattern)]
            if not hits and not is_glob(pattern):
                raise KeyError(pattern)
            chosen.update((e.system, e.name) for e in hits)
        return tuple(e for e in self.events if (e.system, e.name) in chosen)

    def _candidates(self, pattern: str) -> Sequence[EventText]:
        if is_glob(pattern):
            return self.events
        return self._by_name.get(pattern.rpartition(":")[2], ())

    def containing(self, text: bytes) -> tuple[EventText, ...]:
        """Return the events whose format holds a text, in order of the table."""
        return tuple(event for event in self.events if text in event.text)

    def label(self, event: EventText) -> str:
        """Return the name of an event, with its system only where two systems share the name."""
        systems = {e.system for e in self._by_name[event.name]}
        return event.name if len(systems) == 1 else f"{event.system}:{event.name}"

    def fields(self, event: EventText) -> tuple[Field, ...]:
        """Return all fields of an event, the common ones first."""
        key = (event.system, event.name)
        if key not in self._fields:
            declared = parse_fields(event.text.decode("utf-8", "replace"), self._long_size)
            self._fields[key] = tuple(islice(declared, MAX_FIELDS))
        return self._fields[key]

    def payload(self, event: EventText) -> tuple[Field, ...]:
        """Return the fields of an event that are its own."""
        return tuple(f for f in self.fields(event) if not f.name.startswith("common_"))

    def columns(self, event: EventText) -> dict[str, Field]:
        """Return the columns that an event has beside LEADING, each with its field."""
        fields = self.payload(event)
        return dict(zip(column_names([f.name for f in fields]), fields, strict=True))

    def format(self, event: EventText) -> EventFormat:
        """Return what the contract of parsers tells of an event."""
        own = [pa.field(name, field.type, nullable=False) for name, field in self.columns(event).items()]
        return EventFormat(event.system, event.name, event.id, pa.schema([*LEADING, *own]))

    def tid_offset(self) -> int:
        """Return where records keep common_pid; the same for all events of a kernel."""
        for event in self.events:
            for field in self.fields(event):
                if field.name == "common_pid" and field.size == 4:
                    return field.offset
        return 4


def parse_fields(text: str, long_size: int) -> Iterator[Field]:
    """Yield the fields of a format text, in its order.

    Args:
        text: a format file; what follows ``print fmt:`` is not read.
        long_size: bytes of the kernel's long.
    """
    for match in _FIELD.finditer(text.partition("print fmt:")[0]):
        declared = _DECLARATION.match(match["decl"])
        if declared is None:
            continue
        ctype = declared["type"].strip()
        offset, size = int(match["offset"]), int(match["size"])
        if offset + size > MAX_RECORD:
            continue
        signed = match["signed"] == "1"
        location = _LOCATION.match(ctype)
        if location:
            yield _location(declared["name"], location, _Place(ctype, offset, size, signed), long_size)
        elif declared["count"] is not None:
            yield _array(declared, _Place(ctype, offset, size, signed), long_size)
        else:
            yield _scalar(declared["name"], _Place(ctype, offset, size, signed))


class _Place(NamedTuple):
    ctype: str
    offset: int
    size: int
    signed: bool


def _scalar(name: str, place: _Place) -> Field:
    ctype, offset, size, signed = place
    if size == 1 and ctype in ("bool", "_Bool"):
        return Field(name, offset, size, size, Kind.SCALAR, pa.bool_())
    if ctype.endswith("*") and size in _UNSIGNED:
        return Field(name, offset, size, size, Kind.SCALAR, pa.uint64())
    kinds = _SIGNED if signed else _UNSIGNED
    if size in kinds:
        return Field(name, offset, size, size, Kind.SCALAR, kinds[size])
    return Field(name, offset, size, size, Kind.BYTES, pa.binary(size))


def _array(declared: re.Match[str], place: _Place, long_size: int) -> Field:
    ctype, offset, size, signed = place
    name = declared["name"]
    count = declared["count"].strip()
    if not count and not size:
        return _tail(name, place, long_size)
    if _is_char(ctype):
        return Field(name, offset, size, 1, Kind.TEXT, pa.string())
    # The element count may be a macro that the kernel did not expand.
    width = size // int(count) if count.isdigit() and int(count) else _width(ctype, long_size)
    if width in _UNSIGNED and size and size % width == 0:
        element = (_SIGNED if signed else _UNSIGNED)[width]
        return Field(name, offset, size, width, Kind.ARRAY, pa.list_(element, size // width))
    return Field(name, offset, size, size, Kind.BYTES, pa.binary(size))


def _tail(name: str, place: _Place, long_size: int) -> Field:
    # Events of ftrace itself end with an array of no stated size (__dynamic_array in trace_entries.h).
    ctype, offset, _, signed = place
    if _is_char(ctype):
        return Field(name, offset, 0, 1, Kind.TAIL_TEXT, pa.string())
    width = _width(ctype, long_size)
    element = (_SIGNED if signed else _UNSIGNED)[width]
    return Field(name, offset, 0, width, Kind.TAIL_ARRAY, pa.list_(element))


def _location(name: str, location: re.Match[str], place: _Place, long_size: int) -> Field:
    _, offset, size, signed = place
    ctype = location["type"]
    relative = location["how"] == "rel"
    if _is_char(ctype):
        return Field(name, offset, size, 1, Kind.LOC_TEXT, pa.string(), relative)
    width = _width(ctype, long_size)
    # The flag is that of the elements; old kernels may not set it for types that say it by their names.
    negative = (signed or _is_known(ctype)) and not _is_unsigned(ctype)
    element = (_SIGNED if negative else _UNSIGNED)[width]
    return Field(name, offset, size, width, Kind.LOC_ARRAY, pa.list_(element), relative)


def _is_char(ctype: str) -> bool:
    return ctype.removeprefix("const ").strip() == "char"


def _is_unsigned(ctype: str) -> bool:
    return ctype.startswith(("unsigned", "u", "__u", "cpumask", "bool", "_Bool")) or ctype.endswith("*")


def _is_known(ctype: str) -> bool:
    words = _words(ctype)
    return not words or "long" in words or words[0] in _WIDTHS


def _words(ctype: str) -> list[str]:
    return [
        w for w in ctype.split() if w not in ("unsigned", "signed", "const", "volatile", "struct", "enum")
    ]


def _width(ctype: str, long_size: int) -> int:
    if ctype.endswith("*"):
        return long_size
    words = _words(ctype)
    if words.count("long") == 1 or not _LONGS.isdisjoint(words):
        return long_size
    if words.count("long") == 2 or not _WIDE.isdisjoint(words):
        return 8
    if not words or ctype.startswith("enum"):
        return 4
    # An element of unknown type: as bytes, nothing is lost.
    return _WIDTHS.get(words[0], 1)
