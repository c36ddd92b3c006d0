"""The documentation says what the code does: pages are made from it, snippets run, verdicts are compared."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click
import pytest

import apftrace
from apftrace import docs, schema
from apftrace.cli import cli
from apftrace.grades import CONFIDENCES, SEVERITIES
from apftrace.model import judge
from apftrace.model import tracepoints as tp
from apftrace.model.guest import hooks
from apftrace.model.guest.clock import METHODS
from apftrace.model.rules import CATALOGUE

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SAMPLES = ROOT / "sample-traces"
PAGES = sorted([*DOCS.glob("*.md"), *SAMPLES.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("*.md")])
TO_MAKE = "run: python -m apftrace.docs"


def blocks(page: Path, kind: str = "") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


@pytest.mark.parametrize("name", docs.PAGES)
def test_made_pages_are_those_of_the_code(name):
    assert (DOCS / name).read_text("utf-8") == docs.PAGES[name](), TO_MAKE


@pytest.mark.parametrize("command", cli.commands.values(), ids=lambda c: c.name)
def test_every_verb_has_help_and_an_example(command: click.Command):
    assert (command.help or "").splitlines()[0].endswith(".")
    assert f"Example:\n      apftrace {command.name} " in (command.help or "")
    wordless = [
        p.name for p in command.params if isinstance(p, click.Option) and not (p.help or "").endswith(".")
    ]
    assert wordless == []


@pytest.mark.parametrize("table", schema.TABLES, ids=lambda t: t.name)
def test_every_column_has_its_sentence(table: schema.Table):
    assert table.doc.endswith(".")
    assert [c.name for c in table.columns if not re.search(r"\w.*\.$", c.doc)] == []
    assert [c.name for c in table.columns if c.unit not in ("", "ns", "1/s")] == []


@pytest.mark.parametrize("rule", CATALOGUE, ids=lambda r: r.id)
def test_every_rule_has_its_sentences(rule):
    assert [text for text in (rule.means, rule.shown_by) if not text.endswith(".")] == []
    assert rule.title
    assert rule.look_alikes
    assert rule.severities
    assert f"## {rule.id}\n" in (DOCS / "rules.md").read_text("utf-8")


def test_rule_ids_are_unique():
    assert len({rule.id for rule in CATALOGUE}) == len(CATALOGUE)


SAMPLE_FILES = sorted(SAMPLES.glob("*.dat"))


@pytest.mark.parametrize("sample", SAMPLE_FILES, ids=lambda p: p.name)
def test_the_verdict_of_a_sample_is_what_its_page_says(sample: Path):
    page = (SAMPLES / "README.md").read_text("utf-8")
    _, section = page.split(f"## {sample.name}\n")
    (told,) = re.findall(r"^```verdict\n(.*?)^```$", section.partition("\n## ")[0], re.M | re.S)
    assert told == docs.verdict(sample), TO_MAKE


def test_the_samples_are_those_on_the_page():
    told = re.findall(r"^## (\S+\.dat)$", (SAMPLES / "README.md").read_text("utf-8"), re.M)
    assert sorted(told) == [sample.name for sample in SAMPLE_FILES]
    assert sum(sample.stat().st_size for sample in SAMPLE_FILES) < 7_000_000


def test_python_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    shutil.copy(SAMPLES / "host-v7-zstd.dat", tmp_path / "trace.dat")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    for snippet in blocks(DOCS / "python.md", "python"):
        exec(compile(snippet, "docs/python.md", "exec"), names)  # the page is ours
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert (tmp_path / "public.md").read_text("utf-8").count("trace-1")
    assert "report.html: " in capsys.readouterr().out.splitlines()[-1]


def test_the_readme_shows_what_comes_out():
    (shown,) = blocks(ROOT / "README.md", "text")
    lines = apftrace.analyze(SAMPLES / "irqoff-600-controlled.dat").text().splitlines()
    at, left_out = 0, False
    for line in shown.splitlines():
        if line == "...":
            left_out = True
            continue
        found = lines.index(line, at)
        assert left_out or found == at, f"lines left out before {line!r}"
        at, left_out = found + 1, False
    assert left_out or at == len(lines)


def test_everybody_is_told_to_record_in_the_same_way():
    (readme,) = (b for b in blocks(ROOT / "README.md", "sh") if "trace-cmd record" in b)
    short, *_ = (b for b in blocks(DOCS / "recording.md") if "trace-cmd record" in b)
    shown = (cli.help or "").partition("Example:")[2].partition("apftrace analyze")[0]
    assert readme.split() == short.split() == shown.replace("\\", "").split()
    made = (DOCS / "cli.md").read_text("utf-8").replace("\\", "")
    assert " ".join(readme.split()) in " ".join(made.split())


def events(command: str) -> set[str]:
    return set(re.findall(r"-e (\w+:\w+)", command))


def test_the_full_recording_names_every_tracepoint():
    _, full, smallest, *_ = (b for b in blocks(DOCS / "recording.md") if "trace-cmd record" in b)
    assert events(full) == {point.pick.events[0] for point in tp.TRACEPOINTS}
    safe = {tp.TRACEPOINTS[k].pick.events[0] for k in (*judge._CORE, *judge._PROOF)}
    assert events(smallest) == safe


def test_recording_a_guest_names_functions_that_are_known():
    probes = re.findall(r"'([pr]):apf/\w+ (\w+)", (DOCS / "recording.md").read_text("utf-8"))
    assert {hooks.FUNCTIONS[function] for kind, function in probes if kind == "p"} == {
        "wait",
        "wake",
        "irq",
        "wake_all",
    }
    assert {hooks.RETURNS[hooks.FUNCTIONS[function]] for kind, function in probes if kind == "r"} == {
        "wait_return"
    }
    (traced,) = (b for b in blocks(DOCS / "recording.md") if "-p function" in b)
    assert {hooks.FUNCTIONS[f] for f in re.findall(r"-l (\w+)", traced)} == {
        "wait",
        "wake",
        "irq",
        "wake_all",
    }


def cells(page: Path, heading: str) -> list[str]:
    section = page.read_text("utf-8").split(f"| {heading} |", 1)[1].partition("\n\n")[0]
    return re.findall(r"^\| `?([\w+]+)`? \|", section, re.M)


def test_reading_a_report_knows_every_word():
    page = DOCS / "reading-a-report.md"
    words = page.read_text("utf-8")
    assert cells(page, "outcome") == list(schema.OUTCOMES)
    assert [p.lower().replace("+p", "") for p in cells(page, "phase")] == [
        "p1",
        "p2",
        "p12",
        "p3",
        "p4",
        "p5",
        "p6",
        "p7",
    ]
    assert list(schema.PHASES) == ["p1", "p2", "p12", "p3", "p4", "p5", "p6", "p7"]
    assert cells(page, "method") == list(METHODS)
    stated = set(re.findall(r'return "(\w+)", f?"', Path(judge.__file__).read_text("utf-8")))
    assert stated == set(cells(page, "verdict"))
    assert [w for w in (*CONFIDENCES, *SEVERITIES) if f"`{w}`" not in words] == []


def test_status_promises_nothing_that_is_built_and_hides_nothing_that_is_not():
    built, not_yet = (DOCS / "status.md").read_text("utf-8").split("## Not yet")
    words = set(re.findall(r"`([\w-]+)`", not_yet))
    assert not words & (set(cli.commands) | {rule.id for rule in CATALOGUE})
    assert "`--redact`" in built


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
