"""Take wakeups away: lost ones, ones that other records still prove, and ones that a loss may hide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .edit import Edit, Expectation, NotHere, expect, mutator, over

if TYPE_CHECKING:
    from .lives import Life
    from .reader import Rec

LOST = "lost-wakeup"


def lose(edit: Edit) -> Life:
    """Drop ready, accept, injection, EOI and ACK of a PV life that is stuck for all to see."""
    life = edit.pick_stuck()
    edit.drop(life.answer())
    return life


@mutator
def lost(edit: Edit) -> list[Expectation]:
    return [expect(LOST, lose(edit), "found")]


@mutator
def lost_several(edit: Edit) -> list[Expectation]:
    found = [x for x in edit.whole(pv=True) if edit.stuck_clearly(x)]
    if len(found) < 20:
        raise NotHere
    lives = edit.rng.sample(found, 3)
    for life in lives:
        edit.drop(life.answer())
    return [expect(LOST, life, "found") for life in lives]


@mutator
def lost_just_before_end(edit: Edit) -> list[Expectation]:
    """The trace ends right after ``completed``: pending, for all that can be known."""
    life = edit.pick(edit.whole(pv=True))
    assert life.completed
    edit.drop(life.answer())
    end = life.completed.ts + 1
    edit.keep_only(lambda r: r.ts <= end)
    # Of a CPU without any record nobody knows whether the answer was there.
    all_there = len({r.cpu for r in edit.records() if r.ts <= end}) == edit.capture.cpus
    return [expect(LOST, life, "in-flight", *(() if all_there else ("undecided",)))]


@mutator
def lost_without_progress(edit: Edit) -> list[Expectation]:
    """The vCPU thread leaves no record after ``completed``: it may be paused, blocked or gone."""
    life = edit.pick_stuck()
    assert life.completed
    edit.drop(life.answer())
    end, tid = life.completed.ts, life.tid
    edit.keep_only(lambda r: r.ts <= end or not _concerns(r, tid))
    others = [x for x in edit.lives.of(tid) if x is not life and _open_at(x, end)]
    return [expect(LOST, x, "in-flight", "undecided", "cancelled") for x in [life, *others]]


@mutator
def lost_without_entries(edit: Edit) -> list[Expectation]:
    """kvm_entry and kvm_exit were not traced: whether the vCPU went on follows from other events at best."""
    life = lose(edit)
    edit.keep_only(lambda r: r.name not in {"kvm_entry", "kvm_exit"})
    return [expect(LOST, life, "found", "in-flight", "undecided", *over(edit, life))]


@mutator
def ready_dropped(edit: Edit) -> list[Expectation]:
    life = edit.pick(x for x in edit.whole(pv=True) if not _next_to_another(edit, x))
    edit.drop([life.ready])
    return [expect(LOST, life, "repaired")]


@mutator
def ready_and_accept_dropped(edit: Edit) -> list[Expectation]:
    life = edit.pick(edit.whole(pv=True))
    edit.drop([life.ready, life.accepted])
    return [expect(LOST, life, "repaired", *_perhaps_older(edit, life))]


@mutator
def only_ack_left(edit: Edit) -> list[Expectation]:
    life = edit.pick(edit.whole(pv=True))
    edit.drop([life.ready, life.accepted, life.injected, *life.injected_again])
    return [expect(LOST, life, "repaired", *_perhaps_older(edit, life))]


@mutator
def lost_but_page_faults_again(edit: Edit) -> list[Expectation]:
    """A new life of the page on the same vCPU: the kernel had forgotten the old one, and nothing tells how it ended."""
    life = edit.pick(edit.whole(pv=True))
    again = edit.pick(x for x in edit.whole() if x.tid == life.tid and x.not_present.ts > life.ack[-1].ts)
    assert life.completed
    edit.drop(life.answer())
    gva = life.not_present["gva"]
    edit.change(again.try_, gva=gva, gfn=life.gfn)
    edit.change(again.not_present, gva=gva)
    edit.change(again.completed, gva=gva, address=life.completed["address"])
    edit.change(again.ready, gva=gva)
    return [expect(LOST, life, "undecided"), expect((), again, "quiet")]


def _lose_with_mark(edit: Edit, *, count: int) -> list[Expectation]:
    """Lose a wakeup, and say that its CPU lost records when the wakeup would have been traced, or later."""
    life = edit.pick_stuck()
    edit.drop(life.answer())
    following = [r for r in edit.lives.after(life.ack[-1], 400) if r.name != "kvm_async_pf_ready"]
    edit.change(edit.pick(following[:1] if edit.rng.random() < 0.5 else following), missed=count)
    return [expect(LOST, life, "undecided", *over(edit, life))]


@mutator
def lost_under_counted_loss(edit: Edit) -> list[Expectation]:
    return _lose_with_mark(edit, count=edit.rng.randint(1, 5000))


@mutator
def lost_under_uncounted_loss(edit: Edit) -> list[Expectation]:
    return _lose_with_mark(edit, count=-1)


@mutator
def lost_with_loss_before_completed(edit: Edit) -> list[Expectation]:
    """Records were lost while the work was under way: no ready can be among them, but that is subtle."""
    life = lose(edit)
    assert life.completed
    inside = [r for r in edit.lives.after(life.not_present, 400) if r.ts < life.completed.ts]
    edit.change(edit.pick(r for r in inside if r is not life.exception), missed=9)
    return [expect(LOST, life, "undecided", "found", *over(edit, life))]


@mutator
def lost_after_loss(edit: Edit) -> list[Expectation]:
    """The loss ended before not_present: it cannot hide the answer."""
    life = lose(edit)
    assert life.try_
    earlier = [
        r for r in edit.lives.threads[life.tid] if r.ts < life.try_.ts and not r.name.startswith("kvm_async")
    ]
    if len(earlier) < 100:
        raise NotHere
    edit.change(edit.rng.choice(earlier[-100:]), missed=edit.rng.choice([-1, 7]))
    return [expect(LOST, life, "found")]


@mutator
def lost_with_loss_elsewhere(edit: Edit) -> list[Expectation]:
    """Records were lost on a CPU that neither the vCPU nor a worker ever used."""
    life = lose(edit)
    busy = set(edit.lives.vcpus)
    idle = [
        r for r in edit.capture.records if r.tid == 0 and r.name == "sched_wakeup" and r["pid"] not in busy
    ]
    names = edit.capture.cmdlines
    idle = [r for r in idle if not names.get(r["pid"], "kworker").startswith("kworker")]
    if len(idle) < 10:
        raise NotHere
    cpu = edit.capture.cpus
    copies = [r.but(cpu=cpu, target_cpu=cpu) for r in idle]
    for n, rec in enumerate(copies):
        if n % 3 == 2:
            rec.missed = edit.rng.choice([-1, 50])
    edit.add(*copies)
    return [expect(LOST, life, "found")]


@mutator
def halt_ready_dropped(edit: Edit) -> list[Expectation]:
    """Nobody in the guest waits for a HALT life: it is open, an error or not."""
    life = edit.pick(x for x in edit.whole(pv=False) if not any(y.gfn == x.gfn for y in edit.lives.later(x)))
    edit.drop([life.ready])
    return [expect(LOST, life, "found", "in-flight", "undecided", *over(edit, life))]


@mutator
def completed_dropped(edit: Edit) -> list[Expectation]:
    life = edit.pick(edit.whole())
    edit.drop([life.completed])
    return [expect((LOST, "lost-work"), life, "quiet", "repaired")]


@mutator
def work_never_ends(edit: Edit) -> list[Expectation]:
    """No completed, no ready, no workqueue event: the page may simply still be on its way."""
    life = edit.pick(x for x in edit.whole() if not any(y.gfn == x.gfn for y in edit.lives.later(x)))
    edit.drop([life.completed, *life.answer()])
    return [expect((LOST, "lost-interrupt"), life, "in-flight", "undecided", *over(edit, life))]


def _perhaps_older(edit: Edit, life: Life) -> tuple[str, ...]:
    """Return what else may be said when an injection or ACK could answer a ready from before the trace."""
    earlier = any(x.accepted and x.not_present.ts < life.not_present.ts for x in edit.lives.of(life.tid))
    return () if earlier else ("in-flight", "undecided")


def _next_to_another(edit: Edit, life: Life) -> bool:
    """Say whether another ready comes right before: the accept would then seem to be that one's."""
    assert life.ready
    before = edit.lives.before(life.ready)
    return before is not None and before.name == "kvm_async_pf_ready"


def _concerns(rec: Rec, tid: int) -> bool:
    """Say whether a record is of a thread or of the scheduler about it."""
    if rec.tid == tid:
        return True
    match rec.name:
        case "sched_switch":
            return tid in {rec["prev_pid"], rec["next_pid"]}
        case "sched_wakeup" | "sched_waking":
            return rec["pid"] == tid
    return False


def _open_at(life: Life, ts: int) -> bool:
    return life.not_present.ts <= ts and (life.ready is None or life.ready.ts > ts)
