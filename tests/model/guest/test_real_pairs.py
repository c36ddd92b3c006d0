"""Host and guest captures: one clock, every life joined to the right wait, every inequality in order."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import polars as pl
import pytest

import apftrace
from apftrace.model.guest.tsc import TscOffset
from tests.corpus.edit import Edit
from tests.corpus.mutate_legal import renumber
from tests.corpus.reader import read
from tests.corpus.writer import write
from tests.model.guest.capture import lines_of, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apftrace import Analysis

    Capture = Callable[[str], Path]

AGENT = ("host-guest/agent-v7-h.dat", "host-guest/agent-v7-h-vm1.dat")
TSC = ("host-guest/tscpair-host.dat", "host-guest/guest-tsc.trace.txt")
MERGED = "host-guest/agent-v7-merged-report.txt.gz"
TSC_OFFSET = -6982622793702
"""vm1.tsc.txt: guest minus host."""


def disorder(analysis: Analysis) -> pl.DataFrame:
    """Return the lives that break an inequality of host and guest."""
    told, taken = pl.coalesce("not_present"), pl.coalesce("accepted", "ready")
    order = (
        (pl.col("wait") >= told)
        & (pl.col("wake") >= taken).fill_null(value=True)
        & (pl.col("wake") <= pl.col("acked")).fill_null(value=True)
        & (pl.col("irq") <= pl.col("wake")).fill_null(value=True)
        & (pl.col("wait") <= pl.col("wake")).fill_null(value=True)
    )
    return analysis.faults.filter(pl.col("guest").is_not_null() & ~order)


def waits_by_token(path: Path) -> dict[int, int]:
    """Return when the guest waited for each token, on its own clock."""
    return {ln.token: ln.ts for ln in lines_of(path) if ln.event == "task_wait" and ln.token is not None}


@pytest.fixture(scope="module")
def agent(capture: Capture) -> Analysis:
    return apftrace.analyze([capture(name) for name in reversed(AGENT)])


def test_an_agent_pair_needs_no_flag(agent: Analysis) -> None:
    (link,) = agent.guests
    assert (link.method, link.offset, link.vm, link.broken) == ("synchronised", 0, "vm1", 0)
    assert (link.lives, link.joined) == (361, 361)
    assert [one.machine for one in agent.inputs] == ["host", "vm1"]
    assert agent.faults["vm"].unique().to_list() == ["vm1"]
    assert not disorder(agent).height


def test_every_wait_of_the_guest_belongs_to_the_life_of_its_token(agent: Analysis, capture: Capture) -> None:
    told = waits_by_token(capture(AGENT[1]))
    joined = dict(agent.faults.filter(pl.col("wait").is_not_null()).select("token", "wait").iter_rows())
    assert joined == told
    window = agent.inputs[1]
    inside = agent.faults.filter(
        (pl.col("kind") == "pv") & pl.col("not_present").is_between(window.first_ns, window.last_ns)
    )
    assert inside["guest"].null_count() == 0
    assert agent.faults.filter(pl.col("kind") == "halt")["guest"].null_count() == 979


def test_the_phases_beyond_the_border(agent: Analysis) -> None:
    rows = dict(agent.latency.filter(pl.col("kind") == "all").select("phase", "n").iter_rows())
    assert (rows["p6"], rows["e2e"]) == (271, 360)
    lives = agent.faults.filter(pl.col("p6").is_not_null())
    assert lives.filter((pl.col("p6") <= 0) | (pl.col("steal") > pl.col("p6"))).height == 0
    assert lives.filter(pl.col("e2e") < pl.col("p6")).height == 0
    stolen = agent.findings.filter(pl.col("cause").str.starts_with("steal"))
    queued = agent.findings.filter(pl.col("cause").str.starts_with("guest run queue: guest thread"))
    assert stolen.height
    assert queued.height
    assert set(stolen["phase"]) == {"p6"}


def test_the_stories_of_the_slowest_go_on_in_the_guest(agent: Analysis) -> None:
    beyond = [step for story in agent.stories for step in story.steps if step.phase == "p6"]
    assert beyond
    assert all("the guest's task ran" in step.text for step in beyond)
    for story in agent.stories:
        stamps = [step.ts for step in story.steps if step.phase in ("p4", "p5")]
        assert stamps == sorted(stamps)


def test_steal_is_the_time_off_cpu_within_p6(agent: Analysis, capture: Capture) -> None:
    """Count it by hand for the longest P6: the host's switches of that vCPU's thread."""
    life = agent.faults.sort("p6", descending=True, nulls_last=True).row(0, named=True)
    start, end = life["running"] - life["p6"], life["running"]
    tid = {0: 13037, 1: 13038}[life["guest_cpu"]]
    off, since = 0, start
    on: bool | None = None
    for ts, pid, comes in _switches(capture(AGENT[0]), tid):
        if ts >= start:
            now = min(ts, end)
            off += now - since if on is False else 0
            since = now
        on = comes if pid == tid else on
        if ts >= end:
            break
    assert life["steal"] == pytest.approx(off, abs=2)


def _switches(path: Path, tid: int) -> list[tuple[int, int, bool]]:
    out = []
    with apftrace.read_trace(path) as trace:
        from apftrace_parsers.base import PassResult

        for _, batch in trace.source.tables(["sched:sched_switch"], PassResult()):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            for ts, prev, following in frame.select("ts", "prev_pid", "next_pid").iter_rows():
                out += [(ts, tid, False)] if prev == tid else [(ts, tid, True)] if following == tid else []
    return sorted(out)


def test_a_merged_report_is_a_pair(capture: Capture, agent: Analysis) -> None:
    merged = apftrace.analyze(capture(MERGED))
    (link,) = merged.guests
    assert (link.method, link.joined) == ("synchronised", 361)
    assert merged.faults["token"].to_list() == agent.faults["token"].to_list()
    assert merged.faults["guest"].null_count() == agent.faults["guest"].null_count()
    assert not disorder(merged).height


@pytest.mark.parametrize("booted", [0, 4_000_000_000_000, 4_717_000_000_000])
def test_without_the_synchronisation_its_offset_is_inferred(
    capture: Capture, tmp_path: Path, agent: Analysis, booted: int
) -> None:
    lines = [ln.moved(lambda ts: ts - booted) for ln in lines_of(capture(AGENT[1]))]
    analysis = apftrace.analyze(capture(AGENT[0]), guests={"vm1": written(lines, tmp_path / "guest.txt")})
    (link,) = analysis.guests
    assert link.method == "inferred"
    assert link.low <= booted <= link.high
    assert abs(link.offset - booted) <= link.within < 200_000
    assert not disorder(analysis).height
    assert _joined(analysis) == _joined(agent)


@pytest.mark.parametrize("ppm", [-450, -60, 8, 250, 499])
def test_a_drifting_clock_is_followed(capture: Capture, tmp_path: Path, agent: Analysis, ppm: int) -> None:
    path = capture(AGENT[1])
    first, rate = lines_of(path)[0].ts, Fraction(1_000_000 + ppm, 1_000_000)
    lines = [ln.moved(lambda ts: (ts - first) * rate) for ln in lines_of(path)]
    analysis = apftrace.analyze(capture(AGENT[0]), guests={"vm1": written(lines, tmp_path / "guest.txt")})
    (link,) = analysis.guests
    assert link.refused is None
    assert link.broken == 0
    assert not disorder(analysis).height
    # Wherever the clock is asked, it is right to within what it says of itself.
    told, found = waits_by_token(path), _joined(analysis)
    assert found == _joined(agent)
    waits = dict(analysis.faults.filter(pl.col("wait").is_not_null()).select("token", "wait").iter_rows())
    assert max(abs(waits[token] - told[token]) for token in waits) <= link.within < 250_000


@pytest.mark.parametrize("skew", [-700_000, 180_000])
def test_cpus_of_the_guest_out_of_step_are_told(
    capture: Capture, tmp_path: Path, agent: Analysis, skew: int
) -> None:
    lines = [replace(ln, ts=ln.ts + skew * ln.cpu) for ln in lines_of(capture(AGENT[1]))]
    analysis = apftrace.analyze(capture(AGENT[0]), guests={"vm1": written(lines, tmp_path / "guest.txt")})
    (link,) = analysis.guests
    assert link.refused is None
    assert link.contradictions or any("out of step" in note for note in link.notes)
    assert abs(link.offset) <= link.within
    assert _joined(analysis) == _joined(agent)
    assert set(analysis.findings["severity"]) <= {"warning", "info"}


def test_without_tokens_the_order_of_the_vcpus_tells(
    capture: Capture, tmp_path: Path, agent: Analysis
) -> None:
    lines = [replace(ln, text=re.sub(r" token=\d+", "", ln.text)) for ln in lines_of(capture(AGENT[1]))]
    analysis = apftrace.analyze(capture(AGENT[0]), guests={"vm1": written(lines, tmp_path / "guest.txt")})
    assert analysis.guests[0].refused is None
    assert _joined(analysis) == _joined(agent)


def test_a_guest_in_ticks_beside_a_host_in_ns(capture: Capture, tmp_path: Path, agent: Analysis) -> None:
    path, rate = capture(AGENT[1]), 2.4454
    first = lines_of(path)[0].ts
    lines = [ln.moved(lambda ts: (ts - first) * rate + 1e9) for ln in lines_of(path)]
    guest = written(lines, tmp_path / "guest.txt", ticks=True)
    analysis = apftrace.analyze(capture(AGENT[0]), guests={"vm1": guest})
    (link,) = analysis.guests
    assert link.method == "inferred"
    assert link.offset is None
    assert link.rate * rate == pytest.approx(1, rel=200e-6)
    assert _joined(analysis) == _joined(agent)
    assert not disorder(analysis).height


def test_a_stepping_clock_is_refused_and_the_rest_still_told(capture: Capture, tmp_path: Path) -> None:
    lines = [
        ln.moved(lambda ts: ts + (40_000_000 if ts > 4_724_500_000_000 else 0))
        for ln in lines_of(capture(AGENT[1]))
    ]
    analysis = apftrace.analyze(capture(AGENT[0]), guests={"vm1": written(lines, tmp_path / "guest.txt")})
    (link,) = analysis.guests
    assert link.refused
    assert link.contradictions
    assert any("not on the host's clock" in reason for reason in analysis.unsafe)
    assert analysis.faults["outcome"].unique().to_list() == ["answered"]
    assert "clock-contradiction" in analysis.findings["rule"].to_list()


def test_a_guest_of_another_session_is_refused(capture: Capture) -> None:
    """The tokens of vm1 occur in no life of this host."""
    analysis = apftrace.analyze([capture("host/host-v7-zstd.dat"), capture(AGENT[1])])
    (link,) = analysis.guests
    assert link.refused
    assert link.joined == 0
    assert analysis.verdict in ("clean", "warnings")


def test_the_inferred_offset_of_the_tsc_pair_is_the_recorded_one(capture: Capture) -> None:
    inferred = apftrace.analyze([capture(name) for name in TSC])
    (link,) = inferred.guests
    assert (link.method, link.lives, link.joined) == ("inferred", 181, 181)
    assert link.low <= -TSC_OFFSET <= link.high
    assert abs(link.offset + TSC_OFFSET) <= link.within
    assert not disorder(inferred).height
    given = apftrace.analyze([capture(name) for name in TSC], tsc_offsets={None: TscOffset(TSC_OFFSET)})
    (known,) = given.guests
    assert (known.method, known.offset, known.broken) == ("given", -TSC_OFFSET, 0)
    assert not disorder(given).height
    assert _joined(given) == _joined(inferred)


def test_a_wrong_tsc_offset_is_told_and_not_used(capture: Capture) -> None:
    wrong = {None: TscOffset(TSC_OFFSET + 3_000_000_000)}
    (link,) = apftrace.analyze([capture(name) for name in TSC], tsc_offsets=wrong).guests
    assert link.method == "inferred"
    assert any("given was not used" in note for note in link.notes)


def test_two_vms_that_count_the_same_tokens_do_not_mix(capture: Capture, tmp_path: Path) -> None:
    """A second VM does the same in slower motion; its guest's clock stands elsewhere."""
    host = read(capture(TSC[0]))
    first, slower = host.records[0].ts, Fraction(23, 20)

    def later(ts: int) -> int:
        return first + round((ts - first) * slower) + 5_000_000

    other = renumber(lambda pid: pid + 100_000 if pid else 0)
    copies = [other(rec).but(ts=later(rec.ts), cpu=rec.cpu + host.cpus) for rec in host.records]
    copies = [
        rec.but(address=rec["address"] + (1 << 38)) if rec.name == "kvm_async_pf_completed" else rec
        for rec in copies
    ]
    names = host.cmdlines
    host.cmdlines = names | {tid + 100_000: comm for tid, comm in names.items()}
    path = write(host, [*host.records, *copies], tmp_path / "host.dat")
    text = capture(TSC[1]).read_text()
    moved = re.sub(
        r"(\[\d{3}\] \S+ )(\d+)(: )", lambda m: f"{m[1]}{later(int(m[2]) - TSC_OFFSET) - 10**12}{m[3]}", text
    )
    (tmp_path / "slow.txt").write_text(moved)
    analysis = apftrace.analyze(path, guests={"slow": tmp_path / "slow.txt", "fast": capture(TSC[1])})
    assert {link.machine: (link.method, link.joined) for link in analysis.guests} == {
        "slow": ("inferred", 181), "fast": ("inferred", 181),
    }  # fmt: skip
    tids = analysis.faults.group_by("vm").agg(pl.col("tid").unique().sort())
    assert dict(tids.iter_rows()) == {"fast": [9136, 9139], "slow": [109136, 109139]}
    assert not disorder(analysis).height
    guest_of = analysis.faults.filter(pl.col("guest").is_not_null())
    assert guest_of.filter(pl.col("guest") != pl.col("vm")).height == 0


def test_equal_vms_and_one_guest_are_left_open(capture: Capture, tmp_path: Path) -> None:
    """A second VM that is the first one a moment later, token by token: nothing tells them apart."""
    from tests.corpus.mutate_legal import two_vms_with_equal_tokens

    host = read(capture(TSC[0]))
    edit = Edit(host, None, random.Random(1))  # type: ignore[arg-type]
    two_vms_with_equal_tokens(edit)
    path = write(edit.capture, edit.records(), tmp_path / "host.dat")
    analysis = apftrace.analyze(path, guests={"vm1": capture(TSC[1])})
    assert "2 VMs alike" in (analysis.guests[0].refused or "")


def _joined(analysis: Analysis) -> set[tuple[int, int]]:
    known = analysis.faults.filter(pl.col("wait").is_not_null())
    return set(known.select("token", "guest_tid").iter_rows())
