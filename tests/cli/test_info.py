"""``apftrace info``: what a trace holds, and which rules can look at it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from apftrace.model.rules import CATALOGUE
from tests.builders import options
from tests.builders.story import Story
from tests.model.support import START, calm, only, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


def fields(text: str) -> dict[str, str]:
    """Return the facts at the top, by their name."""
    top = text.partition("  events\n")[0].splitlines()[1:]
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in top}


def counts(text: str) -> dict[str, int]:
    listed = text.partition("  events\n")[2].partition("  rules\n")[0].splitlines()
    return {line.split()[1]: int(line.split()[0]) for line in listed}


def rules(text: str) -> dict[str, str]:
    listed = text.partition("  rules\n")[2].splitlines()
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in listed}


def test_facts_of_the_file(run: Run, traces: Path) -> None:
    result = run("info", traces / "calm.dat")
    assert (result.status, result.err) == (0, "")
    assert result.text.splitlines()[0] == str(traces / "calm.dat")
    facts = fields(result.text)
    assert facts["format"] == "trace.dat v7 (none)"
    assert (facts["clock"], facts["cpus"], facts["lost"]) == ("local (ns)", "1", "nothing")
    assert facts["kernel"].startswith("Linux buildhost 6.12.0-custom")
    assert [float(word) for word in re.findall(r"[\d.]+", facts["window"])] == [
        pytest.approx(seconds, abs=1e-6) for seconds in (9.999994, 10.0385556, 0.0385616)
    ]


def test_counts_of_events_most_frequent_first(run: Run, traces: Path) -> None:
    listed = counts(run("info", traces / "calm.dat").text)
    assert listed["kvm_async_pf_not_present"] == listed["kvm_async_pf_ready"] == 20
    assert list(listed.values()) == sorted(listed.values(), reverse=True)


def test_every_rule_of_the_catalogue_is_listed(run: Run, traces: Path) -> None:
    listed = rules(run("info", traces / "calm.dat").text)
    assert set(listed) == {rule.id for rule in CATALOGUE}
    assert listed["late-wakeup"].startswith("can look")


def test_a_rule_that_cannot_look_names_what_to_record(run: Run, tmp_path: Path) -> None:
    story = Story()
    calm(story)
    write(story, tmp_path / "five.dat", off=only("kvm_async_pf_not_present", "kvm_async_pf_ready"))
    listed = rules(run("info", "five.dat").text)
    assert listed["lost-wakeup"] == "cannot look: record kvm_async_pf_completed"
    assert listed["lost-interrupt"] == (
        "cannot look: record kvm_apic_accept_irq kvm_inj_virq kvm_msr kvm_entry"
    )
    assert listed["token-reuse"] == "can look"


def test_losses(run: Run, traces: Path) -> None:
    assert "7 records on CPU 0" in fields(run("info", traces / "lossy.dat").text)["lost"]


def test_guests_that_the_trace_names(run: Run, tmp_path: Path) -> None:
    story = Story()
    calm(story)
    write(story, tmp_path / "guests.dat", options=[options.guest("web1", 0xDEF, [101, 102])])
    assert fields(run("info", "guests.dat").text)["guest"] == (
        "web1 (trace id 0xdef), vCPU threads 0:101 1:102"
    )


def test_an_empty_trace(run: Run, traces: Path) -> None:
    result = run("info", traces / "empty.dat")
    assert result.status == 0
    assert "window" not in fields(result.text)
    assert counts(result.text) == {}


def test_a_clock_without_a_rate(run: Run, tmp_path: Path) -> None:
    story = Story()
    story.pv_life(at=START)
    write(story, tmp_path / "ticks.dat", clock="x86-tsc")
    facts = fields(run("info", "ticks.dat").text)
    assert facts["clock"] == "x86-tsc (ticks)"
    assert facts["window"].endswith("ticks")


@pytest.mark.parametrize("name", ["lost", "late", "sparse", "lost-and-lossy"])
def test_it_judges_nothing(run: Run, traces: Path, name: str) -> None:
    assert run("info", traces / f"{name}.dat").status == 0
