"""trace.dat of a latency tracer: the text of tracefs ``trace`` instead of records."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

import pytest

import apftrace
from apftrace.errors import TraceFormatError, TraceUnsupported
from apftrace.model import tracepoints as tp
from apftrace_parsers.registry import open_source
from tests.builders import options as opt
from tests.builders.subbuf import Layout
from tests.builders.tracedat import TraceDat, compress

from .support import streamed, tabled

if TYPE_CHECKING:
    from pathlib import Path

BUFFER_TEXT = 22
COMMS = {3099: "CPU 0/KVM", 57: "kworker/0:1H"}
LATENCY = """\
# tracer: wakeup
#
# wakeup latency trace v1.1.5 on 6.12.0-test
# --------------------------------------------------------------------
# latency: 116 us, #4/4, CPU#0 | (M:preempt VP:0, KP:0, SP:0 HP:0 #P:2)
#    -----------------
#    | task: CPU 0/KVM-3099 (uid:0 nice:0 policy:1 rt_prio:99)
#    -----------------
#
#                    _------=> CPU#
#                   / _-----=> irqs-off/BH-disabled
#  cmd     pid     |||||| time  |   caller
#     \\   /        ||||||  \\    |    /
 CPU 0/K-3099      0....1    5us : kvm_try_async_get_page: gva = 0x2000, gfn = 0x2
 CPU 0/K-3099      0....1    6us : kvm_async_pf_not_present: token 0x1000 gva 0x2000
 kworker-57        0....1  100us!: kvm_async_pf_completed: gva 0x2000 address 0x7f0000002000
 CPU 0/K-3099      0....1  116us : kvm_async_pf_ready: token 0x1000 gva 0x2000
"""
CONTEXT = "".join(
    f"       CPU 0/KVM-3099    [001] d..1.   12.{n:06d}: kvm_entry: vcpu 0, rip 0x{n:x}\n"
    for n in range(3000)
)
Codec = Literal["none", "zlib", "zstd"]


def latency_v6(text: str, layout: Layout) -> bytes:
    dat = TraceDat(6, layout=layout, cmdlines=COMMS, clock=None, options=[opt.uname("Linux h 6.12.0")])
    return dat.to_bytes().partition(b"flyrecord\0")[0] + b"latency  \0" + text.encode()


def latency_v7(text: str, layout: Layout, codec: Codec, chunk: int = 10_000, instance: str = "") -> bytes:
    def head(at: int) -> bytes:
        named = opt.Option(
            BUFFER_TEXT, lambda w: w.u64(at) + instance.encode() + b"\0mono\0" + w.u32(w.page_size) + w.u32(0)
        )
        dat = TraceDat(7, codec, layout, cmdlines=COMMS, clock="mono", options=[named])
        dat._records.clear()
        return dat.to_bytes()

    data = text.encode()
    if codec == "none":
        body = data
    else:
        parts = [data[at : at + chunk] for at in range(0, len(data), chunk)]
        packed = [(compress(codec, part), part) for part in parts]
        blocks = [layout.u32(len(c)) + layout.u32(len(part)) + c for c, part in packed]
        body = layout.u32(len(parts)) + b"".join(blocks)
    section = layout.u16(BUFFER_TEXT) + layout.u16(codec != "none") + layout.u32(0) + layout.u64(len(body))
    start = head(len(head(0)))
    return start + section + body


FILES = [(6, "none"), (7, "none"), (7, "zlib"), (7, "zstd")]


def file_of(version: int, codec: Codec, text: str, layout: Layout | None = None) -> bytes:
    layout = layout or Layout()
    return latency_v6(text, layout) if version == 6 else latency_v7(text, layout, codec)


@pytest.mark.parametrize(("version", "codec"), FILES, ids=["v6", "v7", "v7-zlib", "v7-zstd"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["le", "be"])
def test_text_of_a_latency_tracer(
    tmp_path: Path, version: int, codec: Codec, order: Literal["<", ">"]
) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(file_of(version, codec, LATENCY, Layout(order, 8, 4096)))
    source = open_source(path)
    info = source.info
    assert info.format == ("trace.dat v6" if version == 6 else f"trace.dat v7 ({codec})")
    assert info.clock == ("local" if version == 6 else "mono")
    assert (info.clock_unit, info.options["tracer"]) == ("ns", "wakeup")
    # The text has cut the comms to 8 letters.
    assert info.comms == COMMS
    assert info.kernel == ("Linux h 6.12.0" if version == 6 else "6.12.0-test")
    source.close()
    source.close()
    rows, result = streamed(path, tp.PICKS)
    assert [(r["ts"], r["cpu"], r["tid"], r["pick"], r["a"]) for r in rows] == [
        (5000, 0, 3099, tp.TRY, 0x2000),
        (6000, 0, 3099, tp.NOT_PRESENT, 0x1000),
        (100_000, 0, 57, tp.COMPLETED, 0x2000),
        (116_000, 0, 3099, tp.READY, 0x1000),
    ]
    assert result.notes == []
    assert apftrace.analyze(path).faults["outcome"].to_list() == ["answered"]


@pytest.mark.parametrize(("version", "codec"), FILES, ids=["v6", "v7", "v7-zlib", "v7-zstd"])
def test_text_of_the_usual_form_over_many_chunks(tmp_path: Path, version: int, codec: Codec) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(file_of(version, codec, "# tracer: nop\n#\n" + CONTEXT))
    rows = tabled(path)[0]["kvm_entry"]
    assert [row["rip"] for row in rows] == list(range(3000))
    assert rows[-1]["ts"] == 12_002_999_000


def test_text_of_an_instance(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(latency_v7(LATENCY, Layout(), "none", instance="late"))
    assert len(streamed(path, tp.PICKS)[0]) == 4


@pytest.mark.parametrize("text", ["", "# tracer: wakeup\n#\n"])
def test_a_latency_tracer_that_saw_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(latency_v6(text, Layout()))
    assert streamed(path, tp.PICKS)[0] == []


def test_text_that_is_no_ftrace_text(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(latency_v6("hello\n", Layout()))
    with pytest.raises(TraceUnsupported, match=r"text of a latency tracer instead of records: .*'hello'"):
        open_source(path)


def test_a_section_that_is_another(tmp_path: Path) -> None:
    whole = latency_v7(LATENCY, Layout(), "none")
    at = len(whole) - len(LATENCY) - 16
    path = tmp_path / "trace.dat"
    path.write_bytes(whole[:at] + struct.pack("<H", 3) + whole[at + 2 :])
    with pytest.raises(TraceFormatError, match=rf"section 3 at offset {at}, expected text \(22\)"):
        open_source(path)


@pytest.mark.parametrize("codec", ["zlib", "zstd"])
def test_damaged_and_cut_chunks_end_the_text(tmp_path: Path, codec: Codec) -> None:
    text = "# tracer: nop\n#\n" + CONTEXT
    whole = latency_v7(text, Layout(), codec)
    path = tmp_path / "trace.dat"
    path.write_bytes(whole[:-100])
    rows, result = streamed(path, tp.PICKS)
    assert 2500 < len(rows) < 3000
    assert ["chunk of text at offset" in note for note in result.notes[:1]] == [True]
    size = len(compress(codec, text.encode()[:10_000]))
    second = whole.index(compress(codec, text.encode()[:10_000])) + size + 8
    path.write_bytes(whole[:second] + bytes(50) + whole[second + 50 :])
    rows, result = streamed(path, tp.PICKS)
    assert 100 < len(rows) < 200
    assert "what follows is not read" in result.notes[0]
    assert {(loss.after_ns, loss.before_ns) for loss in result.losses} == {(result.last_ns, None)}
