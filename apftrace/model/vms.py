"""Which thread is which vCPU of which VM.

No async page fault event names its VM. In order of trust: the trace's own guest table, the tgid of the
vCPU thread, and guest memory itself: hva minus guest address is one constant per memslot, so threads
whose pages lie in one memslot belong to one VM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from apftrace.model import tracepoints as tp
from apftrace.model.completion import bases_of_threads

if TYPE_CHECKING:
    from apftrace.model.recording import Recording


def vcpu_threads(rec: Recording, lives: pl.DataFrame) -> pl.DataFrame:
    """Return one row per vCPU thread: tid, vm, vcpu, comm and the thread's final reading.

    A thread counts as a vCPU when it traced an async page fault event of the vCPU context.
    """
    kinds = (tp.TRY, tp.REPEATED, tp.NOT_PRESENT, tp.READY)
    tids = pl.concat(rec.kind(kind).select(pl.col("tid").unique()) for kind in kinds).unique()
    table = tids.join(rec.threads, on="tid", how="left").sort("tid")
    table = table.with_columns(_by_entry(rec))
    if table["vcpu"].null_count():
        table = table.join(_ids_in_tokens(rec), on="tid", how="left", maintain_order="left")
        table = table.with_columns(pl.coalesce("vcpu", "id").alias("vcpu")).drop("id")
    return table.with_columns(_vm_names(rec, table, lives))


def named_threads(rec: Recording, threads: pl.DataFrame) -> pl.DataFrame:
    """Return tid, vm and vcpu of the vCPU threads, and of all others that entered a guest.

    Of the others nothing but the trace's own guest table, or a tgid, tells the VM: it may be null.

    Args:
        rec: the recording.
        threads: as ``vcpu_threads`` returns them.
    """
    entered = rec.threads.filter((pl.col("entries") > 0) & ~pl.col("tid").is_in(threads["tid"].implode()))
    vms = [
        rec.guests.get(tid) or (None if tgid is None else f"pid-{tgid}")
        for tid, tgid in entered.select("tid", "tgid").iter_rows()
    ]
    others = entered.select("tid", pl.Series("vm", vms, pl.String), _by_entry(rec))
    return pl.concat([threads.select("tid", "vm", "vcpu"), others])


def _by_entry(rec: Recording) -> pl.Expr:
    """Return the vCPU that a thread entered the guest as, null where no event tells."""
    told = rec.has(tp.ENTRY) and rec.fields.get(tp.ENTRY, (None,))[0] is not None
    return pl.when(pl.lit(told) & (pl.col("vcpu") >= 0)).then("vcpu").cast(pl.Int32).alias("vcpu")


def _ids_in_tokens(rec: Recording) -> pl.DataFrame:
    """Return tid and id: the low bits of any token but the broadcast's are the vCPU id."""
    tokens = [
        rec.kind(kind).filter(pl.col("a") != tp.BROADCAST).group_by("tid").agg(pl.first("a").alias("token"))
        for kind in (tp.NOT_PRESENT, tp.READY)
    ]
    found = pl.concat(tokens).unique("tid", keep="first", maintain_order=True)
    vcpu_id = pl.col("token") & ((1 << tp.VCPU_BITS) - 1)
    return found.select("tid", vcpu_id.cast(pl.Int32).alias("id"))


def _vm_names(rec: Recording, threads: pl.DataFrame, lives: pl.DataFrame) -> pl.Series:
    group = _groups(threads, lives)
    names = []
    for tid, tgid in threads.select("tid", "tgid").iter_rows():
        if tid in rec.guests:
            names.append(rec.guests[tid])
        elif tgid is not None:
            names.append(f"pid-{tgid}")
        else:
            names.append(f"vm-{group[tid]}")
    return pl.Series("vm", names, pl.String)


def _groups(threads: pl.DataFrame, lives: pl.DataFrame) -> dict[int, int]:
    """Return per tid the smallest tid that shares its guest memory."""
    leader = {tid: tid for tid in threads["tid"].to_list()}

    def find(tid: int) -> int:
        while leader[tid] != tid:
            tid = leader[tid]
        return tid

    vcpu = dict(threads.select("tid", "vcpu").iter_rows())
    by_base: dict[int, list[int]] = {}
    for tid, base, _ in bases_of_threads(lives).iter_rows():
        by_base.setdefault(base, []).append(tid)
    for tids in by_base.values():
        ids = [vcpu[t] for t in tids]
        # Two threads with one vCPU id are two VMs that happen to map memory at the same address.
        if len(set(ids)) < len(ids):
            continue
        for tid in tids[1:]:
            first, other = sorted((find(tids[0]), find(tid)))
            leader[other] = first
    return {tid: find(tid) for tid in leader}
