"""One text of several machines: each of them is a source of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apftrace.errors import TraceUnsupported
from apftrace_parsers.base import PassResult, Pick
from apftrace_parsers.registry import open_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apftrace_parsers.base import Source

    Capture = Callable[[str], Path]

SWITCH = (Pick(("sched_switch",), (("prev_pid",), ("next_pid",))),)
RECORD = "            bash-1     [000]  1621.056585: {}:            vcpu 0 rip 0x1\n"


def merged(tmp_path: Path, *lines: str) -> Source:
    path = tmp_path / "merged.txt"
    path.write_text("".join(lines))
    return open_source(path)


def rows(source: Source) -> tuple[list[tuple[int, ...]], PassResult]:
    """Return the switches, stamps in us, and what the pass found."""
    result = PassResult()
    found = [
        ((row["ts"] + 500) // 1000, *(row[k] for k in ("cpu", "tid", "a", "b")))
        for batch in source.stream(SWITCH, result)
        for row in batch.to_pylist()
    ]
    return found, result


@pytest.mark.parametrize(
    ("machine", "file"), [("h.dat", "agent-v7-h.dat"), ("h-vm1.dat", "agent-v7-h-vm1.dat")]
)
def test_the_merged_report_of_the_captures(capture: Capture, machine: str, file: str) -> None:
    whole = open_source(capture("host-guest/agent-v7-merged-report.txt.gz"))
    alone = open_source(capture(f"host-guest/{file}"))
    assert whole.machines == ("h.dat", "h-vm1.dat")
    part = whole.machine(machine)
    (shown, said), (records, found) = rows(part), rows(alone)
    assert sorted(shown) == sorted(records)
    assert said.counts == {name: n for name, n in found.counts.items() if n}
    assert said.notes == []
    assert (part.machines, part.info.instances, part.info.cpus) == ((), ("",), 2)
    whole.close()
    alone.close()


def test_names_that_end_alike_and_hold_anything(tmp_path: Path) -> None:
    names = ("a b: c.dat", "      c.dat", "     .*.dat")
    source = merged(
        tmp_path,
        *(f"{name}: cpus={n}\n" for n, name in enumerate(names, 1)),
        *(f"{name}: " + RECORD.format("kvm_entry") for name in names),
        "     .*.dat: CPU:0 [5 EVENTS DROPPED]\n",
    )
    assert source.machines == ("a b: c.dat", "c.dat", ".*.dat")
    assert [source.machine(name).info.cpus for name in source.machines] == [1, 2, 3]
    result = PassResult()
    for _ in source.machine(".*.dat").stream((), result):
        pass
    assert (result.counts, [loss.count for loss in result.losses]) == ({"kvm_entry": 1}, [5])
    source.close()


def test_instances_of_an_unknown_machine_are_told(tmp_path: Path) -> None:
    source = merged(
        tmp_path,
        "a.dat: cpus=1\nb.dat: cpus=1\n",
        "a.dat: " + RECORD.format("kvm_entry"),
        "sched: " + RECORD.format("sched_waking"),
    )
    result = PassResult()
    for _ in source.machine("a.dat").stream((), result):
        pass
    assert result.counts == {"kvm_entry": 1}
    assert result.notes == ["records of 'sched' are of no known machine, left out"]
    source.close()


def test_machines_are_not_mixed(tmp_path: Path) -> None:
    source = merged(
        tmp_path, "a.dat: cpus=1\nb.dat: cpus=1\n", "a.dat: " + RECORD.format("sched_switch"),
    )  # fmt: skip
    with pytest.raises(TraceUnsupported, match=r"several machines: a\.dat, b\.dat"):
        rows(source)
    with pytest.raises(KeyError):
        source.machine("c.dat")
    assert rows(source.machine("b.dat"))[0] == []
    source.close()


def test_one_file_is_no_machine_of_several(tmp_path: Path) -> None:
    source = merged(tmp_path, "a.dat: cpus=1\n", "a.dat: " + RECORD.format("kvm_entry"))
    assert source.machines == ()
    source.close()


def test_too_many_machines(tmp_path: Path) -> None:
    with pytest.raises(TraceUnsupported, match="more than 64 trace files"):
        merged(tmp_path, *(f"{n}.dat: cpus=1\n" for n in range(1000)))
