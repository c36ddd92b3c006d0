"""setup-refused, sync-faults and repeated-fault-storm: on the way in."""

from __future__ import annotations

from tests.builders import options
from tests.builders.story import ANSWER, Story
from tests.model import histories
from tests.model.histories import PAGE, USER_RIP, asleep, refused_try, storm, sync_fault
from tests.model.support import (
    BLIND,
    LATER,
    MS,
    START,
    US,
    analyse,
    analyse_blind,
    calm,
    found,
    lines,
    rules,
)

UNDONE = ANSWER | {"completed", "finished", "worker_back", "from_worker"}


class TestSetupRefused:
    def test_found(self) -> None:
        analysis = analyse(histories.setup_refused())
        (finding,) = found(analysis, "setup-refused")
        assert (finding["severity"], finding["confidence"]) == ("info", "proved")
        assert (finding["gva"], finding["ts"]) == (PAGE, LATER)
        assert finding["cause"] == "no memory for the work item, or no valid address"
        assert analysis.verdict == "clean"
        assert lines(analysis.accounting, "try not_present repeated refused balanced")[-1] == "21 20 0 1 true"

    def test_found_at_the_limit_of_64_a_vcpu(self) -> None:
        story = Story()
        calm(story)
        for n in range(64):
            story.pv_life(at=LATER + n * 10 * US, without=UNDONE)
        refused_try(story, at=LATER + 2 * MS)
        analysis = analyse(story)
        (finding,) = found(analysis, "setup-refused")
        assert finding["cause"] == "64 faults of this vCPU were outstanding"
        assert lines(analysis.vcpus, "outstanding_max") == ["64"]

    def test_quiet_when_a_not_present_follows(self) -> None:
        story = Story()
        calm(story)
        assert not found(analyse(story), "setup-refused")

    def test_quiet_when_a_repeated_fault_follows(self) -> None:
        story = Story()
        calm(story, halt=True)
        storm(story, 5)
        assert not found(analyse(story), "setup-refused")

    def test_quiet_when_the_trace_ends_after_the_try(self) -> None:
        story = Story()
        calm(story)
        story.event(LATER, "kvm_try_async_get_page", story.tid(0), 0, gva=PAGE, gfn=PAGE >> 12)
        analysis = analyse(story)
        assert not rules(analysis)
        assert lines(analysis.accounting, "try not_present refused balanced")[-1] == "21 20 0 true"

    def test_quiet_when_another_vcpu_traces_between(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, vcpu=0)
        story.pv_life(at=LATER + 300, vcpu=1)
        assert not rules(analyse(story))

    @BLIND
    def test_undecided_when_records_were_lost_after_it(self, blind: str) -> None:
        analysis = analyse_blind(histories.setup_refused(), blind, at=LATER + 100 * US)
        (finding,) = found(analysis, "setup-refused")
        assert (finding["confidence"], finding["cause"]) == ("possible", "records lost around it")


class TestSyncFaults:
    def test_found(self) -> None:
        analysis = analyse(histories.sync_faults())
        (finding,) = found(analysis, "sync-faults")
        assert (finding["severity"], finding["confidence"]) == ("info", "proved")
        assert finding["message"].startswith(
            "3 page faults of this vCPU put its thread to sleep, without a try, for 6 ms in all"
        )
        assert finding["message"].endswith("the longest for 3 ms; async page faults: 20")
        assert (finding["gva"], finding["ts"]) == (PAGE, LATER + 30 * MS + US)
        assert str(finding["cause"]).startswith("the guest's kernel faulted")
        assert [e["event"] for e in finding["evidence"]] == ["kvm_page_fault", "sched_switch", "kvm_entry"]
        assert finding["evidence"][2]["ts"] - finding["evidence"][1]["ts"] == 3 * MS + 3 * US
        assert analysis.verdict == "clean"

    def test_found_of_user_code_the_page_in_itself_is_blamed(self) -> None:
        story = Story()
        sync_fault(story, at=START, slept=MS, rip=USER_RIP)
        (finding,) = found(analyse(story), "sync-faults")
        assert str(finding["cause"]).startswith("user code faulted, with interrupts on")

    def test_found_as_a_warning_where_a_vcpu_does_little_else(self) -> None:
        story = Story()
        for n in range(20):
            sync_fault(story, at=START + n * 2 * MS, slept=MS)
        analysis = analyse(story)
        (finding,) = found(analysis, "sync-faults")
        assert finding["severity"] == "warning"
        assert "(51.3% of its time)" in finding["message"]
        assert analysis.verdict == "warnings"

    def test_found_once_where_the_thread_sleeps_twice_in_one_fault(self) -> None:
        story = Story()
        calm(story)
        sync_fault(story, at=LATER, slept=MS, entry=False)
        tid = story.tid(0)
        asleep(story, tid, since=LATER + 2 * MS, until=LATER + 4 * MS)
        story.event(LATER + 5 * MS, "kvm_entry", tid, 0, vcpu_id=0)
        (finding,) = found(analyse(story), "sync-faults")
        assert finding["message"].startswith(
            "1 page fault of this vCPU put its thread to sleep, without a try, for 3 ms"
        )

    def test_found_with_less_trust_where_the_vmm_may_have_slept(self) -> None:
        (finding,) = found(analyse(histories.sync_faults(), off=["kvm_userspace_exit"]), "sync-faults")
        assert finding["confidence"] == "likely"
        assert any("kvm_userspace_exit" in text for text in finding["not_ruled_out"])

    def test_found_by_vcpu(self) -> None:
        story = histories.sync_faults()
        sync_fault(story, at=LATER + 30 * MS, slept=MS, vcpu=1)
        counts = {f["tid"]: f["message"].split()[0] for f in found(analyse(story), "sync-faults")}
        assert counts == {story.tid(0): "3", story.tid(1): "1"}

    def test_quiet_when_a_try_follows(self) -> None:
        """The attempt waited for a lock; what came of the fault was an async page fault."""
        story = Story()
        calm(story)
        sync_fault(story, at=LATER, slept=MS, entry=False)
        story.pv_life(at=LATER + 2 * MS, gva=PAGE, without={"exit", "page_fault"})
        assert not rules(analyse(story))

    def test_quiet_when_a_refused_try_came_before(self) -> None:
        story = Story()
        calm(story)
        tid = story.tid(0)
        story.event(LATER, "kvm_page_fault", tid, 0, fault_address=PAGE, error_code=4)
        story.event(LATER + US, "kvm_try_async_get_page", tid, 0, gva=PAGE, gfn=PAGE >> 12)
        asleep(story, tid, since=LATER + 2 * US, until=LATER + MS)
        story.event(LATER + MS + US, "kvm_entry", tid, 0, vcpu_id=0)
        assert rules(analyse(story)) == {"setup-refused"}

    def test_quiet_when_the_vmm_sleeps(self) -> None:
        """An MMIO exit: the VMM's device waits for its disk."""
        story = Story()
        calm(story)
        tid = story.tid(0)
        story.event(LATER, "kvm_page_fault", tid, 0, fault_address=0xFEB00000, error_code=0x10000000D)
        story.event(LATER + US, "kvm_userspace_exit", tid, 0, reason=6, errno=0)
        asleep(story, tid, since=LATER + 2 * US, until=LATER + 9 * MS)
        story.event(LATER + 10 * MS, "kvm_entry", tid, 0, vcpu_id=0)
        assert not rules(analyse(story))

    def test_quiet_when_it_sleeps_interruptibly_or_is_preempted(self) -> None:
        story = Story()
        calm(story)
        sync_fault(story, at=LATER, slept=MS, state=1)
        sync_fault(story, at=LATER + 10 * MS, slept=MS, state=0)
        assert not rules(analyse(story))

    def test_quiet_when_it_sleeps_after_the_fault_was_over(self) -> None:
        story = Story()
        calm(story)
        tid = story.tid(0)
        story.event(LATER, "kvm_page_fault", tid, 0, fault_address=PAGE, error_code=4)
        story.event(LATER + US, "kvm_entry", tid, 0, vcpu_id=0)
        story.event(LATER + MS, "kvm_exit", tid, 0, exit_reason=0x60, isa=2)
        asleep(story, tid, since=LATER + MS + US, until=LATER + 9 * MS)
        story.event(LATER + 10 * MS, "kvm_entry", tid, 0, vcpu_id=0)
        assert not rules(analyse(story))

    def test_quiet_when_the_trace_ends_in_the_fault(self) -> None:
        story = Story()
        calm(story)
        sync_fault(story, at=LATER, slept=MS, entry=False)
        assert not rules(analyse(story))

    def test_not_counted_when_a_record_was_lost_in_the_fault(self) -> None:
        story = histories.sync_faults()
        story.lost(at=LATER + 31 * MS, cpu=0, count=1)
        (finding,) = found(analyse(story), "sync-faults")
        assert finding["message"].startswith("2 page faults")
        assert "1 more, of which records were lost meanwhile" in finding["not_ruled_out"]

    def test_possible_where_nobody_knows_when_records_were_lost(self) -> None:
        story = histories.sync_faults()
        statistics = [options.cpu_stat(0, dropped=4), options.cpu_stat(1)]
        (finding,) = found(analyse(story, options=statistics), "sync-faults")
        assert finding["confidence"] == "possible"
        assert "a try among the lost records" in finding["not_ruled_out"]


class TestRepeatedFaultStorm:
    def test_found(self) -> None:
        analysis = analyse(histories.repeated_fault_storm())
        (finding,) = found(analysis, "repeated-fault-storm")
        assert (finding["severity"], finding["confidence"]) == ("warning", "possible")
        assert (finding["token"], finding["gva"]) == (0x15000, PAGE)
        assert "150 repeated faults on gfn 0x7f" in finding["message"]
        assert lines(analysis.faults, "token repeated")[-1] == "0x15000 150"
        assert lines(analysis.vcpus, "repeated") == ["150"]

    @BLIND
    def test_says_so_where_it_may_be_several_lives(self, blind: str) -> None:
        analysis = analyse_blind(histories.repeated_fault_storm(), blind, at=LATER + MS)
        (finding,) = found(analysis, "repeated-fault-storm")
        assert finding["confidence"] == "possible"
        assert finding["not_ruled_out"][0].startswith("several lives")

    def test_quiet_for_the_seventy_of_a_sound_host(self) -> None:
        story = Story()
        calm(story, halt=True)
        storm(story, 71)
        analysis = analyse(story)
        assert not rules(analysis)
        assert lines(analysis.faults, "repeated")[-1] == "71"

    def test_quiet_when_the_hits_spread_over_two_lives(self) -> None:
        story = Story()
        calm(story, halt=True)
        for life, at in enumerate((LATER, LATER + 20 * MS)):
            story.halt_life(at=at, gva=PAGE + 0x1000 * life, completed=at + 10 * MS)
            for n in range(80):
                story.repeated(at=at + 100 * US + n * 100 * US, gva=PAGE + 0x1000 * life)
        analysis = analyse(story)
        assert not found(analysis, "repeated-fault-storm")
        assert lines(analysis.faults, "repeated")[-2:] == ["80", "80"]

    def test_quiet_when_another_vcpu_faults_on_its_own_life_of_the_page(self) -> None:
        story = Story()
        calm(story)
        for vcpu in (0, 1):
            story.halt_life(at=LATER + vcpu * US, vcpu=vcpu, gva=PAGE, completed=LATER + 8 * MS)
            for n in range(80):
                story.repeated(at=LATER + 100 * US + n * 50 * US + vcpu * 7 * US, gva=PAGE, vcpu=vcpu)
        assert not found(analyse(story), "repeated-fault-storm")
