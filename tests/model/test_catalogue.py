"""The catalogue as a whole: every rule is shown, kept quiet, and says when it could not look."""

from __future__ import annotations

import ast
import random
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apftrace.analysis import NotRun
from apftrace.model.rules import CATALOGUE
from apftrace.model.tracepoints import NAMES
from tests.builders.story import Story
from tests.model.histories import HISTORIES
from tests.model.support import START, analyse, calm, found, known_formats, rules

if TYPE_CHECKING:
    from apftrace import Analysis
    from apftrace.model.rules.base import Rule

SEVERITIES = {
    "error": {
        "lost-wakeup", "lost-interrupt", "missing-ack", "lost-work", "spurious-ready", "duplicate-ready",
        "wrong-vector", "token-reuse", "page-malfunction", "fatal-fault",
    },
    "warning": {
        "late-wakeup", "token-zero", "repeated-fault-storm", "refault-loop", "send-always", "vcpu-spin",
        "events-lost", "unbalanced-accounting",
    },
    "info": {
        "in-flight", "left-truncated", "wake-all", "setup-refused", "sync-faults", "apf-disabled", "legacy-protocol",
        "vcpu-reset", "vm-ended", "vm-stopped",
    },
}  # fmt: skip
ALONGSIDE = {
    "send-always": {"wake-all"},
    "vcpu-spin": {"late-wakeup"},
    "vcpu-reset": {"wake-all"},
    "vm-stopped": {"in-flight"},
}
"""What else a history shows rightly."""

rule_parameter = pytest.mark.parametrize("rule", CATALOGUE, ids=lambda rule: rule.id)
HOST_RULES = tuple(rule for rule in CATALOGUE if not rule.guest)
"""The others have their histories, of host and guest, in ``tests.model.guest.histories``."""

host_rule_parameter = pytest.mark.parametrize("rule", HOST_RULES, ids=lambda rule: rule.id)


@cache
def classes_of_tests() -> dict[str, set[str]]:
    """Return the test names of each class below ``rules``, by class name."""
    names: dict[str, set[str]] = {}
    for path in sorted(Path(__file__).with_name("rules").glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                tests = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                names.setdefault(node.name, set()).update(tests)
    return names


@rule_parameter
def test_every_rule_has_tests(rule: Rule) -> None:
    name = "Test" + "".join(word.capitalize() for word in rule.id.split("-"))
    tests = classes_of_tests().get(name, set())
    assert any(test.startswith("test_found") for test in tests), f"no {name}.test_found_*"
    assert any(test.startswith("test_quiet") for test in tests), f"no {name}.test_quiet_*"


@host_rule_parameter
def test_its_history_shows_it_and_nothing_else(rule: Rule) -> None:
    analysis = analyse(HISTORIES[rule.id]())
    assert rules(analysis) == {rule.id} | ALONGSIDE.get(rule.id, set())
    assert not analysis.not_run or rule.id not in {gap.rule for gap in analysis.not_run}
    severities = {row["severity"] for row in found(analysis, rule.id)}
    assert all(rule.id in SEVERITIES[severity] for severity in severities)


@rule_parameter
def test_a_calm_host_is_quiet(rule: Rule) -> None:
    story = Story()
    calm(story)
    calm(story, vcpu=1, halt=True)
    assert not found(analyse(story), rule.id)


@pytest.mark.parametrize(
    ("rule", "kind"),
    [pytest.param(rule, kind, id=f"{rule.id}-{NAMES[kind]}") for rule in HOST_RULES for kind in rule.needs],
)
def test_without_a_tracepoint_that_it_needs_it_says_so(rule: Rule, kind: int) -> None:
    # What would tell the same is off too.
    alike = [NAMES[k] for k in rule.stand_ins.get(kind, ())]
    analysis = analyse(HISTORIES[rule.id](), off=[NAMES[kind], *alike])
    assert NotRun(rule.id, (NAMES[kind],)) in analysis.not_run
    assert not found(analysis, rule.id)


@pytest.mark.parametrize("number", range(4))
@host_rule_parameter
def test_no_rule_says_more_when_records_are_lost(rule: Rule, number: int) -> None:
    """A stretch of records of a CPU is missing, mostly of the last ones, and the next record says so."""
    whole = _loudest(analyse(HISTORIES[rule.id]()))
    story, rng = HISTORIES[rule.id](), random.Random(f"{rule.id}#{number}")
    mine = sorted((r for r in story.records if r.cpu == 0), key=lambda r: r.ts)
    length = min(rng.choice([1, 1, 2, 5, 40]), len(mine) // 2)
    start = rng.randrange(max(0, len(mine) - 120), len(mine) - length)
    gone = {id(r) for r in mine[start : start + length]}
    story.records = [r for r in story.records if id(r) not in gone]
    for after in mine[start + length : start + length + 1]:
        story.lost(at=after.ts - 1, cpu=0, count=length)
    for name, (severity, confidence) in _loudest(analyse(story)).items():
        before = whole.get(name, (RANK["info"], RANK["proved"]))
        assert severity <= before[0], f"{name} is more severe"
        assert confidence <= before[1], f"{name} is surer"


RANK = {"info": 0, "warning": 1, "error": 2, "possible": 0, "likely": 1, "proved": 2}


def _loudest(analysis: Analysis) -> dict[str, tuple[int, int]]:
    """Return the worst severity and the best confidence of each rule that says anything of the guest."""
    out: dict[str, tuple[int, int]] = {}
    for row in analysis.findings.to_dicts():
        if row["rule"] != "events-lost":
            most = out.get(row["rule"], (0, 0))
            out[row["rule"]] = max(most[0], RANK[row["severity"]]), max(most[1], RANK[row["confidence"]])
    return out


def test_findings_are_numbered_per_rule_and_most_severe_first() -> None:
    story = HISTORIES["duplicate-ready"]()
    story.enable(at=START - 1_000_000)
    story.pv_life(at=2 * START, completed=2 * START + 500_000_000)
    story.event(3 * START, "kvm_async_pf_ready", story.tid(0), 0, token=0x99000, gva=0x9008)
    ids = analyse(story).findings["id"].to_list()
    assert ids == ["spurious-ready-1", "duplicate-ready-1", "late-wakeup-1", "wake-all-1"]


def test_every_rule_explains_itself() -> None:
    for rule in CATALOGUE:
        for text in (rule.title, rule.means, rule.shown_by, rule.look_alikes):
            assert text, rule.id
    assert len({rule.id for rule in CATALOGUE}) == len(CATALOGUE)


def test_the_histories_are_of_known_rules_and_tracepoints() -> None:
    assert set(HISTORIES) == {rule.id for rule in HOST_RULES}
    recorded = {form.name for form in known_formats()}
    assert {NAMES[kind] for rule in CATALOGUE for kind in rule.needs} <= recorded
