"""Tokens given out wrongly: reused while outstanding, or zero."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.correlate import Case
from apftrace.model.loss import overlaps_blind
from apftrace.model.rules.base import ERROR, LIKELY, PROVED, WARNING, Finding, Rule, about, hexed, rows


def _token_reuse(case: Case) -> Iterable[Finding]:
    lives = case.lives.with_columns(
        pl.col("life").shift(1).over("tid", "token").alias("before"),
        pl.col("not_present").shift(1).over("tid", "token").alias("before_np"),
        pl.col("ended").shift(1).over("tid", "token").alias("before_end"),
        pl.col("outcome").shift(1).over("tid", "token").alias("before_outcome"),
        pl.col("cleared").shift(1).over("tid", "token").alias("before_cleared"),
    )
    again = lives.filter(
        pl.col("before").is_not_null()
        & ~(pl.coalesce("before_end", "before_cleared") <= pl.col("not_present")).fill_null(value=False)
    )
    again = overlaps_blind(case.rec, again, "before_np", "not_present", "blind")
    for life in rows(again.filter(~pl.col("blind"))):
        finding = about(
            life,
            severity=ERROR,
            confidence=PROVED,
            message=f"not_present reuses token {hexed(life['token'])} while an earlier life of it is open",  # type: ignore[arg-type]
            ruled_out=["another VM: both come from one vCPU thread", "record loss: none since the earlier life began"],
        )
        finding["seqs"] = [life["before"], life["life"]]  # type: ignore[list-item]
        yield finding


def _token_zero(case: Case) -> Iterable[Finding]:
    for life in rows(case.lives.filter(pl.col("token") == 0)):
        yield about(
            life,
            severity=WARNING if life["outcome"] == "answered" else ERROR,
            confidence=PROVED if life["outcome"] == "answered" else LIKELY,
            cause="host without 6f3c1fc",
            message="not_present with token 0, which the guest's slot cannot tell from empty: the next ready "
            "may overwrite it",
        )


TOKEN_REUSE = Rule(
    id="token-reuse",
    title="Token reused while outstanding",
    means="Two waiters in the guest share one token: the first wake wakes the wrong one, and guests without "
    "95cc9e7cf03d free a stack node.",
    shown_by="kvm_async_pf_not_present with a token whose earlier life on the same vCPU thread is still open.",
    look_alikes="Another VM with equal tokens; a ready whose record was lost; a restored VM, whose ids begin anew.",
    needs=(tp.NOT_PRESENT, tp.READY),
    bugs=("95cc9e7cf03d: x86/kvm: Avoid freeing stack-allocated node in kvm_async_pf_queue_task",),
    find=_token_reuse,
)
TOKEN_ZERO = Rule(
    id="token-zero",
    title="Token 0",
    means="The page-ready word reads as empty, so the next ready overwrites it and a task hangs.",
    shown_by="kvm_async_pf_not_present with token 0x0: vCPU 0, id 0.",
    look_alikes="-",
    needs=(tp.NOT_PRESENT,),
    remedy="Host kernel with 6f3c1fc, KVM: x86/mmu: make apf token non-zero to fix bug.",
    bugs=("6f3c1fc: KVM: x86/mmu: make apf token non-zero to fix bug",),
    find=_token_zero,
)

RULES = (TOKEN_REUSE, TOKEN_ZERO)
