"""events-lost and unbalanced-accounting: what the record itself lacks."""

from __future__ import annotations

from tests.builders import options
from tests.builders.story import ANSWER, Story
from tests.model import histories
from tests.model.support import LATER, MS, START, analyse, calm, found, lines, rules, total


class TestEventsLost:
    def test_found_with_count_and_place(self) -> None:
        analysis = analyse(histories.events_lost())
        (finding,) = found(analysis, "events-lost")
        assert (finding["severity"], finding["confidence"]) == ("warning", "proved")
        assert finding["message"] == "7 records of CPU 0 lost here"
        assert START + 38 * MS < finding["ts"] < START + 40 * MS
        assert finding["end"] == LATER + MS - 6_000
        assert analysis.unsafe == ("7 records lost on CPU 0",)
        assert (analysis.inputs[0].lost_events, analysis.inputs[0].lost_cpus) == (7, (0,))
        assert analysis.verdict == "undecided"

    def test_found_without_a_count(self) -> None:
        story = Story()
        calm(story)
        calm(story, start=LATER)
        analysis = analyse(story.lost(at=LATER - MS, cpu=0))
        (finding,) = found(analysis, "events-lost")
        assert finding["message"] == "records of CPU 0 lost here"
        assert analysis.inputs[0].lost_events is None

    def test_found_at_the_head(self) -> None:
        story = Story().lost(at=START - MS, cpu=0, count=5)
        calm(story)
        (finding,) = found(analyse(story), "events-lost")
        assert finding["message"] == "5 records of CPU 0 lost before its first record"

    def test_found_in_the_buffer_statistics_alone(self) -> None:
        story = Story()
        calm(story)
        statistics = [options.cpu_stat(0, overrun=3), options.cpu_stat(1)]
        analysis = analyse(story, options=statistics)
        assert [f["message"].split(" lost")[0] for f in found(analysis, "events-lost")] == [
            "3 records of CPU 0"
        ]
        assert analysis.unsafe

    def test_found_once_per_gap(self) -> None:
        story = Story()
        for n in range(3):
            calm(story, lives=2, start=START + n * 10 * MS)
            story.lost(at=START + n * 10 * MS + 8 * MS, cpu=0, count=1)
        calm(story, lives=1, start=LATER)
        assert len(found(analyse(story), "events-lost")) == 3

    def test_quiet_when_nothing_was_lost(self) -> None:
        story = Story()
        calm(story)
        analysis = analyse(story, options=[options.cpu_stat(0, entries=12), options.cpu_stat(1)])
        assert not rules(analysis)
        assert analysis.unsafe == ()
        assert analysis.inputs[0].lost_events == 0

    def test_undecided_lives_are_named(self) -> None:
        story = Story()
        calm(story)
        story.pv_life(at=LATER, without=ANSWER)
        story.lost(at=LATER + 5 * MS, cpu=0, count=1)
        story.progress(start=LATER + 6 * MS, end=LATER + 8 * MS)
        findings = found(analyse(story), "events-lost")
        named = [f for f in findings if f["token"] is not None]
        assert [(f["token"], f["severity"], f["confidence"]) for f in named] == [
            (0x15000, "warning", "possible")
        ]
        assert named[0]["not_ruled_out"] == ["a ready whose record was lost"]


class TestUnbalancedAccounting:
    def test_found(self) -> None:
        analysis = analyse(histories.unbalanced_accounting())
        (finding,) = found(analysis, "unbalanced-accounting")
        assert (finding["severity"], finding["confidence"], finding["vcpu"]) == ("warning", "proved", 0)
        assert finding["message"].endswith("delivered 20 != acks 25 within 1")
        assert lines(analysis.accounting, "tid balanced") == ["101 false", "- false"]

    def test_found_as_information_where_records_were_lost(self) -> None:
        story = histories.unbalanced_accounting().lost(at=LATER - MS, cpu=0, count=9)
        (finding,) = found(analyse(story), "unbalanced-accounting")
        assert (finding["severity"], finding["confidence"]) == ("info", "possible")

    def test_not_proved_where_a_cpu_has_no_record(self) -> None:
        (finding,) = found(analyse(histories.unbalanced_accounting(), cpus=3), "unbalanced-accounting")
        assert (finding["severity"], finding["confidence"]) == ("warning", "possible")
        assert finding["cause"] == "a CPU was not recorded all the time"

    def test_quiet_for_one_ack_of_a_delivery_before_the_trace(self) -> None:
        story = Story()
        story.pv_life(at=START, without=ANSWER - {"ack_exit", "ack"})
        calm(story, start=START + MS)
        assert not found(analyse(story), "unbalanced-accounting")

    def test_quiet_where_acks_are_not_traced(self) -> None:
        story = Story()
        calm(story)
        analysis = analyse(story, off=["kvm_msr"])
        assert not found(analysis, "unbalanced-accounting")
        assert total(analysis)["balanced"]

    def test_quiet_where_tries_are_not_traced(self) -> None:
        story = Story()
        calm(story)
        assert total(analyse(story, off=["kvm_try_async_get_page"]))["balanced"]

    def test_quiet_when_the_trace_begins_inside_a_fault(self) -> None:
        story = Story()
        story.pv_life(at=START, without={"exit", "page_fault", "try"})
        calm(story, start=START + MS)
        assert total(analyse(story))["balanced"]

    def test_the_total_is_the_sum_of_the_vcpus(self) -> None:
        story = Story()
        calm(story)
        calm(story, vcpu=1, lives=7, halt=True)
        calm(story, vm=1, lives=5)
        story.pv_life(at=LATER, without=ANSWER)
        analysis = analyse(story)
        rows = analysis.accounting.to_dicts()
        assert [row["tid"] for row in rows] == [101, 102, 201, None]
        for name in ("try", "not_present", "ready", "answered", "in_flight", "delivered", "acks"):
            assert sum(row[name] for row in rows[:-1]) == rows[-1][name], name
        assert (rows[-1]["not_present"], rows[-1]["in_flight"], rows[-1]["acks"]) == (33, 1, 25)
