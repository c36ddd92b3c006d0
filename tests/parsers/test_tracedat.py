"""trace.dat files made by the builders: versions, compressions, machines, options, instances, losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from apftrace.errors import TraceFormatError
from apftrace_parsers.base import Guest, Loss, PassResult, Pick, Resolved
from apftrace_parsers.registry import open_source
from apftrace_parsers.tracedat import TraceDatParser
from tests.builders import options as opt
from tests.builders.formats import formats
from tests.builders.subbuf import Layout
from tests.builders.tracedat import Event, Missed, TraceDat

from .support import GAP, LAYOUTS, PICKS, layout_id, streamed, tabled

if TYPE_CHECKING:
    from pathlib import Path


KINDS = [(6, "none"), (7, "none"), (7, "zlib"), (7, "zstd")]
pytestmark = pytest.mark.usefixtures("engine")


def ready(ts: int, cpu: int = 0, token: int = 0x1000, tid: int = 101) -> Event:
    return Event(ts, cpu, tid, "kvm_async_pf_ready", {"token": token, "gva": 0x7F000})


def entry(ts: int, cpu: int = 0, vcpu: int = 0) -> Event:
    return Event(ts, cpu, 101 + vcpu, "kvm_entry", {"vcpu_id": vcpu, "rip": (1 << 64) - 4096})


@pytest.mark.parametrize("layout", LAYOUTS, ids=layout_id)
@pytest.mark.parametrize(("version", "compression"), KINDS)
def test_every_kind_of_file(tmp_path: Path, version: Any, compression: Any, layout: Layout) -> None:
    dat = TraceDat(
        version, compression, layout, cmdlines={101: "CPU 0/KVM"}, options=[opt.uname("Linux h 6.12")]
    )
    for i in range(400):
        dat.add(entry(1000 + 10 * i, i % 3, i % 2), ready(1005 + 10 * i, i % 3, token=i))
    path = dat.write(tmp_path / "trace.dat")
    rows, result = streamed(path)
    assert [row["ts"] for row in rows] == [1000 + 5 * i for i in range(800)]
    rip = -4096 if layout.long_size == 8 else (1 << 32) - 4096
    assert list(rows[2].values()) == [1010, 1, 102, 0, 1, rip, 0]
    assert list(rows[3].values()) == [1015, 1, 101, 2, 1, 0x7F000, 0]
    assert result.counts == {"kvm_entry": 400, "kvm_async_pf_ready": 400}
    assert (result.first_ns, result.last_ns) == (1000, 4995)
    assert (result.cpu_first_ns, result.cpu_last_ns) == (
        {0: 1000, 1: 1010, 2: 1020},
        {0: 4995, 1: 4975, 2: 4985},
    )
    assert (result.losses, result.notes) == ([], [])


@pytest.mark.parametrize("layout", LAYOUTS, ids=layout_id)
def test_typed_columns(tmp_path: Path, layout: Layout) -> None:
    values = {
        "s8": -128, "u8": 255, "s16": -32768, "u16": 65535, "yes": True, "s32": -(1 << 31), "u32": (1 << 32) - 1,
        "s64": -(1 << 63), "u64": (1 << 64) - 1, "name": "abc", "words": [1, 2, 3, 65535], "text": "grüße",
        "numbers": [1, (1 << 32) - 1], "rel_text": "rel", "longs": [5, 6, (1 << 32) - 1],
    }  # fmt: skip
    dat = TraceDat(layout=layout).add(Event(10, 1, -3, "odd_types", values), Event(20, 0, 7, "odd_types"))
    rows, result = tabled(dat.write(tmp_path / "trace.dat"))
    assert rows["odd_types"][1] == {"ts": 10, "cpu": 1, "tid": -3, "instance": "", **values}
    assert rows["odd_types"][0]["text"] == ""
    assert rows["odd_types"][0]["numbers"] == []
    assert result.notes == []


def test_undecodable_text_is_replaced(tmp_path: Path) -> None:
    dat = TraceDat().add(Event(10, 0, 1, "odd_types", {"text": b"a\xffb\0", "name": b"\xfe"}))
    rows, _ = tabled(dat.write(tmp_path / "trace.dat"))
    assert (rows["odd_types"][0]["text"], rows["odd_types"][0]["name"]) == ("a\ufffdb", "\ufffd")


def test_a_location_that_leads_out_of_its_record_reads_as_empty(tmp_path: Path) -> None:
    dat = TraceDat().add(Event(10, 0, 1, "odd_types", {"text": "0123456789"}))
    data = bytearray(dat.to_bytes())
    record = data.index(b"0123456789") - 72
    data[record + 56 : record + 60] = (40000 << 16 | 72).to_bytes(4, "little")
    path = tmp_path / "trace.dat"
    path.write_bytes(data)
    rows, result = tabled(path)
    assert rows["odd_types"][0]["text"] == ""
    assert result.notes == ["1 variable fields that lead out of their record, left empty"]


def test_facts(tmp_path: Path) -> None:
    dat = TraceDat(
        7,
        "zstd",
        cpus=4,
        clock="mono",
        cmdlines={101: "CPU 0/KVM", 7: "a  b "},
        options=[
            opt.uname("Linux host 6.12.0 x86_64"),
            opt.version("3.4"),
            opt.trace_id(0xFFFF000011112222),
            opt.guest("vm1", 99, [11, 12]),
            opt.time_shift(5, [[(1, 2)], [(3, 4)]]),
        ],
    )
    source = TraceDatParser().open(dat.write(tmp_path / "trace.dat"))
    info = source.info
    assert (info.format, info.clock, info.clock_unit, info.cpus) == ("trace.dat v7 (zstd)", "mono", "ns", 4)
    assert info.comms == {101: "CPU 0/KVM", 7: "a  b "}
    assert info.guests == (Guest("vm1", 99, {0: 11, 1: 12}),)
    assert (info.kernel, info.trace_id) == ("Linux host 6.12.0 x86_64", 0xFFFF000011112222)
    assert info.options["trace-cmd version"] == "3.4"
    assert info.instances == ("",)
    shift = source.options.time_shift
    assert shift
    assert (shift.peer, shift.cpus[1].times, shift.cpus[1].offsets) == (5, (3,), (4,))
    source.close()
    source.close()


@pytest.mark.parametrize("version", [6, 7])
def test_the_clock_of_a_file(tmp_path: Path, version: Any) -> None:
    for clock, unit in [("local", "ns"), ("boot", "ns"), ("counter", "ticks"), ("x86-tsc", "ticks")]:
        source = open_source(TraceDat(version, clock=clock).add(entry(1)).write(tmp_path / clock))
        assert (source.info.clock, source.info.clock_unit) == (clock, unit)
        source.close()


@pytest.mark.parametrize(
    ("options", "ns"),
    [
        ([opt.date(3)], 10**15 + 3000),
        ([opt.offset(-7)], 10**15 - 7),
        ([opt.date(3), opt.offset(5)], 10**15 + 3005),
        ([opt.text(opt.OFFSET, "0777")], 10**15 + 0o777),
        ([opt.text(opt.OFFSET, "-010")], 10**15 - 8),
        ([opt.tsc2nsec(3435973836, 33)], 10**15 * 3435973836 >> 33),
        ([opt.tsc2nsec(878163774, 31, 9), opt.offset(1)], (10**15 * 878163774 >> 31) + 1),
        ([opt.tsc2nsec(1 << 31, 40)], 10**15 >> 9),
    ],
)
def test_times_are_shifted_and_scaled_exactly(tmp_path: Path, options: list[opt.Option], ns: int) -> None:
    path = TraceDat(options=options).add(entry(10**15)).write(tmp_path / "trace.dat")
    rows, _ = streamed(path)
    assert [row["ts"] for row in rows] == [ns]


def test_a_guest_is_brought_to_the_clock_of_its_host(tmp_path: Path) -> None:
    # timestamp_correction_calc() of libtracecmd: between samples by interpolation, beyond them by the ends.
    samples = [(1000, 500), (2000, 700), (3000, 400)]
    dat = TraceDat(options=[opt.time_shift(5, [samples, [(0, -50)]], interpolate=True)])
    dat.add(*(entry(ts) for ts in (900, 1500, 2500, 3500)), entry(2500, 1))
    rows, _ = streamed(dat.write(tmp_path / "trace.dat"))
    by_cpu = {cpu: [r["ts"] for r in rows if r["cpu"] == cpu] for cpu in (0, 1)}
    # At 900 it is 500 + (-100 * 200 + 500) / 1000, and C divides towards zero: 500 - 19.
    assert by_cpu == {0: [900 + 481, 1500 + 600, 2500 + 551, 3500 + 251], 1: [2450]}


def test_gaps_are_rows_and_losses(tmp_path: Path) -> None:
    dat = TraceDat(7, "zstd").add(
        entry(10), entry(20, 1), Missed(25, 1, 5), entry(30, 1), Missed(35, 0), entry(40), entry(50)
    )
    rows, result = streamed(dat.write(tmp_path / "trace.dat"))
    gaps = [list(row.values()) for row in rows if row["pick"] == GAP]
    assert gaps == [[30, 1, 0, GAP, 5, 20, 0], [40, 0, 0, GAP, -1, 10, 0]]
    assert result.losses == [Loss(0, "", None, 10, 40), Loss(1, "", 5, 20, 30)]
    _, again = tabled(dat.write(tmp_path / "trace.dat"))
    assert again.losses == result.losses


def test_losses_that_only_the_recorder_counted_have_no_place(tmp_path: Path) -> None:
    dat = TraceDat(options=[opt.cpu_stat(0, overrun=7), opt.cpu_stat(1, overrun=5, dropped=4)])
    dat.add(entry(10), entry(20, 1), Missed(25, 1, 5), entry(30, 1))
    path = dat.write(tmp_path / "trace.dat")
    _, result = streamed(path)
    assert result.losses == [Loss(1, "", 5, 20, 30), Loss(0, "", 7, None, None), Loss(1, "", 4, None, None)]
    _, part = streamed(path, start_ns=25)
    assert part.losses == [Loss(1, "", 5, None, 30)]


def test_bounds_are_inclusive_and_count_what_they_hold(tmp_path: Path) -> None:
    dat = TraceDat(layout=Layout(page_size=128))
    dat.add(*(entry(10 * i, i % 2) for i in range(200)))
    path = dat.write(tmp_path / "trace.dat")
    rows, result = streamed(path, start_ns=500, end_ns=700)
    assert [row["ts"] for row in rows] == list(range(500, 701, 10))
    assert result.counts == {"kvm_entry": 21}
    assert (result.first_ns, result.last_ns) == (500, 700)
    tables, _ = tabled(path, ["kvm_entry"], start_ns=500, end_ns=700)
    assert sorted(row["ts"] for row in tables["kvm_entry"]) == list(range(500, 701, 10))


@pytest.mark.parametrize(("version", "compression"), KINDS)
def test_instances(tmp_path: Path, version: Any, compression: Any) -> None:
    dat = TraceDat(version, compression, page_sizes={"big": 16384} if version == 7 else {})
    dat.add(entry(10), entry(30, 1)).add(ready(20), ready(40, 1), instance="big")
    path = dat.write(tmp_path / "trace.dat")
    rows, result = streamed(path)
    assert [(row["ts"], row["pick"]) for row in rows] == [(10, 0), (20, 2), (30, 0), (40, 2)]
    assert result.counts == {"kvm_entry": 2, "kvm_async_pf_ready": 2}
    tables, _ = tabled(path)
    assert [row["instance"] for row in tables["kvm_async_pf_ready"]] == ["big", "big"]
    source = open_source(path)
    assert source.info.instances == ("", "big")
    source.close()


def test_an_event_in_two_instances_comes_from_the_fuller_one(tmp_path: Path) -> None:
    dat = TraceDat().add(ready(10), entry(5)).add(ready(11), ready(21, 1), instance="all")
    rows, result = streamed(dat.write(tmp_path / "trace.dat"))
    assert [(row["ts"], row["pick"]) for row in rows] == [(5, 0), (11, 2), (21, 2)]
    assert result.counts == {"kvm_entry": 1, "kvm_async_pf_ready": 2}
    assert result.notes == [
        "kvm_async_pf_ready: 1 records of instance 'top' left out, taken for doubles of those of instance 'all'"
    ]


def test_gaps_of_an_instance_that_delivers_nothing_are_losses_but_no_rows(tmp_path: Path) -> None:
    dat = TraceDat().add(entry(5)).add(Missed(6, 0, 3), ready(7), instance="other")
    rows, result = streamed(dat.write(tmp_path / "trace.dat"), PICKS[:1])
    assert [row["pick"] for row in rows] == [0]
    assert result.losses == [Loss(0, "other", 3, None, 7)]


def test_equal_stamps_keep_cpu_order(tmp_path: Path) -> None:
    dat = TraceDat(7, "zstd").add(
        *(entry(10, cpu) for cpu in (5, 2, 0, 4, 1, 3)), *(entry(11, c) for c in range(6))
    )
    rows, _ = streamed(dat.write(tmp_path / "trace.dat"))
    assert [row["cpu"] for row in rows] == [0, 1, 2, 3, 4, 5] * 2


def test_resolve(tmp_path: Path) -> None:
    source = open_source(TraceDat().write(tmp_path / "trace.dat"))
    picks = [
        Pick(("kvm_async_pf_doublefault", "kvm_async_pf_repeated_fault"), (("nope", "gva"), ("gone",))),
        Pick(("kvm:kvm_entry",), (("rip",),)),
        Pick(("sched:kvm_entry",)),
        Pick(("sched_switch",), (("prev_comm",), ("next_pid",))),
    ]
    assert source.resolve(picks) == (
        Resolved("kvm_async_pf_repeated_fault", ("gva", None, None)),
        Resolved("kvm_entry", ("rip", None, None)),
        None,
        Resolved("sched_switch", (None, "next_pid", None)),
    )
    assert list(source.stream(picks, PassResult())) == []
    source.close()


def test_event_names_and_globs(tmp_path: Path) -> None:
    path = TraceDat().add(entry(1), ready(2), Event(3, 0, 1, "sched_wakeup")).write(tmp_path / "trace.dat")
    assert list(tabled(path, ["kvm:*"])[0]) == ["kvm_async_pf_ready", "kvm_entry"]
    assert list(tabled(path, ["*_entry", "sched:sched_wakeup"])[0]) == ["kvm_entry", "sched_wakeup"]
    assert tabled(path, ["no*"])[0] == {}
    for name in ("kvm_gone", "sched:kvm_entry"):
        with pytest.raises(KeyError):
            tabled(path, [name])


def test_one_name_in_two_systems(tmp_path: Path) -> None:
    known = formats(["kvm_entry", "kvm_async_pf_ready"])
    other = known[0].with_id(999)
    twin = type(other)("xen", other.name, other.id, other.text, other.fields)
    path = TraceDat(formats=(known[0], twin)).add(entry(1)).write(tmp_path / "trace.dat")
    assert streamed(path)[1].counts == {"xen:kvm_entry": 1}


def test_records_of_unknown_events_are_noted(tmp_path: Path) -> None:
    dat = TraceDat().add(entry(1), ready(2))
    dat_bytes = dat.to_bytes().replace(b"name: kvm_async_pf_ready\n", b"nope: kvm_async_pf_ready\n")
    path = tmp_path / "trace.dat"
    path.write_bytes(dat_bytes)
    rows, result = streamed(path)
    assert len(rows) == 1
    assert len(result.notes) == 1
    assert result.notes[0].startswith("1 records of event id ")


def test_many_cpus_stay_in_order(tmp_path: Path) -> None:
    dat = TraceDat(7, "zstd", Layout(page_size=128))
    dat.add(*(entry(7 * i % 4001, i % 97) for i in range(4000)))
    rows, _ = streamed(dat.write(tmp_path / "trace.dat"))
    assert [(r["ts"], r["cpu"]) for r in rows] == sorted((7 * i % 4001, i % 97) for i in range(4000))


def test_an_error_tells_path_offset_and_expectation(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(TraceDat().to_bytes()[:12])
    with pytest.raises(TraceFormatError) as caught:
        open_source(path)
    error = caught.value
    assert (error.path, error.offset) == (str(path), 12)
    assert "expected" in str(error)
