"""``apftrace info`` and ``apftrace events`` on what guests record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import apftrace
from apftrace.model.rules import CATALOGUE
from tests.builders.guest import GraphColumns, Guest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

FORMS: dict[str, Callable[[Guest, Path], Path]] = {
    "kprobes": lambda guest, path: guest.dat(path),
    "function": lambda guest, path: guest.dat(path, "function"),
    "function with arguments": lambda guest, path: guest.dat(path, "function_args"),
    "graph": lambda guest, path: guest.dat(path, "graph"),
    "graph with arguments": lambda guest, path: guest.dat(path, "graph_args"),
    "text of kprobes": lambda guest, path: guest.text(path),
    "text of functions": lambda guest, path: guest.text(path, "function"),
    "text of the graph": lambda guest, path: guest.text(path, "graph", GraphColumns(time=False)),
}


def guest() -> Guest:
    guest = Guest(comms={0: "<idle>", 128: "a b\x1b[1m"})
    guest.fault(guest.fault(1_000_000, 128, 0x1001), 128, 0x2001)
    return guest


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_info_says_what_shows_waits_and_wakeups(
    run: Run, tmp_path: Path, write: Callable[[Guest, Path], Path]
) -> None:
    result = run("info", write(guest(), tmp_path / "trace-vm7.dat"))
    assert (result.status, result.err) == (0, "")
    told = result.text.partition("  guest vm7\n")[2].partition("  rules\n")[0]
    kinds = {line.split()[1]: int(line.split()[0]) for line in told.splitlines()}
    assert (kinds["wait"], kinds["wake"], kinds["irq"]) == (2, 2, 2)


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_events_of_a_guest_are_its_hooks(
    run: Run, tmp_path: Path, write: Callable[[Guest, Path], Path]
) -> None:
    path = write(guest(), tmp_path / "trace-vm7.dat")
    result = run("events", path)
    assert result.status == 0
    assert all("shows no times" in line for line in result.err.splitlines())
    rows = [json.loads(line) for line in result.text.splitlines()]
    assert rows
    assert all("sched" not in row["event"] for row in rows)
    everything = run("events", path, "-e", "*").text.splitlines()
    assert len(everything) > len(rows)
    for form in ("csv", "arrow", "parquet"):
        out = tmp_path / f"all.{form}"
        assert run("events", path, "-e", "*", "-o", out).status == 0
        assert out.stat().st_size > 0


def told_of_rules(text: str) -> dict[str, str]:
    listed = text.partition("  rules\n")[2].splitlines()
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in listed}


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_info_says_of_a_guest_alone_what_its_host_lacks_and_which_rules_can_look(
    run: Run, tmp_path: Path, write: Callable[[Guest, Path], Path]
) -> None:
    path = write(guest(), tmp_path / "trace-vm7.dat")
    told = told_of_rules(run("info", path).text)
    not_run = {one.rule: one.missing for one in apftrace.analyze(path).not_run}
    looking = {rule for rule, words in told.items() if words.startswith("can look")}
    clock = {rule for rule, missing in not_run.items() if missing == ("a trace clock that measures time",)}
    assert looking - clock == {rule.id for rule in CATALOGUE} - not_run.keys()
    assert {"lost-in-guest", "orphan-wake"} <= looking
    assert not any("the guest too" in words for words in told.values())
    assert told["token-zero"] == "cannot look: record kvm_async_pf_not_present on the host"
    assert told["vm-ended"] == "cannot look: record sched_switch on the host"
    assert told["woken-only-by-all"] in ("can look", "cannot look: record apf_task_wake_all in the guest")


def test_info_of_several_machines(run: Run, tmp_path: Path) -> None:
    own = guest().text(tmp_path / "guest.txt").read_text().splitlines(keepends=True)
    path = tmp_path / "merged.txt"
    other = "            bash-1     [000]  1621.056585: kvm_entry:            vcpu 0 rip 0x1\n"
    path.write_text(
        "    h.dat: cpus=1\nh-vm1.dat: cpus=1\n    h.dat: "
        + other
        + "".join(f"h-vm1.dat: {line}" for line in own)
    )
    result = run("info", path)
    assert result.status == 0
    assert "  machines   h.dat, h-vm1.dat\n" in result.text
    assert "  guest h-vm1\n" in result.text
    told = told_of_rules(result.text)
    assert told["lost-in-guest"] == "can look"
    assert told["token-zero"] == "cannot look: record kvm_async_pf_not_present"
    listed = [json.loads(line) for line in run("events", path).text.splitlines()]
    assert {row["event"] for row in listed} >= {"task_wait", "task_wake"}
    assert {row["instance"] for row in listed} == {"h-vm1.dat"}
