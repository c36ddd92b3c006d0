"""Which guest is which VM, and by what its clock is known."""

from __future__ import annotations

import re
import tempfile
from fractions import Fraction
from pathlib import Path

import polars as pl
import pytest

import apftrace
from apftrace.errors import InputsError
from apftrace.model.guest.tsc import TscOffset
from tests.builders.guest_story import GuestStory
from tests.model.guest.histories import END, two_vms
from tests.model.guest.pairs import BOOTED, Pair, together
from tests.model.support import LATER, MS, START, S, write


def tids(analysis: apftrace.Analysis) -> dict[str, list[int]]:
    """Return the vCPU threads of each VM."""
    return dict(analysis.faults.group_by("vm").agg(pl.col("tid").unique().sort()).iter_rows())


@pytest.mark.parametrize("named", [True, False])
def test_guests_find_their_vms_by_their_tokens(named: bool) -> None:
    pair, other = two_vms()
    analysis = together(pair.host, {"b": other, "a": pair.guest}, named=named)
    assert [(link.machine, link.offset is not None, link.joined) for link in analysis.guests] == [
        ("b", True, 60), ("a", True, 60),
    ]  # fmt: skip
    assert tids(analysis) == {"a": [101, 102], "b": [201, 202]}
    joined = analysis.faults.filter(pl.col("guest").is_not_null())
    assert joined.filter(pl.col("guest") != pl.col("vm")).height == 0


def test_swapped_names_change_nothing_but_the_names() -> None:
    pair, other = two_vms()
    analysis = together(pair.host, {"a": other, "b": pair.guest})
    assert tids(analysis) == {"b": [101, 102], "a": [201, 202]}


def test_a_vm_without_a_guest_keeps_its_lives() -> None:
    pair, _ = two_vms()
    analysis = pair.analyse()
    assert analysis.guests[0].joined == 60
    assert analysis.faults.height == 120
    assert analysis.faults["guest"].null_count() == 60
    assert analysis.verdict == "clean"


def test_two_guests_do_not_take_one_vm() -> None:
    pair = Pair().calm().until(END)
    twin = GuestStory(booted=BOOTED)
    twin.lines = list(pair.guest.lines)
    links = together(pair.host, {"a": pair.guest, "b": twin}).guests
    assert sorted(link.joined for link in links) == [0, 60]
    assert sum(link.refused is not None for link in links) == 1


def test_threads_that_share_no_memory_in_the_trace_are_one_vm_by_their_guest() -> None:
    pair = Pair().calm().until(END)
    analysis = together(pair.host, {"vm1": pair.guest}, off=["kvm_async_pf_completed"])
    assert tids(analysis) == {"vm1": [101, 102]}
    assert analysis.guests[0].joined == 60


@pytest.mark.parametrize("lives", [0, 1])
def test_too_few_tokens_are_refused(lives: int) -> None:
    pair = Pair().calm(lives)
    pair.host.pv_life(at=LATER)
    pair.guest.tick(LATER, 0)
    analysis = pair.until(END).analyse()
    assert analysis.guests[0].refused
    assert analysis.faults["outcome"].unique().to_list() == ["answered"]


def test_without_acks_the_next_delivery_bounds_the_wake() -> None:
    pair = Pair().calm().until(END)
    (link,) = together(pair.host, {"vm1": pair.guest}, off=["kvm_msr"]).guests
    assert link.method == "inferred"
    assert link.low <= BOOTED <= link.high
    assert link.joined == 60


def test_a_guest_that_starts_late_and_ends_early_says_nothing_of_the_rest() -> None:
    pair = Pair().calm(60)
    start, end = START + 40 * MS - BOOTED, START + 130 * MS - BOOTED
    pair.guest.lines = [line for line in pair.guest.lines if start <= line[0] - BOOTED < end]
    pair.host.progress(start=START + 200 * MS, end=END)
    analysis = pair.analyse()
    assert analysis.findings.filter(pl.col("severity") != "info").height == 0
    inside = analysis.faults.filter(pl.col("not_present").is_between(START + 40 * MS, START + 129 * MS))
    assert inside["guest"].null_count() <= 2
    outside = analysis.faults.filter(pl.col("not_present") > START + 130 * MS)
    assert outside["guest"].null_count() == outside.height > 0


def test_the_tsc_offset_that_the_host_traced_last_holds() -> None:
    pair = Pair(booted=0)
    for n, offset in enumerate((-1, -BOOTED)):
        pair.host.event(
            START - 5 * MS + n, "kvm_write_tsc_offset", 101, 0,
            vcpu_id=0, previous_tsc_offset=0, next_tsc_offset=offset & (1 << 64) - 1,
        )  # fmt: skip
    pair.calm().until(END)
    pair.guest.booted = BOOTED
    analysis = _in_ticks(pair)
    (link,) = analysis.guests
    assert (link.method, link.offset, link.joined) == ("tsc", BOOTED, 60)


def test_a_tsc_offset_that_puts_the_guest_elsewhere_is_told_and_not_used() -> None:
    pair = Pair().calm().until(END)
    (link,) = _in_ticks(pair, tsc_offsets={None: TscOffset(-BOOTED + 300 * S)}).guests
    assert (link.method, link.joined) == ("inferred", 60)
    assert "given was not used" in link.notes[0]


def test_a_scaled_tsc_needs_the_ratio() -> None:
    pair = Pair(booted=0).calm().until(END)
    pair.guest.lines = [(at * 2 - 2 * START + 3 * S, cpu, text) for at, cpu, text in pair.guest.lines]
    exact = TscOffset(-2 * START + 3 * S, ratio=Fraction(2))
    (link,) = _in_ticks(pair, tsc_offsets={None: exact}).guests
    assert (link.method, link.rate, link.joined) == ("given", 0.5, 60)


def _in_ticks(pair: Pair, **options: object) -> apftrace.Analysis:
    """Analyse a pair whose clocks count ticks."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        host = write(pair.host, folder / "trace.dat", clock="x86-tsc")
        text = pair.guest.write(folder / "guest.txt")
        ticks = re.sub(r" +(\d+)\.(\d{9}): ", lambda m: f" {int(m[1] + m[2])}: ", text.read_text())
        text.write_text(ticks)
        return apftrace.analyze(host, guests={"vm1": text}, **options)  # type: ignore[arg-type]


def test_what_does_not_belong_together_is_said(tmp_path: Path) -> None:
    pair = Pair().calm().until(END)
    host = write(pair.host, tmp_path / "a.dat")
    other = write(pair.host, tmp_path / "b.dat")
    guest, second = pair.guest.write(tmp_path / "g.txt"), pair.guest.write(tmp_path / "h.txt")
    with pytest.raises(InputsError, match=r"several host traces: a\.dat, b\.dat"):
        apftrace.analyze([host, other])
    with pytest.raises(InputsError, match=r"no host trace among g\.txt, h\.txt"):
        apftrace.analyze([guest, second])
    with pytest.raises(ValueError, match="no trace"):
        apftrace.analyze([])
    assert apftrace.analyze([guest, host]).guests[0].joined == 60
    assert apftrace.analyze([guest]).guests[0].how.startswith("no host trace")


def test_a_guest_without_probes_is_no_second_host() -> None:
    pair = Pair().calm().until(END)
    pair.guest.lines = [
        line for line in pair.guest.lines if "kvm_async_pf" not in line[2] and "asyncpf" not in line[2]
    ]
    analysis = together(pair.host, {"vm1": pair.guest}, named=False)
    assert [one.machine for one in analysis.inputs] == ["host", "vm1"]
    assert analysis.guests[0].refused == "the guest's trace shows no wait and no wake"
    assert any("nothing shows its waits" in reason for reason in analysis.unsafe)
    assert analysis.faults["outcome"].unique().to_list() == ["answered"]


def test_a_host_without_faults_and_a_guest() -> None:
    pair = Pair().calm(2).until(END)
    pair.host.records = [r for r in pair.host.records if "async" not in getattr(r, "name", "")]
    analysis = pair.analyse()
    assert analysis.guests[0].refused
    assert analysis.faults.height == 0
