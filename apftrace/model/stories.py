"""Lives as stories, the lost and the slowest: phase by phase, what worker and vCPU did and who kept them from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.amounts import plural
from apftrace.analysis import Step, Story
from apftrace.model import timeline
from apftrace.model import tracepoints as tp
from apftrace.model.rules.base import Row, duration, hexed, rows
from apftrace.model.rules.causes import causes_of, was_late
from apftrace.model.rules.guest_causes import causes_in_guest
from apftrace.model.rules.late import late_lives
from apftrace.model.rules.spent import SLOT_PHASES, WORKER_PHASES, longer_half, with_spent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from apftrace.model.correlate import Case
    from apftrace.model.timeline import Spent
    from apftrace_parsers.base import Source

STUCK = 3
"""Lost lives that are told as stories, the first ones."""

TOLD = 5
"""Lives that are told as stories, and as many late ones that are looked at closely for their causes."""

_BEFORE_NS = 20_000_000
"""How long before not_present the I/O may have begun: the attempt that may not wait starts it (FOLL_NOWAIT)."""
_LONGEST_NS = 5_000_000_000
_WORTH = 0.05
"""Share of a phase below which it does not matter what a thread did."""
_WORTH_TELLING = 0.02
"""Share of a life below which nobody asks where the time of a phase went."""
_HOLDERS = 3

_DID = {
    timeline.RAN: "ran",
    timeline.WAITED: "was ready to run and had no CPU for",
    timeline.SLEPT: "slept",
    timeline.BLOCKED: "slept uninterruptibly",
}


def slowest(case: Case) -> pl.DataFrame:
    """Return the lives that took longest, until the guest was told or, where its trace shows that, its task ran."""
    took = pl.max_horizontal(c for c in ("total", "e2e") if c in case.lives.columns)
    ended = pl.when(pl.col("total").is_not_null()).then(took)
    least = case.lives.select(ended.top_k(TOLD).min()).item()
    places = case.lives.select((ended >= pl.lit(least, pl.Int64)).arg_true()).to_series()
    chosen = case.lives[places]
    return chosen.sort(took, "not_present", descending=[True, False], maintain_order=True).head(TOLD)


def look_closely(source: Source, case: Case) -> dict[tuple[int, str], Spent]:
    """Return what the thread concerned did in each phase of the slowest and of the latest lives."""
    if not case.rec.has(tp.SWITCH) or not case.lives.height:
        return {}
    latest = late_lives(case)["life"].head(TOLD)
    late = case.lives[case.lives["life"].search_sorted(latest)]
    chosen = pl.concat([slowest(case), late]).unique("life", maintain_order=True)
    lives = [r for r in rows(chosen) if r["end"] - r["not_present"] <= _LONGEST_NS or not case.clock_is_ns]
    before = _BEFORE_NS if case.clock_is_ns else 0
    threads = {t for r in lives for t in (r["tid"], r["worker"]) if t is not None}
    spans = [(r["not_present"] - before, r["end"]) for r in lives]
    close = timeline.Close(timeline.look(source, spans, threads))
    return {
        (life["life"], phase): close.spent(thread, start, stop, also={life["tid"]})
        for life in lives
        for phase, thread, start, stop in _phases(life)
        if thread is not None
    }


def _phases(life: Row) -> Iterator[tuple[str, int | None, int, int]]:
    """Yield the phases of a life: name, thread that it is about, start, end."""
    tid, worker = life["tid"], life["worker"]
    taken = "injected" if life.get("handled") is None else "handled"
    ends = (
        ("p1", worker, "not_present", "started"),
        ("p2", worker, "started", "completed"),
        ("p12", worker, "not_present", "completed"),
        ("p3", tid, "completed", "ready"),
        ("p4", tid, "accepted", taken),
        ("p5", tid, taken, "acked"),
    )
    for phase, thread, start, stop in ends:
        if life[phase] is not None and life[start] is not None and life[stop] is not None:
            yield phase, thread, life[start], life[stop]


def stories(case: Case) -> tuple[Story, ...]:
    """Return the first lost lives and then the slowest, told phase by phase."""
    lost = case.lives.filter(pl.col("outcome") == "lost").sort("not_present", "life").head(STUCK)
    chosen = slowest(case)
    asked = [chosen.with_columns(pl.lit(phase).alias("phase")) for phase in SLOT_PHASES]
    why = _causes(case, pl.concat(asked))
    if "p6" in chosen.columns:
        late = chosen.filter(pl.col("p6") > case.late_after["p6"]).with_columns(pl.lit("p6").alias("phase"))
        why |= {(life, "p6"): cause for life, (cause, _) in causes_in_guest(case, late).items()}
    both = pl.concat([lost, chosen]).unique("life", keep="first", maintain_order=True)
    return tuple(_story(case, life, why) for life in rows(both))


def _causes(case: Case, lives: pl.DataFrame) -> dict[tuple[int, str], str]:
    """Return by life and phase why lives were late in their ``phase``, P4 or P5; those that were not are left out."""
    late = lives.filter(was_late(case))
    if not late.height:
        return {}
    told = causes_of(case, with_spent(case.rec, late))
    asked = late.select("life", "phase").iter_rows()
    return {(life, phase): cause for (life, phase), (cause, _, _) in zip(asked, told, strict=True)}


def _story(case: Case, life: Row, why: Mapping[tuple[int, str], str]) -> Story:
    return Story(
        machine=case.rec.machine,
        vm=life["vm"],
        vcpu=life["vcpu"],
        tid=life["tid"],
        token=life["token"],
        not_present=life["not_present"],
        total=_whole(life),
        kind=life["kind"],
        outcome=life["outcome"],
        steps=tuple(_steps(case, life, why)),
    )


def _whole(life: Row) -> int:
    # What never ended was open until the last that is known of it.
    return int(life["total"] if life["total"] is not None else life["end"] - life["not_present"])


def _steps(case: Case, life: Row, why: Mapping[tuple[int, str], str]) -> Iterator[Step]:
    form = {"pv": "the guest is told by #PF", "halt": "the vCPU halts"}.get(life["kind"], "not_present")
    times = "once" if life["repeated"] == 1 else f"{life['repeated']} times"
    repeated = f", and it faults again {times} meanwhile" if life["repeated"] else ""
    yield Step(life["not_present"], None, f"fault on gfn {hexed(life['gfn'])}: {form}{repeated}")
    split = life["p1"] is not None and life["p2"] is not None
    ends = {"p1": "work started", "p2": "completed", "p12": "completed", "p3": "ready"}
    ends |= {
        "p4": "interrupt injected" if life.get("handled") is None else "the guest's handler",
        "p5": "ACK",
    }
    for phase, _, _, stop in _phases(life):
        if (phase == "p12" and split) or (phase in ("p1", "p2") and not split):
            continue
        told = "; ".join(_told(case, life, phase, why.get((life["life"], phase))))
        lasted = duration(case, life[phase])
        yield Step(stop, phase, f"{ends[phase]} after {lasted}" + (f": {told}" if told else ""))
    if life["outcome"] == "lost":
        yield Step(life["end"], None, _never(case, life))
    yield from _beyond(case, life, why.get((life["life"], "p6")))


def _never(case: Case, life: Row) -> str:
    """Say what did not come by the end of a lost life."""
    if life["ready"] is not None or life["accepted"] is not None:
        return f"the guest never took it: {life['lost_rule']}"
    if life["completed"] is None and life["finished"] is None:
        return "its work never began"
    entries = (
        f" and {plural(life['entries_after'], 'entry', 'entries')} into the guest"
        if life["entries_after"]
        else ""
    )
    return f"no ready by here, after {duration(case, life['progress'])}{entries}"


def _beyond(case: Case, life: Row, why: str | None) -> Iterator[Step]:
    """Yield what the guest's trace adds: when its task ran, and when its wait returned."""
    if life.get("p6") is not None:
        ran = f"the guest's task ran {duration(case, life['p6'])} after its wakeup"
        yield Step(life["running"], "p6", f"{ran}: {why}" if why else ran)
    if life.get("p7") is not None:
        yield Step(life["retry"], "p7", f"its wait returned after {duration(case, life['p7'])}")


def _told(case: Case, life: Row, phase: str, why: str | None) -> Iterator[str]:
    if not life[phase] or life[phase] < _WORTH_TELLING * _whole(life):
        return
    if phase == "p3" and (life["slot_busy"] or 0) > _WORTH * life[phase]:
        yield _held(case, life)
    did = case.close.get((life["life"], phase))
    if did is not None:
        yield from told_of(case, did, "worker" if phase in WORKER_PHASES else "vCPU", life[phase])
    if why is not None:
        opened = f", {did.window_exits} of them for an interrupt window" if did and did.window_exits else ""
        exits = f" ({plural(did.exits, 'exit')}{opened})" if did else ""
        yield f"{why}{exits}"


def told_of(case: Case, did: Spent, who: str, whole: int) -> Iterator[str]:
    """Yield, the longest first, what a thread did for a share of a phase that is worth telling."""
    for state, ns in did.ns.most_common():
        if ns < _WORTH * whole:
            continue
        by = ""
        if state == timeline.WAITED:
            hogs = [(t, n) for t, n in did.others.most_common(_HOLDERS) if t > 0 and n >= _WORTH * whole]
            by = "".join(f", while {_thread(case, t)} ran {duration(case, n)}" for t, n in hogs)
        yield f"{who} {_DID[state]} {duration(case, ns)}{by}"
    if did.device:
        dev, sector, _ = max(did.requests, key=lambda r: r[2])
        more = f" and {len(did.requests) - 1} more" if len(did.requests) > 1 else ""
        yield f"device {timeline.device_name(dev)} busy {duration(case, did.device)} with sector {sector}{more}"
    if did.reclaim:
        yield f"{who} in direct reclaim for {duration(case, did.reclaim)}"
    if did.lock:
        yield f"{who} waited for mmap_lock for {duration(case, did.lock)}"


def _thread(case: Case, tid: int) -> str:
    return f"{case.comms.get(tid) or 'thread'} ({tid})"


def _held(case: Case, life: Row) -> str:
    """Name who held the page-ready slot while a life waited for it, each link of the chain with its own reason."""
    held = case.spans.filter(
        (pl.col("tid") == life["tid"])
        & (pl.col("start") < life["ready"])
        & (pl.col("stop") > life["completed"])
        & (pl.col("life").is_null() | (pl.col("life") != life["life"]))
    ).with_columns(
        (
            pl.min_horizontal("stop", pl.lit(life["ready"]))
            - pl.max_horizontal("start", pl.lit(life["completed"]))
        ).alias("overlap")
    )
    links = held.filter(pl.col("overlap") > 0).sort("start")
    worst = links.sort("overlap", descending=True)["start"].head(_HOLDERS)
    shown = links.filter(pl.col("start").is_in(worst.implode()))
    holders = case.lives.filter(pl.col("life").is_in(shown["life"].implode())).drop_nulls(SLOT_PHASES)
    why = {life: cause for (life, _), cause in _causes(case, longer_half(holders)).items()}
    told = [_link(case, link, why.get(link["life"])) for link in rows(shown)]
    more = f" and {links.height - len(told)} more" if links.height > len(told) else ""
    return f"slot taken for {duration(case, life['slot_busy'])}: {', then '.join(told)}{more}"


def _link(case: Case, link: Row, why: str | None) -> str:
    name = f"{hexed(link['token'])} held it {duration(case, link['overlap'])}"
    return f"{name} ({why})" if why else name
