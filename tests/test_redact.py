"""Redacted reports carry no address, comm, host name, guest name or path of the trace, in any format."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import apftrace
from apftrace.analysis import Analysis, Input, Protocol
from apftrace.redact import redacted
from apftrace.schema import ACCOUNTING, FAULTS, FINDINGS, LATENCY, VCPUS
from apftrace_reports.json_report import JsonReport, schema
from apftrace_reports.registry import BUILTIN

TOKEN = 0x26B001
GVA, GFN, HVA = 0x7F1234567ABC, 0x7F1234567, 0x55AA99887000
COMM, HOST, GUEST, PATH = "acme-vmm/7", "node17.acme.example", "customer-db", "/home/jo/acme/bug.dat"
SECRETS = (
    "acme", "node17", "customer", "/home", "bug.dat", "sidekick", "kworker/0:7",
    "7f1234567", "55aa99887", "deadbeef", "1e7500", "c0ffee", "123450",
)  # fmt: skip

EXCERPT = (
    "  acme-vmm/7-4711 [002] d..1. 42.000001: kvm_page_fault: address 0x00007f1234567abc error_code 0x14",
    "  sidekick:2-99   [002] d..2. 42.000002: sched_switch: prev_comm=sidekick:2 prev_pid=99 prev_prio=120",
    "      <idle>-0    [002] d..2. 42.000003: sched_waking: acme-vmm/7:4711 [120] CPU:002",
    "  kworker/0:7-88  [000] ..... 42.000004: workqueue_execute_start: work struct 00000000deadbeef",
)


def analysis(*, gva: int = GVA, gfn: int = GFN, hva: int = HVA, comm: str = COMM) -> Analysis:
    """One lost life, told with every kind of text that a report can carry."""
    who = {"machine": "host", "vm": GUEST, "vcpu": 1, "tid": 4711}
    finding = who | {
        "id": "lost-wakeup-1", "rule": "lost-wakeup", "severity": "error", "confidence": "likely",
        "token": TOKEN, "gva": gva, "ts": 10, "end": 90, "phase": "p3", "blocker": 0x14001,
        "message": f"no ready for token {TOKEN:#x} on gfn {gfn:#x}, {comm} ran",
        "cause": f"slot held by predecessor 0x14001: pfn 0x123450, EN = {0xC0FFEE40 | 9:#x}",
        "evidence": [
            {"ts": 10, "cpu": 2, "tid": 4711, "event": "kvm_async_pf_not_present",
             "text": f"token {TOKEN:#x} gva {gva:#x}"},
            {"ts": 20, "cpu": 2, "tid": 88, "event": "kvm_async_pf_completed",
             "text": f"gva {gva:#x} address {hva:#x}"},
            {"ts": 30, "cpu": 2, "tid": 4711, "event": "kvm_msr",
             "text": "msr_write 4b564d02 = 0xc0ffee49"},
            {"ts": 40, "cpu": 2, "tid": 4711, "event": "kvm_inj_virq", "text": "IRQ 0xf3"},
        ],
        "ruled_out": [f"another VM than {GUEST}"],
        "not_ruled_out": [f"what {comm} did on {HOST}", "work struct 0x1e7500c0"],
    }  # fmt: skip
    life = who | {
        "token": TOKEN, "gva": gva, "gfn": gfn, "hva": hva, "kind": "pv", "outcome": "lost",
        "not_present": 10, "completed": 20, "end": 90, "p12": 10,
    }  # fmt: skip
    source = Input(
        path=PATH, format="trace.dat v7", machine="host", kernel=f"Linux {HOST} 6.12.95-amd64 x86_64",
        clock="mono", clock_unit="ns", cpus=4, events={"kvm_async_pf_ready": 0}, lost_events=0, lost_cpus=(),
        first_ns=0, last_ns=100, notes=(f"{PATH}: cut off", "bug.dat: guest file ../acme/g.dat not read"),
        sha256="9f" * 32,
    )  # fmt: skip
    guest = replace(source, machine=GUEST, path="acme/guest.dat", kernel="Linux customer-db 6.1.0 x86_64")
    return Analysis(
        inputs=(source, guest),
        verdict="anomaly",
        headline=f"One wakeup of {GUEST} was lost.",
        unsafe=(f"{HOST} lost records",),
        protocol=Protocol("int", 243, None, f"seen on node17, thread {comm}"),
        faults=pl.DataFrame([life], FAULTS.polars()),
        findings=pl.DataFrame([finding], FINDINGS.polars()),
        vcpus=pl.DataFrame([who | {"comm": comm, "faults": 1, "p50": 10}], VCPUS.polars()),
        accounting=pl.DataFrame(
            [who | {"balanced": False, "broken": [f"{GUEST}: 1 != 2"]}], ACCOUNTING.polars()
        ),
        latency=LATENCY.empty(),
        not_run=(),
        late_after={},
        excerpts={"lost-wakeup-1": EXCERPT},
    )


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def shown(report: str, data: bytes) -> str:
    """The report's own words: a page without the script that draws its charts, lines not wrapped."""
    text = data.decode()
    if report == "html":
        text = max(re.split(r"<script(?![^>]*json)[^>]*>.*?</script>", text, flags=re.S), key=len)
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("report", BUILTIN, ids=lambda r: r.name)
def test_no_secret_survives(report):
    before, after = (shown(report.name, report.render(a)) for a in (analysis(), redacted(analysis())))
    assert any(secret in before for secret in SECRETS)
    assert [secret for secret in SECRETS if secret in after.lower()] == []
    assert f"{TOKEN:#x}" in after


def test_no_secret_survives_in_the_tables():
    hidden = redacted(analysis())
    tables = (hidden.faults, hidden.findings, hidden.vcpus, hidden.accounting, hidden.latency)
    rows = json.dumps([row for table in tables for row in table.to_dicts()]).lower()
    assert [secret for secret in SECRETS if secret in rows] == []
    assert not {GVA, GFN, HVA, GVA >> 12, HVA >> 12} & {int(n) for n in re.findall(r"\b\d+\b", rows)}


def test_what_a_finding_is_about_stays():
    finding = redacted(analysis()).findings.row(0, named=True)
    assert (finding["token"], finding["tid"], finding["blocker"]) == (TOKEN, 4711, 0x14001)
    assert "predecessor 0x14001" in finding["cause"]
    assert finding["evidence"][3]["text"] == "IRQ 0xf3"
    assert finding["evidence"][2]["text"].endswith("9")  # the flags of EN


def test_equal_pages_stay_equal():
    hidden = redacted(analysis())
    life, finding = hidden.faults.row(0, named=True), hidden.findings.row(0, named=True)
    assert life["gva"] == finding["gva"] == life["gfn"] << 12
    assert f"gfn {life['gfn']:#x}" in finding["message"]
    assert f"gva {life['gva']:#x}" in finding["evidence"][0]["text"]
    assert f"address {life['hva']:#x}" in finding["evidence"][1]["text"]
    assert f"address {life['gva']:#x}" in hidden.excerpts["lost-wakeup-1"][0]


def test_one_name_has_one_pseudonym():
    hidden = redacted(analysis())
    assert hidden.inputs[0].path == "trace-1"
    assert hidden.inputs[0].notes == ("trace-1: cut off", "trace-1: guest file /path-1 not read")
    assert hidden.inputs[0].kernel == "Linux host-1 6.12.95-amd64 x86_64"
    assert hidden.inputs[1].machine == hidden.vcpus["vm"][0] == "guest-1"
    assert hidden.protocol.why == f"seen on host-1, thread {hidden.vcpus['comm'][0]}"
    assert hidden.excerpts["lost-wakeup-1"][2].count(hidden.vcpus["comm"][0]) == 1
    assert hidden.inputs[0].sha256 is None


def test_a_merged_report_and_an_unreadable_input_tell_no_name():
    base = analysis()
    merged = replace(
        base.inputs[0], format=f"text of trace-cmd report (merged), lines of {HOST}", machine=HOST
    )
    broken = replace(
        base,
        inputs=(*base.inputs, merged),
        unread=("acme-guest.dat",),
        unsafe=("not read: acme-guest.dat: cut off",),
    )
    hidden = redacted(broken)
    assert "acme" not in hidden.inputs[-1].format + hidden.unsafe[0] + hidden.unread[0]
    assert hidden.unsafe[0] == f"not read: {hidden.unread[0]}: cut off"


def test_excerpts_keep_their_shape():
    assert redacted(analysis()).excerpts["lost-wakeup-1"][1] == (
        "  comm-2-99   [002] d..2. 42.000002: sched_switch: prev_comm=comm-2 prev_pid=99 prev_prio=120"
    )


def test_a_comm_that_is_a_word_goes_only_where_a_name_stands():
    base = analysis()
    told = "vCPU asleep, no sleep for it while sleep (12) ran"
    hidden = redacted(replace(base, findings=base.findings.with_columns(pl.lit(told).alias("cause"))))
    assert re.fullmatch(r"vCPU asleep, no sleep for it while comm-\d \(12\) ran", hidden.findings["cause"][0])


SAMPLES = Path(__file__).parents[1] / "sample-traces"


@pytest.mark.parametrize("sample", ["irqoff-600-controlled.dat", "k612-two-vms-v7.dat"])
def test_no_comm_of_a_real_trace_survives(sample):
    with apftrace.read_trace(SAMPLES / sample) as trace:
        comms = trace.info.comms
        analysis = apftrace.analyze(trace)
    before, after = (JsonReport().render(a).decode() for a in (analysis, redacted(analysis)))
    assert any(f"{comm} ({tid})" in before for tid, comm in comms.items())
    assert [comm for tid, comm in comms.items() if f"{comm} ({tid})" in after] == []
    odd = {comm for comm in comms.values() if not comm.isalpha()}
    assert [comm for comm in odd if re.search(rf"(?<!\w){re.escape(comm)}(?!\w)", after)] == []


def test_names_that_the_model_made_stay():
    base = analysis()
    own = base.vcpus.with_columns(pl.lit("vm-3099").alias("vm"))
    assert redacted(replace(base, vcpus=own)).vcpus["vm"].to_list() == ["vm-3099"]


def test_a_uname_line_without_host_stays():
    base = analysis()
    lines = [
        replace(base.inputs[0], kernel=kernel) for kernel in ("6.12.95-amd64", "Linux 6.1.0 x86_64", None)
    ]
    assert [one.kernel for one in redacted(replace(base, inputs=tuple(lines))).inputs] == [
        "6.12.95-amd64",
        "Linux 6.1.0 x86_64",
        None,
    ]


def test_the_same_input_gives_the_same_report():
    first, second = ([r.render(redacted(analysis())) for r in BUILTIN] for _ in range(2))
    assert first == second


addresses = st.integers(0x1_0000_0000, 0xFFFF_FFFF_FFFF)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_./ -]{4,13}[A-Za-z0-9]", fullmatch=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(addresses, addresses, addresses, names)
def test_any_value_is_hidden(gva, gfn, hva, comm):
    by_name = {report.name: report for report in BUILTIN}
    comm = f"q~{comm}"
    hidden = redacted(analysis(gva=gva, gfn=gfn, hva=hva, comm=comm))
    text = by_name["json"].render(hidden).decode() + by_name["md"].render(hidden).decode()
    numbers = {int(n, 16) for n in re.findall(r"0x[0-9a-f]+", text)}
    pages = {gva >> 12, gfn, hva >> 12}
    assert not numbers & (pages | {gva, hva}) - {TOKEN, 0x14001}
    assert not {n >> 12 for n in numbers} & pages - {TOKEN >> 12}
    assert comm not in text
    frames = hidden.faults.row(0, named=True)
    equal = len({gva >> 12, gfn, hva >> 12})
    assert len({frames["gva"] >> 12, frames["gfn"], frames["hva"] >> 12}) == equal


def test_json_stays_valid_by_its_schema():
    jsonschema.validate(json.loads(JsonReport().render(redacted(analysis()))), schema())
