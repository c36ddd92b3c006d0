"""Which VM a vCPU thread belongs to, and that VMs with equal tokens do not mix."""

from __future__ import annotations

from tests.builders import options
from tests.builders.story import ANSWER, Story
from tests.model.histories import PAGE, STUCK_FOR
from tests.model.support import (
    LATER,
    MS,
    START,
    US,
    WORKQUEUE_EVENTS,
    analyse,
    calm,
    found,
    life,
    lines,
    outcomes,
    rules,
)

TOOK = (500 * US, 700 * US)


def twins() -> Story:
    """Two VMs that fault on equal guest pages under equal tokens at the same time."""
    story = Story()
    for n in range(20):
        for vm in (0, 1):
            at = START + n * 2 * MS + vm * 50 * US
            story.pv_life(at=at, vm=vm, cpu=vm, gva=PAGE + n * 0x1000, completed=at + TOOK[vm])
    return story


def test_equal_tokens_of_two_vms_are_two_lives() -> None:
    analysis = analyse(twins())
    assert outcomes(analysis) == {"answered": 40}
    assert analysis.faults.filter(analysis.faults["token"] == 0x1000)["vm"].to_list() == ["vm-101", "vm-201"]
    assert not rules(analysis)


def test_completed_goes_to_the_vm_whose_memory_it_is() -> None:
    for off in ((), WORKQUEUE_EVENTS):
        rows = analyse(twins(), off=off).faults.to_dicts()
        for row in rows:
            vm = ("vm-101", "vm-201").index(row["vm"])
            assert row["completed"] - row["not_present"] == TOOK[vm], (row["vm"], off)
            assert row["hva"] >> 40 == 0x7F + vm, (row["vm"], off)


def test_a_lost_wakeup_is_that_of_its_own_vm() -> None:
    story = twins()
    token = story.pv_life(at=LATER, vm=1, cpu=1, gva=PAGE, without=ANSWER)
    story.pv_life(at=LATER, vm=0, gva=PAGE, token=token)
    for vm in (0, 1):
        story.progress(start=LATER + MS, end=LATER + STUCK_FOR, vm=vm)
    analysis = analyse(story)
    assert lines(analysis.findings, "rule token vm tid vcpu") == [f"lost-wakeup {token:#x} vm-201 201 0"]
    assert life(analysis, token, tid=101)["outcome"] == "answered"


def test_the_progress_of_another_vm_proves_nothing() -> None:
    story = twins()
    token = story.pv_life(at=LATER, vm=1, cpu=1, gva=PAGE, without=ANSWER)
    story.progress(start=LATER + MS, end=LATER + STUCK_FOR, vm=0)
    assert life(analyse(story), token)["outcome"] == "in_flight"


def test_vcpus_that_share_guest_memory_are_one_vm() -> None:
    story = Story()
    for vcpu in (0, 1):
        calm(story, vcpu=vcpu)
        calm(story, vcpu=vcpu, vm=1)
    analysis = analyse(story)
    assert lines(analysis.vcpus, "vm vcpu tid comm") == [
        "vm-101 0 101 CPU 0/KVM",
        "vm-101 1 102 CPU 1/KVM",
        "vm-201 0 201 CPU 0/KVM",
        "vm-201 1 202 CPU 1/KVM",
    ]


def test_two_threads_with_one_vcpu_id_are_two_vms_even_at_one_address() -> None:
    story = Story()
    calm(story)
    calm(story, vm=1)
    for position, record in enumerate(story.records):
        fields = getattr(record, "fields", {})
        if "address" in fields:
            story.records[position].fields["address"] = 0x7F0000000000 + (fields["gva"] & ~0xFFF)
    assert set(analyse(story).vcpus["vm"]) == {"vm-101", "vm-201"}


def test_the_trace_may_name_its_guests() -> None:
    story = Story()
    calm(story)
    calm(story, vcpu=1)
    analysis = analyse(story, options=[options.guest("web1", 0xDEF, [101, 102])])
    assert set(analysis.vcpus["vm"]) == set(analysis.faults["vm"]) == {"web1"}


def test_findings_carry_the_name_of_the_guest() -> None:
    story = Story()
    calm(story)
    story.pv_life(at=LATER, completed=LATER + 300 * MS)
    analysis = analyse(story, options=[options.guest("web1", 0xDEF, [101])])
    assert [(f["vm"], f["machine"]) for f in found(analysis, "late-wakeup")] == [("web1", "host")]
