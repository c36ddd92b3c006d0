"""Event formats: the kernel's own texts (formats-6.12.txt), and the packing of records after them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .subbuf import Layout

Value = int | bool | str | bytes | list[int]

_FIELD = re.compile(
    r"\tfield:(?P<type>.+?) ?(?P<name>\w+)(?:\[(?P<count>\w*)\])?;"
    r"\toffset:(?P<offset>\d+);\tsize:(?P<size>\d+);(?:\tsigned:(?P<signed>[01]);)?"
)
_ARRAY = re.compile(r"^__(data|rel)_loc (?P<element>.+)\[\]$")
_SIZES = {"char": 1, "u8": 1, "s8": 1, "u16": 2, "s16": 2, "u32": 4, "s32": 4, "int": 4, "u64": 8, "s64": 8}


@dataclass(frozen=True)
class Field:
    """One field of a record, as a ``field:`` line tells it."""

    name: str
    type: str
    offset: int
    size: int
    signed: bool
    array: bool

    @property
    def location(self) -> str | None:
        """``data`` or ``rel`` for a dynamic array, of which the record holds length and place."""
        found = _ARRAY.match(self.type)
        return found[1] if found else None

    @property
    def is_tail(self) -> bool:
        """Say whether it is an array up to the record's end."""
        return self.array and not self.size

    @property
    def element(self) -> str:
        """Type of one element of an array."""
        found = _ARRAY.match(self.type)
        return found["element"] if found else self.type

    def is_long(self) -> bool:
        """Say whether the size follows the machine's word."""
        return not self.array and (self.type.split()[-1] == "long" or self.type.endswith("*"))


@dataclass(frozen=True)
class Format:
    """One tracepoint: its format text and what the text says."""

    system: str
    name: str
    id: int
    text: str
    fields: tuple[Field, ...]

    def pack(self, layout: Layout, values: Mapping[str, Value], **common: int) -> bytes:
        """Return the payload of one record; absent fields are zero.

        Raises:
            KeyError: a value names no field.
        """
        values = {"common_type": self.id, **{f"common_{k}": v for k, v in common.items()}, **values}
        if unknown := values.keys() - {f.name for f in self.fields}:
            msg = f"{self.name} has no field {sorted(unknown)}"
            raise KeyError(msg)
        record = bytearray(max(f.offset + f.size for f in self.fields))
        for f in self.fields:
            value = values.get(f.name, 0)
            if f.is_tail:
                record += _encode(layout, f.element, value) if f.name in values else b""
                continue
            if f.location:
                data = _encode(layout, f.element, value)
                base = f.offset + f.size if f.location == "rel" else 0
                where = len(record) - base
                record += data + bytes(-len(data) % 4)
                value = len(data) << 16 | where
            record[f.offset : f.offset + f.size] = _fixed(layout, f, value)
        return bytes(record)

    def with_id(self, number: int) -> Format:
        """Return the same tracepoint under another number, as another boot would give it."""
        return replace(self, id=number, text=re.sub(r"(?m)^ID: \d+", f"ID: {number}", self.text))

    def narrowed(self) -> Format:
        """Return the format as a 32-bit kernel has it: longs and pointers of 4 bytes, no gaps left."""
        lines, end = [], 0
        for line in self.text.split("\n"):
            found = _FIELD.match(line)
            if not found:
                lines.append(line)
                continue
            f = _field(found)
            size = 4 if f.is_long() else f.size
            width = min(size, 4) if not f.array else _width(f.element, 4)
            offset = end + -end % max(1, min(width, 4))
            end = offset + size
            lines.append(re.sub(r"offset:\d+;\tsize:\d+", f"offset:{offset};\tsize:{size}", line))
        return parse(self.system, "\n".join(lines))


COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)
"""The fields that all events begin with, as a format text has them."""


def parse(system: str, text: str) -> Format:
    """Read one format file."""
    name = re.search(r"(?m)^name: (\S+)", text)
    number = re.search(r"(?m)^ID: (\d+)", text)
    assert name
    assert number
    return Format(system, name[1], int(number[1]), text, tuple(_field(m) for m in _FIELD.finditer(text)))


@cache
def kernel_formats() -> dict[str, Format]:
    """Return the formats of Debian's kernel 6.12 that matter to async page faults, and ``odd_types``."""
    text = Path(__file__).with_name("formats-6.12.txt").read_text()
    found = {}
    for block in re.split(r"(?m)^system: ", text)[1:]:
        system, _, body = block.partition("\n")
        fmt = parse(system, body.rstrip("\n") + "\n")
        found[fmt.name] = fmt
    return found


def formats(names: Sequence[str] | None = None, *, long_size: int = 8) -> tuple[Format, ...]:
    """Return kernel formats by name (null: all), for a machine of this word size."""
    known = kernel_formats()
    chosen = [known[n] for n in names] if names is not None else list(known.values())
    return tuple(f.narrowed() if long_size == 4 else f for f in chosen)


def _field(found: re.Match[str]) -> Field:
    return Field(
        name=found["name"],
        type=found["type"],
        offset=int(found["offset"]),
        size=int(found["size"]),
        signed=found["signed"] == "1",
        array=found["count"] is not None,
    )


def _width(element: str, long_size: int) -> int:
    """Bytes of one array element."""
    if element.endswith("long"):
        return long_size
    return _SIZES.get(element.removeprefix("unsigned ").strip(), 4)


def _encode(layout: Layout, element: str, value: Value) -> bytes:
    """Encode a variable array: text with its closing zero, bytes as they are, or a list of numbers."""
    if isinstance(value, str):
        return value.encode() + b"\0"
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):
        width = _width(element, layout.long_size)
        mask = (1 << 8 * width) - 1
        return b"".join((v & mask).to_bytes(width, _order(layout)) for v in value)
    return b"\0" if element == "char" else b""


def _fixed(layout: Layout, f: Field, value: Value) -> bytes:
    """Encode a field of fixed size: a number, or an array cut or filled to its size."""
    if isinstance(value, str | bytes | list):
        raw = value.encode() if isinstance(value, str) else _encode(layout, f.element, value)
        return raw[: f.size].ljust(f.size, b"\0")
    return (int(value) & ((1 << 8 * f.size) - 1)).to_bytes(f.size, _order(layout))


def _order(layout: Layout) -> str:
    return "little" if layout.byte_order == "<" else "big"
