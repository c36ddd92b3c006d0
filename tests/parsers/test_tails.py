"""Arrays up to the end of a record, with which events of ftrace itself end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apftrace_parsers.base import Pick
from tests.builders.formats import COMMON, parse
from tests.builders.guest_events import FUNCTION_ARGS
from tests.builders.tracedat import Event, TraceDat

from .support import LAYOUTS, layout_id, streamed, tabled

if TYPE_CHECKING:
    from pathlib import Path

    from tests.builders.subbuf import Layout

PRINT = parse(
    "ftrace",
    f"name: print\nID: 5\nformat:\n{COMMON}"
    "\tfield:u64 ip;\toffset:8;\tsize:8;\tsigned:0;\n"
    "\tfield:char buf[];\toffset:16;\tsize:0;\tsigned:0;\n"
    '\nprint fmt: ""\n',
)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("layout", LAYOUTS, ids=layout_id)
def test_what_is_left_of_a_record(tmp_path: Path, layout: Layout) -> None:
    function = FUNCTION_ARGS.narrowed() if layout.long_size == 4 else FUNCTION_ARGS
    dat = TraceDat(layout=layout, formats=(function, PRINT))
    dat.add(
        Event(1000, 0, 7, "function", {"ip": 1, "args": [0x1001, 2, 3]}),
        Event(2000, 0, 8, "function", {"ip": 2}),
        Event(3000, 0, 9, "print", {"ip": 3, "buf": "hello\n"}),
        Event(4000, 0, 9, "print", {"ip": 3, "buf": ""}),
    )
    path = dat.write(tmp_path / "t.dat")
    rows, result = tabled(path)
    assert [(row["ip"], row["args"]) for row in rows["function"]] == [(1, [0x1001, 2, 3]), (2, [])]
    assert [row["buf"] for row in rows["print"]] == ["hello\n", ""]
    assert result.notes == []
    first, result = streamed(path, (Pick(("function",), (("ip",), ("args",))), Pick(("print",), (("buf",),))))
    assert [(row["pick"], row["a"], row["b"]) for row in first] == [
        (0, 1, 0x1001),
        (0, 2, 0),
        (1, 0, 0),
        (1, 0, 0),
    ]
    # A record that ends before its tail is not short.
    assert result.notes == []
