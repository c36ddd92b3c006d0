"""The reports of a batch: true to its lines, escaped in every medium, asking the network for nothing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from apftrace.batch.baseline import compared
from apftrace.batch.overview import Batch, change_key, worst_lives, worth_a_page
from apftrace_reports.batch import html, junit, markdown
from apftrace_reports.batch.charts import MOST_RUNS, trend
from apftrace_reports.escape import visible

from .test_browser import FRAME, WIDE, browse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOSTILE = "<script>alert(1)</script>|`*[x](http://evil)\x1b[2J\u202e\"'&]]>"


def line(number: int, **changes: Any) -> dict[str, Any]:
    """Return the line of a run that was late once."""
    statistics = {"n": 40, "p50": 2_000_000 + number, "p95": 4_000_000, "p99": 9_000_000, "max": 30_000_000}
    life = {
        "token": f"{number + 1:#x}000", "vm": "vm1", "vcpu": 0, "kind": "pv", "outcome": "answered",
        "not_present": 5, "lasted_ns": 30_000_000 - number, "phases": {"p2": 20_000_000, "p3": 10_000_000},
    }  # fmt: skip
    made = {
        "path": f"in/{number:04d}.dat", "name": f"{number:04d}.dat", "sha256": f"{number:064x}", "size": 1000,
        "status": "analysed", "reason": None, "kernel": "6.12", "host": "lab1", "job": "fio", "copy_of": None,
        "host_trace": None, "report": None, "format": "trace.dat v7", "machine": "host", "clock": "mono",
        "clock_unit": "ns", "verdict": "warnings", "headline": "One wakeup was late.", "unsafe": [], "seconds": 3.5,
        "counts": {"events": 500, "lives": 40, "outcomes": {"answered": 40}, "findings": {"warning": 1},
                   "rules": {"late-wakeup": {"warning": 1}}, "late": {"p2": 1}},
        "loss": {"events": 0, "cpus": []}, "latency_ns": {"total": statistics, "p2": statistics}, "worst": [life],
        "not_run": [], "notes": [], "allowed": {},
    }  # fmt: skip
    return made | changes


def bad(number: int, **changes: Any) -> dict[str, Any]:
    nothing = {"counts": None, "loss": None, "latency_ns": {}, "worst": [], "verdict": None, "headline": None}
    return line(number, status="unreadable", reason="an empty file", kernel="unknown", **nothing) | changes


def lost(number: int) -> dict[str, Any]:
    made = line(number, verdict="anomaly", headline="A wakeup was lost.")
    made["counts"] = made["counts"] | {
        "findings": {"error": 1, "warning": 1},
        "rules": {"lost-wakeup": {"error": 1}, "late-wakeup": {"warning": 1}},
        "outcomes": {"answered": 39, "lost": 1},
    }
    return made


def some() -> Batch:
    return Batch(
        [*(line(n) for n in range(5)), lost(5), bad(6), line(7, verdict="clean"), bad(8, status="skipped")]
    )


def with_changes() -> Batch:
    before = [line(n) for n in range(12)]
    now = [line(n, sha256=f"{n + 99:064x}") for n in range(12)]
    for one in now:
        one["latency_ns"] = {
            **one["latency_ns"],
            "p2": {"n": 40, "p50": 3_000_000, "p95": 1, "p99": 1, "max": 1},
        }
    return Batch(now, compared(before, now, ("kernel",), 0.1))


def hostile() -> Batch:
    changes = {
        "path": HOSTILE, "name": HOSTILE, "kernel": HOSTILE, "host": HOSTILE, "job": HOSTILE, "headline": HOSTILE,
        "unsafe": [HOSTILE], "allowed": {"late-wakeup": HOSTILE},
    }  # fmt: skip
    before = [line(n, kernel=HOSTILE) for n in range(12)]
    now = [line(n, sha256=f"{n + 99:064x}", **changes) for n in range(12)]
    for one in now:
        one["latency_ns"] = {
            **one["latency_ns"],
            "p2": {"n": 40, "p50": 3_000_000, "p95": 1, "p99": 1, "max": 1},
        }
    batch = Batch(
        [*now, bad(50, path=HOSTILE, reason=HOSTILE)], compared(before, now, ("kernel",), 0.1), [HOSTILE]
    )
    (change,) = batch.regressions
    batch.allowed_changes[change_key(change)] = HOSTILE
    return batch


BATCHES: dict[str, Callable[[], Batch]] = {
    "some": some,
    "changes": with_changes,
    "hostile": hostile,
    "nothing": lambda: Batch([]),
    "only bad": lambda: Batch([bad(1)]),
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("report", [html, junit, markdown])
def test_the_same_batch_gives_the_same_bytes(name: str, report):
    assert report.render(BATCHES[name]()) == report.render(BATCHES[name]())


def without_scripts(page: str) -> str:
    return re.sub(r"<script>.*?</script>", "", page, flags=re.S)


@pytest.mark.parametrize("name", BATCHES)
def test_the_page_admits_only_itself(name: str):
    page = without_scripts(html.render(BATCHES[name]()).decode())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe" not in policy
    assert not re.findall(r'(?:src|href)="(?!data:,|#|reports/)[^"]*"', page)
    assert not re.findall(r'\sstyle="|\son\w+="', page)


def test_the_page_says_what_the_lines_say():
    page = html.render(some()).decode().partition("<footer>")[0]
    for words in (
        'class="word">anomaly<', "7 traces analysed, 280 async page faults; 1 lost; 1 input not analysed.",
        "in/0006.dat", "an empty file", "lost-wakeup", "A wakeup was lost.", "30 ms", "P2 20 ms, P3 10 ms",
    ):  # fmt: skip
        assert words in page
    runs = page.partition("Runs to look at")[2]
    assert runs.index("in/0005.dat") < runs.index("in/0000.dat")


@pytest.mark.parametrize(("report", "heading"), [(html, "<h2>"), (markdown, "### ")])
@pytest.mark.parametrize("name", ["some", "changes"])
def test_what_is_to_be_looked_at_stands_first(name: str, report, heading: str):
    text = without_scripts(report.render(BATCHES[name]()).decode())
    assert text.partition(heading)[2].startswith("Runs to look at")
    assert text.count("Runs to look at") == 1


def test_many_runs_to_look_at_do_not_push_the_rest_away():
    page = html.render(Batch([line(n) for n in range(30)])).decode()
    shown, _, folded = page.partition("<summary>10 more runs</summary>")
    assert "in/0019.dat" in shown.partition("Runs to look at")[2]
    assert "in/0020.dat" not in shown.partition("Runs to look at")[2]
    assert "in/0029.dat" in folded.partition("</details>")[0]


def test_a_page_of_a_run_is_linked():
    batch = Batch([line(1, report="reports/0000.html"), line(2)])
    page = html.render(batch).decode()
    assert '<a href="reports/0000.html">in/0001.dat</a>' in page
    assert ">in/0002.dat</a>" not in page


@pytest.mark.parametrize("report", [html, junit, markdown])
def test_nothing_that_a_name_holds_is_obeyed(report):
    text = report.render(hostile()).decode()
    assert "\x1b" not in text
    assert "\u202e" not in text
    if report is markdown:
        text = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)  # code is shown, not obeyed
        assert not re.search(r"(?<!\\)\]\(http", text)
        assert not re.search(r"(?<!\\)<script", text)
    else:
        assert "<script>alert" not in without_scripts(text)


def test_the_data_of_the_chart_cannot_end_its_element():
    page = html.render(hostile()).decode()
    (spec,) = re.findall(r'<script type="application/json" data-chart="trend">(.*?)</script>', page, re.S)
    assert {row["run"] for row in json.loads(spec)["datasets"]["rows"]} == {visible(HOSTILE)}


def test_junit_counts_what_it_holds():
    root = ET.fromstring(junit.render(some()).decode())
    cases = {case.get("name"): {child.tag for child in case} for case in root.iter("testcase")}
    assert cases["in/0005.dat"] == {"failure"}
    assert cases["in/0006.dat"] == {"error"}
    assert cases["in/0007.dat"] == set()
    assert "in/0008.dat" not in cases
    for suite in root:
        for kind in ("failure", "error", "skipped"):
            plural = kind if kind == "skipped" else f"{kind}s"
            assert int(suite.get(plural, "")) == len(suite.findall(f"testcase/{kind}"))
        assert int(suite.get("tests", "")) == len(suite.findall("testcase"))


def test_a_regression_is_told_with_its_test_everywhere():
    batch = with_changes()
    assert batch.is_failing
    page, summary = html.render(batch).decode(), markdown.render(batch).decode()
    for text in (page, summary):
        assert "slower" in text
        assert "2 ms" in text
        assert "3 ms" in text
        assert "+50.0 %" in text
        assert "Hodges" in text
    root = ET.fromstring(junit.render(batch).decode())
    (failure,) = root.findall("testsuite[@name='baseline']/testcase/failure")
    assert "12 runs before, 12 now" in failure.get("message", "")


def test_runs_that_were_left_out_of_a_comparison_are_told():
    before = [*(line(n) for n in range(14)), bad(20), bad(21)]
    now = [line(n, sha256=f"{n + 99:064x}") for n in range(12)]
    now.append(line(40, sha256=now[3]["sha256"], copy_of=now[3]["path"]))
    batch = Batch(now, compared(before, now, ("kernel",), 0.1))
    summary, page = markdown.render(batch).decode(), html.render(batch).decode()
    told = (
        "Left out: not analysed (2 before, 0 now); copies of other runs (0 before, 1 now); where it says so, "
    )
    for text in (page, summary.replace("\\", "")):
        assert told in text
    assert '<td class="n">12 of 14</td><td class="n">12</td>' in page
    assert "12 of 14 runs before, 12 now" in junit.render(batch).decode()
    whole = with_changes()
    for report in (html, markdown):
        assert "Left out" not in report.render(whole).decode()


def test_inputs_that_are_no_run_of_their_own_are_counted():
    guests = [line(n, status="joined", host_trace="in/0000.dat") for n in (1, 2)]
    batch = Batch([line(0), *guests, line(3, copy_of="in/0000.dat"), bad(4, status="skipped")])
    assert batch.besides == [
        (1, "copy of another run"),
        (2, "guests' traces, in their hosts' runs"),
        (1, "no trace"),
    ]
    page = html.render(batch).decode()
    assert "<b>2</b> guests&#39; traces, in their hosts&#39; runs</li>" in page
    told = "Besides: 1 copy of another run, 2 guests' traces, in their hosts' runs, 1 no trace.\n"
    assert told in markdown.render(batch).decode()
    assert "Besides" not in markdown.render(Batch([line(0)])).decode()


def test_a_run_that_the_chart_lacks_is_told():
    rows, note = trend(Batch([line(0), line(1, latency_ns={}), line(2, clock_unit="ticks")]))
    assert (len(rows), note) == (1, "2 runs without a timed fault are not drawn.")


def test_a_regression_that_is_allowed_fails_nothing():
    batch = with_changes()
    (change,) = batch.regressions
    allowed = Batch(batch.lines, batch.comparison, [], {change_key(change): "known"})
    assert not allowed.is_failing
    assert "allowed: known" in html.render(allowed).decode()
    assert "(allowed)" in markdown.render(allowed).decode()
    assert b"<failure" not in junit.render(allowed)


def test_what_gets_a_page_are_errors_first_then_the_longest():
    batch = Batch([*(line(n) for n in range(9)), lost(9)])
    assert worth_a_page(batch, 3) == ["in/0009.dat", "in/0000.dat", "in/0001.dat"]
    assert worth_a_page(batch, 0) == []


def test_a_copy_is_among_the_longest_only_once():
    batch = Batch([line(1), line(2, copy_of="in/0001.dat")])
    assert [one["path"] for one, _ in worst_lives(batch, 9)] == ["in/0001.dat"]


def test_many_runs_are_thinned_and_it_says_so():
    rows, note = trend(Batch([line(n) for n in range(2 * MOST_RUNS + 1)]))
    assert len(rows) == MOST_RUNS
    assert note == "2,000 of 4,001 runs are drawn."


def test_many_runs_make_no_heavy_page():
    page = html.render(Batch([line(n) for n in range(3000)]))
    assert len(page) < 2_000_000


def test_many_kernels_share_the_last_colour():
    rows, _ = trend(Batch([line(n, kernel=f"6.{n:02d}") for n in range(12)]))
    assert len({row["kernel"] for row in rows}) == 6
    assert rows[-1]["kernel"] == "others"


@pytest.mark.parametrize("name", ["some", "changes", "hostile"])
def test_a_browser_draws_the_page_and_refuses_nothing(name: str, tmp_path: Path):
    (tmp_path / "index.html").write_bytes(html.render(BATCHES[name]()))
    shown, console = browse(tmp_path / "index.html", tmp_path / "profile")
    assert console == []
    (drawn,) = re.findall(r'data-charts="(\d)/(\d)"', shown)
    assert drawn == ("1", "1")
    assert "<svg" in shown.partition('id="trend"')[2]


@pytest.mark.parametrize("name", ["some", "changes", "hostile"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_does_not_scroll_sideways(name: str, width: int, tmp_path: Path):
    (tmp_path / "page.html").write_bytes(html.render(BATCHES[name]()))
    (tmp_path / "frame.html").write_text(FRAME.format(width=width, look=WIDE), "utf-8")
    shown, _ = browse(tmp_path / "frame.html", tmp_path / "profile")
    assert re.findall("<title>(.*)</title>", shown) == ["fits"]
