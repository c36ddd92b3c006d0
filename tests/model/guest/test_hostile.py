"""Guest traces from strangers: any change of any byte, and names that are not what they seem."""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apftrace.errors import TraceError
from apftrace.model.guest.identity import guest_name, is_guest
from apftrace.model.guest.recording import record_guest
from apftrace_parsers.registry import open_source
from tests.builders.guest import GraphColumns, Guest
from tests.builders.guest_events import WAIT, WAKE, probe

from .support import calls, recorded

MODERATE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FORMS = (
    "kprobe",
    "function_args",
    "graph_args",
    "kprobe.txt",
    "function_args.txt",
    "graph.txt",
    "merged.txt",
)


@cache
def seed(form: str) -> bytes:
    """Return a trace in a form, as it should be."""
    guest = Guest()
    guest.fault(guest.fault(1_000_000, 128, 0x1001), 129, 0x2001, sleeps=False)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "g"
        hooks, _, text = form.partition(".")
        if form == "merged.txt":
            own = guest.text(path).read_bytes().splitlines(keepends=True)
            return b"a.dat: cpus=1\nb.dat: cpus=1\n" + b"".join(b"b.dat: " + line for line in own)
        if text:
            return guest.text(path, hooks, GraphColumns(task=True)).read_bytes()
        return guest.dat(path, hooks).read_bytes()


@MODERATE
@given(st.sampled_from(FORMS), st.data())
def test_any_change(tmp_path: Path, form: str, data: st.DataObject) -> None:
    changed = bytearray(seed(form))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path = tmp_path / "g"
    path.write_bytes(changed)
    with contextlib.suppress(TraceError):
        whole = open_source(path)
        for part in [whole.machine(name) for name in whole.machines] or [whole]:
            is_guest(part)
            rec, _ = record_guest(part, guest_name(part.info))
            assert rec.hits["ts"].is_sorted()
            assert rec.hits["seq"].to_list() == list(range(rec.hits.height))
        whole.close()


@pytest.mark.parametrize(
    "comm",
    [
        "a-1 [000] d..1.",
        "(kvm_async_pf_t",
        "x: f <-g",
        "\x1b[31m",
        ") token=5",
        "} /* f */",
        " 1) | f();",
        "=> b-2",
    ],
)
@pytest.mark.parametrize("hooks", ["kprobe", "function", "graph"])
def test_comms_that_look_like_something_else(tmp_path: Path, comm: str, hooks: str) -> None:
    guest = Guest(comms={0: "<idle>", 128: comm})
    guest.fault(1_000_000, 128, 0x1001)
    plain = Guest()
    plain.fault(1_000_000, 128, 0x1001)
    assert calls(recorded(guest.text(tmp_path / "a", hooks))) == calls(
        recorded(plain.text(tmp_path / "b", hooks))
    )


def test_a_probe_may_be_called_as_anything_the_kernel_has(tmp_path: Path) -> None:
    forms = {
        (WAIT, False): probe("sched_wakeup_", 1, {"token": "u32"}, system="sched"),
        (WAKE, False): probe("function", 2, {"token": "u32"}, system="kvm"),
    }
    guest = Guest()
    guest.fault(1_000_000, 128, 0x1001)
    rec = recorded(guest.trace_dat(probes=forms).write(tmp_path / "g.dat"))
    assert [row[3:] for row in calls(rec)] == [("wait", 0x1001), ("wake", 0x1001)]
    assert rec.hooks["wake"] == ("kvm:function",)


def test_a_thread_that_never_sleeps_again_does_not_fill_the_memory(tmp_path: Path) -> None:
    guest = Guest()
    guest.call(1_000_000, 128, WAIT)
    for n in range(5_000):
        guest.switch(2_000_000 + 2_000 * n, 128, 7).switch(2_001_000 + 2_000 * n, 7, 128)
    rec = recorded(guest.trace_dat("function").write(tmp_path / "g.dat"))
    assert 100 < rec.kind("switch").height <= 512
