"""Lines of the function_graph tracer, and the records that they become."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import pytest

from apftrace_parsers.base import PassResult, Pick
from apftrace_parsers.ftracetext.graph import UNKNOWN_TID, is_graph
from apftrace_parsers.registry import open_source

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "# tracer: function_graph\n#\n# CPU  DURATION                  FUNCTION CALLS\n# |     |   |\n"
PICKS = (
    Pick(("funcgraph_entry",), (("func",), ("args",))),
    Pick(("funcgraph_exit",), (("func",), ("leaf",))),
)
RULER = " ------------------------------------------\n"
Record = tuple[str, int, int, int, str | None, int]


def records(tmp_path: Path, text: str, *names: str) -> tuple[list[Record], list[str]]:
    """Return what, ts, cpu, thread, function and argument (or leaf mark) of the records; and the notes."""
    path = tmp_path / "g.txt"
    path.write_text(text)
    source = open_source(path)
    numbers = {source.symbols().find(name)[0]: name for name in names}
    result = PassResult()
    rows = [
        (
            ("entry", "exit")[row["pick"]],
            row["ts"],
            row["cpu"],
            row["tid"],
            numbers.get(row["a"], str(row["a"])) if row["a"] else None,
            row["b"],
        )
        for batch in source.stream(PICKS, result)
        for row in batch.to_pylist()
    ]
    source.close()
    return rows, result.notes


def shown(tmp_path: Path, text: str, *names: str) -> list[Record]:
    rows, notes = records(tmp_path, HEADER + text, *names)
    assert [note for note in notes if "shows no times" not in note] == []
    return rows


LINES = {
    "all columns": "  110.594925 |   0)  apftest-181   |  d..1. |               |  f() {",
    "no flags": "  110.594925 |   0)  apftest-181   |               |  f() {",
    "four flags": "  110.594925 |   0)  apftest-181   |  d..1 |               |  f() {",
    "long name": "  110.594925 |   0)  apftest-1234567 |               |  f() {",
    "no duration": "  110.594925 |   0)  apftest-181   | f() {",
    "return address": "  110.594925 |   0)  apftest-181   |               |  f() { /* <-g */",
    "module": "  110.594925 |   0)  apftest-181   |               |  f [kvm]() {",
    "offset": "  110.594925 |   0)  apftest-181   |               |  f+0x0/0x1b0() {",
    "clone": "  110.594925 |   0)  apftest-181   |               |  f.isra.0() {",
    "carriage return": "  110.594925 |   0)  apftest-181   |               |  f() {\r",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_columns(tmp_path: Path, line: str) -> None:
    (row,) = shown(tmp_path, line + "\n", "f")
    assert row[:3] == ("entry", 110594925000, 0)
    assert row[3] == (1234567 if "1234567" in line else 181)
    assert row[4:] == ("f", 0)


@pytest.mark.parametrize("mark", ["  ", "+ ", "! ", "# ", "* ", "@ ", "$ "])
def test_overhead_marks_and_durations(tmp_path: Path, mark: str) -> None:
    text = f" 1)               |  f() {{\n 1) {mark}13779.11 us |    g();\n 1) {mark}0.123 us    |  }}\n"
    assert [(row[0], *row[4:]) for row in shown(tmp_path, text, "f", "g")] == [
        ("entry", "f", 0), ("entry", "g", 0), ("exit", "g", 1), ("exit", "f", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "argument"),
    [
        ("(token=0x1001)", 0x1001),
        ("(4097)", 4097),
        ("(token=?0x1001, x=2)", 0x1001),
        ("(a=-1)", -1),
        ("(s=(struct pt_regs)[0x7f], b=1)", 0),
        ("()", 0),
    ],
)
def test_arguments(tmp_path: Path, said: str, argument: int) -> None:
    entry, leaf = shown(tmp_path, f" 0)   0.500 us    |  f{said};\n", "f")
    assert (entry[0], *entry[4:]) == ("entry", "f", argument)
    assert (leaf[0], *leaf[4:]) == ("exit", "f", 1)


@pytest.mark.parametrize(
    ("brace", "name"),
    [
        ("}", "f"),
        ("} /* f */", "f"),
        ("} /* g */", "g"),
        ("} /* f = 0x0 */", "f"),
        ("} /* f ret=-22 */", "f"),
        ("} /* = 0x0 */", "f"),
        ("} /* ret=0x0 */", "f"),
        ("} /* <-g ret=0x0 */", "f"),
    ],
)
def test_closing_braces(tmp_path: Path, brace: str, name: str) -> None:
    text = f" 0)               |  f() {{\n 0) ! 642.917 us  |  {brace}\n"
    assert [(row[0], *row[4:]) for row in shown(tmp_path, text, "f", "g")] == [
        ("entry", "f", 0),
        ("exit", name, 0),
    ]


def test_braces_are_told_apart_by_cpu_and_depth(tmp_path: Path) -> None:
    text = (
        " 0)               |  f() {\n 1)               |  g() {\n 0)               |    h() {\n"
        " 1)   1.000 us    |  }\n 0)   1.000 us    |    }\n 0)   1.000 us    |  }\n"
    )
    assert [row[4] for row in shown(tmp_path, text, *"fgh") if row[0] == "exit"] == ["g", "h", "f"]


def test_a_brace_whose_start_is_missing_is_nobodys(tmp_path: Path) -> None:
    text = " 0)   1.000 us    |    }\n 0)   1.000 us    |  } /* f */\n"
    assert [row[4] for row in shown(tmp_path, text, "f")] == [None, "f"]


def test_threads_come_from_the_separators(tmp_path: Path) -> None:
    text = (
        " 0)   1.000 us    |  f();\n 1)   1.000 us    |  f();\n"
        f"{RULER} 0)   a-b c-7     =>    <idle>-0   \n{RULER}\n"
        " 0)   1.000 us    |  f();\n"
    )
    entries = [row for row in shown(tmp_path, text, "f") if row[0] == "entry"]
    # Nothing tells who was on CPU 1.
    assert [row[3] for row in entries] == [7, UNKNOWN_TID, 0]


def test_other_events_are_records_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "g.txt"
    path.write_text(
        HEADER + " 0)               |  f() {\n"
        " 0)               |    /* sched_waking: comm=a */ pid=7 prio=120 target_cpu=001 */\n"
        " 0)               |    /* hello from trace_printk */\n"
        " 0)   ==========> |\n 0)   1.000 us    |    g();\n 0)   <========== |\n"
    )
    source = open_source(path)
    result = PassResult()
    rows = [
        row
        for batch in source.stream((Pick(("sched_waking",), (("pid",), ("target_cpu",))),), result)
        for row in batch.to_pylist()
    ]
    assert [(row["a"], row["b"]) for row in rows] == [(7, 1)]
    assert result.counts == {"funcgraph_entry": 2, "funcgraph_exit": 1, "sched_waking": 1}
    assert any("hello" in note for note in result.notes)
    source.close()


def test_losses_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "g.txt"
    path.write_text(HEADER + " 0)   1.000 us    |  f();\nCPU:0 [LOST 5 EVENTS]\n 0)   1.000 us    |  f();\n")
    source = open_source(path)
    result = PassResult()
    list(source.stream((), result))
    assert [(loss.cpu, loss.count, loss.after_ns, loss.before_ns) for loss in result.losses] == [(0, 5, 1, 2)]
    source.close()


def test_times_since_the_start(tmp_path: Path) -> None:
    text = "  1234567 us |   0)   0.500 us    |  f();\n"
    assert shown(tmp_path, text, "f")[0][1] == 1234567000


def test_lines_without_the_stamp_that_others_have_are_left_out(tmp_path: Path) -> None:
    text = "  110.594925 |   0)   0.500 us    |  f();\n 0)   0.500 us    |  f();\n"
    rows, notes = records(tmp_path, HEADER + text, "f")
    assert len(rows) == 2
    assert notes == ["1 lines of the function graph without a stamp, left out"]


def test_a_graph_needs_no_header(tmp_path: Path) -> None:
    rows, _ = records(tmp_path, " 0)   0.500 us    |  f();\n" * 3, "f")
    assert [row[0] for row in rows] == ["entry", "exit"] * 3


def test_a_comm_like_a_graph_makes_no_graph() -> None:
    line = b" 1) | f();       -4430    [000] d..2.  1719.013169: kvm_entry: vcpu 0, rip 0x1\n"
    assert not is_graph(line * 3)
    assert not is_graph(b"            bash-1 [000] d..2.  1719.013169: foo: /* a: b */\n")


def test_names_are_kept_apart(tmp_path: Path) -> None:
    # The number of a name is made of its crc32; the functions that matter must not collide.
    names = ["kvm_async_pf_task_wait_schedule", "kvm_async_pf_task_wait", "kvm_async_pf_task_wake", "f"]
    assert len({zlib.crc32(name.encode()) for name in names}) == len(names)
    rows = shown(tmp_path, "".join(f" 0)   0.500 us    |  {name}();\n" for name in names), *names)
    assert [row[4] for row in rows if row[0] == "entry"] == names
