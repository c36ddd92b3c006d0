from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser

import altair as alt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apftrace_reports.figures import embed_json
from apftrace_reports.html import IN_FULL
from apftrace_reports.registry import by_name

from . import analyses
from .analyses import finding

REPORT = by_name("html")


class Page(HTMLParser):
    """What a browser would see: elements, their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._in: dict[str, str | None] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in {"script", "style"}:
            self._in = dict(attrs) | {"tag": tag}
            self.raw.append((self._in, ""))

    def handle_endtag(self, tag):
        if tag in {"script", "style"}:
            self._in = None

    def handle_data(self, data):
        if self._in is None:
            self.text += data
        else:
            self.raw[-1] = (self._in, self.raw[-1][1] + data)

    def attributes(self, name: str) -> list[str | None]:
        return [attrs[name] for _, attrs in self.elements if name in attrs]

    def specs(self) -> dict[str, dict]:
        return {attrs["data-chart"]: json.loads(text) for attrs, text in self.raw if "data-chart" in attrs}


def page(analysis) -> Page:
    return Page(REPORT.render(analysis).decode())


@pytest.fixture(scope="module")
def pages(built) -> dict[str, Page]:
    return {name: page(analysis) for name, analysis in built.items()}


def test_the_policy_admits_exactly_what_is_in_the_page(pages):
    for shown in pages.values():
        policy = next(
            a["content"] for _, a in shown.elements if a.get("http-equiv") == "Content-Security-Policy"
        )
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == "'none'"
        assert "unsafe" not in policy
        assert rules["base-uri"] == rules["form-action"] == "'none'"
        for tag, rule in (("script", "script-src"), ("style", "style-src")):
            code = [text for attrs, text in shown.raw if attrs["tag"] == tag and "data-chart" not in attrs]
            hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code]
            assert rules[rule].split() == ([f"'sha256-{one}'" for one in hashes] or ["'none'"])


def test_the_page_names_no_other_place(pages):
    for shown in pages.values():
        assert not shown.attributes("src")
        assert not shown.attributes("srcset")
        links = shown.attributes("href")
        assert all(link in {"data:,", "#not-run"} for link in links), links
        styles = "".join(text for attrs, text in shown.raw if attrs["tag"] == "style")
        assert not re.search(r"url\(|@import|https?:", styles)
        for spec in shown.specs().values():
            assert "url" not in json.dumps(spec.get("data"))


def test_no_attribute_runs_code_or_sets_style(pages):
    for shown in pages.values():
        names = {name for _, attrs in shown.elements for name in attrs}
        assert "style" not in names
        assert not [name for name in names if name.startswith("on")]


def test_hostile_strings_stay_text(pages):
    rich, hostile = pages["rich"], pages["hostile"]
    scripts = [Counter(tag for tag, _ in shown.elements)["script"] for shown in (rich, hostile)]
    assert scripts[0] == scripts[1]
    assert hostile.text.count("</script><script>alert(1)</script>|`]]>\\x1b[31m\\u202e\\x00&\"'<!--") > 20


@given(st.text(st.sampled_from("</script>!-- ]]>\"'&`{%}\x1b\u202e\x00é\n{{x}}"), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_whatever_a_trace_says_the_page_keeps_its_shape(text):
    shown = page(analyses.hostile(text))
    counts = Counter(tag for tag, _ in shown.elements)
    assert counts["script"] == 7
    assert counts["style"] == counts["h1"] == 1
    body = "".join(value for value in shown.text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_embedded_json_reads_back_and_cannot_end_its_element(value):
    text = embed_json(value)
    assert json.loads(text) == value
    assert "<" not in text


def test_the_verdict_is_the_heading():
    text = REPORT.render(analyses.rich()).decode()
    heading = text[text.index("<h1>") : text.index("</h1>")]
    assert "anomaly" in heading
    assert "One wakeup was lost on vCPU 0" in heading
    assert text.index("</h1>") < text.index("Why this verdict is not safe") < text.index('id="findings"')
    assert text.index('id="findings"') < text.index('id="phases"') < text.index('id="environment"')


def test_without_lives_there_is_no_chart_and_no_script(pages):
    shown = pages["empty"]
    assert not shown.specs()
    assert "script" not in {tag for tag, _ in shown.elements}
    assert "No fault was seen, so there is nothing to measure." in shown.text
    assert len(REPORT.render(analyses.empty())) < 40_000


def test_one_life_draws_only_its_timeline(pages):
    assert list(pages["single"].specs()) == ["timeline"]


def test_many_lives_draw_every_chart(pages):
    assert list(pages["rich"].specs()) == [
        "distribution-pv",
        "distribution-halt",
        "scatter",
        "timeline",
        "outstanding",
    ]


def test_every_chart_has_a_place_to_be_drawn(pages):
    for shown in pages.values():
        assert set(shown.specs()) <= set(shown.attributes("id"))


def test_charts_take_their_colours_from_the_page(pages):
    specs = json.dumps(pages["rich"].specs())
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", specs))
    style = next(text for attrs, text in pages["rich"].raw if attrs["tag"] == "style")
    light, dark = style.split("prefers-color-scheme: dark", 1)
    assert {"--ink-2", "--p2", "--lost"} <= used
    for name in used:
        assert f"{name}:" in light
        assert f"{name}:" in dark
    assert not re.search(r"#[0-9a-f]{6}", specs)


def test_findings_beyond_the_limit_are_counted_and_said_so():
    rows = [finding(number, "late-wakeup") for number in range(IN_FULL + 55)]
    shown = page(analyses.analysis([], rows))
    assert sum(attrs.get("class", "").startswith("finding ") for _, attrs in shown.elements) == IN_FULL
    assert "55 more of this rule are counted, not shown" in shown.text


def test_only_the_worst_finding_is_open(pages):
    opened = [attrs for tag, attrs in pages["rich"].elements if tag == "details" and "open" in attrs]
    assert [attrs.get("id") for attrs in opened] == ["lost-wakeup-1", None]
    assert opened[1]["class"] == "plain records"


def test_raw_records_fold_and_keep_their_lines():
    rows = [finding(number, "lost-wakeup") for number in range(3)]
    excerpts = {row["id"]: ("a  b <c>", "d\te", "... 9 more records ...") for row in rows[:2]}
    text = REPORT.render(analyses.analysis([], rows, excerpts=excerpts)).decode()
    found = re.findall(
        r'<details class="plain records"( open)?><summary>([^<]*)</summary>\s*<pre[^>]*>(.*?)</pre>',
        text,
        re.S,
    )
    assert found == [
        (" open", "Raw records, 3 lines", "a  b &lt;c&gt;\nd       e\n... 9 more records ...\n"),
        ("", "Raw records, 3 lines", "a  b &lt;c&gt;\nd       e\n... 9 more records ...\n"),
    ]


def test_every_spec_is_valid_vega_lite(pages):
    for shown in pages.values():
        for spec in shown.specs().values():
            (alt.LayerChart if "layer" in spec else alt.Chart).from_dict(spec, validate=True)


def test_charts_carry_the_data_that_they_draw_and_no_other(pages):
    for shown in pages.values():
        for spec in shown.specs().values():
            parts = (spec, *spec.get("layer", ()))
            assert {part["data"]["name"] for part in parts if "data" in part} == set(spec["datasets"])


def test_every_chart_of_time_has_the_strips_below_it(pages):
    specs = pages["lossy"].specs()
    for name in ("scatter", "timeline", "outstanding"):
        assert [one["name"] for one in specs[name]["datasets"]["strips"]] == [
            "CPU 1: 530 records lost",
            "CPU 3: at least 7 records lost in 2 gaps",
        ]
        domains = {
            json.dumps(part["encoding"]["x"]["scale"])
            for part in specs[name]["layer"]
            if "scale" in part["encoding"].get("x", {})
        }
        assert len(domains) == 1
    assert "strips" not in specs["distribution-pv"]["datasets"]


def test_the_page_says_how_to_read_the_strips_and_what_is_not_in_them(pages):
    text = " ".join(pages["lossy"].text.split())
    assert "A strip below a chart marks when records of that CPU were lost" in text
    assert "The trace does not say when the losses of CPU 6 (40 records lost) were." in text
    assert "A strip below" not in pages["single"].text


def test_a_chart_without_gaps_has_no_strips(pages):
    for spec in pages["single"].specs().values():
        assert not {"gaps", "strips"} & set(spec["datasets"])


def test_the_limit_is_drawn_only_where_it_is_reached():
    def crowd(number: int) -> dict:
        lives = [analyses.life(analyses.START + n, n << 12, phases=(10**6,) * 5) for n in range(number)]
        shown = page(analyses.analysis(lives, []))
        return shown.specs()["outstanding"]["datasets"] | {"text": shown.text}

    below, reached = crowd(63), crowd(64)
    assert "limit" not in below
    assert "The kernel allows 64 and refuses more." in below["text"]
    assert len(reached["limit"]) == 1
    assert reached["limit"][0]["y"] == min(row["y"] for row in reached["rows"])
    assert "Dashed: the 64 that the kernel allows." in reached["text"]


def test_the_environment_lists_the_first_gaps(pages):
    text = pages["lossy"].text
    assert "CPU 1: 530 records lost, 4213.000000000 to 4213.120000000 (120 ms)" in text
    assert "CPU 6: 40 records lost, the trace does not say when" in text


def test_lost_cpus_are_marked(pages):
    lost = [attrs["title"] for _, attrs in pages["rich"].elements if attrs.get("class") == "cpu lost"]
    assert lost == ["CPU 3: records lost", "CPU 5: records lost", "CPU 6: records lost"]


def test_fifty_thousand_lives_stay_below_three_megabytes(built):
    assert len(REPORT.render(built["many"])) < 3_000_000


def test_thinned_charts_say_so(pages):
    assert pages["many"].text.count("1,206 of 50,000 faults are drawn") == 2
    assert "faults are drawn" not in pages["rich"].text


def test_a_notebook_gets_the_page():
    assert analyses.empty()._repr_html_().startswith("<!DOCTYPE html>")


def test_the_glossary_leaves_it_to_the_finding_how_sure_a_loss_is():
    lost = analyses.finding(1, "lost-wakeup", confidence="likely")
    text = " ".join(page(analyses.analysis([], [lost])).text.split())
    glossary = text[text.index("How to read this") :]
    assert (
        "stuck: its lost-wakeup, lost-work, lost-interrupt or wrong-vector finding says how sure that is"
        in glossary
    )
    assert "proved stuck" not in glossary
