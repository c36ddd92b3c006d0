"""Tokens given out wrongly: reused while outstanding, or zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.loss import overlaps_blind
from apftrace.model.rules.base import ERROR, LIKELY, PROVED, TWIN, WARNING, Finding, Rule, about, hexed, rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case


def _token_reuse(case: Case) -> Iterable[Finding]:
    if not (case.lives["use"] > 1).any():
        return
    # A later life of the page ends the earlier one only if its token was free by then.
    answered = pl.coalesce("ready", "implied_ts").alias("ended")
    given_again = pl.col("not_present").shift(-1).over("tid", "token").alias("given_again")
    # A broadcast wakes whoever slept on the token: of what was enabled, resumed or restored then, ids begin anew.
    cleared = pl.min_horizontal("cleared", "woken_all").alias("cleared")
    uses = case.lives.select("life", "tid", "token", "use", "not_present", answered, cleared, given_again)
    still_open = ~(pl.coalesce("ended", "cleared") <= pl.col("given_again")).fill_null(value=False)
    doubtful = uses.filter(pl.col("given_again").is_not_null() & still_open).select("tid", "token").unique()
    uses = uses.join(doubtful, on=["tid", "token"], how="semi").sort("tid", "token", "life")
    uses = uses.with_columns(
        pl.when(pl.col("use") > 1).then(pl.col(c).shift(1)).alias(f"before_{c}")
        for c in ("life", "not_present", "ended", "cleared")
    )
    over = pl.coalesce("before_ended", "before_cleared") <= pl.col("not_present")
    again = uses.filter((pl.col("use") > 1) & ~over.fill_null(value=False)).sort("life")
    again = overlaps_blind(case.rec, again, "before_not_present", "not_present", "blind")
    again = again.filter(~pl.col("blind")).select("life", "before_life", "before_not_present")
    for life in rows(again.join(case.lives, on="life", how="left", maintain_order="left")):
        twin = life["before_not_present"] == life["not_present"]
        finding = about(
            life,
            severity=ERROR,
            confidence=LIKELY if twin else PROVED,
            message=f"not_present reuses token {hexed(life['token'])} while an earlier life of it is open",
            ruled_out=[
                "another VM: both come from one vCPU thread",
                "record loss: none since the earlier life began",
            ],
            not_ruled_out=[TWIN] if twin else [],
        )
        finding["seqs"] = [life["before_life"], life["life"]]
        yield finding


def _token_zero(case: Case) -> Iterable[Finding]:
    for life in rows(case.lives.filter(pl.col("token") == 0)):
        yield about(
            life,
            severity=ERROR if life["outcome"] == "lost" else WARNING,
            confidence=LIKELY if life["outcome"] == "lost" else PROVED,
            cause="host without 6f3c1fc",
            message="not_present with token 0, which the guest's slot cannot tell from empty: the next ready "
            "may overwrite it",
        )


TOKEN_REUSE = Rule(
    id="token-reuse",
    severities=(ERROR,),
    title="Token reused while outstanding",
    nouns=("reused token", "reused tokens"),
    means="Two waiters in the guest share one token: the first wake wakes the wrong one, and guests without "
    "95cc9e7cf03d free a stack node.",
    shown_by="kvm_async_pf_not_present with a token whose earlier life on the same vCPU thread is still open.",
    look_alikes="Another VM with equal tokens; a ready whose record was lost; a restored VM, whose ids begin anew.",
    needs=(tp.NOT_PRESENT, tp.READY),
    remedy="Guest kernel with the fix below (6.19); how a host comes to reuse a token was never explained: report it.",
    bugs=("95cc9e7cf03d: x86/kvm: Avoid freeing stack-allocated node in kvm_async_pf_queue_task",),
    find=_token_reuse,
)
TOKEN_ZERO = Rule(
    id="token-zero",
    severities=(
        ERROR,
        WARNING,
    ),
    title="Token 0",
    nouns=("fault with token 0", "faults with token 0"),
    means="The page-ready word reads as empty, so the next ready overwrites it and a task hangs.",
    shown_by="kvm_async_pf_not_present with token 0x0: vCPU 0, id 0, as its first fault or after 2^20 more. Then look "
    "for two delivered readies of it without an ACK between.",
    look_alikes="-",
    needs=(tp.NOT_PRESENT,),
    remedy="Host kernel with 6f3c1fc, KVM: x86/mmu: make apf token non-zero to fix bug.",
    bugs=("6f3c1fc: KVM: x86/mmu: make apf token non-zero to fix bug",),
    find=_token_zero,
)

RULES = (TOKEN_REUSE, TOKEN_ZERO)
