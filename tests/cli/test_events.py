"""``apftrace events``: four formats with the same rows, the default events, globs, unknown names."""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

import apftrace
from apftrace.cli.streams import Printable
from tests.builders.formats import COMMON, parse
from tests.builders.story import Story
from tests.builders.tracedat import Event, TraceDat
from tests.model.support import FIVE, START, known_formats, write

if TYPE_CHECKING:
    from tests.cli.conftest import Run

FORMATS = ("arrow", "parquet", "csv", "jsonl")
MANY = ("-e", "kvm:*", "-e", "sched:*", "-e", "workqueue:*")


def read(format_: str, content: bytes, schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the rows of a written table, absent values left out."""
    if format_ == "jsonl":
        return [json.loads(line) for line in content.splitlines()]
    if format_ == "arrow":
        is_file = content.startswith(b"ARROW1")
        table = pa.ipc.open_file(content).read_all() if is_file else pa.ipc.open_stream(content).read_all()
    elif format_ == "parquet":
        table = pq.read_table(io.BytesIO(content))
    else:
        options = pc.ConvertOptions(
            column_types=schema, strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        table = pc.read_csv(io.BytesIO(content), convert_options=options)
    return [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]


def schema_of(path: Path, *events: str) -> pa.Schema:
    with apftrace.scan_events(path, list(events) or apftrace.ASYNC_PF_EVENTS) as reader:
        return reader.schema


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_holds_the_same_rows(run: Run, traces: Path, tmp_path: Path, format_: str) -> None:
    path = traces / "lost.dat"
    schema = schema_of(path, *MANY[1::2])
    expected = read("arrow", run("events", path, *MANY, "--format", "arrow").out, schema)
    assert len(expected) > 500
    run("events", path, *MANY, "-o", f"events.{format_}")
    assert read(format_, (tmp_path / f"events.{format_}").read_bytes(), schema) == expected


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_takes_arrays_and_text(run: Run, tmp_path: Path, format_: str) -> None:
    fields = {"s8": -3, "u64": 1 << 63, "words": [1, 2, 3, 4], "numbers": [5, 6], "text": 'a "b", c'}
    story = Story().event(1_000, "odd_types", 7, 0, **fields)
    write(story, tmp_path / "odd.dat")
    result = run("events", "odd.dat", "-e", "odd_types", "--format", format_)
    assert (result.status, result.err) == (0, "")
    assert result.out.count(b"odd_types") >= 1


@pytest.mark.parametrize("format_", [f for f in FORMATS if f != "arrow"])
def test_stdout_holds_what_the_file_holds(run: Run, traces: Path, tmp_path: Path, format_: str) -> None:
    path = traces / "calm.dat"
    run("events", path, "-o", f"events.{format_}")
    assert run("events", path, "--format", format_).out == (tmp_path / f"events.{format_}").read_bytes()
    assert (
        run("events", path, "--format", format_, "-o", "-").out
        == (tmp_path / f"events.{format_}").read_bytes()
    )


def test_scan_events_closes_its_file(traces: Path) -> None:
    def files() -> set[Path]:
        return {fd.resolve() for fd in Path("/proc/self/fd").iterdir()}

    path = traces / "calm.dat"
    kept = apftrace.scan_events(path)
    assert path.resolve() in files()
    kept.read_all()
    with contextlib.suppress(KeyError):
        apftrace.scan_events(path, ["no_such_event"])
    with apftrace.scan_events(path) as unread:
        assert unread.schema
    del unread
    gc.collect()
    assert path.resolve() not in files()


def test_what_one_cpu_recorded_at_one_instant_stays_in_its_order(run: Run, tmp_path: Path) -> None:
    story = Story()
    for cpu in (0, 1):
        tid = story.tid(cpu)
        for n in range(5):
            at = START + n // 3
            story.event(at, "kvm_entry", tid, cpu, vcpu_id=cpu, rip=n)
            story.event(at, "sched_switch", tid, cpu, prev_pid=tid, prev_state=0, next_pid=9)
            story.event(at, "kvm_exit", tid, cpu, exit_reason=n, isa=2, vcpu_id=cpu)
    path = write(story, tmp_path / "ties.dat", whole=False)
    told = run("events", path, "-e", "kvm_*", "-e", "sched_switch", "--format", "jsonl").text.splitlines()
    rows = [json.loads(line) for line in told]
    recorded = sorted(story.records, key=lambda r: (r.ts, r.cpu))
    assert [(r["ts"], r["cpu"], r["event"]) for r in rows] == [(r.ts, r.cpu, r.name) for r in recorded]


def test_the_arrow_stream_has_the_schema_of_scan_events(run: Run, traces: Path) -> None:
    table = pa.ipc.open_stream(run("events", traces / "calm.dat", "--format", "arrow").out).read_all()
    assert table.schema == schema_of(traces / "calm.dat")
    assert table.column_names[:6] == ["ts", "cpu", "tid", "comm", "event", "instance"]
    assert (table.schema.field("ts").type, table.schema.field("token").type) == (pa.int64(), pa.uint64())


@pytest.mark.parametrize("chosen", [(), MANY], ids=["narrow", "wide"])
def test_an_arrow_file_is_one_to_jump_in(
    run: Run, traces: Path, tmp_path: Path, chosen: tuple[str, ...]
) -> None:
    run("events", traces / "lost.dat", *chosen, "-o", "events.feather")
    expected = pa.ipc.open_stream(run("events", traces / "lost.dat", *chosen, "--format", "arrow").out)
    assert feather.read_table(tmp_path / "events.feather").equals(expected.read_all())


@pytest.fixture
def two_systems(tmp_path: Path) -> Path:
    """A life, and a probe that bears the name of its ready."""
    own = next(form for form in known_formats() if form.name == "kvm_async_pf_ready")
    text = own.text.replace(f"ID: {own.id}", "ID: 3001")
    probe = replace(parse("probes", text), name="probe")
    story = Story()
    story.pv_life(at=START)
    dat = TraceDat(formats=(probe, *known_formats()))
    for n in range(5):
        dat.add(Event(START + n, 0, story.tid(0), "probe", {"token": n}))
    return dat.add(*story.records).write(tmp_path / "two.dat")


def test_events_of_two_systems_that_share_a_name_are_told_apart(run: Run, two_systems: Path) -> None:
    told = run("events", two_systems, "-e", "kvm_async_pf_ready").text.splitlines()
    names = Counter(json.loads(line)["event"] for line in told)
    assert names == {"kvm:kvm_async_pf_ready": 1, "probes:kvm_async_pf_ready": 5}
    wide = run("events", two_systems, "-e", "*:kvm_async_pf_ready", "-e", "kvm:kvm_exit").text.splitlines()
    assert {json.loads(line)["event"] for line in wide} == {*names, "kvm_exit"}
    only = run("events", two_systems, "-e", "probes:kvm_async_pf_ready").text.splitlines()
    assert [json.loads(line)["event"] for line in only] == ["kvm_async_pf_ready"] * 5


def test_the_events_of_the_default_are_those_of_kvm(run: Run, two_systems: Path) -> None:
    told = [json.loads(line) for line in run("events", two_systems).text.splitlines()]
    assert [row["event"] for row in told].count("kvm_async_pf_ready") == 1
    assert {row["event"] for row in told} <= set(FIVE)


def test_a_terminal_gets_no_control_character_of_a_name() -> None:
    out = io.BytesIO()
    terminal = Printable(out)
    for piece in (b"a\x1b[31m,b\n", "é\x07\n".encode()[:1], "é\x07\n".encode()[1:]):
        assert terminal.write(piece) == len(piece)
    assert out.getvalue().decode() == "a\\x1b[31m,b\né\\x07\n"


def test_rows_are_in_time_order(run: Run, traces: Path) -> None:
    rows = [json.loads(line) for line in run("events", traces / "lost.dat", *MANY).text.splitlines()]
    stamps = [row["ts"] for row in rows]
    assert stamps == sorted(stamps)


def test_json_lines_are_the_default_and_hold_the_async_page_fault_events(run: Run, traces: Path) -> None:
    rows = [json.loads(line) for line in run("events", traces / "calm.dat").text.splitlines()]
    assert {row["event"] for row in rows} == set(FIVE) - {"kvm_async_pf_repeated_fault"}
    first = next(row for row in rows if row["event"] == "kvm_async_pf_not_present")
    assert first["token"] == 0x1000
    assert (first["ts"], first["cpu"], first["tid"], first["comm"]) == (10**10, 0, 101, "CPU 0/KVM")
    assert "address" not in first


def test_named_events(run: Run, traces: Path) -> None:
    result = run("events", traces / "calm.dat", "-e", "kvm_async_pf_ready", "-e", "sched:sched_switch")
    assert {json.loads(line)["event"] for line in result.text.splitlines()} == {
        "kvm_async_pf_ready",
        "sched_switch",
    }


@pytest.mark.parametrize(
    ("pattern", "events"),
    [
        ("kvm:kvm_e*", {"kvm_entry", "kvm_exit"}),
        ("kvm_async_pf_*", set(FIVE) - {"kvm_try_async_get_page", "kvm_async_pf_repeated_fault"}),
        ("sched:*", {"sched_switch", "sched_wakeup"}),
        ("kvm_async_pf_read?", {"kvm_async_pf_ready"}),
        ("kvm_e[nx]*", {"kvm_entry", "kvm_exit"}),
    ],
)
def test_a_glob_chooses_events(run: Run, traces: Path, pattern: str, events: set[str]) -> None:
    result = run("events", traces / "calm.dat", "-e", pattern)
    assert {json.loads(line)["event"] for line in result.text.splitlines()} == events


@pytest.mark.parametrize("name", ["no_such_event", "sched:kvm_entry", "kvm:no_such_event", ""])
def test_an_unknown_event_is_wrong_usage(run: Run, traces: Path, tmp_path: Path, name: str) -> None:
    result = run("events", traces / "calm.dat", "-e", name, "-o", "events.csv")
    assert result.status == 2
    assert f"does not describe the event {name!r}" in result.err
    assert not list(tmp_path.iterdir())


def test_an_unknown_suffix_is_wrong_usage(run: Run, traces: Path, tmp_path: Path) -> None:
    result = run("events", traces / "calm.dat", "-o", "events.xlsx")
    assert result.status == 2
    assert "events.xlsx" in result.err
    assert not list(tmp_path.iterdir())


def test_a_named_format_beats_the_suffix(run: Run, traces: Path, tmp_path: Path) -> None:
    run("events", traces / "calm.dat", "-o", "events.xlsx", "--format", "csv")
    head = next(csv.reader(io.StringIO((tmp_path / "events.xlsx").read_text())))
    assert head[:6] == ["ts", "cpu", "tid", "comm", "event", "instance"]


def test_losses_are_told_on_stderr(run: Run, traces: Path) -> None:
    result = run("events", traces / "lossy.dat")
    assert "records of CPU 0 were lost" in result.err
    assert all(line.startswith(b"{") for line in result.out.splitlines())


def test_only_the_finished_file_is_left(run: Run, traces: Path, tmp_path: Path) -> None:
    run("events", traces / "calm.dat", "-o", "events.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["events.parquet"]


def test_a_file_that_cannot_be_written_is_one_line(run: Run, traces: Path) -> None:
    result = run("events", traces / "calm.dat", "-o", "no/such/folder/events.csv")
    assert result.status != 0
    assert "no/such/folder" in result.one_line()


COLLIDING = parse(
    "sys",
    f"name: colliding\nID: 900\nformat:\n{COMMON}"
    """\tfield:u64 ts;\toffset:8;\tsize:8;\tsigned:0;
\tfield:u64 ts_;\toffset:16;\tsize:8;\tsigned:0;
\tfield:int cpu;\toffset:24;\tsize:4;\tsigned:1;
""",
)


def colliding(path: Path, form: str) -> Path:
    """Write two records of an event whose fields are called like columns that every table has."""
    if form == "text":
        head = "# tracer: nop\n"
        path.write_text(
            head + "".join(f" a-7 [001] .... 1.00000{n}: colliding: ts={n} ts_=9 cpu=-5\n" for n in (1, 2))
        )
        return path
    dat = TraceDat(7, formats=(COLLIDING,))
    dat.add(*(Event(10**9 + n * 1000, 1, 7, "colliding", {"ts": n, "ts_": 9, "cpu": -5}) for n in (1, 2)))
    return dat.write(path)


@pytest.mark.parametrize("form", ["dat", "text"])
def test_fields_that_are_called_like_columns_keep_their_values(run: Run, tmp_path: Path, form: str) -> None:
    path = colliding(tmp_path / "t", form)
    rows = [json.loads(line) for line in run("events", path, "-e", "colliding").out.splitlines()]
    shown = ("ts", "cpu", "tid", "ts__", "ts_", "cpu_")
    assert [[row[name] for name in shown] for row in rows] == [
        [10**9 + n * 1000, 1, 7, n, 9, -5] for n in (1, 2)
    ]


def test_the_python_verb_streams_the_same_rows(run: Run, traces: Path) -> None:
    path = traces / "calm.dat"
    rows = apftrace.scan_events(path).read_all().sort_by([("ts", "ascending"), ("cpu", "ascending")])
    table = pa.ipc.open_stream(run("events", path, "--format", "arrow").out).read_all()
    assert rows.to_pylist() == table.to_pylist()


def test_the_python_verb_refuses_an_unknown_event(traces: Path) -> None:
    with pytest.raises(KeyError, match="no_such_event"):
        apftrace.scan_events(traces / "calm.dat", ["no_such_event"])


def test_a_glob_that_fits_nothing_is_wrong_usage(run: Run, traces: Path) -> None:
    result = run("events", traces / "calm.dat", "-e", "kvm:*", "-e", "kvm:nope*")
    assert (result.status, result.out) == (2, b"")
    assert "does not describe the event 'kvm:nope*'" in result.one_line()


def test_a_file_that_cannot_be_written_has_the_name_that_was_given(
    run: Run, traces: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    for name, problem in (("no/x.csv", "No such file or directory"), ("folder", "Is a directory")):
        result = run("events", traces / "calm.dat", "--format", "csv", "-o", name)
        assert (result.status, result.one_line()) == (3, f"apftrace: {name}: {problem}")


def test_a_full_disk_has_the_name_that_was_given(run: Run, traces: Path, tmp_path: Path) -> None:
    (tmp_path / "disk.csv").symlink_to("/dev/full")
    result = run("events", traces / "calm.dat", "-o", "disk.csv")
    assert (result.status, result.one_line()) == (3, "apftrace: disk.csv: No space left on device")


def test_a_comm_stands_once_in_its_dictionary(run: Run, tmp_path: Path) -> None:
    story = Story()
    for vcpu in (0, 1):
        story.pv_life(at=START, vcpu=vcpu)
    story.comms |= {story.tid(0): "qemu", 2**31: "nobody's", 2**40: "nobody's"}
    story.comms[story.tid(1)] = story.comms[story.tid(0)] = "qemu"
    path = write(story, tmp_path / "t.dat")
    assert run("events", path, "-o", "events.arrow").status == 0
    comms = pa.ipc.open_file(tmp_path / "events.arrow").read_all().column("comm")
    names = comms.chunk(0).dictionary.to_pylist()
    assert sorted(names) == sorted(set(names))
    assert {"qemu"} <= set(comms.to_pylist())
