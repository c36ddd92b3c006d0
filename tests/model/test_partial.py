"""Traces that hold less: tracepoints that were off, clocks without a rate, nothing at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import apftrace
from apftrace import schema
from apftrace.analysis import NotRun
from apftrace.model.rules import CATALOGUE
from tests.builders import options
from tests.builders.formats import Format, parse
from tests.builders.story import ANSWER, Story
from tests.builders.tracedat import Event
from tests.model import histories
from tests.model.support import (
    FIVE,
    LATER,
    MS,
    SCHED_EVENTS,
    START,
    S,
    analyse,
    calm,
    found,
    known_formats,
    life,
    lines,
    only,
    outcomes,
    rules,
    total,
)

if TYPE_CHECKING:
    from pathlib import Path

LATE = 0x15000
NEW_NAME, OLD_NAME = "kvm_async_pf_repeated_fault", "kvm_async_pf_doublefault"


def test_only_the_five_events_of_async_page_faults() -> None:
    story = Story()
    calm(story)
    calm(story, vcpu=1, halt=True)
    analysis = analyse(story, off=only(*FIVE))
    assert outcomes(analysis) == {"answered": 40}
    assert set(analysis.faults["kind"]) == {"unknown"}
    assert analysis.faults["p12"].null_count() == analysis.faults["p3"].null_count() == 0
    assert analysis.faults["p4"].null_count() == 40
    assert not rules(analysis)
    assert analysis.unsafe == ("tracepoints missing: kvm_entry",)
    assert analysis.protocol.kind == "unknown"
    assert total(analysis)["balanced"]


@pytest.mark.parametrize(
    ("off", "blind"), [(only(*FIVE), True), (only(*FIVE, *SCHED_EVENTS), True), ((), False)], ids=str
)
def test_a_clean_trace_says_first_where_much_could_not_be_looked_for(off: list[str], blind: bool) -> None:
    story = Story()
    calm(story)
    analysis = analyse(story, off=off)
    assert analysis.verdict == "clean"
    n = len(analysis.not_run)
    told = f"As far as could be looked ({n} of {len(CATALOGUE)} rules could not): 20 async page faults, "
    assert analysis.headline.startswith(told if blind else "20 async page faults, ")
    assert analysis.text().startswith(
        f"CLEAN: As far as could be looked ({n} of" if blind else "CLEAN: 20 async"
    )


def test_what_is_found_is_told_first_even_where_little_could_be_looked_for() -> None:
    story = histories.lost_wakeup()
    calm(story, start=LATER + S)
    analysis = analyse(story, off=only(*FIVE))
    assert 3 * len(analysis.not_run) > len(CATALOGUE)
    assert analysis.verdict != "clean"
    assert "could be looked" not in analysis.headline


def test_only_the_five_events_show_a_lost_wakeup_as_possible() -> None:
    # Without kvm_entry the vCPU's later faults are the proof that it went on.
    story = histories.lost_wakeup()
    calm(story, start=LATER + S)
    (finding,) = found(analyse(story, off=only(*FIVE)), "lost-wakeup")
    assert (finding["token"], finding["confidence"]) == (LATE, "possible")
    unsettled = " ".join(finding["not_ruled_out"])
    assert "kvm:kvm_entry" in unsettled
    assert "kvm:kvm_msr and kvm:kvm_apic_accept_irq" in unsettled


def test_without_later_faults_the_five_events_prove_nothing() -> None:
    analysis = analyse(histories.lost_wakeup(), off=only(*FIVE))
    assert life(analysis, LATE)["outcome"] == "in_flight"


def test_without_kvm_exit_acks_are_matched_by_their_order() -> None:
    story = Story()
    calm(story)
    analysis = analyse(story, off=["kvm_exit"])
    assert lines(analysis.faults, "acked")[0] == str(START + 555_400)
    assert analysis.faults["acked"].null_count() == 0
    assert not rules(analysis)


def test_without_kvm_exit_the_next_ready_inside_an_ack_is_still_in_order() -> None:
    story = Story()
    calm(story)
    first = story.pv_life(at=LATER, acked=LATER + 2 * MS, without={"ack"})
    second = story.pv_life(at=LATER + 100_000, ready=LATER + 2 * MS + 100)
    story.event(LATER + 2 * MS + 300, "kvm_msr", story.tid(0), 0, write=1, ecx=0x4B564D07, data=1)
    analysis = analyse(story, off=["kvm_exit"])
    assert life(analysis, first)["acked"] == LATER + 2 * MS + 300
    assert life(analysis, second)["acked"] > life(analysis, second)["ready"]
    assert not rules(analysis, "error", "warning")


def test_without_kvm_entry_kinds_come_from_the_accepted_vector() -> None:
    story = Story()
    calm(story)
    calm(story, halt=True, start=LATER)
    analysis = analyse(story, off=["kvm_entry"])
    assert analysis.faults["kind"].to_list() == ["pv"] * 20 + ["halt"] * 20
    assert analysis.vcpus["entries"].to_list() == [None]


def test_without_accepted_vectors_kinds_come_from_the_injected_fault() -> None:
    story = Story()
    calm(story)
    calm(story, halt=True, start=LATER)
    analysis = analyse(story, off=["kvm_apic_accept_irq"])
    assert analysis.faults["kind"].to_list() == ["pv"] * 20 + ["halt"] * 20


def test_with_neither_no_kind_is_claimed() -> None:
    story = Story()
    calm(story)
    analysis = analyse(story, off=["kvm_apic_accept_irq", "kvm_inj_exception"])
    assert set(analysis.faults["kind"]) == {"unknown"}


def test_without_sched_events_nothing_is_said_of_cpu_time() -> None:
    story = Story()
    calm(story)
    story.pv_life(at=LATER, ready=LATER + 60 * MS)
    (finding,) = found(analyse(story, off=SCHED_EVENTS), "late-wakeup")
    assert finding["cause"] == "unknown (record sched:sched_switch)"


def test_without_tries_the_frame_is_that_of_gva() -> None:
    story = Story()
    calm(story, lives=1)
    analysis = analyse(story, off=["kvm_try_async_get_page"])
    (row,) = analysis.faults.to_dicts()
    assert (row["try"], row["gfn"]) == (None, row["gva"] >> 12)
    assert NotRun("setup-refused", ("kvm_try_async_get_page",)) in analysis.not_run


@pytest.mark.parametrize("off", ["kvm_async_pf_not_present", "kvm_async_pf_ready"])
def test_without_a_half_of_each_pair_the_trace_is_unusable(off: str) -> None:
    story = Story()
    calm(story)
    analysis = analyse(story, off=[off])
    assert analysis.verdict == "unusable"
    assert f"tracepoints missing: {off}" in analysis.unsafe
    assert not rules(analysis, "error", "warning") - {"events-lost"}


def test_without_ready_nothing_is_called_in_flight_or_lost() -> None:
    story = Story()
    calm(story, halt=True)
    story.progress(start=LATER, end=LATER + 300 * MS)
    analysis = analyse(story, off=["kvm_async_pf_ready"])
    assert outcomes(analysis) == {"undecided": 20}


def test_a_tracepoint_that_is_described_and_never_hit_counts_as_off() -> None:
    # trace-cmd copies the formats of whole systems, also of events that were not enabled.
    story = histories.lost_wakeup()
    story.records = [r for r in story.records if getattr(r, "name", "") != "kvm_entry"]
    analysis = analyse(story)
    assert "tracepoints missing: kvm_entry" in analysis.unsafe
    assert not rules(analysis, "error")


def test_the_old_name_of_the_repeated_fault(tmp_path: Path) -> None:
    # Renamed by 1685c0f32554 in Linux 6.0.
    story = histories.repeated_fault_storm()
    story.records = [
        replace(r, name=OLD_NAME) if isinstance(r, Event) and r.name == NEW_NAME else r for r in story.records
    ]
    described = tuple(
        parse("kvm", form.text.replace(NEW_NAME, OLD_NAME)) if form.name == NEW_NAME else form
        for form in known_formats()
    )
    analysis = apftrace.analyze(story.write(tmp_path / "trace.dat", formats=described))
    assert lines(analysis.faults, "repeated")[-1] == "150"
    assert rules(analysis) == {"repeated-fault-storm"}


def test_a_clock_without_a_rate_is_told_in_ticks() -> None:
    story = Story()
    calm(story)
    story.pv_life(at=LATER, completed=LATER + 300 * MS)
    analysis = analyse(story, clock="x86-tsc")
    assert (analysis.inputs[0].clock, analysis.inputs[0].clock_unit) == ("x86-tsc", "ticks")
    (finding,) = found(analysis, "late-wakeup")
    assert "ticks from the start of the work to completed (P2; " in finding["message"]
    assert "ms" not in finding["message"].replace("ms,", "")


def test_without_a_rate_only_medians_say_what_is_late() -> None:
    story = Story()
    calm(story, every=100_000)
    analysis = analyse(story, clock="x86-tsc")
    assert analysis.late_after["p3"] == 200_000
    assert analysis.late_after["p4"] == 49_000


def test_with_a_rate_ticks_become_nanoseconds() -> None:
    # tsc2nsec with mult 2^30 and shift 31 halves every stamp.
    story = Story()
    story.pv_life(at=2 * START)
    analysis = analyse(story, clock="tsc2nsec", options=[options.tsc2nsec(1 << 30, 31)])
    (row,) = analysis.faults.to_dicts()
    assert analysis.inputs[0].clock_unit == "ns"
    assert (row["not_present"], row["p12"]) == (START, 250_000)


def test_an_empty_trace() -> None:
    analysis = analyse(Story())
    assert (analysis.verdict, analysis.headline) == ("unusable", "The trace holds no event.")
    assert analysis.unsafe == ("the trace holds no event",)
    assert (analysis.faults.height, analysis.findings.height) == (0, 0)
    assert analysis.inputs[0].first_ns is None
    assert total(analysis)["balanced"]


def test_a_trace_of_a_host_without_faults() -> None:
    story = Story().progress(start=START, end=START + 100 * MS)
    analysis = analyse(story)
    assert (analysis.verdict, analysis.headline) == ("clean", "No async page fault in the trace.")
    assert analysis.faults.height == analysis.vcpus.height == analysis.latency.height == 0


def everything_described() -> tuple[Format, ...]:
    """Return more tracepoints than anyone turns on by name, as a snapshot of a whole kernel describes them."""
    like = next(form for form in known_formats() if form.name == "sched_wakeup")
    others = (
        parse("other", like.text.replace("sched_wakeup", f"other_{n}")).with_id(2000 + n) for n in range(600)
    )
    return (*known_formats(), *others)


@pytest.mark.parametrize("faults", [0, 3])
def test_tracepoints_that_are_described_with_all_others_are_on_only_if_any_is_hit(
    faults: int, tmp_path: Path
) -> None:
    story = Story().progress(start=START, end=START + 100 * MS)
    calm(story, lives=faults, start=LATER)
    analysis = apftrace.analyze(story.write(tmp_path / "trace.dat", formats=everything_described()))
    assert analysis.verdict == ("clean" if faults else "unusable")
    assert ("kvm_async_pf_not_present" in " ".join(analysis.unsafe)) == (not faults)
    assert ("lost-wakeup" in {gap.rule for gap in analysis.not_run}) == (not faults)


@pytest.mark.parametrize("missing", ["kvm_async_pf_not_present", "kvm_async_pf_ready"])
def test_a_trace_that_could_not_show_a_fault_is_not_clean(missing: str) -> None:
    story = Story().progress(start=START, end=START + 100 * MS)
    analysis = analyse(story, off=[missing])
    assert analysis.verdict == "unusable"
    assert analysis.unsafe == (f"tracepoints missing: {missing}",)


def test_a_fault_and_nothing_else() -> None:
    story = Story()
    story.pv_life(at=START, without=ANSWER | {"completed"})
    analysis = analyse(story, off=only("kvm_async_pf_not_present", "kvm_async_pf_ready"))
    assert analysis.faults.height == 1
    assert not rules(analysis, "error")


@pytest.mark.parametrize(("off", "headless"), [([], 1), (["kvm_try_async_get_page"], 0)])
def test_a_try_lies_before_the_trace_only_where_tries_were_traced(off: list[str], headless: int) -> None:
    story = Story()
    story.pv_life(at=START, without={"try"})
    story.pv_life(at=START + MS)
    analysis = analyse(story, off=[*off, "kvm_exit"])
    assert total(analysis)["headless"] == headless


def test_the_same_trace_gives_the_same_analysis() -> None:
    story = histories.token_reuse()
    first, second = analyse(story), analyse(story)
    for table in ("faults", "findings", "vcpus", "accounting", "latency"):
        assert getattr(first, table).equals(getattr(second, table)), table


def test_every_table_has_the_columns_that_the_schema_declares() -> None:
    for story in (Story(), histories.token_reuse()):
        analysis = analyse(story)
        for table in schema.TABLES:
            assert dict(getattr(analysis, table.name).schema) == table.polars()


def test_a_clock_in_ticks_times_nothing_in_seconds() -> None:
    story = Story()
    calm(story)
    analysis = analyse(story, late_after=7 * MS, clock="x86-tsc")
    assert analysis.vcpus["per_s"].to_list() == [None]
    assert "--late-after is a time, and clock x86-tsc counts ticks: thresholds are learned" in analysis.unsafe
    assert 7 * MS not in analysis.late_after.values()
    assert analyse(story, late_after=7 * MS).late_after["p3"] == 7 * MS


def _paused(lives: int, *, halt: bool = True) -> Story:
    """Faults without a ready in the midst of others, each of another page, and a vCPU that runs on."""
    story = Story()
    calm(story, halt=halt)
    write = story.halt_life if halt else story.pv_life
    for n in range(lives):
        write(at=LATER + n * 2 * MS, without={"ready"} if halt else ANSWER)
    story.progress(start=LATER + lives * 2 * MS, end=LATER + 200 * MS)
    calm(story, start=LATER + 200 * MS, halt=halt)
    return story


def test_undecided_where_no_ready_of_any_fault_was_traced_for_a_time() -> None:
    analysis = analyse(_paused(12))
    assert outcomes(analysis) == {"answered": 40, "undecided": 12}
    assert not rules(analysis, "error")
    reasons = {reason for f in found(analysis, "lost-wakeup") for reason in f["not_ruled_out"]}
    assert (
        "a ready that was not traced, as other readies at that time, or the ACK of one, were not" in reasons
    )


def test_lost_where_a_few_go_without_one_at_a_time() -> None:
    assert outcomes(analyse(_paused(3))) == {"answered": 40, "lost": 3}


def test_lost_where_many_guests_that_were_told_got_no_interrupt() -> None:
    assert outcomes(analyse(_paused(12, halt=False))) == {"answered": 40, "lost": 12}


def test_undecided_where_the_vcpu_had_not_run_before_readies_were_not_traced() -> None:
    """Old enough by then, but off its CPU: the ready came with its next entries, in the pause."""
    story = Story()
    for vcpu in (0, 1):
        calm(story, vcpu=vcpu, halt=True)
    token = story.halt_life(at=LATER, without={"ready", "entry_ready"})
    calm(story, lives=25, vcpu=1, start=LATER + 2 * MS, halt=True)
    for n in range(12):
        story.halt_life(at=LATER + 60 * MS + n * MS, vcpu=1, without={"ready"})
    story.progress(start=LATER + 75 * MS, end=LATER + 200 * MS, in_guest=False)
    for vcpu in (0, 1):
        calm(story, vcpu=vcpu, start=LATER + 200 * MS, halt=True)
    analysis = analyse(story)
    assert life(analysis, token)["outcome"] == "undecided"
    assert not rules(analysis, "error")


def test_lost_where_it_was_stuck_for_very_long_before_readies_were_not_traced() -> None:
    """Of a vCPU that does nothing but enter and leave the guest no reading tells; the time does."""
    story = Story()
    for vcpu in (0, 1):
        calm(story, vcpu=vcpu, halt=True)
    token = story.halt_life(at=LATER, without={"ready"})
    story.progress(start=LATER + 2 * MS, end=LATER + 700 * MS)
    calm(story, lives=250, vcpu=1, start=LATER + 2 * MS, halt=True)
    for n in range(12):
        story.halt_life(at=LATER + 520 * MS + n * MS, vcpu=1, without={"ready"})
    for vcpu in (0, 1):
        calm(story, vcpu=vcpu, start=LATER + 710 * MS, halt=True)
    assert life(analyse(story), token)["outcome"] == "lost"


def test_undecided_beside_interrupts_whose_readies_were_not_traced() -> None:
    story = Story()
    calm(story)
    for n in range(4):
        story.pv_life(at=LATER + n * 2 * MS, without={"ready"})
    token = story.halt_life(at=LATER + 20 * MS, without={"ready"})
    story.progress(start=LATER + 30 * MS, end=LATER + 200 * MS)
    calm(story, start=LATER + 200 * MS)
    analysis = analyse(story)
    assert life(analysis, token)["outcome"] == "undecided"
    assert outcomes(analysis) == {"answered": 44, "undecided": 1}
