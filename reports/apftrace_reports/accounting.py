"""The sums that must balance, written out as equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apftrace_reports.escape import visible
from apftrace_reports.units import ABSENT

if TYPE_CHECKING:
    import polars as pl

Term = tuple[str, int | None]


@dataclass(frozen=True)
class AccountingLine:
    """One equation: the sum of ``left`` against the sum of ``right``.

    Attributes:
        left: terms before the sign, name and number; null where the trace does not tell.
        right: terms after it.
        broken: the model found that it does not hold.
        apart: how far the sides may lie apart.
        note: what the equation leaves open, or nothing.
    """

    left: tuple[Term, ...]
    right: tuple[Term, ...]
    broken: bool
    apart: int = 0
    note: str = ""

    @property
    def sign(self) -> str:
        """``=``, ``~`` where the sides lie apart no farther than they may, ``!=``, or ``?`` where nobody can tell."""
        if self.broken:
            return "!="
        numbers = [number for _, number in (*self.left, *self.right)]
        if None in numbers:
            return "?"
        apart = abs(_sum(self.left) - _sum(self.right))
        # A sum that the model does not check, for want of a tracepoint, is not said to hold.
        return "=" if not apart else "~" if apart <= self.apart else "?"

    def equation(self) -> str:
        """Return ``try 567 = not_present 548 + repeated 19 + refused 0``."""
        text = f"{_text(self.left)} {self.sign} {_text(self.right)}"
        return f"{text} ({self.note})" if self.note else text


@dataclass(frozen=True)
class _Identity:
    # ``seldom`` are terms that a reader sees only where they count.
    left: tuple[str, ...]
    right: tuple[str, ...]
    seldom: frozenset[str] = frozenset()
    note: str = ""


_NAMES = {"headless": "begun before the trace", "cut": "cut off by its end"}
_IDENTITIES = (
    _Identity(
        ("try", "headless"), ("not_present", "repeated", "refused", "cut"), frozenset({"headless", "cut"})
    ),
    _Identity(("not_present",), ("answered", "cancelled", "in_flight", "lost", "undecided")),
    _Identity(
        ("delivered",), ("acks",), note="at most one per vCPU may wait for its ACK, or have had it before"
    ),
)


_ASIDES = ("ready", "wake_all", "left_truncated", "stray", "repaired")


def accounting_asides(accounting: pl.DataFrame) -> tuple[Term, ...]:
    """Return the counts of the total row that stand in no equation."""
    total = total_row(accounting)
    return () if total is None else _terms(total, _ASIDES)


def accounting_lines(accounting: pl.DataFrame) -> tuple[AccountingLine, ...]:
    """Return the equations of the total row; nothing when there is none."""
    total = total_row(accounting)
    if total is None:
        return ()
    vcpus = max(1, accounting.height - 1)
    return tuple(_line(total, identity, vcpus) for identity in _IDENTITIES)


def _line(total: dict[str, Any], identity: _Identity, vcpus: int) -> AccountingLine:
    left, right = (
        tuple((_NAMES.get(c, c), total[c]) for c in side if total[c] or c not in identity.seldom)
        for side in (identity.left, identity.right)
    )
    broken = any(text.startswith(f"{identity.left[0]} ") for text in total["broken"] or ())
    return AccountingLine(left, right, broken, vcpus if identity.note else 0, identity.note)


def broken_identities(accounting: pl.DataFrame) -> tuple[str, ...]:
    """Return the identities that the model found broken, the vCPU in front, the total's without."""
    return tuple(
        visible(f"{_vcpu_name(row)}{identity}")
        for row in accounting.iter_rows(named=True)
        for identity in row["broken"] or ()
    )


def total_row(accounting: pl.DataFrame) -> dict[str, Any] | None:
    """Return the row of all vCPUs together (tid null), or null."""
    return next((row for row in accounting.iter_rows(named=True) if row["tid"] is None), None)


def _terms(row: dict[str, Any], names: tuple[str, ...]) -> tuple[Term, ...]:
    return tuple((name, row[name]) for name in names)


def _text(terms: tuple[Term, ...]) -> str:
    return " + ".join(f"{name} {ABSENT if number is None else number}" for name, number in terms)


def _sum(terms: tuple[Term, ...]) -> int:
    return sum(number or 0 for _, number in terms)


def _vcpu_name(row: dict[str, Any]) -> str:
    if row["tid"] is None:
        return ""
    return f"vCPU {row['vcpu']} (tid {row['tid']}): " if row["vcpu"] is not None else f"tid {row['tid']}: "
