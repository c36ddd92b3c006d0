"""The sums that must balance: each identity holds on a sound history, and fails when one side loses a row."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import apftrace
from apftrace.model import accounting, delivery
from apftrace.model import tracepoints as tp
from apftrace.model.correlate import Case, correlate
from apftrace.model.recording import record
from tests.builders.story import ANSWER, Story
from tests.model.histories import refused_try, storm
from tests.model.support import LATER, MS, S, calm, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALL = ("try ", "ready ", "not_present ", "delivered ")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Return a case with every kind of row: both forms, two vCPUs, refused, repeated, open, stray, wake-all."""
    story = Story()
    story.enable(at=LATER - 2 * S)
    calm(story)
    calm(story, vcpu=1, lives=7, halt=True)
    storm(story, 5)
    refused_try(story, at=LATER + 20 * MS)
    story.event(LATER + 30 * MS, "kvm_async_pf_ready", story.tid(1), 1, token=0x99001, gva=0x9008)
    story.pv_life(at=LATER + 40 * MS, without=ANSWER)
    rec, _ = record(apftrace.read_trace(write(story, tmp_path / "trace.dat")).source)
    return correlate(rec)


def account(case: Case, **changed: pl.DataFrame) -> pl.DataFrame:
    """Return the sums of a case, of which some frames are changed."""
    frames: dict[str, Any] = {
        "threads": case.threads, "lives": case.lives, "tries": case.tries, "readies": case.readies,
        "delivered": case.delivered, "acks": delivery.acks(case.rec),
    }  # fmt: skip
    return accounting.account(case.rec, **(frames | changed))


def broken(table: pl.DataFrame, *, total: bool) -> list[str]:
    """Return the identities that fail in the total or in any vCPU's row."""
    chosen = table.filter(pl.col("tid").is_null() if total else pl.col("tid").is_not_null())
    return [text for row in chosen["broken"] for text in row]


def test_all_hold(case: Case) -> None:
    assert account(case)["balanced"].all()


CHANGES: dict[str, tuple[Callable[[Case], dict[str, pl.DataFrame]], str]] = {
    "a refused try is gone": (lambda c: {"tries": c.tries.filter(pl.col("became").is_null())}, "kvm_try"),
    "a life lost its try": (
        lambda c: {
            "lives": c.lives.with_columns(pl.when(pl.int_range(pl.len()) > 3).then("try").alias("try"))
        },
        "try ",
    ),
    "a repeated fault without a try": (
        lambda c: {"tries": c.tries.with_columns(pl.lit(value=False).alias("after_try"))},
        "try ",
    ),
    "a ready is gone": (lambda c: {"readies": c.readies.filter(pl.col("answer") != "first")}, "ready "),
    "a stray ready is gone": (
        lambda c: {"readies": c.readies.filter(~pl.col("answer").is_in(["spurious", "unissued"]))},
        "kvm_async_pf_ready ",
    ),
    "an answered life is gone": (lambda c: {"lives": c.lives.slice(1)}, "ready "),
    "an open life is gone": (
        lambda c: {"lives": c.lives.filter(pl.col("outcome") == "answered")},
        "kvm_async_pf_not_present ",
    ),
    "an outcome that nobody knows": (
        lambda c: {"lives": c.lives.with_columns(pl.lit("odd").alias("outcome"))},
        "not_present ",
    ),
    "deliveries are gone": (lambda c: {"delivered": c.delivered.slice(5)}, "delivered "),
    "ACKs are gone": (lambda c: {"acks": delivery.acks(c.rec).slice(5)}, "delivered "),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_fails_when(case: Case, change: str) -> None:
    make, identity = CHANGES[change]
    table = account(case, **make(case))
    assert any(text.startswith(identity) for text in broken(table, total=True)), broken(table, total=True)
    if identity in ALL:
        assert any(text.startswith(identity) for text in broken(table, total=False))
    assert not table["balanced"][-1]


@pytest.mark.parametrize("kind", [tp.TRY, tp.REPEATED, tp.NOT_PRESENT, tp.READY])
def test_the_total_is_held_against_the_file(case: Case, kind: int) -> None:
    name = tp.NAMES[kind]
    more = {key: n + (key.rsplit(":", maxsplit=1)[-1] == name) for key, n in case.rec.counts.items()}
    table = account(replace(case, rec=replace(case.rec, counts=more)))
    (text,) = broken(table, total=True)
    assert text.startswith(f"{name} ")
    assert not broken(table, total=False)
