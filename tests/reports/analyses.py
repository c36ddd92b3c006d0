"""Analyses for the report tests, built from small frames the way the model hands them over."""

from __future__ import annotations

import random
from dataclasses import replace

import polars as pl

from apftrace.analysis import Analysis, Input, LossSpan, NotRun, Protocol
from apftrace.schema import ACCOUNTING, FAULTS, FINDINGS, LATENCY, VCPUS, Table

START = 4_211_000_000_000
PHASES = ("p1", "p2", "p12", "p3", "p4", "p5")
HOSTILE = "</script><script>alert(1)</script>|`]]>\x1b[31m\u202e\x00&\"'<!--"


def life(
    at: int,
    token: int,
    *,
    vcpu: int = 0,
    tid: int = 4711,
    vm: str = "vm1",
    kind: str = "pv",
    outcome: str = "answered",
    phases: tuple[int | None, ...] = (200_000, 900_000, 300_000, 200_000, 400_000),
    blocker: int | None = None,
    tainted: bool = False,
) -> dict:
    """One row of faults: ``phases`` are P1 to P5 in ns; the first null ends what was seen."""
    row = {
        "machine": "host", "vm": vm, "vcpu": vcpu, "tid": tid, "token": token, "use": 1, "kind": kind,
        "gva": 0x7F1200000000 + token, "gfn": 0x7F1200000 + (token >> 12), "cpu": vcpu, "try": at - 3_000,
        "not_present": at, "queued": at + 1_000, "outcome": outcome, "repeated": 0, "blocker": blocker,
        "tainted": tainted,
    }  # fmt: skip
    now = at
    for phase, instant, length in zip(
        ("p1", "p2", "p3", "p4", "p5"),
        ("started", "completed", "ready", "injected", "acked"),
        phases,
        strict=False,
    ):
        if length is None:
            break
        now += length
        row |= {phase: length, instant: now}
    if "p1" in row and "p2" in row:
        row["p12"] = row["p1"] + row["p2"]
    if outcome == "answered":
        row |= {"end": now, "total": now - at}
    return row


def finding(number: int, rule: str, severity: str = "error", **more: object) -> dict:
    """One row of findings with everything filled in."""
    at = START + number * 1_000_000
    row = {
        "id": f"{rule}-{number}", "rule": rule, "severity": severity, "confidence": "proved",
        "machine": "host",
        "vm": "vm1", "vcpu": number % 4, "tid": 4711 + number % 4, "token": 0x26B000 + number % 4,
        "gva": 0x7F12_0000_0000 + number, "ts": at, "end": at + 21_000_000, "phase": "p3",
        "cause": "the ACK of the ready before it is missing", "blocker": 0x14000,
        "message": f"{rule}: token {0x26B000 + number % 4:#x} waited 21.0 ms for its ready",
        "evidence": [
            {"ts": at, "cpu": 2, "tid": 4711, "event": "kvm_async_pf_not_present",
             "text": f"token {0x26B000 + number % 4:#x} gva 0x7f1200000000"},
            {"ts": at + 1_400_000, "cpu": 3, "tid": 88, "event": "kvm_async_pf_completed",
             "text": "gva 0x7f1200000000 address 0x7fd3a8e00000"},
        ],
        "ruled_out": ["records lost on CPU 2", "vCPU stopped in userspace"],
        "not_ruled_out": ["guest interrupts off: record kvm_inj_virq"],
    }  # fmt: skip
    return row | more


def trace_input(**more: object) -> Input:
    """One host input."""
    facts: dict = {
        "path": "trace.dat", "format": "trace.dat v7 (zstd)", "machine": "host", "kernel": "6.12.95-amd64",
        "clock": "mono", "clock_unit": "ns", "cpus": 8,
        "events": {"kvm_entry": 40_210, "kvm_exit": 40_211, "kvm_async_pf_not_present": 548,
                   "kvm_async_pf_ready": 547, "kvm_try_async_get_page": 567},
        "lost_events": 0, "lost_cpus": (), "first_ns": START, "last_ns": START + 12_345_678_901,
        "sha256": "9f" * 32,
    }  # fmt: skip
    return Input(**(facts | more))


def analysis(lives: list[dict], findings: list[dict], **more: object) -> Analysis:
    """An analysis of these rows; the other tables follow from them."""
    return frames(table(FAULTS, lives), table(FINDINGS, findings), **more)


def table(declared: Table, rows: list[dict]) -> pl.DataFrame:
    """Rows as a frame of a declared table; keys that are missing become null."""
    return pl.DataFrame(rows, schema=declared.polars())


def frames(faults: pl.DataFrame, findings: pl.DataFrame, **more: object) -> Analysis:
    facts: dict = {
        "inputs": (trace_input(),),
        "verdict": "clean",
        "headline": "Every async page fault was answered in time.",
        "unsafe": (),
        "protocol": Protocol("int", 243, False, "kvm_apic_accept_irq vec 243 follows 547 of 547 PV readies"),
        "faults": faults,
        "findings": findings,
        "vcpus": vcpus(faults),
        "accounting": accounting(faults),
        "latency": latency(faults),
        "not_run": (),
        "late_after": {"p12": 20_000_000, "p3": 10_000_000},
    }
    return Analysis(**(facts | more))


def vcpus(faults: pl.DataFrame) -> pl.DataFrame:
    kinds = [(pl.col("kind") == kind).sum().alias(kind) for kind in ("pv", "halt")]
    quantiles = [pl.col("total").quantile(q / 100).alias(f"p{q}") for q in (50, 95, 99)]
    return VCPUS.conform(
        faults.group_by("machine", "vm", "vcpu", "tid")
        .agg(pl.len().alias("faults"), *kinds, *quantiles, pl.col("total").max().alias("max"))
        .with_columns(
            comm=pl.format("CPU {}/KVM", "vcpu"), outstanding_max=3, slot_busy=0.123, wake_all=1, refused=0,
            repeated=2, per_s=44.4, entries=20_105,
        )
        .sort("vm", "vcpu")
    )  # fmt: skip


def accounting(faults: pl.DataFrame) -> pl.DataFrame:
    def outcome(*names: str) -> pl.Expr:
        return pl.col("outcome").is_in(names).sum()

    sums = {
        "not_present": pl.len(),
        "answered": outcome("answered"),
        "cancelled": outcome("cancelled", "woken_by_all"),
        "in_flight": outcome("in_flight"),
        "lost": outcome("lost"),
        "undecided": outcome("undecided"),
        "ready": outcome("answered"),
    }
    fixed = {"repeated": 19, "refused": 0, "wake_all": 0, "left_truncated": 0, "stray": 0, "repaired": 0}
    rows = [
        faults.group_by("machine", "vm", "vcpu", "tid").agg(**sums).sort("vm", "vcpu"),
        faults.select(**sums),
    ]
    return ACCOUNTING.conform(
        pl.concat(rows, how="diagonal")
        .with_columns(**{name: pl.lit(value) for name, value in fixed.items()}, balanced=pl.lit(True))
        .with_columns(
            pl.col("answered").alias("delivered"),
            pl.col("answered").alias("acks"),
            (pl.col("not_present") + 19).alias("try"),
        )
    )


def latency(faults: pl.DataFrame) -> pl.DataFrame:
    rows = []
    for phase in ("total", *PHASES):
        for kind in ("all", "pv", "halt"):
            column = faults.filter((pl.col("kind") == kind) | (kind == "all"))[phase].drop_nulls()
            if len(column):
                quantiles = {f"p{q}": int(column.quantile(q / 100) or 0) for q in (50, 95, 99)}
                rows.append(
                    {"phase": phase, "kind": kind, "n": len(column), "min": column.min(), "max": column.max()}
                    | quantiles
                )
    return table(LATENCY, rows)


def empty() -> Analysis:
    """A trace without any async page fault."""
    return analysis(
        [],
        [],
        headline="The trace holds no async page fault.",
        not_run=(NotRun("late-wakeup", ("kvm_exit", "kvm_entry")),),
    )


def single() -> Analysis:
    """One answered life."""
    return analysis([life(START + 1_000_000, 0x26B001)], [])


def rich() -> Analysis:
    """Every severity, confidence and outcome; losses; two VMs; what could not run."""
    source = random.Random(7)
    lives = []
    for number in range(420):
        vcpu = source.randrange(4)
        halt = source.random() < 0.2
        lengths = [int(source.lognormvariate(mu, 1.1)) for mu in (12.1, 13.7, 12.8, 12.4, 12.9)]
        lives.append(
            life(
                START + int(number * 27_000_000 + source.random() * 20_000_000),
                (number + 1) << 12 | vcpu,
                vcpu=vcpu,
                tid=4711 + vcpu,
                vm="vm1" if vcpu < 2 else "vm2",
                kind="halt" if halt else "pv",
                phases=(*lengths[:3], None) if halt else tuple(lengths),
                blocker=0x14000 if lengths[2] > 2_000_000 else None,
            )
        )
    for number, outcome in enumerate(("lost", "in_flight", "undecided", "cancelled", "woken_by_all")):
        at = START + 3_000_000_000 + number * 1_700_000_000
        row = life(at, (900 + number) << 12, outcome=outcome, phases=(300_000, 1_200_000, None))
        lives.append(row | {"end": at + 1_500_000_000, "tainted": outcome == "undecided"})
    findings = [
        finding(1, "lost-wakeup", end=START + 2_000_000_000, token=900 << 12),
        *(finding(n, "late-wakeup", "warning", confidence="likely") for n in range(2, 9)),
        finding(9, "missing-ack", "warning", confidence="possible", vm="vm2"),
        finding(10, "wake-all", "info", token=None, blocker=None, cause=None, phase=None, evidence=[]),
    ]
    excerpt = tuple(
        f"     CPU 0/KVM-4711  [002] d..1. 4211.00{n}000: kvm_async_pf_not_present: token 0x384000 gva 0x7f12"
        for n in range(6)
    )
    lossy = trace_input(
        path="host.trace.dat",
        lost_events=1_204,
        lost_cpus=(3, 5, 6),
        notes=("CPU 3: a sub-buffer is cut short.",),
    )
    return analysis(
        lives,
        findings,
        inputs=(lossy, trace_input(path="guest.trace.dat", machine="vm1", sha256=None)),
        verdict="anomaly",
        headline="One wakeup was lost on vCPU 0, and 7 came late behind a missing ACK.",
        unsafe=("1,204 events were lost on CPUs 3, 5 and 6.", "kvm_exit was not recorded in the guest."),
        not_run=(
            NotRun("lost-in-guest", ("sched_wakeup", "apf:task_wait")),
            NotRun("refault-loop", ("kvm_page_fault",)),
        ),
        excerpts={"lost-wakeup-1": excerpt},
    )


def lossy() -> Analysis:
    """The rich analysis with gaps: a plain one, one without a count, open ends, one without a place."""
    second = 1_000_000_000
    return replace(
        rich(),
        losses=(
            LossSpan("host", 1, 530, START + 2 * second, START + 2 * second + 120_000_000),
            LossSpan("host", 3, 7, None, START + 1 * second),
            LossSpan("host", 3, None, START + 10 * second, None),
            LossSpan("host", 6, 40, None, None),
        ),
    )


def hostile(text: str = HOSTILE) -> Analysis:
    """The rich analysis with ``text`` in every place that a trace author can fill."""
    base = rich()
    named = [pl.lit(text).alias("vm"), pl.lit(text).alias("machine")]
    evidence = [{"ts": START, "cpu": 0, "tid": 1, "event": text, "text": text}]
    return replace(
        base,
        headline=text,
        unsafe=(text,),
        inputs=(
            trace_input(
                path=text, format=text, machine=text, kernel=text, clock=text, events={text: 3}, notes=(text,)
            ),
        ),
        protocol=Protocol("int", 243, None, text),
        faults=base.faults.with_columns(named),
        findings=FINDINGS.conform(
            base.findings.with_columns(
                *named,
                pl.lit(text).alias("message"),
                pl.lit(text).alias("cause"),
                pl.Series("evidence", [evidence] * base.findings.height, dtype=FINDINGS.polars()["evidence"]),
                pl.Series("ruled_out", [[text]] * base.findings.height),
                pl.Series("not_ruled_out", [[text]] * base.findings.height),
            )
        ),
        vcpus=base.vcpus.with_columns(*named, pl.lit(text).alias("comm")),
        accounting=base.accounting.with_columns(
            *named, pl.Series("broken", [[text]] * base.accounting.height), balanced=False
        ),
        not_run=(NotRun("lost-in-guest", (text,)),),
        excerpts={"lost-wakeup-1": (text,)},
        losses=(LossSpan(text, 0, 3, START, START + 9), LossSpan("host", 0, 3, None, None)),
    )


def many(number: int = 50_000) -> Analysis:
    """A long trace: ``number`` lives on eight vCPUs and several thousand findings."""
    source = random.Random(11)
    step = 600_000_000_000 // number
    lives = []
    for at in range(number):
        vcpu = source.randrange(8)
        lengths = [int(source.lognormvariate(mu, 1.1)) for mu in (12.1, 13.7, 12.8, 12.4, 12.9)]
        lives.append(
            life(
                START + at * step,
                (at % 0xFFFFF + 1) << 12 | vcpu,
                vcpu=vcpu,
                tid=4711 + vcpu,
                outcome="lost" if at % 9_973 == 5 else "answered",
                phases=(*lengths[:2], None) if at % 9_973 == 5 else tuple(lengths),
            )
        )
    for row in lives:
        row.setdefault("end", START + number * step)
    late = [finding(n, "late-wakeup", "warning") for n in range(3_000)]
    lost = [finding(n, "lost-wakeup") for n in range(6)]
    return analysis(
        lives,
        lost + late,
        inputs=(trace_input(last_ns=START + number * step),),
        verdict="anomaly",
        headline="6 wakeups were lost and 3,000 came late.",
    )
