"""Readies that should not be: spurious, duplicate, broadcast, on the wrong vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.delivery import FIRST_EXTERNAL, told_threads
from apftrace.model.loss import overlaps_blind
from apftrace.model.rules.base import (
    ERROR,
    INFO,
    LIKELY,
    POSSIBLE,
    PROVED,
    TWIN,
    WARNING,
    Finding,
    Row,
    Rule,
    finding,
    hexed,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case


_MEANT = {
    "retagged": "a life of the same page waits under another token",
    "repaged": "the life of this token waits for another page: a record may be damaged",
}
"""Readies whose life is known although they do not name it right."""


def _of_ready(ready: Row, **stated: Any) -> Finding:
    return finding(
        tid=ready["tid"],
        token=ready["token"],
        gva=ready["gva"],
        ts=ready["ready"],
        end=ready["ready"],
        seqs=[ready["seq"]],
        **stated,
    )


def _spurious_ready(case: Case) -> Iterable[Finding]:
    wrong = case.readies.filter(pl.col("answer").is_in(["spurious", "unissued", *_MEANT]))
    for ready in rows(wrong):
        token = hexed(ready["token"])
        proved = ready["answer"] == "unissued"
        yield _of_ready(
            ready,
            severity=ERROR if proved else WARNING,
            confidence=PROVED if proved else LIKELY,
            cause=_MEANT.get(ready["answer"]),
            message=f"ready of token {token}, "
            + (
                "for another page than its not_present"
                if ready["answer"] == "repaged"
                else "for which this vCPU never traced a not_present"
            ),
            ruled_out=[
                "begun before the trace: its id is newer than the vCPU's first not_present",
                "record loss: none on this vCPU's CPUs before it",
            ],
            not_ruled_out=[] if proved else ["a not_present that was filtered out while recording"],
        )


def _duplicate_ready(case: Case) -> Iterable[Finding]:
    for ready in rows(case.readies.filter((pl.col("answer") == "again") & ~pl.col("blind"))):
        twin = ready["first_ready"] == ready["ready"]
        twice = _of_ready(
            ready,
            severity=ERROR,
            confidence=LIKELY if twin else PROVED,
            message=f"second ready of token {hexed(ready['token'])} without a new not_present",
            ruled_out=[
                "token wrap: no not_present of the token between",
                "record loss between the two readies: none",
            ],
            not_ruled_out=[TWIN] if twin else [],
        )
        twice["seqs"] = [ready["life"], ready["first_seq"], ready["seq"]]
        yield twice


def _wake_all(case: Case) -> Iterable[Finding]:
    for ready in rows(case.readies.filter("broadcast")):
        yield _of_ready(
            ready,
            severity=INFO,
            confidence=PROVED,
            cause="the guest enabled async page faults on this vCPU",
            message="broadcast wakeup (token 0xffffffff): the guest wakes all its waiters of this vCPU",
        )


def _wrong_vector(case: Case) -> Iterable[Finding]:
    yield from _enabled_before_vector(case)
    if not case.delivered.height:
        return
    right = case.vectors.known(pl.col("tid"), pl.col("vec"))
    wrong = case.delivered.filter(pl.col("vec").is_not_null() & pl.col("implied").is_null() & ~right)
    if not wrong.height:
        return
    never_acked = set(case.unacked.filter(pl.col("verdict") == "wrong-vector")["seq"].to_list())
    for row in rows(_with_vector_doubts(case, wrong)):
        vec = int(row["vec"])
        sure = vec < FIRST_EXTERNAL
        # A thread that is told on the right vector as well has no vector of its own.
        mixed = row["told"] and not row["rewritten"]
        stuck = row["seq"] in never_acked
        if (row["acked"] is not None and not (sure or mixed)) or (row["parted"] and not sure):
            # The guest's handler ran: the vector is the guest's own, too seldom here to be learned. Or the accept
            # that came right after the ready is among the lost records, and this one is of anything.
            continue
        due = "/".join(str(v) for v in sorted(case.vectors.due(row["tid"])))
        certain = sure and not row["parted"]
        yield {
            "severity": ERROR if sure or mixed or stuck else WARNING,
            "confidence": PROVED if certain else LIKELY if sure or mixed or stuck else POSSIBLE,
            "tid": row["tid"],
            "token": row["token"],
            "ts": row["start"],
            "end": row["accepted"],
            "cause": "MSR_KVM_ASYNC_PF_INT was never set" if vec == 0 else None,
            "message": f"ready of token {hexed(row['token'])} raised vector {vec} instead of {due}",
            "seqs": [row["seq"], row["acc_seq"]],
            "ruled_out": ["another interrupt: nothing else on this host uses that vector"],
            "not_ruled_out": _not_ruled_out_of_vector(row, sure=sure),
        }


def _with_vector_doubts(case: Case, wrong: pl.DataFrame) -> pl.DataFrame:
    """Add what may explain a strange vector: ``parted``, ``told`` and ``rewritten``.

    ``parted``: records were lost between the ready and the accept. ``told``: the thread is told on a right vector
    as well; ``rewritten``: but the guest may have chosen the other one for a time, by an INT write that is lost, or
    lies before the trace.
    """
    right = case.delivered.filter(case.vectors.known(pl.col("tid"), pl.col("vec")))
    found = _next_to(wrong, right.select("seq", "tid", pl.col("accepted").alias("told_before")), "backward")
    found = _next_to(found, right.select("seq", "tid", pl.col("accepted").alias("told_after")), "forward")
    chosen = case.rec.kind(tp.MSR).filter((pl.col("a") == 1) & (pl.col("b") == tp.MSR_INT))
    found = _next_to(
        found, chosen.select("seq", "tid", pl.col("ts").alias("chosen")), "forward"
    ).with_columns(
        pl.col("tid").is_in(told_threads(case.delivered, case.vectors).implode()).alias("told"),
        pl.coalesce("told_before", "start").alias("since"),
        pl.coalesce("told_after", "accepted").alias("until"),
        (pl.col("start") + 1).alias("after"),
        (pl.col("accepted") - 1).alias("before"),
    )
    found = overlaps_blind(case.rec, found, "after", "before", "parted")
    found = overlaps_blind(case.rec, found, "since", "start", "blind_since")
    found = overlaps_blind(case.rec, found, "accepted", "until", "blind_until")
    kept_since = pl.col("told_before").is_not_null() & ~pl.col("blind_since")
    kept_until = (
        pl.col("told_after").is_not_null()
        & ~pl.col("blind_until")
        & ~(pl.col("chosen") <= pl.col("told_after")).fill_null(value=False)
    )
    return found.with_columns((~kept_since & ~kept_until).alias("rewritten"))


def _next_to(
    frame: pl.DataFrame, events: pl.DataFrame, strategy: Literal["backward", "forward"]
) -> pl.DataFrame:
    """Add to each row the columns of the event of its thread that comes right before or after it."""
    near = frame.select("seq", "tid").sort("seq")
    near = near.join_asof(
        events.sort("seq"), on="seq", by="tid", strategy=strategy, check_sortedness=False
    ).drop("tid")
    return frame.join(near, on="seq", how="left", maintain_order="left")


def _not_ruled_out_of_vector(row: Row, *, sure: bool) -> list[str]:
    if sure:
        return ["the accept of another ready, lost with the records between"] if row["parted"] else []
    if row["told"] and row["rewritten"]:
        return ["a guest that had another vector meanwhile: the INT write is lost, or lies before the trace"]
    return ["a guest that chose another vector before the trace began"]


def _enabled_before_vector(case: Case) -> Iterable[Finding]:
    """Find an EN write that delivers by interrupt, followed by the first INT write of that vCPU.

    Where an EN write follows the INT sooner than the INT follows the EN, that is a guest that begins anew: the INT
    for the first EN was written before the trace, or is lost.
    """
    writes = case.rec.kind(tp.MSR).filter((pl.col("a") == 1) & pl.col("b").is_in([tp.MSR_EN, tp.MSR_INT]))
    writes = writes.with_columns(
        pl.col("b").shift(-1).over("tid").alias("next"),
        pl.col("seq").shift(-1).over("tid").alias("next_seq"),
        pl.col("ts").shift(-1).over("tid").alias("next_ts"),
        pl.col("ts").shift(-2).over("tid").alias("after_next_ts"),
        (pl.col("b").shift(-2).over("tid") == tp.MSR_EN).alias("enabled_again"),
        ((pl.col("b") == tp.MSR_INT).cum_sum().over("tid") > 0).alias("has_vector"),
    )
    by_interrupt = tp.EN_ENABLED | tp.EN_DELIVERY_AS_INT
    anew = pl.col("enabled_again") & (
        pl.col("after_next_ts") - pl.col("next_ts") < pl.col("next_ts") - pl.col("ts")
    )
    unpaired = writes.filter(
        (pl.col("b") == tp.MSR_EN)
        & (pl.col("c") & by_interrupt == by_interrupt)
        & (pl.col("next") == tp.MSR_INT)
        & ~pl.col("has_vector")
        & ~anew.fill_null(value=False)
    ).with_columns(pl.lit(case.rec.first_ns).alias("first"))
    for row in rows(overlaps_blind(case.rec, unpaired, "first", "next_ts", "blind")):
        yield finding(
            severity=WARNING,
            confidence=POSSIBLE if row["blind"] else LIKELY,
            tid=row["tid"],
            ts=row["ts"],
            end=row["ts"],
            cause="EN was written before INT",
            message="async page faults were enabled before a vector was set: a ready in between raises vector 0",
            seqs=[row["seq"], row["next_seq"]],
            not_ruled_out=[
                "an INT write before the trace began" + ", or among the lost records" * bool(row["blind"])
            ],
        )


SPURIOUS_READY = Rule(
    id="spurious-ready",
    severities=(
        ERROR,
        WARNING,
    ),
    title="Ready for a fault that never was",
    nouns=("spurious ready", "spurious readies"),
    means="The guest finds no waiter and leaves a dummy node that no one frees.",
    shown_by="kvm_async_pf_ready without not_present. Proved when its id is newer than that of every not_present "
    "before it and no record was lost.",
    look_alikes="A fault begun before the trace (left-truncated), a lost not_present record, a broadcast.",
    needs=(tp.NOT_PRESENT, tp.READY),
    remedy="Compare with a second capture; check the VMM's restore path: tokens of before a snapshot mean nothing "
    "after it.",
    find=_spurious_ready,
)
DUPLICATE_READY = Rule(
    id="duplicate-ready",
    severities=(ERROR,),
    title="Two readies for one fault",
    nouns=("duplicate ready", "duplicate readies"),
    means="The second wake finds no waiter; a later fault with this token returns at once.",
    shown_by="Two kvm_async_pf_ready of one token and page with no not_present between them.",
    look_alikes="Token wrap after 2^20 faults; a restored VM, whose tokens begin anew; a lost not_present record.",
    needs=(tp.NOT_PRESENT, tp.READY),
    remedy="Guest kernel with the fix below. Probe kvm_arch_async_page_present to see who hands the token over twice.",
    bugs=("95cc9e7cf03d: a duplicate token made the guest free a stack node",),
    find=_duplicate_ready,
)
WAKE_ALL = Rule(
    id="wake-all",
    severities=(INFO,),
    title="Broadcast wakeup",
    means="All waiters of that vCPU run and fault again: harmless, and due at boot, CPU online, resume, restore.",
    shown_by="kvm_async_pf_ready with token 0xffffffff, right after EN was written.",
    look_alikes="-",
    needs=(tp.READY,),
    helps=(tp.MSR,),
    find=_wake_all,
)
WRONG_VECTOR = Rule(
    id="wrong-vector",
    severities=(ERROR, WARNING),
    title="Page-ready on the wrong vector",
    nouns=("ready on the wrong vector", "readies on the wrong vector"),
    means="The guest's handler never runs: the task hangs and all later readies of the vCPU pile up.",
    shown_by="The kvm_apic_accept_irq right after a delivered ready names another vector than the guest's; vector 0 "
    "when MSR_KVM_ASYNC_PF_INT was never set. A warning when EN is written before INT.",
    look_alikes="A guest with its own vector (learned from the INT write, or from all its deliveries), or one whose "
    "INT write was lost; another interrupt that follows a halt-form ready, or records lost right after the ready; a "
    "guest that began before the trace, and begins anew in it.",
    needs=(tp.READY, tp.ACCEPT),
    helps=(tp.INJ_EXCEPTION, tp.MSR),
    remedy="The VMM must restore MSR_KVM_ASYNC_PF_INT before MSR_KVM_ASYNC_PF_EN.",
    bugs=(
        "firecracker 889b06807: ASYNC_PF_INT was not saved in snapshots (issue 3020)",
        "QEMU, review of 2020: EN was restored before INT (failed to set MSR 0x4b564d02)",
    ),
    find=_wrong_vector,
)

RULES = (SPURIOUS_READY, DUPLICATE_READY, WAKE_ALL, WRONG_VECTOR)
