"""A guest's clock from causality alone: who belongs together, and what their order leaves of the offset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from apftrace.model.guest.candidates import MOST_PAIRS, has_tokens, pairs
from apftrace.model.guest.clock import INFERRED, Alignment, ClockMap
from apftrace.model.guest.corridor import Corridor, corridor
from apftrace.model.guest.votes import elect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apftrace.model.guest.recording import GuestRecording

MOST_DRIFT = 500e-6
"""Clocks of one machine drift no faster against each other: the kernel slews by at most 500 ppm."""

DRIFTS = (0.0, 20e-6, 100e-6, MOST_DRIFT)
"""Drifts to vote with, the least first: a wide vote takes neighbours in."""

FEWEST = 3
"""Tokens in common below which an agreement may be chance: every VM counts its tokens from 0x1000."""

QUORUM = 0.6
"""Share of the hits inside the host's window that must agree."""

FEWEST_SHOWN = 40
"""Hits without tokens that must be able to vote; a fifth must agree, however few there are."""

TOKENLESS_QUORUM = 0.9
"""The same where no token tells which pairs are meant, and a part agrees by chance."""

SKEWS = (50_000, 250_000, 1_000_000)
"""By how much bounds are widened, one after the other, where they contradict each other."""

MOST_BROKEN = 0.05
"""Share of the inequalities that may be broken, each told; more, and the clocks are refused."""

_TOLD = 5
_RATE_PAIRS = 8


RIVAL_VM = 0.8
"""A VM whose tokens agree this well beside the best one leaves open which VM the guest is."""

TOLERANCE = 1_000_000
"""Most by which a recorded relation of two clocks is set right by causality; beyond that it is wrong."""


@dataclass(frozen=True)
class Attempt:
    """What came of laying a guest beside a VM: an alignment, refused or not, and how many tokens agree."""

    alignment: Alignment
    votes: int = 0


def infer(
    lives: pl.DataFrame,
    hits: pl.DataFrame,
    rec: GuestRecording,
    vm: str,
    *,
    same_unit: bool,
    grain: int = 0,
) -> Attempt:
    """Find the guest's clock from its pairs with a VM's lives.

    Args:
        lives: from ``host_lives``, of this VM.
        hits: from ``hits_of``.
        rec: the guest.
        vm: name of the VM.
        same_unit: both clocks count the same unit, ns or TSC ticks.
        grain: by how much stamps are rounded.
    """
    attempt = _inferred(lives, hits, rec, vm, same_unit=same_unit, grain=grain)
    if attempt.alignment.refused is None or not attempt.alignment.broken:
        return attempt
    # Trace clock ``local`` is only roughly in step between CPUs, of the host and of the guest.
    for skew in SKEWS:
        wider = _inferred(lives, hits, rec, vm, same_unit=same_unit, grain=grain + skew)
        a = wider.alignment
        if a.refused is None:
            note = f"the CPUs' clocks are out of step: every bound had to be taken {skew} wider"
            within = None if a.within is None else a.within + skew
            return Attempt(replace(a, within=within, notes=(*a.notes, note)), wider.votes)
    return attempt


def _inferred(
    lives: pl.DataFrame, hits: pl.DataFrame, rec: GuestRecording, vm: str, *, same_unit: bool, grain: int
) -> Attempt:
    if not hits.height or not lives.height:
        whose = (
            "the guest's trace shows no wait and no wake"
            if lives.height
            else "the VM had no async page fault"
        )
        return _refused(rec, vm, whose)
    rate, start = 1.0, ClockMap()
    if not same_unit:
        if not has_tokens(hits):
            return _refused(
                rec, vm, "the clocks count different units, and the guest's probes show no tokens"
            )
        learned = _rate(pairs(lives, hits))
        if learned is None:
            return _refused(rec, vm, "the clocks count different units, and too few tokens tell the rate")
        rate = learned
        first = int(hits["ts"].min())  # type: ignore[arg-type]
        start = ClockMap(first, int(lives["not_present"].min()), rate)  # type: ignore[arg-type]
    if not has_tokens(hits) and lives.height > MOST_PAIRS // FEWEST_SHOWN:
        return _refused(
            rec, vm, f"the guest's probes show no tokens, and {lives.height} lives are too many to try"
        )
    shown = hits.with_columns(start.to_host(hits["ts"]).alias("ts"))
    met = pairs(lives, shown, grain).filter((pl.col("low") <= pl.col("high")) | pl.col("high").is_null())
    if not met.height:
        return _refused(rec, vm, "no token of the guest occurs in the host's trace")
    both = met.filter(pl.col("high").is_not_null())
    if not both.height:
        return _refused(rec, vm, "nothing bounds the offset from above: record kvm:kvm_msr on the host")
    attempts = []
    for drift in DRIFTS:
        vote = _vote(both, lives, drift)
        if vote is None:
            continue
        attempts.append(Attempt(_fit(vote, rec, vm, start), vote.votes))
        if not attempts[-1].alignment.broken:
            break
    # The least drift that leaves the fewest inequalities broken: a wide vote takes neighbours in.
    found = min(attempts, key=lambda attempt: attempt.alignment.broken, default=None)
    return found if found is not None else _refused(rec, vm, _why_no_vote(both, lives))


def confirm(
    lives: pl.DataFrame,
    hits: pl.DataFrame,
    rec: GuestRecording,
    vm: str,
    start: ClockMap,
    method: str,
    *,
    grain: int = 0,
) -> Attempt:
    """Hold a clock map that the traces state against causality, and set it right where it is barely off.

    Args:
        lives: from ``host_lives``, of this VM.
        hits: from ``hits_of``.
        rec: the guest.
        vm: name of the VM.
        start: the map.
        method: how it is known.
        grain: by how much stamps are rounded.
    """
    if not hits.height or not lives.height:
        return Attempt(_stated(rec, vm, method, start, 0))
    shown = hits.with_columns(start.to_host(hits["ts"]).alias("ts"))
    met = pairs(lives, shown, grain)
    off = pl.max_horizontal(pl.col("low"), -pl.col("high"), 0)
    nearest = met.with_columns(off.alias("off")).sort("off").unique("seq", keep="first", maintain_order=True)
    known = nearest.filter(
        (pl.col("ts") >= lives["not_present"].min()) & (pl.col("ts") <= lives["not_present"].max())
    )
    agreed = nearest.filter(pl.col("off") <= TOLERANCE).drop("off")
    votes = agreed["life"].n_unique()
    once = met.filter((pl.len().over("seq") == 1) & (pl.len().over("life", "kind") == 1))
    if not known.height and once["life"].n_unique() >= FEWEST:
        return _refused(
            rec, vm, "with it the guest's events lie outside the host's record, in spite of their tokens"
        )
    if not known.height:
        return Attempt(_stated(rec, vm, method, start, votes), votes)
    if agreed.height < QUORUM * known.height:
        return _refused(
            rec, vm, f"{known.height - agreed.height} of {known.height} waits and wakes contradict it"
        )
    vote = _Vote(agreed, _against(known.drop("off"), agreed, 0), votes)
    return Attempt(_fit(vote, rec, vm, start, method), votes)


def _stated(rec: GuestRecording, vm: str, method: str, start: ClockMap, tokens: int) -> Alignment:
    offset = _offset(start, rec)
    return Alignment(
        rec.machine,
        vm,
        method=method,
        clock=start,
        offset=offset,
        rate=start.rate,
        tokens=tokens,
        drift_ppm=0.0,
    )


@dataclass(frozen=True)
class _Vote:
    # Pairs that agree on an offset, the pairs that can mean nothing else and disagree, and lives that agree.
    agreed: pl.DataFrame
    against: pl.DataFrame
    votes: int


def _vote(both: pl.DataFrame, lives: pl.DataFrame, drift: float) -> _Vote | None:
    """Return the pairs that hold the offset of the majority, if there is one."""
    slack = int(drift * both.select(pl.col("ts").max() - pl.col("ts").min()).item()) // 2
    won = elect(both, slack)
    if won is None or won.rival:
        return None
    holds = (pl.col("low") - slack <= won.offset) & (pl.col("high") + slack >= won.offset)
    middle = ((pl.col("low") + pl.col("high")) // 2 - won.offset).abs()
    agreed = both.filter(holds).sort(middle).unique("seq", keep="first", maintain_order=True)
    votes = agreed["life"].n_unique()
    fewest, quorum = (FEWEST, QUORUM) if "token" in both.columns else (FEWEST_SHOWN // 5, TOKENLESS_QUORUM)
    if votes < fewest or agreed.height < quorum * _possible(both, lives, won.offset):
        return None
    return _Vote(agreed, _against(both, agreed, won.offset), votes)


def _possible(both: pl.DataFrame, lives: pl.DataFrame, offset: int) -> int:
    """Return how many hits lie inside the host's window, if the offset is right."""
    first, last = lives["not_present"].min(), lives["not_present"].max()
    at = pl.col("ts") + offset
    return both.filter((at >= first) & (at <= last))["seq"].n_unique()


def _why_no_vote(both: pl.DataFrame, lives: pl.DataFrame) -> str:
    won = elect(both, 0)
    assert won is not None
    if both["life"].n_unique() < FEWEST:
        return f"only {both['life'].n_unique()} lives share a token with the guest, {FEWEST} are asked for"
    if won.rival:
        return "several offsets fit equally well"
    n = _possible(both, lives, won.offset)
    return f"no offset fits: at best {won.votes} of {max(n, both['seq'].n_unique())} waits and wakes agree"


def _against(both: pl.DataFrame, agreed: pl.DataFrame, offset: int) -> pl.DataFrame:
    """Return the pairs outside the majority that can mean no other life: a token used once on both sides.

    ``excess`` is how far they are from it.
    """
    once = both.filter(pl.len().over("seq") == 1).filter(pl.len().over("life", "kind") == 1)
    excess = pl.max_horizontal(pl.col("low") - offset, offset - pl.col("high")).cast(pl.Float64)
    return once.filter(~pl.col("seq").is_in(agreed["seq"].implode())).with_columns(excess.alias("excess"))


def _fit(vote: _Vote, rec: GuestRecording, vm: str, start: ClockMap, method: str = INFERRED) -> Alignment:
    """Turn the agreed pairs into a clock map; ``start`` brought their stamps to the host's unit."""
    inside, against = vote.agreed, vote.against
    left = corridor(_bounds(inside), MOST_DRIFT)
    n = left.points.height
    broken = left.dropped.height + against.height
    told = tuple(_tell(pl.concat([left.dropped, against], how="diagonal_relaxed"), rec))
    if not left.is_open or broken > MOST_BROKEN * (n + broken):
        return Alignment(
            rec.machine, vm, contradictions=told[:_TOLD], bounds=n, broken=broken,
            refused=f"the order of events contradicts itself: {broken} of {n + broken} waits and wakes",
        )  # fmt: skip
    stated = method != INFERRED
    base, knots, drift = _line(left, stated=stated)
    within, typical = _error(left, base, knots)
    # What start added lies beneath; stamps of knots are the guest's own.
    clock = ClockMap(start.guest_at, start.host_at + base, start.rate, _own(knots, start))
    moved = f"moved by {base} so that no event precedes its cause"
    tokens = inside["life"].n_unique()
    return Alignment(
        machine=rec.machine, vm=vm, method=method, clock=clock, offset=_offset(clock, rec), rate=start.rate,
        low=_shifted(left.low, start), high=_shifted(left.high, start), within=within, typical=typical,
        drift_ppm=drift, bounds=n, broken=broken, tokens=tokens, contradictions=told[:_TOLD],
        notes=(moved,) if stated and (base or knots) else (),
    )  # fmt: skip


def _offset(clock: ClockMap, rec: GuestRecording) -> int | None:
    return clock.one(rec.first_ns) - rec.first_ns if clock.rate == 1.0 else None


def _shifted(bound: int | None, start: ClockMap) -> int | None:
    return None if bound is None or start.rate != 1.0 else bound + start.host_at - start.guest_at


def _bounds(inside: pl.DataFrame) -> pl.DataFrame:
    at = pl.col("ts").alias("at")
    return inside.select(at, "low", "high", "seq", "life", "kind")


def _line(left: Corridor, *, stated: bool) -> tuple[int, tuple[tuple[int, float], ...], float]:
    """Return base, knots and drift in ppm: a constant if that fits, else a line, else the corridor's middle.

    A stated map is moved no further than it must be.
    """
    low, high = left.low, left.high
    if stated and (low is None or high is None or low <= high):
        return max(low, 0) if low is not None and low > 0 else min(high or 0, 0), (), 0.0
    if low is not None and high is not None and low <= high:
        return (low + high) // 2, (), 0.0
    middle = left.points.select(
        "at", ((pl.col("floor") + pl.col("ceiling")) / 2).alias("middle")
    ).drop_nulls()
    if middle.height < 2:
        return int(low if low is not None else high or 0), (), 0.0
    base = int(middle["middle"][0])
    at, rise = middle["at"] - middle["at"][0], middle["middle"] - base
    spread = at.var() or 1.0
    slope = float(pl.select(pl.cov(at.cast(pl.Float64), rise)).item()) / float(spread)
    tilt = (left.points["at"] - middle["at"][0]).cast(pl.Float64) * slope
    under, over = (left.points["low"] - base - tilt).max(), (left.points["high"] - base - tilt).min()
    first, last = int(left.points["at"][0]), int(left.points["at"][-1])
    if isinstance(under, float) and isinstance(over, float) and under <= over:
        start = (under + over) / 2
        end = start + (last - first) * slope
        return base, ((first, start + (first - middle["at"][0]) * slope), (last, end)), slope * 1e6
    knots = tuple((int(a), float(m) - base) for a, m in middle.unique("at", maintain_order=True).iter_rows())
    return base, knots, slope * 1e6


def _error(left: Corridor, base: int, knots: tuple[tuple[int, float], ...]) -> tuple[int | None, int | None]:
    """Return the most and the median by which the map can be off, inside the corridor."""
    lift = ClockMap(0, 0, 1.0, knots).to_host(left.points["at"]) - left.points["at"] + base
    off = left.points.select(
        pl.max_horizontal(lift - pl.col("floor"), pl.col("ceiling") - lift).alias("off")
    )["off"].drop_nulls()
    if not len(off):
        return None, None
    return int(off.max()) + 1, int(off.median())  # type: ignore[arg-type]


def _own(knots: tuple[tuple[int, float], ...], start: ClockMap) -> tuple[tuple[int, float], ...]:
    if start.rate == 1.0:
        return knots
    return tuple((start.guest_at + round((at - start.host_at) / start.rate), lift) for at, lift in knots)


def _rate(met: pl.DataFrame) -> float | None:
    """Return host units per guest unit, from wakes whose token occurs once on both sides."""
    once = met.filter((pl.col("kind") == "wake") & pl.col("high").is_not_null())
    once = once.filter((pl.len().over("seq") == 1) & (pl.len().over("life") == 1)).sort("ts")
    half = once.height // 2
    if half < _RATE_PAIRS:
        return None
    ends = once.select(
        (pl.col("ts").shift(-half) - pl.col("ts")).alias("guest"),
        (pl.col("ts").shift(-half) + pl.col("low").shift(-half) - pl.col("ts") - pl.col("low")).alias("host"),
    ).drop_nulls()
    rate = ends.select((pl.col("host") / pl.col("guest")).median()).item()
    return float(rate) if rate is not None and rate > 0 else None


def _tell(wrong: pl.DataFrame, rec: GuestRecording) -> Iterator[str]:
    for seq, kind, by in wrong.sort("seq").select("seq", "kind", "excess").head(_TOLD).iter_rows():
        hit = rec.hits.row(seq, named=True)
        of = f"token {hit['token']:#x}" if hit["token"] is not None else f"CPU {hit['cpu']}"
        apart = f"{by / 1e6:.3g} ms" if rec.clock_unit == "ns" else f"{round(by)} ticks"
        yield f"the {kind} of {of} is {apart} away from where the others let it be"


def _refused(rec: GuestRecording, vm: str, why: str) -> Attempt:
    return Attempt(Alignment(rec.machine, vm, refused=why))
