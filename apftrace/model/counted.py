"""Findings in the words of a headline: so many of each rule, as a person counts them."""

from __future__ import annotations

import polars as pl

from apftrace.amounts import plural
from apftrace.model.rules import CATALOGUE
from apftrace.model.rules.base import ERROR

_BY_ID = {rule.id: rule for rule in CATALOGUE}


def counted(findings: pl.DataFrame) -> str:
    """Return how many findings there are of each rule, the most frequent first: ``2 late wakeups, 1 missing ACK``."""
    sure = (pl.col("severity") == ERROR).any()
    counts = findings.group_by("rule").agg(pl.len().alias("count"), sure.alias("sure"))
    counts = counts.sort("count", "rule", descending=[True, False])
    return ", ".join(plural(number, *nouns(rule, sure=sure)) for rule, number, sure in counts.iter_rows())


def nouns(rule: str, *, sure: bool = True) -> tuple[str, str]:
    """Return what one finding of a rule is called, and what several are; a loss that is not sure is called possible."""
    word = rule.replace("-", " ")
    one, many = _BY_ID[rule].nouns or (word, f"{word}s")
    doubt = "" if sure or not rule.startswith("lost-") else "possible "
    return doubt + one, doubt + many
