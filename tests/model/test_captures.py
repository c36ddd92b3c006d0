"""Real captures, of which nothing was ever lost: whoever finds an error here has found one in apftrace."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest

import apftrace
from apftrace import Analysis
from tests.conftest import MORE, capture_path
from tests.corpus.reader import read
from tests.model.support import MS, found, outcomes, rules, total

VM1, VM2 = frozenset({3094, 3096}), frozenset({3099, 3100})
LATER_VM1, LATER_VM2 = frozenset({13037, 13038}), frozenset({9137, 9138})


@dataclass(frozen=True)
class Truth:
    """What is known of a capture from how it was recorded.

    Attributes:
        verdict: what the analysis must say.
        lives: not_present events; lives of other outcomes than answered are in ``open``.
        vms: vCPU threads by VM.
        open: lives without a ready, by outcome.
        head: readies whose not_present lies before the trace.
        protocol: which the guest speaks.
        also: rules beside late-wakeup, sync-faults, and those that ``open`` and ``head`` imply.
    """

    verdict: str
    lives: int
    vms: tuple[frozenset[int], ...]
    open: tuple[tuple[str, int], ...] = ()
    head: int = 0
    protocol: str = "int"
    also: tuple[str, ...] = ()


SHIPPED = {
    "boot/boot.dat": Truth(
        "clean", 0, (frozenset({9136, 9139}), LATER_VM2), also=("wake-all", "apf-disabled")
    ),
    "edge/killed-inflight.dat": Truth(
        "warnings", 1493, (LATER_VM1,), (("cancelled", 16),), 2, also=("vm-ended",)
    ),
    "host/host-v6-none.dat": Truth("warnings", 644, (VM2,)),
    "host/host-v7-zstd.dat": Truth("warnings", 548, (VM1, VM2)),
    "irqoff/irqoff-600-controlled.dat": Truth("warnings", 1518, (LATER_VM1,)),
    "kernel-6.12/k612-two-vms-v7.dat": Truth(
        "warnings", 1285, (frozenset({296, 298}), frozenset({295, 297}))
    ),
    "loss/overrun-b64.dat": Truth("undecided", 802, (VM1, VM2), also=("events-lost",)),
}
FURTHER = {
    "clocks/clock-counter.dat": Truth("clean", 252, (VM2,)),
    "clocks/clock-mono.dat": Truth("warnings", 379, (VM2,)),
    "clocks/clock-uptime.dat": Truth("clean", 402, (VM2,)),
    "clocks/clock-x86-tsc.dat": Truth("warnings", 428, (VM2,)),
    "edge/clock-tsc2nsec.dat": Truth("warnings", 636, (LATER_VM1,), head=1),
    "host/host-swap-seq-v7-zstd.dat": Truth("warnings", 295, (VM1,)),
    "host/host-v7-zlib.dat": Truth("warnings", 695, (VM2,)),
    "host-guest/agent-v7-h.dat": Truth("warnings", 1510, (LATER_VM1,)),
    "host-guest/tscpair-host.dat": Truth("warnings", 219, (frozenset({9136, 9139}),)),
    "hwpoison/hwpoison-vm2.dat": Truth("warnings", 0, (LATER_VM1,), also=("wake-all", "page-malfunction")),
    "instances/instances.dat": Truth("warnings", 734, (VM2,), (("in_flight", 1),), protocol="unknown"),
    "instances/split.dat.1": Truth("warnings", 180, (VM1, VM2), (("in_flight", 2),), 1),
    "loss/extract-overwritten.dat": Truth("undecided", 55, (VM2,), also=("events-lost",)),
    "loss/middle-truncated.dat": Truth("warnings", 25, (VM1, VM2), head=1),
    "no-kvmapf/no-kvmapf.dat": Truth("warnings", 957, (LATER_VM2,), protocol="halt-only"),
    "text/text-source.dat": Truth("warnings", 472, (VM2,)),
    "two-vms/two-vms-v7.dat": Truth("warnings", 719, (VM1, VM2)),
}
CAPTURES = {**SHIPPED, **(FURTHER if MORE.is_dir() else {})}

WHOLE = ("edge", "host", "host-guest", "irqoff", "kernel-6.12", "no-kvmapf", "text", "two-vms")
"""Folders whose captures lost nothing, have all context events, and a clock that orders them."""

SLEEPY = ("host/host-v7-zstd.dat", "irqoff/irqoff-600-controlled.dat", "kernel-6.12/k612-two-vms-v7.dat")
"""Captures without losses in which vCPU threads slept through faults."""

every_capture = pytest.mark.parametrize(("name", "truth"), CAPTURES.items(), ids=list(CAPTURES))


@cache
def analysed(name: str) -> Analysis:
    return apftrace.analyze(capture_path(name))


@every_capture
def test_nothing_is_called_an_error(name: str, truth: Truth) -> None:
    analysis = analysed(name)
    assert rules(analysis, "error") == set()
    assert analysis.verdict == truth.verdict
    implied = {"in-flight"} if dict(truth.open).get("in_flight") else set()
    implied |= {"left-truncated"} if truth.head else set()
    assert rules(analysis) - {"late-wakeup", "sync-faults"} == implied | set(truth.also)


@every_capture
def test_every_life_has_the_outcome_that_is_known(name: str, truth: Truth) -> None:
    opened = dict(truth.open)
    answered = truth.lives - sum(opened.values())
    expected = {**({"answered": answered} if answered else {}), **opened}
    assert outcomes(analysed(name)) == expected
    assert len(found(analysed(name), "left-truncated")) == truth.head


@every_capture
def test_the_sums_balance(name: str, truth: Truth) -> None:
    analysis = analysed(name)
    assert analysis.accounting["balanced"].all(), analysis.accounting["broken"].to_list()
    sums = total(analysis)
    assert sums["not_present"] == truth.lives
    assert not found(analysis, "unbalanced-accounting")


@every_capture
def test_the_counts_are_those_of_the_file(name: str, truth: Truth) -> None:
    analysis = analysed(name)
    counts, sums = analysis.inputs[0].events, total(analysis)
    assert counts.get("kvm_async_pf_not_present", 0) == sums["not_present"]
    assert counts.get("kvm_try_async_get_page", 0) == sums["try"]
    assert counts.get("kvm_async_pf_repeated_fault", 0) == sums["repeated"]
    assert counts.get("kvm_async_pf_ready", 0) == sums["ready"] + sums["wake_all"]
    assert analysis.vcpus["faults"].sum() == truth.lives


@every_capture
def test_no_vm_is_mixed_with_another(name: str, truth: Truth) -> None:
    owner = {tid: vm for vm in truth.vms for tid in vm}
    for vm, tids in analysed(name).vcpus.group_by("vm").agg("tid").iter_rows():
        assert len({owner[tid] for tid in tids}) == 1, vm


@every_capture
def test_no_phase_is_negative(name: str, truth: Truth) -> None:
    phases = analysed(name).faults.select("p1", "p2", "p12", "p3", "p4", "p5", "total")
    assert all((column.drop_nulls() >= 0).all() for column in phases)


@every_capture
def test_the_protocol_is_told_from_the_deliveries(name: str, truth: Truth) -> None:
    analysis = analysed(name)
    assert analysis.protocol.kind == truth.protocol
    assert (total(analysis)["acks"] > 0) == (truth.protocol == "int")


@pytest.mark.parametrize("name", [name for name in CAPTURES if name.split("/")[0] in WHOLE])
def test_a_life_of_which_the_guest_was_told_has_its_delivery(name: str) -> None:
    answered = [row for row in analysed(name).faults.to_dicts() if row["outcome"] == "answered"]
    told = {row["token"] for row in answered if row["kind"] == "pv"}
    assert {row["token"] for row in answered if row["accepted"] is not None} == told
    assert {row["kind"] for row in answered} <= {"pv", "halt"}


@pytest.mark.parametrize("name", [name for name in CAPTURES if name.startswith("loss/")])
def test_where_records_were_lost_no_wakeup_was(name: str) -> None:
    analysis = analysed(name)
    assert not found(analysis, "lost-wakeup")
    assert "lost" not in outcomes(analysis)
    assert bool(analysis.unsafe) == bool(analysis.inputs[0].lost_cpus)


def test_irqs_off_is_the_cause_of_the_late_wakeups_of_vcpu_0() -> None:
    # A guest module kept interrupts off for 600 ms on CPU 0, twelve times.
    analysis = analysed("irqoff/irqoff-600-controlled.dat")
    late = [row for row in found(analysis, "late-wakeup") if row["tid"] == 13037]
    by_hundreds = [row for row in late if row["cause"] and _took(analysis, row) > 500 * MS]
    assert len(by_hundreds) >= 10
    assert {row["vcpu"] for row in by_hundreds} == {0}
    assert all("guest interrupts off" in row["cause"] for row in by_hundreds)
    held = {row["token"]: row["blocker"] for row in by_hundreds if row["phase"] == "p3"}
    assert {held[token] for token in range(0x1E30000, 0x1E35000, 0x1000)} == {0x1E2F000}


def _took(analysis: Analysis, finding: dict[str, object]) -> int:
    lives = analysis.faults.filter(
        (analysis.faults["token"] == finding["token"]) & (analysis.faults["tid"] == finding["tid"])
    )
    return int(lives[str(finding["phase"])][0])


def test_no_vcpu_without_the_experiment_waits_that_long_for_its_interrupts() -> None:
    analysis = analysed("irqoff/irqoff-600-controlled.dat")
    other = analysis.faults.filter((analysis.faults["tid"] == 13038) & (analysis.faults["p4"] > 500 * MS))
    assert other.height == 0


def test_boot_shows_one_broadcast_for_each_write_that_enables() -> None:
    # vm1 boots both vCPUs, then takes CPU 1 offline and online again; vm2 has async page faults off.
    analysis = analysed("boot/boot.dat")
    assert sorted(row["tid"] for row in found(analysis, "wake-all")) == [9136, 9139, 9139]
    assert [row["tid"] for row in found(analysis, "apf-disabled")] == [9139]
    assert analysis.protocol.kind == "int"
    assert (analysis.protocol.vector, analysis.protocol.send_always) == (243, False)


@pytest.mark.parametrize("name", SLEEPY)
def test_synchronous_faults_are_those_of_the_records(name: str) -> None:
    told = {f["tid"]: int(f["message"].split()[0]) for f in found(analysed(name), "sync-faults")}
    assert told == slept_through(name)
    assert told


def slept_through(name: str) -> dict[int, int]:
    """Count by thread the faults without a try in which it was switched out in state D, record by record."""
    under_way: dict[int, bool] = {}
    counts: dict[int, int] = {}
    for rec in read(capture_path(name)).records:
        match rec.name:
            case "kvm_page_fault":
                under_way[rec.tid] = False
            case "kvm_try_async_get_page" | "kvm_userspace_exit":
                under_way.pop(rec.tid, None)
            case "sched_switch" if rec["prev_state"] & 2 and rec["prev_pid"] in under_way:
                under_way[rec["prev_pid"]] = True
            case "kvm_entry" if under_way.pop(rec.tid, False):
                counts[rec.tid] = counts.get(rec.tid, 0) + 1
    return counts


def test_a_killed_vm_takes_its_lives_along() -> None:
    analysis = analysed("edge/killed-inflight.dat")
    ended = analysis.faults.filter(analysis.faults["ready"].is_null())
    assert ended.height == 16
    assert set(ended["outcome"]) <= {"cancelled", "in_flight"}


def test_two_vms_share_tokens_and_nothing_else() -> None:
    analysis = analysed("kernel-6.12/k612-two-vms-v7.dat")
    by_vm = [set(part["token"]) for part in analysis.faults.partition_by("vm")]
    assert len(by_vm) == 2
    assert len(by_vm[0] & by_vm[1]) == 121
    assert set(analysis.faults["use"]) == {1}


def test_memory_of_two_vms_lies_in_two_places() -> None:
    # One memslot per VM: host address minus guest page is one constant.
    analysis = analysed("kernel-6.12/k612-two-vms-v7.dat")
    bases = {
        vm: {row["hva"] - (row["gva"] & ~0xFFF) for row in part.to_dicts() if row["hva"] is not None}
        for (vm,), part in analysis.faults.partition_by("vm", as_dict=True).items()
    }
    assert [len(base) for base in bases.values()] == [1, 1]
    assert len(set.union(*bases.values())) == 2
