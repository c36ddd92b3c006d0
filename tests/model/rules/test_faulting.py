"""setup-refused and repeated-fault-storm: on the way in."""

from __future__ import annotations

from tests.builders.story import ANSWER, Story
from tests.model import histories
from tests.model.histories import PAGE, refused_try, storm
from tests.model.support import LATER, MS, US, analyse, calm, found, lines, rules

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

    def test_undecided_when_records_were_lost_after_it(self) -> None:
        story = histories.setup_refused().lost(at=LATER + 100 * US, cpu=0, count=1)
        (finding,) = found(analyse(story), "setup-refused")
        assert (finding["confidence"], finding["cause"]) == ("possible", "records lost around it")


class TestRepeatedFaultStorm:
    def test_found(self) -> None:
        analysis = analyse(histories.repeated_fault_storm())
        (finding,) = found(analysis, "repeated-fault-storm")
        assert (finding["severity"], finding["confidence"]) == ("warning", "possible")
        assert (finding["token"], finding["gva"]) == (0x15000, PAGE)
        assert "150 repeated faults on gfn 0x7f" in finding["message"]
        assert lines(analysis.faults, "token repeated")[-1] == "0x15000 150"
        assert lines(analysis.vcpus, "repeated") == ["150"]

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
