"""One record kept twice, or one record missing: recorders do that, and no wakeup is lost because of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .edit import Edit, Expectation, expect, mutator

if TYPE_CHECKING:
    from .reader import Rec

NEVER = ("lost-wakeup", "lost-interrupt", "missing-ack", "wrong-vector", "duplicate-ready", "spurious-ready")
"""Rules that a doubled or a missing record of another kind must not trigger."""


def _twice(edit: Edit, record: Rec | None, later_ns: int = 0) -> None:
    assert record
    edit.add(record.but(ts=record.ts + later_ns))


@mutator
def not_present_twice(edit: Edit) -> list[Expectation]:
    # Where a CPU is still blind the ready between the two may be what is missing.
    life = edit.pick(x for x in edit.whole() if edit.seen_from(x))
    _twice(edit, life.not_present, 1000)
    return [expect("token-reuse", life, "found")]


@mutator
def ready_twice(edit: Edit) -> list[Expectation]:
    life = edit.pick(x for x in edit.whole() if edit.seen_from(x))
    _twice(edit, life.ready, 1000)
    return [expect("duplicate-ready", life, "found")]


@mutator
def completed_twice(edit: Edit) -> list[Expectation]:
    life = edit.pick(edit.whole())
    _twice(edit, life.completed, 1000)
    return [expect(NEVER, None, "quiet")]


@mutator
def accept_twice(edit: Edit) -> list[Expectation]:
    life = edit.pick(edit.whole(pv=True))
    _twice(edit, life.accepted, 1000)
    return [expect(NEVER, None, "quiet")]


@mutator
def ack_twice(edit: Edit) -> list[Expectation]:
    life = edit.pick(edit.whole(pv=True))
    _twice(edit, next(r for r in life.ack if r.name == "kvm_msr"))
    return [expect(NEVER, None, "quiet")]


@mutator
def accept_dropped(edit: Edit) -> list[Expectation]:
    life = edit.pick(edit.whole(pv=True))
    edit.drop([life.accepted])
    return [expect(NEVER, None, "quiet")]


@mutator
def any_other_record_dropped(edit: Edit) -> list[Expectation]:
    """Any record but one that a rule rests on alone."""
    alone = {"kvm_async_pf_ready", "kvm_async_pf_not_present", "kvm_try_async_get_page"}
    edit.drop([edit.pick(r for r in edit.capture.records if r.name not in alone)])
    return [expect(NEVER, None, "quiet")]


@mutator
def any_other_record_twice(edit: Edit) -> list[Expectation]:
    alone = {"kvm_async_pf_ready", "kvm_async_pf_not_present", "kvm_try_async_get_page"}
    _twice(edit, edit.pick(r for r in edit.capture.records if r.name not in alone), 100)
    return [expect(NEVER, None, "quiet")]
