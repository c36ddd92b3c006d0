"""From ready to ACK: which vector KVM accepted, when the guest got it, when the guest's ACK came.

A ready that is delivered fills the guest's token word. Until the guest ACKs it, KVM hands nothing more
to that vCPU (R11), so a delivery is also the span during which the slot was busy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.frames import attach, is_first, look_up
from apftrace.model.readings import READINGS
from apftrace.model.skew import acks_across_cpus

if TYPE_CHECKING:
    from apftrace.model.recording import Recording

COMPLETED_LATE_NS = 20_000_000
"""How long after the ready that it caused completed may be traced; 9 ms were seen under load."""

FIRST_EXTERNAL = 32
"""Vectors below are exceptions: no interrupt may use them, and vector 0 means that INT was never set."""


def reading(kind: int, prefix: str) -> list[pl.Expr]:
    """Return ``seq`` and the reading of an anchor kind, renamed with ``prefix`` to stand beside an instant."""
    return [pl.col(c).alias(f"{prefix}_{c}") for c in ("seq", *READINGS[kind]) if c != "exit_ts"]


def accepts(rec: Recording) -> pl.DataFrame:
    """Return the accepted vectors on vCPU threads: seq, ts, tid, vec, of, after_ready and its reading.

    ``after_ready`` marks the accept that is its thread's very next event after a ready (R9), ``of``.
    """
    return rec.kind(tp.ACCEPT).select(
        "seq",
        "ts",
        "cpu",
        "tid",
        pl.col("a").alias("vec"),
        pl.when(pl.col("c") >= 0).then("c").alias("of"),
        (pl.col("c") >= 0).alias("after_ready"),
        *reading(tp.ACCEPT, "acc"),
    )


def acks(rec: Recording) -> pl.DataFrame:
    """Return the writes of MSR_KVM_ASYNC_PF_ACK: seq, ts, tid, cpu, acked and the reading.

    kvm_msr is traced after the handler, which may already have delivered the next ready (R13): the ACK's
    instant is the kvm_exit before it. ``acked`` is null where kvm_exit was off, or the clock is coarse.
    """
    # Where several events share a stamp only their order tells which ACK is whose.
    timed = rec.has(tp.EXIT) and rec.measures_time
    exit_ts = pl.col("exit_ts") if timed else pl.lit(None, pl.Int64)
    rows = (
        rec.kind(tp.MSR)
        .filter((pl.col("a") == 1) & (pl.col("b") == tp.MSR_ACK))
        .select(
            "seq",
            "ts",
            "cpu",
            "tid",
            pl.when(exit_ts >= rec.first_ns).then(exit_ts).alias("acked"),
            *reading(tp.MSR, "ack"),
        )
    )
    instant = pl.coalesce("acked", "ts")
    in_order = rows.select(instant.alias("at").sort())
    if not in_order.select((pl.col("at") == pl.col("at").shift(1)).any()).item():
        return rows
    # One exit carries one write: a second row of it, before any entry, is the same record kept twice.
    return rows.filter(pl.struct("tid", "ack_entries", instant).is_first_distinct())


@dataclass(frozen=True)
class Vectors:
    """Which vectors mean page-ready.

    Attributes:
        common: for every vCPU: 243, and what guests wrote to MSR_KVM_ASYNC_PF_INT.
        own: by thread: the vector that its guest chose before the trace began.
    """

    common: frozenset[int]
    own: dict[int, int]

    @property
    def all(self) -> frozenset[int]:
        """Every vector that means page-ready on some vCPU."""
        return self.common | frozenset(self.own.values())

    def due(self, tid: int) -> frozenset[int]:
        """Return the vectors that mean page-ready on a vCPU's thread."""
        return frozenset({self.own[tid]}) if tid in self.own else self.common

    def known(self, tid: pl.Expr, vec: pl.Expr) -> pl.Expr:
        """Say per row whether ``vec`` means page-ready on ``tid``."""
        hit = vec.is_in(sorted(self.common))
        for vector in sorted(set(self.own.values())):
            tids = [t for t, v in self.own.items() if v == vector]
            hit = hit | (vec == vector) & tid.is_in(tids)
        return hit


def page_ready_vectors(rec: Recording, took: pl.DataFrame) -> Vectors:
    """Return the vectors that mean page-ready here.

    If none of the common ones ever follows a ready on a thread, the vector that does so most of the time,
    and is accepted at no other time, is the guest's own choice, made before the trace began.
    """
    after = took.filter("after_ready").select("tid", "vec")
    usual = after.filter(pl.col("vec").is_in(sorted(rec.vectors)))["tid"].unique()
    after = after.filter(~pl.col("tid").is_in(usual.implode()))
    common = (
        after.filter(~pl.col("vec").is_in(sorted(rec.seen_vectors)))
        .group_by("tid", "vec")
        .agg(pl.len().alias("n"))
        .join(after.group_by("tid").agg(pl.len().alias("of")), on="tid")
        .filter((pl.col("vec") >= FIRST_EXTERNAL) & (pl.col("n") >= 3) & (2 * pl.col("n") >= pl.col("of")))
        .sort("n", "tid", "vec")
    )
    return Vectors(rec.vectors, dict(common.select("tid", "vec").iter_rows()))


def told_threads(delivered: pl.DataFrame, vectors: Vectors) -> pl.Series:
    """Return the threads that were told on a page-ready vector: these have no other of their own."""
    return delivered.filter(vectors.known(pl.col("tid"), pl.col("vec")))["tid"].unique()


def deliveries(rec: Recording, paired: pl.DataFrame, lives: pl.DataFrame, vectors: Vectors) -> pl.DataFrame:
    """Return one row per ready that filled the slot, traced or implied, in time order per thread.

    Columns: seq, cpu, tid, start (ns), token (null when implied), life, broadcast, implied (null, ``accept``),
    doubted, vec, accepted, acc_seq and the reading at accept.
    """
    took = accepts(rec)
    known = vectors.known(pl.col("tid"), pl.col("vec"))
    traced = _slot_filled(rec, paired, lives, took, known)
    # A halt-form ready raises no vector (R10): an accept right after one may belong to a ready that was not
    # traced. ``doubted`` keeps the life that the order of rows names, in case no other can be meant.
    halts = pl.col("halt").fill_null(value=False)
    traced = traced.select(
        "seq",
        "cpu",
        "tid",
        pl.when(halts & pl.col("accepted").is_not_null()).then("accepted").otherwise("ready").alias("start"),
        "token",
        pl.when(~halts).then("life").alias("life"),
        "broadcast",
        pl.when(halts).then(pl.lit("accept")).alias("implied"),
        pl.when(halts).then("life").alias("doubted"),
        "vec",
        "accepted",
        pl.col("^acc_.*$"),
    )
    implied = _implied(took.filter(~pl.col("after_ready") & known), lives["tid"].unique())
    # Sorting what is in order already would copy all of it.
    return pl.concat([traced, implied.select(traced.columns)]).sort("seq") if implied.height else traced


def _slot_filled(
    rec: Recording, paired: pl.DataFrame, lives: pl.DataFrame, took: pl.DataFrame, known: pl.Expr
) -> pl.DataFrame:
    """Return the readies that filled the slot, with vec, accepted, acc_seq, the reading, ``halt`` and ``told``."""
    after = took.filter("after_ready").select(
        pl.col("of").alias("seq"), pl.col("ts").alias("accepted"), "vec", pl.col("^acc_.*$")
    )
    told = pl.col("pf_injected").is_not_null()
    traced = attach(paired, after, "seq")
    traced = look_up(traced, lives, "life", told=told, halt=pl.col("kind_hint") == "halt")
    due = pl.col("broadcast") | pl.col("told").fill_null(value=False)
    if not rec.has(tp.ACCEPT):
        return traced.filter(due)
    # After a halt-form ready the next event may be any interrupt's accept; a strange vector is the
    # page-ready one only where a delivery was due and nothing else ever uses that vector.
    strange = due & ~pl.col("vec").is_in(list(rec.seen_vectors))
    # No interrupt may use the vectors of exceptions: where nobody tells that a delivery was due, they do.
    strange |= (due | pl.lit(not rec.has(tp.INJ_EXCEPTION))) & (pl.col("vec") < FIRST_EXTERNAL)
    right = (known | strange).fill_null(value=False)
    # A guest that was told gets the vector too (R9): without the accept, that record is what is missing.
    takes = took.filter(known)["tid"].unique()
    expected = due & ~pl.col("broadcast") & pl.col("tid").is_in(takes.implode())
    filled = traced.with_columns(right.alias("right")).filter(pl.col("right") | expected)
    if not filled["right"].all():
        taken_back = pl.col("accepted", "vec", "^acc_.*$")
        filled = filled.with_columns(pl.when("right").then(taken_back))
    return filled.drop("right")


def _implied(took: pl.DataFrame, vcpu_tids: pl.Series) -> pl.DataFrame:
    """Return the deliveries of which only the accept was traced."""
    return took.filter(pl.col("tid").is_in(vcpu_tids.implode())).with_columns(
        pl.col("ts").alias("start"),
        pl.col("ts").alias("accepted"),
        pl.lit(None, pl.Int64).alias("token"),
        pl.lit(None, pl.Int64).alias("life"),
        pl.lit(value=False).alias("broadcast"),
        pl.lit("accept").alias("implied"),
        pl.lit(None, pl.Int64).alias("doubted"),
    )


def without_repeats(delivered: pl.DataFrame, ack_rows: pl.DataFrame) -> pl.DataFrame:
    """Drop the implied deliveries that find the slot still full: the same accept, recorded twice.

    A second delivery before the first one's ACK cannot be (R11). Where no ACK was traced at all, nothing
    can be told apart and all stay.
    """
    if not ack_rows.height or not delivered["implied"].count():
        return delivered
    instant = pl.coalesce("acked", "ts").alias("start")
    last_ack = delivered.select("seq", "tid", "start").sort("start").join_asof(
        ack_rows.select("tid", instant).with_columns(pl.col("start").alias("ack_before")).sort("start"),
        on="start",
        by="tid",
        strategy="backward",
        check_sortedness=False,
    )  # fmt: skip
    found = delivered.join(last_ack.select("seq", "ack_before"), on="seq", how="left", maintain_order="left")
    before = pl.col("start").shift(1).over("tid")
    full = pl.col("implied").is_not_null() & pl.col("doubted").is_null() & before.is_not_null()
    emptied = (pl.col("ack_before") > before).fill_null(value=False)
    return found.filter(~(full & ~emptied)).drop("ack_before")


def with_ack(delivered: pl.DataFrame, ack_rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Match each ACK with the delivery that it acknowledges.

    Returns:
        The deliveries with ``acked`` and ``ack_seq``; and the ACK rows with
        ``delivery`` (seq, null when none precedes) and ``extra``: no delivery precedes, or it was ACKed
        before, so that the one meant was not traced.
    """
    if ack_rows["acked"].null_count():
        matched = _match_by_order(delivered, ack_rows)
    else:
        matched = ack_rows.with_columns(_last_before(delivered, ack_rows))
    extra = ~is_first(matched["delivery"])
    matched = acks_across_cpus(delivered, matched.with_columns(extra.alias("extra")))
    own = matched.filter(pl.col("delivery").is_not_null() & ~pl.col("extra")).select(
        pl.col("delivery").alias("seq"),
        pl.coalesce("acked", "ts").alias("acked"),
        "ack_seq",
    )
    found = attach(delivered, own, "seq")
    # Never before its ready, whatever the clocks of two CPUs say.
    late = pl.when(pl.col("acked").is_not_null()).then(pl.max_horizontal("acked", "start"))
    return found.with_columns(late.alias("acked")), matched


def _last_before(delivered: pl.DataFrame, ack_rows: pl.DataFrame) -> pl.Series:
    """Return ``delivery`` per ACK: the seq of the last one on its thread that began before it; null when none did."""
    began = delivered.select(pl.col("start").alias("acked"), "tid", pl.col("seq").alias("delivery"))
    found = (
        ack_rows.select("acked", "tid", pl.int_range(pl.len()).alias("row"))
        .sort("acked")
        .join_asof(
            began.sort("acked"),
            on="acked",
            by="tid",
            strategy="backward",
            check_sortedness=False,
            allow_exact_matches=False,
        )
    )
    return found.sort("row")["delivery"]


def _match_by_order(delivered: pl.DataFrame, ack_rows: pl.DataFrame) -> pl.DataFrame:
    # Without the instants only the order is left: one delivery at a time, and the next one may already be
    # printed inside the ACK's own exit (R13). The guest has seen a delivery once it was entered after it;
    # where entries were not traced, an ACK is for the older of at most two that are open.
    entered = bool(ack_rows["ack_entries"].max())
    waiting: dict[int, list[tuple[int, int | None]]] = {}
    last: dict[int, int] = {}
    matched: list[int | None] = []
    rows = pl.concat(
        [
            delivered.select("seq", "tid", pl.col("acc_entries").alias("entries"), is_ack=False),
            ack_rows.select("seq", "tid", pl.col("ack_entries").alias("entries"), is_ack=True),
        ]
    ).sort("seq")
    for seq, tid, entries, is_ack in rows.iter_rows():
        open_ones = waiting.setdefault(tid, [])
        if not is_ack:
            open_ones.append((seq, entries))
            del open_ones[:-2]
            continue
        seen = [n for n, (_, then) in enumerate(open_ones) if not entered or then is None or then < entries]
        if seen:
            at = seen[-1] if entered else seen[0]
            last[tid] = open_ones[at][0]
            del open_ones[: at + 1]
        matched.append(last.get(tid))
    return ack_rows.with_columns(pl.Series("delivery", matched, pl.Int64))


def with_virq(rec: Recording, delivered: pl.DataFrame, vectors: Vectors) -> pl.DataFrame:
    """Add ``injected`` (first kvm_inj_virq of the vector before the ACK, R12) and ``inj_seq``."""
    virqs = (
        rec.kind(tp.INJ_VIRQ)
        .filter(vectors.known(pl.col("tid"), pl.col("a")))
        .select("seq", "tid", pl.col("ts").alias("injected"), pl.col("seq").alias("inj_seq"))
    )
    hit = virqs.join_asof(
        delivered.select("seq", pl.col("seq").alias("delivery"), "tid", "acked"),
        on="seq",
        by="tid",
        strategy="backward",
        check_sortedness=False,
    ).filter(pl.col("acked").is_null() | (pl.col("injected") <= pl.col("acked")))
    own = hit.select(pl.col("delivery").alias("seq"), "injected", "inj_seq")
    return attach(delivered, own, "seq")


def imply_from_acks(delivered: pl.DataFrame, matched_acks: pl.DataFrame) -> pl.DataFrame:
    """Add a delivery for each extra ACK: an ACK implies a ready, even one that was not traced."""
    extra = matched_acks.filter("extra")
    if not extra.height:
        return delivered
    rows = extra.select(
        # Just before the ACK in sequence: no row of the thread lies between.
        pl.col("seq").alias("seq"),
        "tid",
        pl.coalesce("acked", "ts").alias("start"),
        pl.lit(value=False).alias("broadcast"),
        pl.lit("ack").alias("implied"),
        pl.coalesce("acked", "ts").alias("acked"),
        "ack_seq",
    )
    return pl.concat([delivered, rows], how="diagonal").sort("seq")


def assign_implied(delivered: pl.DataFrame, lives: pl.DataFrame) -> pl.DataFrame:
    """Give each implied delivery the life that it must have answered: the longest completed open PV life.

    ``done`` is first in, first out (R6), so among the lives of the thread that were completed and have no
    ready, the first completed is meant. Implied deliveries are rare; this is a loop.
    """
    implied = delivered.filter(pl.col("implied").is_not_null())
    if not implied.height:
        return delivered.drop("doubted")
    waiting = lives.filter(pl.col("ready").is_null() & (pl.col("kind_hint") != "halt")).select(
        "life", "tid", "token", "not_present", "completed"
    )
    by_tid: dict[int, list[dict[str, int | None]]] = {}
    for row in waiting.sort(pl.col("completed"), "life", nulls_last=True).iter_rows(named=True):
        by_tid.setdefault(row["tid"], []).append(row)
    found: list[tuple[int, int, int]] = []
    for row in implied.sort("seq").iter_rows(named=True):
        candidates = by_tid.get(row["tid"], [])
        at = _waiting_at(candidates, row["start"])
        if at is not None:
            life = candidates.pop(at)
            found.append((row["seq"], life["life"], life["token"]))  # type: ignore[arg-type]
    meant = pl.DataFrame(
        found, schema={"seq": pl.Int64, "meant": pl.Int64, "meant_token": pl.Int64}, orient="row"
    )
    doubt_stays = pl.col("doubted").is_not_null() & pl.col("meant").is_null()
    return (
        delivered.join(meant, on="seq", how="left", maintain_order="left")
        .with_columns(
            pl.coalesce("life", "meant", "doubted").alias("life"),
            pl.coalesce("meant_token", "token").alias("token"),
            pl.when(~doubt_stays).then("implied").alias("implied"),
        )
        .drop("meant", "meant_token", "doubted")
    )


def _waiting_at(candidates: list[dict[str, int | None]], instant: int) -> int | None:
    """Return the first life that was done by ``instant``, else one whose completed was traced late (R4)."""
    for late_by in (0, COMPLETED_LATE_NS):
        for i, life in enumerate(candidates):
            done = life["completed"] if life["completed"] is not None else life["not_present"]
            began = life["not_present"]
            if done is not None and began is not None and began < instant and done <= instant + late_by:
                return i
    return None
