"""ftrace text from strangers: any bytes, any cut, and lines made to take long."""

from __future__ import annotations

import contextlib
import gzip
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apftrace.errors import TraceError, TraceUnsupported
from apftrace.model import tracepoints as tp
from apftrace_parsers.base import Loss, PassResult, Pick
from apftrace_parsers.ftracetext import FtraceTextParser
from apftrace_parsers.ftracetext.lines import whole_lines
from apftrace_parsers.importlog import ImportLog
from apftrace_parsers.registry import open_source

from .support import drain, streamed

if TYPE_CHECKING:
    from pathlib import Path

    from apftrace_parsers.ftracetext.source import TextSource

HEAD = b"            bash-4430    [000] d..2.  1719.013169: "
RECORD = HEAD + b"kvm_entry: vcpu 0, rip 0x1\n"
WORDS = [
    b"bash", b"-1 ", b"-4430 ", b"[000] ", b"[9999999]", b"d..2. ", b"1719.013169: ", b"12345: ", b"  ", b"\n", b"\r",
    b"kvm_entry: ", b"vcpu 0, rip 0x1", b"sched_switch: ", b"a:1 [1] R ==> b:2 [3]", b"prev_comm=x prev_pid=1 ",
    b"kvm_msr: msr_write 4b564d07 = 0xffffffffffffffffff", b"kvm_msr: ", b"write=1 ecx=80b", b"kvm_async_pf_ready: ",
    b"token 0x1 ", b"gva 99999999999999999999 ", b"CPU:0 [LOST 5 EVENTS]", b"##### CPU 1 buffer started ####",
    b"# entries-in-buffer/entries-written: 1/9   #P:2", b"cpus=2", b" => ", b"(-------) ", b"<...>", b"\xff", b"\0",
]  # fmt: skip
GRAPH = b"# tracer: function_graph\n#\n"
HOOKS = (
    Pick(("function",), (("ip",), ("args",))),
    Pick(("funcgraph_entry",), (("func",), ("args",))),
    Pick(("funcgraph_exit",), (("func",), ("leaf",))),
    Pick(("foo",), (("__probe_ip",), ("__probe_func",), ("tok",))),
)
MODERATE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(path: Path, data: bytes) -> None:
    """Read a text in every way; the errors of the contract are the only ones."""
    path.write_bytes(data)
    try:
        source = FtraceTextParser().open(path)
    except TraceError:
        return
    for name in source.machines:
        with contextlib.suppress(TraceError):
            look_at(source.machine(name))
    if not source.machines:
        look_at(source)
    source.close()


def look_at(source: TextSource) -> None:
    drain(source, (*tp.PICKS, *HOOKS))
    source.probes()
    list(source.stream(tp.PICKS, PassResult(), start_ns=1, end_ns=10**12))
    source.resolve(tp.PICKS)


@MODERATE
@given(st.binary(max_size=300))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    read(tmp_path / "t", data)
    read(tmp_path / "t", RECORD + data)
    read(tmp_path / "t", gzip.compress(RECORD)[:20] + data)


@MODERATE
@given(st.lists(st.sampled_from(WORDS), max_size=60).map(b"".join))
def test_any_words_of_a_trace(tmp_path: Path, data: bytes) -> None:
    read(tmp_path / "t", data)
    read(tmp_path / "t", RECORD + HEAD + data)
    read(tmp_path / "t", GRAPH + data)
    read(tmp_path / "t", b"a.dat: cpus=1\nb.dat: cpus=1\na.dat: " + RECORD + b"b.dat: " + data)


@MODERATE
@given(st.data())
def test_any_cut_and_any_changed_byte(tmp_path: Path, data: st.DataObject) -> None:
    text = (
        HEAD
        + b"sched_switch: prev_comm=a prev_pid=1 prev_prio=120 prev_state=R+ ==> next_comm=b next_pid=2 next_prio=1\n"
    )
    text += RECORD + b"CPU:0 [LOST 5 EVENTS]\n" + RECORD
    at = data.draw(st.integers(0, len(text) - 1))
    read(tmp_path / "t", text[:at])
    read(tmp_path / "t", text[:at] + bytes([data.draw(st.integers(0, 255))]) + text[at + 1 :])
    packed = gzip.compress(text)
    read(tmp_path / "t", packed[: data.draw(st.integers(2, len(packed)))])


@MODERATE
@given(st.binary(max_size=200).map(lambda b: b.replace(b"\0", b"\n")), st.integers(1, 50))
def test_lines_are_whole_whatever_the_pieces(data: bytes, size: int) -> None:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    blocks = list(whole_lines(iter(pieces), ImportLog()))
    assert all(block.endswith(b"\n") for block in blocks)
    assert b"".join(blocks) == data[: data.rfind(b"\n") + 1]


def test_a_last_line_that_is_cut_off_is_left_out(tmp_path: Path) -> None:
    # What is left of it may still read well: another token, another page.
    path = tmp_path / "t"
    path.write_bytes(RECORD + HEAD + b"kvm_entry: vcpu 12, rip 0x1")
    rows, result = streamed(path, tp.PICKS)
    assert [row["a"] for row in rows] == [0]
    assert result.notes == [
        "the text ends within a line, which is left out: "
        "'            bash-4430    [000] d..2.  1719.013169: kvm_entry'"
    ]


SIZE = 500_000
SLOW = {
    "heads": b"-1 [0]" * (SIZE // 6),
    "threads": b"-1 " * (SIZE // 3),
    "spaces": b"x-1 [0] d..2." + b" " * SIZE + b"x",
    "paren": b"x-1 (" + b" " * SIZE,
    "digits": b"x-" + b"1" * SIZE,
    "marks": b"CPU:0 [LOST 5 EVENTS]\n" * (SIZE // 22),
    "blank lines": b" \n" * (SIZE // 2),
    "comments": b"#\n" * (SIZE // 2),
    "losses": (b"CPU:0 [LOST 5 EVENTS]\n" + RECORD) * (SIZE // 100),
    "switches": HEAD
    + b"sched_switch: "
    + b"prev_comm=a prev_pid=1 prev_prio=1 prev_state=R ==> next_comm=" * (SIZE // 62),
    "other switches": HEAD + b"sched_switch: " + b"a:1 [1] R ==> " * (SIZE // 14),
    "wakeups": HEAD + b"sched_wakeup: " + b"comm= pid=1 prio=1 " * (SIZE // 19),
    "pairs": HEAD + b"foo: " + b"a1=1 " * (SIZE // 5),
    "words": HEAD + b"foo: " + b"a" * SIZE,
    "graph blanks": GRAPH + b" 1)" + b" " * SIZE + b"x",
    "graph pipes": GRAPH + b" 1) " + b"| " * (SIZE // 2),
    "graph calls": GRAPH + b" 1) | f(" + b"a=1, " * (SIZE // 5) + b")",
    "graph braces": GRAPH + b" 1) |  }\n" * (SIZE // 9),
    "graph depths": GRAPH + b"".join(b" 1) |%sf() {\n" % (b" " * (n % 900)) for n in range(1000)),
    "graph comments": GRAPH + b" 1) | /* a: " + b" */" * (SIZE // 3) + b"x",
    "graph switches": GRAPH + b" 1) a-1 => b-2\n" * (SIZE // 16),
    "graph rulers": GRAPH + b" ------------------------------------------\n" * (SIZE // 44),
    "graph interrupts": GRAPH + b" 1) ==========>" + b" " * SIZE + b"x",
    "arguments": HEAD[:-1] + b" f(" + b"a=1, " * (SIZE // 5),
    "probes": HEAD + b"foo: (f+0x0/0x1b0)" + b" tok=1" * (SIZE // 6),
    "open probes": HEAD + b"foo: (" + b"f <- " * (SIZE // 5),
    "files": b"a.dat: cpus=1\nb.dat: cpus=1\n" + b"a.dat: " * (SIZE // 7),
    "many files": b"".join(b"%d.dat: cpus=1\n" % n for n in range(SIZE // 16)),
    "names": b"".join(HEAD + b"event%d: x%d=1\n" % (i, i) for i in range(9000)),
}


@pytest.mark.parametrize("data", SLOW.values(), ids=SLOW)
def test_lines_made_to_take_long(tmp_path: Path, data: bytes) -> None:
    # Linear code needs well below a second for them; quadratic code needs minutes.
    start = time.process_time()
    read(tmp_path / "t", data + b"\n" + RECORD)
    assert time.process_time() - start < 8


def test_a_line_without_end_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(RECORD + b"x" * (3 << 20) + b"\n" + RECORD)
    rows, result = streamed(path, tp.PICKS)
    assert len(rows) == 2
    assert result.notes == ["1 lines beyond all measure, left out"]


@pytest.mark.parametrize("at", [-1, -9])
def test_a_cut_gzip_file_keeps_what_can_be_read(tmp_path: Path, at: int) -> None:
    path = tmp_path / "t"
    path.write_bytes(gzip.compress(RECORD * 1000)[:at])
    _, result = streamed(path, tp.PICKS)
    assert result.notes[-1] == "the gzip data is cut off: the end of the trace is missing"
    assert result.losses == [Loss(0, "", None, result.last_ns, None)]


def test_a_damaged_gzip_file_keeps_what_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(gzip.compress(RECORD * 10) + gzip.compress(b"x")[:9] + b"\xff" * 50)
    rows, result = streamed(path, tp.PICKS)
    assert len(rows) == 10
    assert "what follows is not read" in result.notes[0]
    assert result.losses == [Loss(0, "", None, None, None)]


def test_text_after_a_wrong_sum_is_not_sure_from_its_begin(tmp_path: Path) -> None:
    text = b"".join(RECORD.replace(b"token", b"token %d" % n) for n in range(20_000))
    packed = bytearray(gzip.compress(text))
    packed[-8] ^= 1
    path = tmp_path / "t"
    path.write_bytes(packed)
    rows, result = streamed(path, tp.PICKS)
    assert len(rows) > 15_000
    assert result.losses == [Loss(0, "", None, None, None)]


@pytest.mark.parametrize("size", [1, 4096, 1 << 17])
def test_a_hole_in_a_text_is_a_loss(tmp_path: Path, size: int) -> None:
    whole = RECORD * 4000
    at = len(whole) // 2
    path = tmp_path / "t"
    path.write_bytes(whole[:at] + bytes(size) + whole[at + size :])
    _, result = streamed(path, tp.PICKS)
    assert result.notes[0] == f"text at offset {at} is zeros, a hole in the file: records are missing"
    assert result.losses == [Loss(0, "", None, None, None)]


def test_numbers_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "t"
    nines = b"9" * 5000
    text = HEAD + b"kvm_async_pf_ready: token " + nines + b" gva 0x" + b"f" * 5000 + b"\n"
    text += (
        b"            bash-"
        + nines
        + b" [000] d..2. "
        + nines
        + b"."
        + nines
        + b": kvm_entry: vcpu "
        + nines
        + b"\n"
    )
    path.write_bytes(text + RECORD)
    rows, result = streamed(path, tp.PICKS)
    assert [row["a"] for row in rows] == [0, 0]
    assert len(result.notes) == 1


def test_far_more_losses_than_anyone_wants_to_read(tmp_path: Path) -> None:
    path = tmp_path / "t"
    records = (b"%12s.%06d: " % (b"bash-1 [000] d..2. 1", n) for n in range(12_000))
    path.write_bytes(b"".join(b"CPU:0 [LOST 1 EVENTS]\n" + head + b"a: b\n" for head in records))
    source = open_source(path)
    result = PassResult()
    list(source.stream((), result))
    source.close()
    assert len(result.losses) == 10_000
    assert sum(loss.count or 0 for loss in result.losses) == 12_000


def test_text_of_perf_script_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text(
        "   CPU 0/KVM  3099/3101 [001]  1532.906552:    kvm:kvm_entry: vcpu 0, rip 0xffffffff81\n"
    )
    with pytest.raises(TraceUnsupported, match="perf script text, which no installed parser reads"):
        open_source(path)
