"""Tokens paired: which ready answers which not_present, and whose completed is whose."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders.story import (
    ANSWER,
    ASYNC_PF_EXECUTE,
    MSR_ACK,
    WORKQUEUE,
    Story,
)
from tests.builders.tracedat import Event
from tests.model.histories import PAGE
from tests.model.support import (
    LATER,
    MS,
    START,
    UNDONE,
    US,
    WORKQUEUE_EVENTS,
    analyse,
    calm,
    life,
    lines,
    outcomes,
    rules,
    total,
)

LATE = 0x15000


def test_every_instant_of_a_pv_life() -> None:
    story = Story()
    story.pv_life(at=START, vcpu=1, token=0x1001, gva=PAGE)
    (row,) = analyse(story).faults.to_dicts()
    assert (row["token"], row["use"], row["vcpu"], row["tid"], row["kind"]) == (0x1001, 1, 1, 102, "pv")
    assert (row["gva"], row["gfn"], row["hva"]) == (PAGE, 0x7F, 0x7F000007F000)
    assert (row["cpu"], row["worker"]) == (1, 51)
    instants = {
        "try": -1_000, "not_present": 0, "queued": 200, "started": 1_200, "completed": 500_000,
        "ready": 520_000, "accepted": 520_100, "injected": 525_000, "acked": 555_000, "end": 555_000,
    }  # fmt: skip
    assert {name: row[name] - START for name in instants} == instants
    phases = {"p1": 1_200, "p2": 498_800, "p12": 500_000, "p3": 20_000, "p4": 4_900, "p5": 30_000}
    assert {name: row[name] for name in phases} == phases
    assert (row["total"], row["outcome"], row["repaired"]) == (555_000, "answered", None)


def test_a_halt_life_has_no_delivery() -> None:
    story = Story()
    story.halt_life(at=START, gva=PAGE)
    calm(story, start=START + MS)
    row = life(analyse(story), 0x1000)
    assert (row["kind"], row["total"]) == ("halt", 520_000)
    assert [row[name] for name in ("accepted", "injected", "acked", "p4", "p5")] == [None] * 5


def test_one_token_again_is_the_next_use() -> None:
    story = Story()
    for n in range(3):
        story.pv_life(at=START + n * 100 * MS, token=0x5000, gva=PAGE + n * 0x1000)
    analysis = analyse(story)
    assert lines(analysis.faults, "token use gva outcome") == [
        "0x5000 1 0x7f008 answered",
        "0x5000 2 0x80008 answered",
        "0x5000 3 0x81008 answered",
    ]


def test_uses_are_counted_per_vcpu_thread() -> None:
    story = Story()
    for vm in (0, 1):
        story.pv_life(at=START + vm * MS, token=0x5000, vm=vm)
    assert analyse(story).faults["use"].to_list() == [1, 1]


def test_readies_out_of_the_order_of_faults() -> None:
    # R6: first in, first out counts from completed, not from not_present.
    story = Story()
    calm(story)
    first = story.pv_life(at=LATER, completed=LATER + 9 * MS)
    second = story.pv_life(at=LATER + MS, completed=LATER + 3 * MS)
    analysis = analyse(story)
    assert life(analysis, first)["ready"] == LATER + 9 * MS + 20 * US
    assert life(analysis, second)["ready"] == LATER + 3 * MS + 20 * US
    assert not rules(analysis)


@pytest.mark.parametrize("off", [(), WORKQUEUE_EVENTS], ids=["by work", "by page"])
def test_completed_after_the_ready_that_it_caused(off: tuple[str, ...]) -> None:
    # R4: the work item is on the done list before its tracepoint.
    story = Story()
    calm(story)
    story.pv_life(at=LATER, completed=LATER + MS + 100 * US, ready=LATER + MS)
    analysis = analyse(story, off=off)
    row = life(analysis, LATE)
    assert (row["completed"] - row["ready"], row["p3"]) == (100 * US, 0)
    assert not rules(analysis)


def early_completed(story: Story) -> None:
    """A host before 5.8: the work is queued, run and completed before not_present is traced."""
    story.pv_life(at=LATER, gva=PAGE, without=WORKQUEUE | {"completed"})
    work = {"work": 0xABC0, "function": ASYNC_PF_EXECUTE}
    story.event(LATER - 900, "workqueue_queue_work", story.tid(0), 0, **work)
    story.event(LATER - 600, "workqueue_execute_start", 51, 1, **work)
    story.event(LATER - 300, "kvm_async_pf_completed", 51, 1, gva=PAGE, address=0x7F000007F000)
    story.event(LATER - 200, "workqueue_execute_end", 51, 1, **work)


def test_completed_before_not_present_by_work() -> None:
    story = Story()
    calm(story)
    early_completed(story)
    row = life(analyse(story), LATE)
    assert (row["completed"], row["outcome"], row["p12"]) == (LATER - 300, "answered", 0)


def test_completed_before_not_present_without_workqueue_events() -> None:
    story = Story()
    calm(story)
    early_completed(story)
    analysis = analyse(story, off=WORKQUEUE_EVENTS)
    assert life(analysis, LATE)["outcome"] == "answered"
    assert not rules(analysis)


def test_no_phase_is_negative_when_completed_precedes_not_present() -> None:
    story = Story()
    calm(story)
    early_completed(story)
    phases = analyse(story).faults.select("p1", "p2", "p12", "p3", "p4", "p5", "total")
    assert all((column.drop_nulls() >= 0).all() for column in phases)


def test_the_next_ready_inside_the_exit_of_the_ack() -> None:
    # R13: kvm_msr is traced after the handler, which hands over the next ready; the ACK is its kvm_exit.
    story = Story()
    calm(story)
    first = story.pv_life(at=LATER, acked=LATER + 2 * MS, without={"ack"})
    second = story.pv_life(at=LATER + 100 * US, ready=LATER + 2 * MS + 100)
    story.event(LATER + 2 * MS + 300, "kvm_msr", story.tid(0), 0, write=1, ecx=MSR_ACK, data=1)
    analysis = analyse(story)
    assert life(analysis, first)["acked"] == LATER + 2 * MS
    assert life(analysis, second)["acked"] == LATER + 2 * MS + 100 + 35 * US
    assert total(analysis)["balanced"]


def test_a_burst_of_halt_readies_with_a_delivered_one() -> None:
    # A halt-form ready waits for the slot but does not fill it: several may come at once.
    story = Story()
    calm(story)
    halts = [story.halt_life(at=LATER + n * 100 * US, ready=LATER + 3 * MS + n * US) for n in range(3)]
    told = story.pv_life(at=LATER + 400 * US, ready=LATER + 3 * MS + 3 * US)
    analysis = analyse(story)
    assert [life(analysis, token)["kind"] for token in (*halts, told)] == ["halt", "halt", "halt", "pv"]
    assert life(analysis, told)["acked"] is not None
    assert not rules(analysis)
    assert total(analysis)["delivered"] == 21


def test_a_broadcast_closes_the_waits_of_the_guest() -> None:
    story = Story()
    calm(story)
    token = story.pv_life(at=LATER, without=ANSWER | {"completed"})
    story.event(LATER + MS, "kvm_async_pf_ready", story.tid(0), 0, token=0xFFFFFFFF, gva=0)
    analysis = analyse(story)
    row = life(analysis, token)
    assert (row["outcome"], row["end"]) == ("woken_by_all", LATER + MS)
    assert lines(analysis.accounting, "cancelled wake_all ready")[-1] == "1 1 20"


def test_a_broadcast_on_another_vcpu_closes_nothing() -> None:
    story = Story()
    calm(story)
    token = story.pv_life(at=LATER, without=ANSWER | {"completed"})
    story.enable(at=LATER + MS, vcpu=1)
    assert life(analyse(story), token)["outcome"] == "in_flight"


def test_a_ready_that_two_cpus_clocks_put_before_its_not_present() -> None:
    # Trace clock local is only roughly in step between CPUs.
    story = Story()
    calm(story)
    tid = story.tid(0)
    story.pv_life(at=LATER, token=0x50000, gva=PAGE, without=ANSWER)
    story.event(LATER - 3 * US, "kvm_async_pf_ready", tid, 1, token=0x50000, gva=PAGE)
    analysis = analyse(story)
    assert life(analysis, 0x50000)["outcome"] == "answered"
    assert not rules(analysis, "error", "warning")


def test_two_vcpus_wait_for_one_page() -> None:
    story = Story()
    calm(story)
    calm(story, vcpu=1)
    tokens = [
        story.pv_life(at=LATER, vcpu=0, gva=PAGE, completed=LATER + 4 * MS),
        story.pv_life(at=LATER + MS, vcpu=1, gva=PAGE, completed=LATER + 4 * MS + 100 * US),
    ]
    for off in ((), WORKQUEUE_EVENTS):
        analysis = analyse(story, off=off)
        done = [life(analysis, token)["completed"] - LATER for token in tokens]
        assert done == [4 * MS, 4 * MS + 100 * US], off
        assert {life(analysis, token)["vm"] for token in tokens} == {"vm-101"}
        assert not rules(analysis)


@pytest.mark.parametrize("behind", [MS, 5 * US])
def test_a_memslot_of_which_no_life_is_known_gives_a_waiting_life_no_completed(behind: int) -> None:
    """Two VMs in lockstep: the second is alone at the end or never, and once while the first's late one comes."""
    story = Story()
    for n in range(30):
        at = START + n * 4 * MS
        story.pv_life(at=at, gva=PAGE + (n << 12), completed=at + MS)
        story.pv_life(at=at + US, gva=PAGE + (n << 12), vm=1, completed=at + MS + behind)
    done = LATER + 2 * MS
    story.pv_life(at=LATER, gva=PAGE, completed=done, ready=done - 10 * US)
    waits = story.pv_life(at=LATER + US, gva=PAGE, vm=1, without=UNDONE)
    story.progress(start=LATER + 5 * MS, end=LATER + 400 * MS, vm=1)
    analysis = analyse(story, off=WORKQUEUE_EVENTS)
    open_life = life(analysis, waits, tid=story.tid(0, vm=1))
    assert (open_life["completed"], open_life["outcome"]) == (None, "in_flight")
    assert not rules(analysis, "error")


def test_a_second_memslot_is_a_vms_own_though_two_vcpus_wait_for_each_of_its_pages() -> None:
    """Pages of it are waited for by both at once, but for one; none is without a memslot of its own."""
    high = 1 << 32
    story = Story()
    for n in range(40):
        story.pv_life(at=START + n * 4 * MS, gva=PAGE + (n << 12))
        story.pv_life(at=START + n * 4 * MS + 2 * MS, vcpu=1, gva=PAGE + ((100 + n) << 12))
    shared = START + 200 * MS
    for n in range(15):
        for vcpu in (0, 1):
            done = shared + n * 4 * MS + MS + vcpu * US
            story.pv_life(
                at=shared + n * 4 * MS + vcpu * US,
                vcpu=vcpu,
                gva=high + (n << 12),
                completed=done,
            )
    token = story.pv_life(at=LATER, gva=high + (90 << 12), without=ANSWER)
    story.progress(start=LATER + 2 * MS, end=LATER + 400 * MS)
    for n, record in enumerate(story.records):
        if (
            isinstance(record, Event)
            and record.name == "kvm_async_pf_completed"
            and record.fields["gva"] >= high
        ):
            story.records[n] = replace(
                record, fields=record.fields | {"address": record.fields["address"] + high}
            )
    analysis = analyse(story, off=WORKQUEUE_EVENTS)
    assert life(analysis, token)["completed"] is not None
    assert life(analysis, token)["outcome"] == "lost"


def test_the_work_pointer_tells_whose_completed_it_is() -> None:
    # Both wait for one page, and the later one's worker is the faster: only the work pointer knows.
    story = Story()
    calm(story)
    calm(story, vcpu=1)
    slow = story.pv_life(at=LATER, vcpu=0, gva=PAGE, completed=LATER + 9 * MS)
    fast = story.pv_life(at=LATER + MS, vcpu=1, gva=PAGE, completed=LATER + 2 * MS, ready=LATER + 12 * MS)
    analysis = analyse(story)
    assert life(analysis, slow)["completed"] == LATER + 9 * MS
    assert life(analysis, fast)["completed"] == LATER + 2 * MS


def test_workqueue_events_split_the_way_to_completed() -> None:
    story = Story()
    calm(story)
    split, whole = analyse(story), analyse(story, off=WORKQUEUE_EVENTS)
    assert lines(split.faults, "p1 p2 p12")[0] == "1200 498800 500000"
    assert lines(whole.faults, "p1 p2 p12")[0] == "- - 500000"
    assert set(split.latency["phase"]) - set(whole.latency["phase"]) == {"p1", "p2"}


def test_the_vcpu_is_that_of_the_thread_where_it_disagrees_with_the_token() -> None:
    # With CONFIG_KVM_MAX_NR_VCPUS of 4096 a vCPU id may reach into the id bits of the token.
    story = Story()
    calm(story)
    story.pv_life(at=LATER, token=0x50FFF)
    assert life(analyse(story), 0x50FFF)["vcpu"] == 0


def test_a_life_may_be_answered_on_another_cpu() -> None:
    story = Story()
    calm(story)
    story.pv_life(at=LATER, without=ANSWER, token=0x50000, gva=PAGE)
    tid = story.tid(0)
    story.event(LATER + 520 * US, "kvm_async_pf_ready", tid, 1, token=0x50000, gva=PAGE)
    assert outcomes(analyse(story)) == {"answered": 21}


def test_shadow_paging_where_gva_is_no_guest_frame() -> None:
    story = Story()
    tid = story.tid(0)
    story.event(START - US, "kvm_try_async_get_page", tid, 0, gva=0x7FFFDEADB123, gfn=0x42)
    story.pv_life(at=START, gva=0x7FFFDEADB123, token=0x1000, without={"try"})
    row = life(analyse(story), 0x1000)
    assert (row["gfn"], row["gva"], row["try"]) == (0x42, 0x7FFFDEADB123, START - US)


def test_the_age_of_the_token_says_nothing_about_its_life() -> None:
    story = Story()
    for n, token in enumerate((0xFFFFF000, 0x1000, 0x2000)):
        story.pv_life(at=START + n * 2 * MS, token=token)
    assert outcomes(analyse(story)) == {"answered": 3}


def test_the_slot_is_counted_busy_between_ready_and_ack() -> None:
    story = Story()
    story.pv_life(at=START, acked=START + 10 * MS)
    story.progress(start=START + 15 * MS, end=START + 20 * MS)
    (row,) = analyse(story).vcpus.to_dicts()
    assert row["slot_busy"] == pytest.approx(9.48 / 19.5, rel=0.02)
    assert (row["faults"], row["pv"], row["halt"], row["outstanding_max"]) == (1, 1, 0, 1)
