"""Findings in the words of a headline: so many of each rule, as a person counts them."""

from __future__ import annotations

import polars as pl

from apftrace.amounts import plural
from apftrace.model.rules.base import ERROR

_NOUNS: dict[str, tuple[str, str]] = {
    "in-flight": ("fault open for long", "faults open for long"),
    "missing-ack": ("missing ACK", "missing ACKs"),
    "lost-work": ("work item never started", "work items never started"),
    "spurious-ready": ("spurious ready", "spurious readies"),
    "duplicate-ready": ("duplicate ready", "duplicate readies"),
    "wrong-vector": ("ready on the wrong vector", "readies on the wrong vector"),
    "token-reuse": ("reused token", "reused tokens"),
    "token-zero": ("fault with token 0", "faults with token 0"),
    "sync-faults": ("vCPU that slept through faults", "vCPUs that slept through faults"),
    "repeated-fault-storm": ("storm of repeated faults", "storms of repeated faults"),
    "send-always": ("request for kernel-mode faults", "requests for kernel-mode faults"),
    "vcpu-spin": ("spinning vCPU", "spinning vCPUs"),
    "lost-in-guest": ("wakeup lost in the guest", "wakeups lost in the guest"),
    "missing-guest-handler": ("page-ready interrupt not handled", "page-ready interrupts not handled"),
    "woken-only-by-all": ("wait ended only by a wake-all", "waits ended only by a wake-all"),
    "wake-before-wait": ("wake before its wait", "wakes before their waits"),
    "events-lost": ("loss of records", "losses of records"),
    "unbalanced-accounting": ("sum that does not balance", "sums that do not balance"),
}
"""What findings of a rule are called, one and several, where its id is not the noun itself: ``late-wakeup``."""


def counted(findings: pl.DataFrame) -> str:
    """Return how many findings there are of each rule, the most frequent first: ``2 late wakeups, 1 missing ACK``."""
    sure = (pl.col("severity") == ERROR).any()
    counts = findings.group_by("rule").agg(pl.len().alias("count"), sure.alias("sure"))
    counts = counts.sort("count", "rule", descending=[True, False])
    return ", ".join(plural(number, *nouns(rule, sure=sure)) for rule, number, sure in counts.iter_rows())


def nouns(rule: str, *, sure: bool = True) -> tuple[str, str]:
    """Return what one finding of a rule is called, and what several are; a loss that is not sure is called possible."""
    word = rule.replace("-", " ")
    one, many = _NOUNS.get(rule, (word, f"{word}s"))
    doubt = "" if sure or not rule.startswith("lost-") else "possible "
    return doubt + one, doubt + many
