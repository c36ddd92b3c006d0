"""What is only known of a text as a whole: losses, bounds, instances, strange lines.

Each test runs on records that the first pass kept, and on lines that are read again as those of a long text.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from apftrace_parsers.base import MISSED, Loss, Pick
from apftrace_parsers.ftracetext import survey
from apftrace_parsers.registry import open_source
from tests.builders.ftracetext import HEADER, line, written

from .support import streamed, tabled

if TYPE_CHECKING:
    from pathlib import Path

LEAST = -(1 << 63)
ENTRY = (Pick(("kvm:kvm_entry",), (("vcpu_id",),)),)


@pytest.fixture(params=["kept", "read again"], autouse=True)
def length(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "read again":
        monkeypatch.setattr(survey, "MAX_KEPT", -1)


LOSSES = {
    "CPU:1 [LOST 336 EVENTS]": 336,
    "CPU:1 [LOST EVENTS]": None,
    "CPU:1 [336 EVENTS DROPPED]": 336,
    "CPU:1 [EVENTS DROPPED]": None,
}


@pytest.mark.parametrize(("mark", "count"), LOSSES.items(), ids=LOSSES)
@pytest.mark.parametrize("later", [4, 2], ids=["in order", "out of order"])
def test_losses_lie_between_the_records_of_their_cpu(
    tmp_path: Path, mark: str, count: int | None, later: int
) -> None:
    text = line("kvm_entry", "vcpu 1", ts="1.000001", cpu=1) + line("kvm_entry", "vcpu 0", ts="1.000002")
    text += f"{mark}\n" + line("kvm_entry", "vcpu 0", ts="1.000003", cpu=1)
    text += line("kvm_entry", "vcpu 0", ts=f"1.00000{later}")
    rows, result = streamed(written(tmp_path, text), ENTRY)
    assert result.losses == [Loss(1, "", count, 1000001000, 1000003000)]
    assert result.notes == []
    assert [row["ts"] for row in rows] == sorted(row["ts"] for row in rows)
    gap = next(i for i, row in enumerate(rows) if row["pick"] == MISSED)
    told = (rows[gap]["ts"], rows[gap]["cpu"], rows[gap]["a"], rows[gap]["b"])
    assert told == (1000003000, 1, -1 if count is None else count, 1000001000)
    assert (rows[gap + 1]["ts"], rows[gap + 1]["cpu"]) == (1000003000, 1)


def test_losses_at_the_end_and_several_in_a_row(tmp_path: Path) -> None:
    text = (
        "CPU:0 [LOST 2 EVENTS]\nCPU:0 [LOST 3 EVENTS]\n"
        + line("kvm_entry", "vcpu 1")
        + "CPU:0 [LOST EVENTS]\n"
    )
    rows, result = streamed(written(tmp_path, text), ENTRY)
    assert result.losses == [Loss(0, "", 5, None, 10**9), Loss(0, "", None, 10**9, None)]
    assert [(row["pick"], row["a"], row["b"]) for row in rows] == [(MISSED, 5, LEAST), (0, 1, 0)]


def test_overwritten_records_are_a_loss_at_the_head(tmp_path: Path) -> None:
    text = HEADER.format(entries=2, written=10) + line("kvm_entry", "vcpu 1", ts="1.000001")
    text += "##### CPU 1 buffer started ####\n" + line("kvm_entry", "vcpu 0", ts="1.000002", cpu=1)
    _, result = streamed(written(tmp_path, text), ENTRY)
    assert set(result.losses) == {Loss(0, "", None, None, 1000001000), Loss(1, "", None, None, 1000002000)}
    assert result.notes == ["8 of 10 records were overwritten before this text was read"]


def test_one_cpu_lost_all_that_was_overwritten(tmp_path: Path) -> None:
    text = HEADER.format(entries=1, written=10) + line("kvm_entry", "vcpu 1")
    assert streamed(written(tmp_path, text), ENTRY)[1].losses == [Loss(0, "", 9, None, 10**9)]


def test_a_started_buffer_is_a_loss_unless_all_records_are_there(tmp_path: Path) -> None:
    text = "##### CPU 1 buffer started ####\n" + line("kvm_entry", "vcpu 0", cpu=1)
    assert streamed(written(tmp_path, text), ENTRY)[1].losses == [Loss(1, "", None, None, 10**9)]
    text = HEADER.format(entries=1, written=1) + text
    assert streamed(written(tmp_path, text), ENTRY)[1].losses == []


def test_bounds_and_counts(tmp_path: Path) -> None:
    text = "".join(
        line("kvm_entry", f"vcpu {n}", ts=f"1.00000{n}") + line("a", ts=f"1.00000{n}") for n in range(9)
    )
    path = written(tmp_path, text)
    rows, result = streamed(path, ENTRY, start_ns=1000002000, end_ns=1000004000)
    assert [row["a"] for row in rows] == [2, 3, 4]
    assert result.counts == {"kvm_entry": 3, "a": 3}
    assert (result.first_ns, result.last_ns) == (1000002000, 1000004000)
    assert streamed(path, ENTRY)[1].counts == {"kvm_entry": 9, "a": 9}
    assert tabled(path, ("a",), start_ns=1000008000)[0]["a"] == [
        {"ts": 1000008000, "cpu": 0, "tid": 3099, "instance": "", "text": ""}
    ]


def test_few_wanted_lines_are_found_among_many(tmp_path: Path) -> None:
    wanted = [n for n in range(2000) if n % 97 == 0]
    text = "".join(
        line("kvm_entry", f"vcpu {n}") if n % 97 == 0 else line("other", "kvm_entry: vcpu 5")
        for n in range(2000)
    )
    rows, result = streamed(written(tmp_path, text), ENTRY)
    assert [row["a"] for row in rows] == wanted
    assert result.counts == {"kvm_entry": len(wanted), "other": 2000 - len(wanted)}


def test_instances_of_a_report(tmp_path: Path) -> None:
    # trace-cmd report puts the name of the instance before each line, and spaces before those of the top one.
    top = "       " + line("kvm_entry", "vcpu 1", ts="1.000001")
    more = "sched: " + line("kvm_entry", "vcpu 1", ts="1.000001") + "sched: " + line("kvm_entry", "vcpu 2")
    path = written(tmp_path, "cpus=2\n" + top + more)
    source = open_source(path)
    assert source.info.instances == ("", "sched")
    assert source.info.comms == {3099: "CPU 0/KVM"}
    source.close()
    assert [row["a"] for row in streamed(path, ENTRY)[0]] == [2, 1]
    assert [row["instance"] for row in tabled(path)[0]["kvm_entry"]] == ["", "sched", "sched"]


def test_records_without_a_name_are_those_of_the_function_tracer(tmp_path: Path) -> None:
    text = "# tracer: function\n#\n            bash-1     [000] d..1.  1.000001: vfs_read <-ksys_read\n"
    rows, result = tabled(written(tmp_path, text))
    assert result.counts == {"function": 1}
    assert rows["function"][0]["text"] == "vfs_read <-ksys_read"


def test_latency_format(tmp_path: Path) -> None:
    # lat_print_generic() and lat_print_timestamp() in kernel/trace/trace_output.c.
    text = "# tracer: irqsoff\n#\n# irqsoff latency trace v1.1.5 on 6.12.0-test\n"
    text += "  <idle>-0         0d.s2.    0us+: kvm_entry: vcpu 1\n"
    text += " CPU 0/K-3099      1dN.2.   16us : kvm_entry: vcpu 2\n"
    text += " CPU 0/K-3099      1dN.2. 1234us!: _raw_spin_lock <-foo\n => foo\n => bar\n"
    path = written(tmp_path, text)
    source = open_source(path)
    assert (source.info.kernel, source.info.clock_unit) == ("6.12.0-test", "ns")
    source.close()
    rows, result = streamed(path, ENTRY)
    assert [(r["ts"], r["cpu"], r["tid"], r["a"]) for r in rows] == [(0, 0, 0, 1), (16000, 1, 3099, 2)]
    assert result.last_ns == 1234000
    assert result.notes == []


def test_gzip_is_found_by_content(tmp_path: Path) -> None:
    text = (HEADER.format(entries=3, written=3) + line("kvm_entry", "vcpu 1") * 3).encode()
    # Two members, as after gzip -c a b.
    path = written(tmp_path, gzip.compress(text[:500]) + gzip.compress(text[500:]), "trace.txt")
    source = open_source(path)
    assert source.info.format == "ftrace text (gzip)"
    source.close()
    assert len(streamed(path, ENTRY)[0]) == 3


def test_strange_lines_are_told_of(tmp_path: Path) -> None:
    text = line("kvm_entry", "vcpu 1") + "what is this\n" * 5 + line("kvm_entry", "vcpu 1")
    rows, result = streamed(written(tmp_path, text), ENTRY)
    assert len(rows) == 2
    assert len(result.notes) == 4
    assert result.notes[0].startswith("line at offset ")
    assert result.notes[-1] == "2 more lines of no known form"


def test_an_empty_trace(tmp_path: Path) -> None:
    rows, result = streamed(written(tmp_path, HEADER.format(entries=0, written=0)), ENTRY)
    assert (rows, result.counts, result.losses, result.first_ns) == ([], {}, [], None)


def test_one_event_for_two_picks(tmp_path: Path) -> None:
    picks = (*ENTRY, Pick(("kvm_entry",), (("rip",),)))
    text = "".join(line("kvm_entry", f"vcpu {n}, rip 0x{n + 5}", ts=f"1.00000{n}") for n in (1, 2))
    rows, result = streamed(written(tmp_path, text), picks)
    assert [(row["pick"], row["a"]) for row in rows] == [(0, 1), (1, 6), (0, 2), (1, 7)]
    assert result.counts == {"kvm_entry": 2}
