"""What guests show: each rule where it must speak, its look-alikes, and where the record cannot tell."""

from __future__ import annotations

import pytest

from tests.builders.guest_story import RAN, WOKEN
from tests.builders.story import ACK, ANSWER
from tests.model.guest.histories import END, GUEST_HISTORIES
from tests.model.guest.pairs import Pair
from tests.model.support import LATER, MS, START, US, S, found, rules


@pytest.mark.parametrize("rule", GUEST_HISTORIES)
def test_its_history_shows_it_and_blames_nobody_else(rule: str) -> None:
    alongside = {"open-wait": {"in-flight"}, "missing-guest-handler": {"missing-ack"}}
    analysis = GUEST_HISTORIES[rule]().analyse()
    assert rules(analysis) - alongside.get(rule, set()) == {rule}
    (finding,) = found(analysis, rule)
    assert finding["machine"] == "vm1"
    assert rule == "clock-contradiction" or finding["evidence"]


def test_a_calm_pair_is_clean() -> None:
    analysis = Pair().calm().until(END).analyse()
    assert analysis.verdict == "clean"
    assert rules(analysis) == set()
    assert analysis.guests[0].joined == analysis.faults.height == 60


class TestLostInGuest:
    def test_found_where_the_wake_came_and_the_thread_sleeps_on(self) -> None:
        analysis = GUEST_HISTORIES["lost-in-guest"]().analyse()
        (finding,) = found(analysis, "lost-in-guest")
        assert (finding["severity"], finding["confidence"]) == ("error", "proved")
        assert [e["event"] for e in finding["evidence"] if e["event"].startswith("vm1:")] == [
            "vm1:task_wait", "vm1:sched_switch", "vm1:asyncpf_irq", "vm1:task_wake",
        ]  # fmt: skip
        assert analysis.faults["outcome"].unique().to_list() == ["answered"]

    def test_found_where_the_guest_acknowledged_without_a_wake(self) -> None:
        pair = Pair().calm()
        token = pair.life(at=LATER, tid=300, unseen={"wake", "waking"} | RAN)
        (finding,) = found(pair.until(END).analyse(), "lost-in-guest")
        assert (finding["token"], finding["confidence"]) == (token, "likely")
        assert any("record is missing" in text for text in finding["not_ruled_out"])

    def test_found_without_the_host(self) -> None:
        analysis = GUEST_HISTORIES["lost-in-guest"]().guest_alone()
        assert analysis.verdict == "anomaly"
        assert rules(analysis) == {"lost-in-guest"}

    def test_quiet_where_only_the_record_of_the_wake_is_missing(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, unseen={"wake"})
        assert rules(pair.until(END).analyse()) == set()

    @pytest.mark.parametrize("sign", ["in", "return", "waking"])
    def test_quiet_while_one_sign_of_the_thread_is_left(self, sign: str) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, unseen=({"wake", "waking"} | RAN) - {sign})
        assert not found(pair.until(END).analyse(), "lost-in-guest")

    def test_quiet_where_the_thread_waits_again(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, unseen={"wake", "waking"} | RAN)
        pair.life(at=LATER + 10 * MS, tid=300)
        assert not found(pair.until(END).analyse(), "lost-in-guest")

    def test_quiet_where_the_token_is_used_again_and_the_host_does_not_show_it(self) -> None:
        pair = Pair().calm()
        pair.guest.life(at=LATER, token=pair.tokens[0], tid=300, without=WOKEN | RAN)
        assert rules(pair.until(END).analyse(), "error", "warning") <= {"open-wait"}

    def test_quiet_on_what_the_host_lost(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, without=ANSWER, unseen=WOKEN | RAN)
        assert rules(pair.until(END).analyse()) == {"lost-wakeup"}

    def test_quiet_where_the_guests_record_ends_at_once(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, unseen=RAN | {"waking"})
        pair.guest.tick(LATER + MS, 0)
        analysis = pair.analyse()
        assert rules(analysis, "error", "warning") == set()

    @pytest.mark.parametrize("cpu", [0, 1])
    def test_undecided_where_the_guest_lost_records(self, cpu: int) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, unseen=RAN | {"waking"})
        pair.guest.tick(LATER + 300 * MS, cpu).lost(LATER + 400 * MS, cpu).tick(LATER + 400 * MS + 1, cpu)
        analysis = pair.until(END).analyse()
        assert rules(analysis, "error", "warning") == set()
        assert analysis.verdict == "undecided"
        assert "lost" in found(analysis, "open-wait")[0]["message"]

    def test_found_where_the_loss_was_long_before(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, unseen=RAN | {"waking"})
        pair.guest.tick(START + 300 * MS, 0).lost(START + 400 * MS, 0).tick(START + 400 * MS + 1, 0)
        assert found(pair.until(END).analyse(), "lost-in-guest")

    def test_quiet_where_nothing_shows_that_threads_run(self) -> None:
        pair = GUEST_HISTORIES["lost-in-guest"]()
        analysis = pair.analyse(guest_off=["sched_switch", "sched_waking", "sched_wakeup", "task_back"])
        assert rules(analysis, "error", "warning") == set()

    @pytest.mark.parametrize(
        "off", [["sched_waking", "sched_wakeup"], ["sched_switch", "sched_waking", "sched_wakeup"]]
    )
    def test_found_as_a_warning_where_it_may_starve(self, off: list[str]) -> None:
        analysis = GUEST_HISTORIES["lost-in-guest"]().analyse(guest_off=off)
        (finding,) = found(analysis, "lost-in-guest")
        assert (finding["severity"], finding["confidence"]) == ("warning", "possible")
        assert any("starved" in text for text in finding["not_ruled_out"])


class TestMissingGuestHandler:
    def test_found_where_neither_handler_nor_wake_nor_ack_came(self) -> None:
        (finding,) = found(GUEST_HISTORIES["missing-guest-handler"]().analyse(), "missing-guest-handler")
        assert finding["severity"] == "error"
        assert finding["vcpu"] == 0

    def test_quiet_where_the_ack_shows_that_it_ran(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, unseen=WOKEN)
        assert not found(pair.until(END).analyse(), "missing-guest-handler")

    def test_quiet_where_the_guests_record_ended_before(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, without=ACK, unseen=WOKEN | RAN)
        pair.host.progress(start=LATER + S // 2, end=END)
        pair.guest.tick(LATER + 600 * US, 0)
        assert not found(pair.analyse(), "missing-guest-handler")

    def test_quiet_where_the_guest_lost_records(self) -> None:
        pair = GUEST_HISTORIES["missing-guest-handler"]()
        pair.guest.tick(LATER + 300 * MS, 1).lost(LATER + 400 * MS, 1).tick(LATER + 400 * MS + 1, 1)
        assert not found(pair.analyse(), "missing-guest-handler")


class TestOrphanWake:
    def test_found_where_nobody_waits(self) -> None:
        (finding,) = found(GUEST_HISTORIES["orphan-wake"]().analyse(), "orphan-wake")
        assert finding["severity"] == "warning"
        assert any("kprobe can miss" in text for text in finding["not_ruled_out"])

    def test_found_without_the_host(self) -> None:
        assert rules(GUEST_HISTORIES["orphan-wake"]().guest_alone()) == {"orphan-wake"}

    def test_found_for_a_second_wake(self) -> None:
        pair = Pair().calm()
        token = pair.life(at=LATER, tid=300)
        pair.guest.hit(LATER + 50 * MS, 0, 0, "task_wake", "kvm_async_pf_task_wake", token)
        assert len(found(pair.until(END).analyse(), "orphan-wake")) == 1

    def test_quiet_where_the_wait_lies_before_the_guests_record(self) -> None:
        pair = Pair()
        pair.life(at=START - 5 * MS, tid=300, unseen={"wait", "out", "waking"} | RAN)
        assert rules(pair.calm().until(END).analyse()) == set()
        assert rules(pair.guest_alone()) == set()

    def test_quiet_on_a_record_that_stands_there_twice(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300)
        pair.guest.lines += [line for line in pair.guest.lines if "task_wake" in line[2]][-1:]
        assert rules(pair.until(END).analyse()) == set()

    def test_quiet_where_the_guest_lost_records(self) -> None:
        pair = Pair().calm()
        pair.guest.tick(LATER - 10 * MS, 1).lost(LATER + 100 * US, 1).tick(LATER + 100 * US + 1, 1)
        pair.life(at=LATER, tid=300, unseen={"wait", "out", "waking"} | RAN)
        assert not found(pair.until(END).analyse(), "orphan-wake")


class TestWakeBeforeWait:
    def test_found_on_one_cpu(self) -> None:
        (finding,) = found(GUEST_HISTORIES["wake-before-wait"]().analyse(), "wake-before-wait")
        assert (finding["severity"], finding["confidence"]) == ("warning", "proved")

    def test_found_without_the_host(self) -> None:
        assert rules(GUEST_HISTORIES["wake-before-wait"]().guest_alone()) == {"wake-before-wait"}

    def test_found_as_info_where_a_vcpu_of_a_nested_guest_waits(self) -> None:
        pair = GUEST_HISTORIES["wake-before-wait"]()
        pair.guest.lines = [
            (at, cpu, text.replace("touch300-300", "CPU 1/KVM-300")) for at, cpu, text in pair.guest.lines
        ]
        (finding,) = found(pair.analyse(), "wake-before-wait")
        assert finding["severity"] == "info"

    def test_quiet_where_two_cpus_may_disagree(self) -> None:
        pair = Pair().calm()
        token = pair.host.pv_life(at=LATER)
        pair.guest.life(
            at=LATER,
            token=token,
            tid=300,
            vcpu=1,
            without={"wake", "irq"},
            slept=False,
            waited=LATER + 600 * US,
        )
        pair.guest.hit(LATER + 528 * US, 0, 0, "task_wake", "kvm_async_pf_task_wake", token)
        assert not found(pair.until(END).analyse(), "wake-before-wait")

    def test_quiet_where_the_guest_lost_records(self) -> None:
        pair = GUEST_HISTORIES["wake-before-wait"]()
        pair.guest.tick(LATER + 530 * US, 1).lost(LATER + 560 * US, 1).tick(LATER + 560 * US + 1, 1)
        assert not found(pair.analyse(), "wake-before-wait")


class TestWokenOnlyByAll:
    def test_found_where_its_own_wakeup_had_come(self) -> None:
        (finding,) = found(GUEST_HISTORIES["woken-only-by-all"]().analyse(), "woken-only-by-all")
        assert finding["severity"] == "warning"

    def test_found_as_info_where_none_had_come(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, without=ANSWER, unseen=WOKEN, runs=LATER + 100 * MS)
        pair.guest.wake_all(LATER + 99 * MS, 0)
        pair.host.enable(at=LATER + 98 * MS)
        (finding,) = found(pair.until(END).analyse(), "woken-only-by-all")
        assert finding["severity"] == "info"

    def test_quiet_on_another_cpu(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, unseen={"wake"}, runs=LATER + 100 * MS)
        pair.guest.wake_all(LATER + 99 * MS, 1)
        assert not found(pair.until(END).analyse(), "woken-only-by-all")

    def test_quiet_where_its_own_wake_came(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, runs=LATER + 100 * MS)
        pair.guest.wake_all(LATER + 99 * MS, 0)
        assert not found(pair.until(END).analyse(), "woken-only-by-all")


class TestOpenWait:
    def test_found_at_the_end_of_the_record(self) -> None:
        (finding,) = found(GUEST_HISTORIES["open-wait"]().analyse(), "open-wait")
        assert finding["severity"] == "info"

    def test_found_as_warning_where_only_the_guest_was_recorded(self) -> None:
        pair = Pair().calm()
        pair.life(at=LATER, tid=300, unseen=WOKEN | RAN)
        analysis = pair.until(END).guest_alone()
        (finding,) = found(analysis, "open-wait")
        assert (finding["severity"], finding["confidence"]) == ("warning", "possible")
        assert analysis.verdict == "warnings"

    def test_quiet_where_every_wait_ended(self) -> None:
        assert not found(Pair().calm().until(END).guest_alone(), "open-wait")


class TestClockContradiction:
    def test_found_and_told_by_token(self) -> None:
        analysis = GUEST_HISTORIES["clock-contradiction"]().analyse()
        (finding,) = found(analysis, "clock-contradiction")
        assert "token 0x3d000" in finding["message"]
        assert analysis.guests[0].joined == 121

    def test_found_where_a_guest_is_of_another_host(self) -> None:
        pair, other = Pair().calm(), Pair().calm(start=START + 7 * MS)
        for n, token in enumerate(other.tokens):
            other.guest.lines = [
                (at + n % 7 * 11 * MS, cpu, text) if f"token={token}" in text else (at, cpu, text)
                for at, cpu, text in other.guest.lines
            ]
        pair.guest = other.guest
        analysis = pair.until(END).analyse()
        assert found(analysis, "clock-contradiction")
        assert analysis.unsafe
        assert analysis.guests[0].refused
        assert analysis.faults["outcome"].unique().to_list() == ["answered"]

    def test_quiet_where_all_agree(self) -> None:
        assert not found(Pair().calm().until(END).analyse(), "clock-contradiction")
