"""What the record itself lacks: lost events, undecided lives, sums that do not balance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.rules.base import INFO, POSSIBLE, PROVED, WARNING, Finding, Row, Rule, about, hexed, rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apftrace.model.correlate import Case


def _events_lost(case: Case) -> Iterable[Finding]:
    for loss in case.rec.losses:
        many = "records" if loss.count is None else f"{loss.count} records"
        where = f"CPU {loss.cpu}" + (f" of instance {loss.instance}" if loss.instance else "")
        head = loss.after_ns is None
        unplaced = loss.before_ns is None and head
        when = (
            "at a time that the trace does not tell"
            if unplaced
            else "before its first record"
            if head
            else "here"
        )
        yield {
            "severity": WARNING,
            "confidence": PROVED,
            "ts": loss.after_ns if loss.after_ns is not None else loss.before_ns,
            "end": loss.before_ns,
            "message": f"{many} of {where} lost {when}",
            "seqs": [],
        }
    for life in rows(case.lives.filter((pl.col("outcome") == "undecided") & pl.col("lost_rule").is_null())):
        cause, why = _why_undecided(life)
        yield about(
            life,
            severity=WARNING,
            confidence=POSSIBLE,
            cause=cause,
            message=f"token {hexed(life['token'])} is undecided: it has no ready, {why}",
            not_ruled_out=[
                "a ready whose record was lost",
                *(["a lost wakeup: KVM dropped it with its queue"] if life["forgotten"] else []),
            ],
        )
    for ready in rows(case.readies.filter(pl.col("answer") == "undecided")):
        yield {
            "severity": INFO,
            "confidence": POSSIBLE,
            "tid": ready["tid"],
            "token": ready["token"],
            "gva": ready["gva"],
            "ts": ready["ready"],
            "end": ready["ready"],
            "cause": "records lost before it",
            "message": f"ready of token {hexed(ready['token'])} without not_present, after a loss",
            "seqs": [ready["seq"]],
            "not_ruled_out": ["a not_present whose record was lost"],
        }


def _why_undecided(life: Row) -> tuple[str, str]:
    if life["tainted"]:
        return (
            "records may be missing while it was open",
            "but its vCPU may have been where records were lost or no CPU was recorded",
        )
    if life["forgotten"]:
        swept = f", which drops its queue on {life['swept_by']}, on hosts without ab4e41eb9fab" * bool(
            life["swept_by"]
        )
        return (
            f"over for KVM without a ready{swept}",
            "but its page faulted again, so that it was over for KVM; nothing shows that the guest was told",
        )
    return (
        "no ready in the whole trace",
        "and neither has any other fault: the tracepoint was off, or none was answered",
    )


def _unbalanced(case: Case) -> Iterable[Finding]:
    lossy = bool(case.rec.losses)
    partial = lossy or bool(case.rec.uncovered or case.rec.silences)
    of_vcpus = {
        text for broken in case.accounting.filter(pl.col("tid").is_not_null())["broken"] for text in broken
    }
    for row in rows(case.accounting.filter(~pl.col("balanced"))):
        whole = row["tid"] is None
        # A vCPU's own sum tells more than the total that it spoils.
        for identity in row["broken"] if not (whole and of_vcpus) else []:
            yield {
                "severity": INFO if lossy else WARNING,
                "confidence": POSSIBLE if partial else PROVED,
                "tid": row["tid"],
                "ts": case.rec.first_ns,
                "end": case.rec.last_ns,
                "cause": "records were lost"
                if lossy
                else "a CPU was not recorded all the time"
                if partial
                else None,
                "message": f"sums of {'all vCPUs' if whole else 'this vCPU'} do not balance: {identity}",
                "seqs": [],
                "not_ruled_out": ["a record that the trace does not hold"],
            }


EVENTS_LOST = Rule(
    id="events-lost",
    severities=(
        WARNING,
        INFO,
    ),
    title="Records lost",
    nouns=("loss of records", "losses of records"),
    means="Nothing for the guest: the record has holes, or lacks what must have been; what falls there is open.",
    shown_by="Missed-event flags of the sub-buffers, overrun and dropped counts of the buffer statistics; a CPU "
    "that is left by who never came to it, a vCPU that enters or exits twice in a row; a fault that was over for KVM "
    "without a ready.",
    look_alikes="-",
    needs=(),
    remedy="A bigger ring buffer (trace-cmd record -b), fewer events, a quieter host.",
    find=_events_lost,
)
UNBALANCED = Rule(
    id="unbalanced-accounting",
    severities=(
        WARNING,
        INFO,
    ),
    title="Sums do not balance",
    nouns=("sum that does not balance", "sums that do not balance"),
    means="Some event is missing or one too many; no verdict rests on it alone.",
    shown_by="Per vCPU and in total: try = not_present + repeated + refused; not_present = readies that answer one "
    "(traced or implied) + cancelled + in flight + undecided + lost; readies = answered + left-truncated + stray - "
    "repaired; delivered = ACKs, give or take one a vCPU. In total also: as many of each as the file holds.",
    look_alikes="Lost records; a record that begins or ends inside a fault, which is allowed for.",
    needs=(tp.NOT_PRESENT, tp.READY),
    helps=(tp.TRY, tp.REPEATED, tp.ACCEPT, tp.MSR),
    remedy="Look for filters and for records dropped unseen; without either it is a bug of apftrace: report it.",
    find=_unbalanced,
)

RULES = (EVENTS_LOST, UNBALANCED)
