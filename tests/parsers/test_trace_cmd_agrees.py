"""Agree with the elder: every record of every capture as trace-cmd report -R prints it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from apftrace_parsers.base import PassResult, Pick
from apftrace_parsers.registry import open_source
from tests.conftest import only_with_more

from .conftest import captures

if TYPE_CHECKING:
    from pathlib import Path

COMPARED = {
    "kvm_try_async_get_page",
    "kvm_async_pf_repeated_fault",
    "kvm_async_pf_not_present",
    "kvm_async_pf_ready",
    "kvm_async_pf_completed",
    "kvm_entry",
    "kvm_exit",
    "kvm_msr",
    "sched_switch",
    "page_fault_user",
    # Probes of the guest.
    "task_wait",
    "task_wake",
    "asyncpf_irq",
}
STREAMED = {
    "kvm_entry": ("vcpu_id", "rip"),
    "kvm_async_pf_completed": ("address", "gva"),
    "kvm_async_pf_ready": ("token", "gva"),
    "kvm_msr": ("write", "ecx", "data"),
    "sched_switch": ("prev_pid", "next_pid", "prev_state"),
    "task_wait": ("__probe_ip", "token"),
}
# print fmt says %x, without 0x before it.
BARE_HEX = {("kvm_msr", "ecx")} | {
    (event, "__probe_ip") for event in ("task_wait", "task_wake", "asyncpf_irq")
}
LINE = re.compile(
    r"^(?P<instance>.*?)\s*(?P<comm>\S.{15}|\S.*)-(?P<tid>\d+)\s+\[(?P<cpu>\d+)\]\s*(?P<ts>[\d.]+): "
    r"(?P<event>\S+):\s*(?P<fields>.*)$"
)
FIELD = re.compile(r"(\w+)=(.*?)(?= \w+=|$)")
DROPPED = re.compile(r"CPU:(\d+) \[(\d+) EVENTS DROPPED\]")


def report(path: Path) -> list[str]:
    """Return the lines of trace-cmd report with raw fields and ns."""
    command = shutil.which("trace-cmd")
    assert command, "trace-cmd is missing: these tests compare with it"
    done = subprocess.run(
        [command, "report", "-t", "-R", "-N", "-i", str(path)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8", "replace").splitlines()


def nanoseconds(text: str) -> int:
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 10**9 + int(fraction) if fraction else int(seconds)


def number(event: str, name: str, text: str) -> int | str:
    if (event, name) in BARE_HEX:
        return int(text, 16)
    try:
        return int(text, 0)
    except ValueError:
        return text


def elder(path: Path, instances: tuple[str, ...]) -> dict[tuple[str, int, str], list[tuple[object, ...]]]:
    """Return what trace-cmd prints: by instance, CPU and event the records in order."""
    records = defaultdict(list)
    for line in report(path):
        named = next((name for name in instances if name and line.startswith(f"{name}: ")), "")
        found = LINE.match(line[len(named) + 1 :] if named else line)
        if not found:
            assert line.startswith("cpus=") or DROPPED.search(line), line
            continue
        event = found["event"]
        row: list[object] = [nanoseconds(found["ts"]), int(found["tid"])]
        if event in COMPARED:
            row += [(k, number(event, k, v)) for k, v in FIELD.findall(found["fields"])]
        records[named, int(found["cpu"]), event].append(tuple(row))
    return records


def ours(path: Path) -> dict[tuple[str, int, str], list[tuple[object, ...]]]:
    """Return the same from the typed tables."""
    records = defaultdict(list)
    source = open_source(path)
    for event, batch in source.tables(["*"], PassResult()):
        names = batch.schema.names[4:]
        for row in batch.to_pylist():
            fields = [(k, row[k]) for k in names] if event.name in COMPARED else []
            records[row["instance"], row["cpu"], event.name].append((row["ts"], row["tid"], *fields))
    source.close()
    return records


PATHS = captures()
ZLIB = [p for p in PATHS if b"\0zlib\0" in p.read_bytes()[:64]]


def test_there_are_captures() -> None:
    only_with_more()
    assert len(PATHS) > 20


@pytest.mark.parametrize("path", [p for p in PATHS if p not in ZLIB], ids=lambda p: p.name)
def test_every_record_of_every_capture(path: Path) -> None:
    source = open_source(path)
    instances = source.info.instances
    source.close()
    theirs, mine = elder(path, instances), ours(path)
    assert {k: len(v) for k, v in mine.items()} == {k: len(v) for k, v in theirs.items()}
    for key, records in theirs.items():
        assert mine[key] == records, key


@pytest.mark.parametrize("path", ZLIB, ids=lambda p: p.name)
def test_zlib_captures_hold_what_the_kernel_counted(path: Path) -> None:
    # Debian's trace-cmd is built without zlib: the kernel's own count of records read must do.
    source = open_source(path)
    stats = source.info.options["buffer statistics"]
    counted = re.findall(r"CPU: (\d+)\nentries: (\d+)\n(?:.*\n)*?read events: (\d+)", stats)
    found: Counter[int] = Counter()
    result = PassResult()
    for _, batch in source.tables(["*"], result):
        found.update(batch.column("cpu").to_pylist())
    source.close()
    assert found == {int(cpu): int(left) + int(read) for cpu, left, read in counted}
    assert result.counts["kvm_try_async_get_page"] == (
        result.counts["kvm_async_pf_not_present"] + result.counts["kvm_async_pf_repeated_fault"]
    )
    assert result.notes == []


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_the_stream_is_the_tables_merged(path: Path) -> None:
    source = open_source(path)
    known = {event.name for event in source.formats()}
    streamed = {name: fields for name, fields in STREAMED.items() if name in known}
    picks = [Pick((name,), tuple((field,) for field in fields)) for name, fields in streamed.items()]
    narrow, typed = PassResult(), PassResult()
    rows = [
        row for batch in source.stream(picks, narrow) for row in zip(*batch.to_pydict().values(), strict=True)
    ]
    stamps = [row[0] for row in rows]
    assert stamps == sorted(stamps)
    expected = []
    for event, batch in source.tables(list(streamed), typed):
        number = list(streamed).index(event.name)
        fields = [batch.column(name).to_pylist() for name in streamed[event.name]]
        fields += [[0] * batch.num_rows] * (3 - len(fields))
        common = [batch.column(name).to_pylist() for name in ("ts", "cpu", "tid")]
        expected += zip(*common, [number] * batch.num_rows, *[map(as_signed, f) for f in fields], strict=True)
    source.close()
    assert sorted(row for row in rows if row[3] >= 0) == sorted(expected)
    assert narrow.losses == typed.losses
    assert narrow.counts == typed.counts
    assert (narrow.first_ns, narrow.last_ns) == (typed.first_ns, typed.last_ns)
    assert len([row for row in rows if row[3] < 0]) == len(
        [x for x in narrow.losses if x.before_ns is not None]
    )


def as_signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 > 0 else value
