"""The rule catalogue: one small function per rule, in the order in which findings of equal severity show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apftrace.model.rules import (
    delivery,
    ends,
    faulting,
    guest,
    guest_waits,
    guest_wakes,
    late,
    lost,
    pages,
    readies,
    record,
    tokens,
)

if TYPE_CHECKING:
    from apftrace.model.rules.base import Rule

CATALOGUE: tuple[Rule, ...] = (
    *lost.RULES,
    *delivery.RULES,
    *readies.RULES,
    *tokens.RULES,
    *late.RULES,
    *faulting.RULES,
    *pages.RULES,
    *guest.RULES,
    *ends.RULES,
    *guest_waits.RULES,
    *guest_wakes.RULES,
    *record.RULES,
)
"""Every rule; ids are unique and stable."""
