"""The headline counts findings as a person would say it."""

from __future__ import annotations

import polars as pl
import pytest

from apftrace.model.counted import counted, nouns
from apftrace.model.rules import CATALOGUE
from apftrace.model.rules.base import ERROR, INFO, WARNING

IN_HEADLINES = [rule.id for rule in CATALOGUE if set(rule.severities) != {INFO}]


def findings(*rows: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema={"rule": pl.String, "severity": pl.String}, orient="row")


def test_the_most_frequent_rule_comes_first_in_its_number():
    rows = [("missing-ack", WARNING), *[("late-wakeup", WARNING)] * 2, ("duplicate-ready", ERROR)]
    assert counted(findings(*rows)) == "2 late wakeups, 1 duplicate ready, 1 missing ACK"
    assert counted(findings(("late-wakeup", WARNING))) == "1 late wakeup"
    assert counted(findings(*[("duplicate-ready", ERROR)] * 3)) == "3 duplicate readies"


def test_a_loss_that_is_a_warning_is_not_called_one():
    assert counted(findings(("lost-wakeup", WARNING))) == "1 possible lost wakeup"
    assert counted(findings(*[("lost-in-guest", WARNING)] * 2)) == "2 possible wakeups lost in the guest"
    assert counted(findings(*[("lost-wakeup", ERROR)] * 2)) == "2 lost wakeups"


@pytest.mark.parametrize("rule", IN_HEADLINES)
def test_every_rule_has_a_noun_for_one_and_another_for_several(rule):
    one, many = nouns(rule)
    assert one != many
    assert rule not in (one, many)


def test_only_rules_that_a_headline_may_count_have_words_of_their_own():
    assert {rule.id for rule in CATALOGUE if rule.nouns} <= set(IN_HEADLINES)
