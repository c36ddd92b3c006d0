"""Text of a trace gives the rows of the trace: the same run as records and in every form of text."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import tarfile
from statistics import median
from typing import TYPE_CHECKING

import pytest

import apftrace
from apftrace.model import tracepoints as tp
from apftrace_parsers.base import MISSED, PassResult, SourceInfo
from apftrace_parsers.clock import Clock
from apftrace_parsers.eventformat import EventTable
from apftrace_parsers.registry import open_source
from apftrace_parsers.ringsource import RingSource
from apftrace_parsers.tracedat.buffers import PlainLane
from apftrace_parsers.walk import Ring
from tests.conftest import MORE, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apftrace_parsers.base import Source

Rows = dict[str, list[tuple[int, ...]]]
US = 1000
FORMS = {"-t": 1, "": US, "-R": US}
"""Options of trace-cmd report, and the ns of its last digit."""


def with_more(test: Callable[..., None]) -> Callable[..., None] | None:
    """Keep a test only where the further captures are."""
    return test if MORE.is_dir() else None


def rows_of(source: Source, step: int = 1) -> Rows:
    """Return the rows of the model's tracepoints by name; printf rounds stamps half up."""
    found: Rows = {}
    for batch in source.stream(tp.PICKS, PassResult()):
        for row in batch.to_pylist():
            name = "lost" if row["pick"] == MISSED else tp.NAMES[row["pick"]]
            ts = (row["ts"] + step // 2) // step * step
            found.setdefault(name, []).append((ts, *(row[k] for k in ("cpu", "tid", "a", "b", "c"))))
    source.close()
    return found


def only_asked_for(rows: Rows) -> Rows:
    """Forget the exit reasons that text gives as names, but for HLT and the interrupt window."""
    kept = {*((isa, reason) for isa, reason in zip((1, 2), tp.HLT_EXITS, strict=True)), (2, 0x64), (1, 7)}
    told = [
        (ts, cpu, tid, reason if (isa, reason) in kept else -1, isa, 0)
        for ts, cpu, tid, reason, isa, _ in rows.get("kvm_exit", ())
    ]
    return rows | ({"kvm_exit": told} if told else {})


def without_preempted(rows: Rows) -> Rows:
    """Forget whether a task was preempted while it was runnable: the plugin of libtraceevent prints R for both."""
    told = [(ts, cpu, tid, a, b & 0xFF, c) for ts, cpu, tid, a, b, c in rows.get("sched_switch", ())]
    return rows | ({"sched_switch": told} if told else {})


def reported(path: Path, option: str, out: Path) -> Path:
    """Return a file with what trace-cmd report prints of a trace."""
    command = shutil.which("trace-cmd")
    assert command, "trace-cmd is missing: these tests compare with it"
    call = [command, "report", *option.split(), "-N" if option == "-R" else "-q", "-i", str(path)]
    done = subprocess.run(call, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    out.write_bytes(done.stdout)
    return out


def agree(records: Rows, text: Rows, *, raw: bool) -> None:
    expected = records if raw else without_preempted(only_asked_for(records))
    assert {name: len(rows) for name, rows in text.items()} == {n: len(rows) for n, rows in expected.items()}
    for name, rows in expected.items():
        assert sorted(text[name]) == sorted(rows), name


@pytest.mark.parametrize("option", FORMS, ids=["ns", "default", "raw"])
@pytest.mark.parametrize("name", ["host-v7-zstd.dat", "boot.dat", "overrun-b64.dat"])
def test_trace_cmd_report_of_a_sample(tmp_path: Path, name: str, option: str) -> None:
    path = SAMPLES / name
    text = open_source(reported(path, option, tmp_path / "report.txt"))
    records = rows_of(open_source(path), FORMS[option])
    if "lost" in records:
        # Stamps of gaps are those of pages in a trace.dat, of records in a text.
        text_rows = rows_of(text)
        assert [row[3] for row in text_rows.pop("lost")] == [row[3] for row in records.pop("lost")]
        agree(records, text_rows, raw=option == "-R")
    else:
        agree(records, rows_of(text), raw=option == "-R")


@with_more
@pytest.mark.parametrize(
    ("form", "step"), [("report-t", 1), ("report-default", US), ("report-R", US)], ids=str
)
def test_the_reports_of_one_run(form: str, step: int) -> None:
    records = rows_of(open_source(MORE / "text" / "text-source.dat"), step)
    text = rows_of(open_source(MORE / "text" / f"{form}.txt.gz"))
    agree(records, text, raw=form == "report-R")


@with_more
def test_the_reports_of_one_run_are_judged_alike() -> None:
    told = []
    for name in ("text-source.dat", "report-t.txt.gz"):
        analysis = apftrace.analyze(MORE / "text" / name)
        told.append((analysis.headline, analysis.faults.drop("vm"), analysis.latency))
    assert told[0][0] == told[1][0]
    assert told[0][1].equals(told[1][1])
    assert told[0][2].equals(told[1][2])


@with_more
def test_the_kernels_own_text_is_what_its_pages_hold(tmp_path: Path) -> None:
    with tarfile.open(MORE / "raw" / "raw-snapshot.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    formats = sorted((tmp_path / "events").rglob("format"))
    table = EventTable([(f.parent.parent.name, f.read_bytes()) for f in formats], 8)
    lanes = []
    for cpu in (0, 1):
        pages = tmp_path / "per_cpu" / f"cpu{cpu}" / "trace_pipe_raw"
        fd = os.open(pages, os.O_RDONLY)
        lanes.append(PlainLane(cpu, "", 4096, fd, 0, pages.stat().st_size))
    info = SourceInfo("pages", "pages", "local", "ns", 2, None, ("",))
    pages_source = RingSource(info, Ring(tuple(lanes), False, 8, Clock(), table.tid_offset()), table)
    records = only_asked_for(rows_of(pages_source, US))
    for lane in lanes:
        os.close(lane.fd)
    text = rows_of(open_source(MORE / "raw" / "trace.txt.gz"))
    assert text.keys() == records.keys()
    for name, rows in records.items():
        # Records of one microsecond on two CPUs may stand in either order.
        assert sorted(text[name]) == sorted(rows), name
    assert {row[4] for row in text["sched_switch"]} >= {0, 1, 2, 0x20, 0x80, 0x100}
    assert any(row[3] == tp.HLT_EXITS[1] for row in text["kvm_exit"])


@with_more
def test_tracefs_with_other_options_says_the_same() -> None:
    plain = open_source(MORE / "text" / "tracefs-trace.txt.gz")
    verbose = open_source(MORE / "text" / "tracefs-trace-verbose.txt.gz")
    assert plain.info.comms == verbose.info.comms
    assert plain.info.tgids == verbose.info.tgids == {}
    assert rows_of(plain) == rows_of(verbose)


@with_more
@pytest.mark.parametrize("name", ["tracefs-trace-tgid", "trace_pipe-head"])
def test_thread_groups(name: str) -> None:
    source = open_source(MORE / "text" / f"{name}.txt.gz")
    assert {tid: source.info.tgids[tid] for tid in (3099, 3100) if tid in source.info.tgids}.items() <= {
        3099: 3084,
        3100: 3084,
    }.items()
    assert source.info.tgids[3099] == 3084
    assert 0 not in source.info.tgids
    source.close()


@with_more
def test_trace_pipe_with_lost_records() -> None:
    source = open_source(MORE / "loss" / "trace_pipe-lost-head.txt.gz")
    result = PassResult()
    rows = [row for batch in source.stream(tp.PICKS, result) for row in batch.to_pylist()]
    source.close()
    assert [(x.cpu, x.count) for x in result.losses] == [(1, 85), (1, 336)]
    assert [row["ts"] for row in rows] == sorted(row["ts"] for row in rows)
    gaps = [i for i, row in enumerate(rows) if row["pick"] == MISSED]
    assert [(rows[i]["ts"], rows[i]["b"]) for i in gaps] == [(x.before_ns, x.after_ns) for x in result.losses]
    analysis = apftrace.analyze(MORE / "loss" / "trace_pipe-lost-head.txt.gz")
    assert analysis.verdict == "undecided"
    assert analysis.faults["outcome"].unique().to_list() == ["answered"]
    assert not analysis.findings.filter(analysis.findings["rule"] == "lost-wakeup").height


LINE = re.compile(r"^ *(\S+)-(\d+) +\[\d+\] \S+ +(\d+)\.(\d{6}): (\w+): (.*)$", re.MULTILINE)


def by_hand(text: str) -> dict[int, dict[str, int]]:
    """Return per token what a simple reader finds: instants of its life in us, by names of the phases file."""
    lives: dict[int, dict[str, int]] = {}
    open_of: dict[int, int] = {}
    work_of: dict[str, int] = {}
    running: dict[int, int] = {}
    told: dict[int, int] = {}
    for _, tid_text, seconds, fraction, event, rest in LINE.findall(text):
        ts, tid, words = int(seconds + fraction), int(tid_text), rest.split()
        if event == "kvm_async_pf_not_present":
            open_of[tid] = int(words[1], 16)
            lives[open_of[tid]] = {"np": ts}
        elif event == "workqueue_queue_work" and tid in open_of:
            work_of[words[1].partition("=")[2]] = open_of[tid]
            lives[open_of.pop(tid)]["q"] = ts
        elif event == "workqueue_execute_start":
            running[tid] = work_of.pop(words[2].rstrip(":"))
            lives[running[tid]]["xs"] = ts
        elif event == "kvm_async_pf_completed":
            lives[running.pop(tid)]["c"] = ts
        elif event == "kvm_async_pf_ready":
            told[tid] = int(words[1], 16)
            lives[told[tid]]["r"] = ts
        elif event == "kvm_apic_accept_irq" and tid in told:
            if words[3] == "243":
                lives[told[tid]]["acc"] = ts
            del told[tid]
        elif tid in told:
            del told[tid]
    return lives


HOST612 = MORE / "kernel-6.12" / "text" / "host-trace.filtered.gz"
PHASES: dict[str, Callable[[dict[str, int]], int]] = {
    "p1": lambda life: life["xs"] - life["np"],
    "p2": lambda life: life["c"] - life["xs"],
    "p3": lambda life: life["r"] - life["c"],
}


@with_more
def test_every_life_of_a_612_host_as_a_simple_reader_finds_it() -> None:
    lives = by_hand(gzip.decompress(HOST612.read_bytes()).decode())
    faults = apftrace.analyze(HOST612).faults
    assert faults.height == len(lives) == 253
    assert set(faults["outcome"]) == {"answered"}
    assert dict(faults["kind"].value_counts().iter_rows()) == {
        "pv": sum("acc" in life for life in lives.values()),
        "halt": sum("acc" not in life for life in lives.values()),
    }
    for row in faults.iter_rows(named=True):
        life = lives[row["token"]]
        instants = {
            "not_present": "np", "queued": "q", "started": "xs", "completed": "c", "ready": "r", "accepted": "acc",
        }  # fmt: skip
        assert {name: row[name] for name in instants} == {
            name: life[key] * US if key in life else None for name, key in instants.items()
        }
        assert [row[name] for name in PHASES] == [phase(life) * US for phase in PHASES.values()]


@with_more
def test_the_phases_of_a_612_host() -> None:
    # The figures of phases.txt are over 1,872 lives; the text holds the first 253 of them, which have the extremes.
    told = dict(
        re.findall(r"^(\S+->\S+) .* max=([\d.]+) ms$", (HOST612.parent / "phases.txt").read_text(), re.M)
    )
    lives = by_hand(gzip.decompress(HOST612.read_bytes()).decode())
    latency = apftrace.analyze(HOST612).latency
    found = {
        phase: (p50, most)
        for phase, kind, p50, most in latency.select("phase", "kind", "p50", "max").iter_rows()
        if kind == "all"
    }
    for phase, whole in (("p2", "xs->c"), ("p3", "c->r")):
        assert found[phase][1] == round(float(told[whole]) * 1000) * US
    for phase, measure in PHASES.items():
        middle = median(map(measure, lives.values()))
        assert found[phase][0] == pytest.approx(middle * US, rel=0.01)
