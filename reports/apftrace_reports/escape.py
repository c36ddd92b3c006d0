"""Make strings that came out of a trace safe to show.

A ``comm``, a file name or an event name is whatever its author wrote. :func:`visible` turns every
character that a terminal, a browser or an editor would obey instead of print into a backslash escape;
the other functions add what one medium needs on top of it.
"""

from __future__ import annotations

import re
import unicodedata
from html import escape as _html_escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
# An underscore inside a word is no markup in CommonMark; ``kvm_async_pf_ready`` stays readable.
_MARKDOWN = re.compile(r"([\\`*\[\]<>|~$&#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.)")


def visible(text: str) -> str:
    """Return ``text`` with control, formatting, bidi and unassigned characters as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _code(c) for c in text)


def _code(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    point = ord(char)
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def markdown(text: str) -> str:
    """Return ``text`` as literal Markdown for the middle of a line, also of a table cell."""
    return _MARKDOWN.sub(r"\\\1", visible(text))


def code_span(text: str) -> str:
    """Return ``text`` as a Markdown code span whose fence is longer than any run of backticks in it."""
    shown = visible(text).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int | None = None
) -> list[str]:
    """Return the lines of a Markdown table, every cell escaped.

    Args:
        head: titles of the columns.
        rows: a text per column.
        numbers: the column from which on all are aligned to the right.
    """
    edge = len(head) if numbers is None else numbers
    rule = ["---"] * edge + ["--:"] * (len(head) - edge)
    return [_cells(head), f"| {' | '.join(rule)} |", *map(_cells, rows)]


def _cells(row: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown, row))} |"


def xml(text: str) -> str:
    """Return ``text`` for XML 1.0 content or a double-quoted attribute."""
    return _html_escape(visible(text), quote=False).replace('"', "&quot;")


def columns(text: str) -> int:
    """Return how many terminal columns ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(_width(c) for c in text)


def _width(char: str) -> int:
    if unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def wrap(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Break ``text`` into lines of at most ``width`` columns.

    Args:
        text: what to break; runs of spaces become one.
        width: hard limit; a word that is longer is cut.
        first: what the first line starts with.
        rest: what every further line starts with.
    """
    lines: list[str] = []
    line, used, empty = first, columns(first), True
    for word in text.split(" "):
        for piece in _pieces(word, width - columns(rest)):
            gap = 0 if empty else 1
            if used + gap + columns(piece) > width and not empty:
                lines.append(line)
                line, used, gap = rest, columns(rest), 0
            line += " " * gap + piece
            used += gap + columns(piece)
            empty = False
    lines.append(line)
    return [one.rstrip() for one in lines]


def _pieces(word: str, width: int) -> list[str]:
    if columns(word) <= width:
        return [word] if word else []
    pieces, piece = [], ""
    for char in word:
        if columns(piece) + _width(char) > width:
            pieces.append(piece)
            piece = ""
        piece += char
    return [*pieces, piece]


def clip(text: str, width: int) -> str:
    """Return ``text`` cut to ``width`` columns, the cut shown by an ellipsis."""
    if columns(text) <= width:
        return text
    kept = ""
    for char in text:
        if columns(kept) + _width(char) > width - 1:
            break
        kept += char
    return kept + "…"


def pad(text: str, width: int) -> str:
    """Return ``text`` cut or filled with spaces on the right to exactly ``width`` columns."""
    cut = clip(text, width)
    return cut + " " * (width - columns(cut))
