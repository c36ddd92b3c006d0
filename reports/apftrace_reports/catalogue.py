"""What the model's rule catalogue says of a rule, for people who meet its id for the first time."""

from __future__ import annotations

from dataclasses import dataclass

from apftrace.model.rules import CATALOGUE


@dataclass(frozen=True)
class RuleWords:
    """A rule in words; empty where the catalogue has none."""

    title: str = ""
    means: str = ""
    remedy: str = ""
    bugs: tuple[str, ...] = ()


_WORDS = {rule.id: RuleWords(rule.title, rule.means, rule.remedy, rule.bugs) for rule in CATALOGUE}


def rule_words(rule: str) -> RuleWords:
    """Return the words of a rule."""
    return _WORDS.get(rule, RuleWords())


def quiet_rules(heard: set[str]) -> tuple[str, ...]:
    """Return the rules of the catalogue that are not in ``heard``: they looked and found nothing."""
    return tuple(rule for rule in _WORDS if rule not in heard)
