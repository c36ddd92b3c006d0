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
        note: what the equation leaves open, or nothing.
    """

    left: tuple[Term, ...]
    right: tuple[Term, ...]
    note: str = ""

    @property
    def sign(self) -> str:
        """``=`` or ``!=`` by the numbers; ``?`` when one is unknown."""
        numbers = [number for _, number in (*self.left, *self.right)]
        if None in numbers:
            return "?"
        return "=" if _sum(self.left) == _sum(self.right) else "!="

    def equation(self) -> str:
        """Return ``try 567 = not_present 548 + repeated 19 + refused 0``."""
        text = f"{_text(self.left)} {self.sign} {_text(self.right)}"
        return f"{text} ({self.note})" if self.note else text


# Column names of table ``accounting``. The third identity of the model (delivered = acks + at most one
# per vCPU) is an inequality: the vCPUs of the last line may each hold one delivery that is not ACKed yet.
_IDENTITIES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("try",), ("not_present", "repeated", "refused")),
    (("not_present",), ("answered", "cancelled", "in_flight", "lost", "undecided")),
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
    lines = [AccountingLine(_terms(total, left), _terms(total, right)) for left, right in _IDENTITIES]
    return (*lines, _deliveries(total))


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


def _deliveries(total: dict[str, Any]) -> AccountingLine:
    delivered, acks = total["delivered"], total["acks"]
    known = delivered is not None and acks is not None
    # An ACK at the head of a trace, or after a gap, answers a delivery that is not in the record.
    unseen = max(0, acks - delivered) if known else 0
    left: tuple[Term, ...] = (("delivered", delivered),)
    if unseen:
        left += (("delivered out of sight", unseen),)
    waiting = delivered + unseen - acks if known else None
    return AccountingLine(
        left, (("acks", acks), ("not yet acked", waiting)), "at most one per vCPU may wait for its ACK"
    )


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
