"""One history of a guest, traced in every way, gives the same hits."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.guest import Call, GraphColumns, Guest
from tests.builders.guest_events import ADDRESSES, IRQ, KALLSYMS, WAIT, WAKE, WAKE_ALL, probe

from .support import calls, history, recorded, scheduled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apftrace.model.guest.recording import GuestRecording

KINDS = {WAIT: "wait", WAKE: "wake", IRQ: "irq", WAKE_ALL: "wake_all"}
DAT_FORMS = ("kprobe", "function", "function_args", "graph", "graph_args", "graph_retaddr")
TOLD = {
    # Whether a form tells returns, and whether it tells tokens.
    "kprobe": (True, True),
    "function": (False, False),
    "function_args": (False, True),
    "graph": (True, False),
    "graph_args": (True, True),
    # What stands where arguments would is the return address.
    "graph_retaddr": (True, False),
}
MODERATE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def expected(guest: Guest, hooks: str) -> list[tuple[object, ...]]:
    """Return the calls of a history as hits of a form."""
    returns, tokens = TOLD[hooks]
    rows = []
    for call in sorted(guest.events, key=lambda e: e.ts):
        if not isinstance(call, Call) or (call.returns and (not returns or call.function == WAKE_ALL)):
            continue
        kind = KINDS[call.function] + ("_return" if call.returns else "")
        token = call.token if tokens and kind in ("wait", "wake") else None
        rows.append((call.ts, call.cpu, call.tid, kind, token))
    return rows


@pytest.mark.parametrize("hooks", DAT_FORMS)
def test_records(tmp_path: Path, hooks: str) -> None:
    guest = history()
    rec = recorded(guest.dat(tmp_path / "g.dat", hooks))
    assert calls(rec) == expected(guest, hooks)
    assert rec.notes == ()


@pytest.mark.parametrize("hooks", ["kprobe", "function", "function_args"])
def test_text(tmp_path: Path, hooks: str) -> None:
    guest = history()
    text = recorded(guest.text(tmp_path / "g.txt", hooks))
    assert calls(text) == expected(guest, hooks)
    assert scheduled(text) == scheduled(recorded(guest.dat(tmp_path / "g.dat", hooks)))
    assert text.notes == ()


COLUMNS = [
    GraphColumns(time, elapsed, cpu, task, flags, duration, tail, args)
    for time, elapsed, cpu, task, flags, duration, tail, args in itertools.product((True, False), repeat=8)
    if cpu and not (time and elapsed)
]


def in_order(rows: list[tuple[object, ...]], *, timed: bool) -> list[tuple[object, ...]]:
    """Forget the instants where a text has none, but not the order."""
    return rows if timed else [row[1:] for row in rows]


def without_leaves(rec: GuestRecording) -> list[tuple[object, ...]]:
    """Return the calls with the true instant where the text only gives that of a leaf's start."""
    return [
        (ts if leaf is None else None, cpu, tid, kind, token)
        for ts, cpu, tid, kind, token, leaf in calls(rec, "ts", "cpu", "tid", "kind", "token", "a")
    ]


@pytest.mark.parametrize("columns", COLUMNS, ids=str)
def test_text_of_the_function_graph(tmp_path: Path, columns: GraphColumns) -> None:
    guest = history()
    rec = recorded(guest.text(tmp_path / "g.txt", "graph", columns))
    timed = columns.time or columns.elapsed
    shown = without_leaves(rec)
    assert [row[:4] for row in in_order(shown, timed=False)] == [
        (*row[:3], token if columns.args and row[2] in ("wait", "wake") else None)
        for row, token in ((r[1:], r[4]) for r in expected(guest, "graph_args"))
    ]
    leaves = [row for row in shown if row[0] is None]
    assert {row[3] for row in leaves} <= {"wake_return", "irq_return", "wait_return"}
    assert rec.clock_unit == ("ns" if timed else "ticks")
    if timed:
        # The line of a leaf has only the instant of its begin, which is the row before.
        true = [row[0] for row in expected(guest, "graph")]
        assert [ts for (ts,) in calls(rec, "ts")] == [
            true[n - 1] if row[0] is None else true[n] for n, row in enumerate(shown)
        ]


def test_the_thread_of_a_graph_without_any_switch_is_unknown(tmp_path: Path) -> None:
    guest = Guest()
    guest.call(1_000_000, 128, WAIT).call(2_000_000, 128, WAIT, returns=True)
    rec = recorded(guest.text(tmp_path / "g.txt", "graph"))
    assert calls(rec, "tid", "kind", "a") == [(-1, "wait", None), (-1, "wait_return", 1)]
    # A CPU that never switches has one thread all along, and another CPU another.
    guest.call(3_000_000, 129, WAIT, cpu=1)
    both = recorded(guest.text(tmp_path / "g.txt", "graph"))
    assert calls(both, "cpu", "tid") == [(0, -1), (0, -1), (1, -2)]


def test_a_brace_without_cpu_or_thread_is_nobodys(tmp_path: Path) -> None:
    guest = Guest()
    for cpu, tid in ((0, 128), (1, 7)):
        guest.call(1_000_000 + cpu, tid, WAIT, cpu=cpu).call(2_000_000 + cpu, tid, WAKE, cpu=cpu)
        guest.call(3_000_000 + cpu, tid, WAKE, cpu=cpu, returns=True)
        guest.call(4_000_000 + cpu, tid, WAIT, cpu=cpu, returns=True)
    path = guest.text(tmp_path / "g.txt", "graph", GraphColumns(cpu=False))
    assert [kind for (kind,) in calls(recorded(path), "kind")] == [
        "wait",
        "wait",
        *["wake", "wake_return"] * 2,
    ]


@pytest.mark.parametrize("hooks", ["kprobe", "function", "graph"])
def test_a_hook_behind_endbr_is_at_the_start(tmp_path: Path, hooks: str) -> None:
    guest = history()
    dat = guest.trace_dat(hooks, entry_offset=4)
    assert calls(recorded(dat.write(tmp_path / "g.dat"))) == expected(guest, hooks)


def test_a_hook_in_the_middle_of_a_function_is_none(tmp_path: Path) -> None:
    guest = history()
    dat = guest.trace_dat("kprobe", entry_offset=0x90)
    assert [
        kind for (kind,) in calls(recorded(dat.write(tmp_path / "g.dat")), "kind") if "_" not in str(kind)
    ] == []


def test_the_name_of_a_probe_means_nothing_where_symbols_tell(tmp_path: Path) -> None:
    crossed = {
        (WAIT, False): probe("async_pf_wake", 1, {"token": "u32"}),
        (WAKE, False): probe("async_pf_wait", 2, {"token": "u32"}),
        ("schedule", False): probe("async_pf_irq", 3, {}),
    }
    guest = history().call(9_000_000, 5, "schedule")
    rec = recorded(guest.trace_dat(probes=crossed).write(tmp_path / "g.dat"))
    assert calls(rec) == [
        row for row in expected(guest_without_other(guest), "kprobe") if row[3] in ("wait", "wake")
    ]
    assert rec.hooks["wait"] == ("apf:async_pf_wake",)
    assert "irq" not in rec.hooks


def guest_without_other(guest: Guest) -> Guest:
    """Return a guest without calls of functions that matter to nobody."""
    return replace(guest, events=[e for e in guest.events if not isinstance(e, Call) or e.function in KINDS])


def test_one_event_on_several_functions(tmp_path: Path) -> None:
    both = probe("probe", 1, {"arg1": "u64"})
    guest = history()
    rec = recorded(
        guest.trace_dat(probes={(WAIT, False): both, (WAKE, False): both}).write(tmp_path / "g.dat")
    )
    assert calls(rec) == [row for row in expected(guest, "kprobe") if row[3] in ("wait", "wake")]


NO_SYMBOLS = {
    "none": "",
    "hidden": "".join(f"{0:016x} T {name}\n" for name in ADDRESSES),
    "cut": "ffffffff81a00000 T schedule\n",
    "others": "ffffffff8107d280 T kvm_async_pf_task_wait_schedule.cold\n",
}


@pytest.mark.parametrize("kallsyms", NO_SYMBOLS.values(), ids=NO_SYMBOLS)
def test_without_symbols_names_decide_and_that_is_said(tmp_path: Path, kallsyms: str) -> None:
    guest = history()
    rec = recorded(guest.trace_dat(kallsyms=kallsyms).write(tmp_path / "g.dat"))
    found = [row for row in expected(guest, "kprobe") if row[3] in ("wait", "wake", "irq")]
    assert [row for row in calls(rec) if row[3] in ("wait", "wake", "irq")] == found
    assert any("apf:task_wait is taken for wait by its name" in note for note in rec.notes)
    unnamed = guest.trace_dat("function", kallsyms=kallsyms).write(tmp_path / "f.dat")
    assert calls(recorded(unnamed)) == []


def test_names_that_mean_something_else(tmp_path: Path) -> None:
    probes = {
        (WAIT, False): probe("wait_for_disk", 1, {"x": "u32"}, system="kprobes"),
        (WAKE, False): probe("wake_up_new_task", 2, {"x": "u32"}, system="kprobes"),
        (IRQ, False): probe("irq", 3, {}, system="kprobes"),
    }
    rec = recorded(history().trace_dat(probes=probes, kallsyms="").write(tmp_path / "g.dat"))
    assert calls(rec) == []


def test_clones_of_a_function_are_the_function(tmp_path: Path) -> None:
    guest = history()
    kallsyms = KALLSYMS.replace(f"{WAKE}\n", f"{WAKE}.isra.0\n").replace(
        f"{WAIT}\n", f"{WAIT}.constprop.0\t[kvm]\n"
    )
    rec = recorded(guest.trace_dat(kallsyms=kallsyms).write(tmp_path / "g.dat"))
    assert calls(rec) == expected(guest, "kprobe")


@pytest.mark.parametrize("name", ["kvm_async_pf_task_wait", "kvm_async_pf_task_wait_schedule"])
def test_older_names(tmp_path: Path, name: str) -> None:
    guest = history()
    dat = guest.trace_dat(kallsyms=KALLSYMS.replace(WAIT, name))
    assert calls(recorded(dat.write(tmp_path / "g.dat"))) == expected(guest, "kprobe")
    text = guest.text(tmp_path / "g.txt", "function")
    text.write_text(text.read_text().replace(WAIT, name))
    assert calls(recorded(text)) == expected(guest, "function")


@pytest.mark.parametrize(
    ("fields", "token"),
    [
        ({"token": "u32"}, "token"),
        ({"x": "u64"}, "x"),
        ({"x": "s64"}, "x"),
        ({"pid": "s32", "tok": "u32"}, "tok"),
        ({"flags": "u64", "arg1": "u64", "arg2": "u64"}, "arg1"),
        ({"my_token_2": "u32", "arg1": "u64"}, "my_token_2"),
        ({"stoken": "u32", "other": "u32"}, None),
    ],
)
def test_the_field_of_the_token(tmp_path: Path, fields: dict[str, str], token: str | None) -> None:
    forms = {(WAIT, False): probe("w", 1, fields), (WAKE, False): probe("k", 2, fields)}
    guest = Guest()
    guest.fault(1_000_000, 128, 0xFFFFFFFF if token else 0x1001)
    rec = recorded(guest.trace_dat(probes=forms).write(tmp_path / "g.dat"))
    # Signed or not, of 32 bits or 64.
    assert [row[4] for row in calls(rec)] == [0xFFFFFFFF if token else None] * 2


@pytest.mark.parametrize("suffix", ["dat", "txt"])
@pytest.mark.parametrize(
    ("others", "found"),
    [
        # A pointer, a flag, a time, a process: none of them looks like a token.
        ({"x": 0xFFFF888012345678, "y": 1, "z": 48_379_200_123}, True),
        ({"x": 0xFFFFFFFF81CE5DCF, "y": 0, "z": -14}, True),
        # One that looks like one, on every hit.
        ({"x": 0x5001}, False),
    ],
)
def test_the_field_of_the_token_by_its_values(
    tmp_path: Path, others: dict[str, int], found: bool, suffix: str
) -> None:
    fields = {"p": "u64", **dict.fromkeys(others, "s64")}
    forms = {(WAIT, False): probe("apf_wait", 1, fields), (WAKE, False): probe("apf_wake", 2, fields)}
    guest = Guest()
    ts = 1_000_000
    for n in range(1, 20):
        ts = guest.fault(ts, 128, n << 12 | 1)
    dat = guest.trace_dat(probes=forms, values=others)
    path = dat.write(tmp_path / "g.dat")
    if suffix == "txt":
        path = guest.text(tmp_path / "g.txt", probes=forms, values=others)
    tokens = [row[4] for row in calls(recorded(path)) if row[3] == "wait"]
    assert tokens == [n << 12 | 1 if found else None for n in range(1, 20)]


def test_probes_may_be_called_as_columns(tmp_path: Path) -> None:
    forms = {(WAIT, False): probe("ts", 1, {"cpu": "u32"}), (WAKE, False): probe("tid", 2, {"ts": "u64"})}
    guest = Guest()
    guest.fault(1_000_000, 128, 0x1001)
    rec = recorded(guest.trace_dat(probes=forms).write(tmp_path / "g.dat"))
    assert [row[3:] for row in calls(rec)] == [("wait", 0x1001), ("wake", 0x1001)]


FAULTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.booleans(), st.integers(1, 2**32 - 1)),
    min_size=1,
    max_size=8,
)


@MODERATE
@given(FAULTS, st.sampled_from(["kprobe", "function", "function_args"]))
def test_any_history(tmp_path: Path, faults: list[tuple[int, int, bool, int]], hooks: str) -> None:
    guest = Guest()
    ts = 1_000_000
    for cpu, thread, sleeps, token in faults:
        ts = guest.fault(ts, 100 + thread, token, cpu=cpu, sleeps=sleeps)
    text, dat = recorded(guest.text(tmp_path / "t", hooks)), recorded(guest.dat(tmp_path / "d", hooks))
    assert calls(text) == calls(dat) == expected(guest, hooks)
    assert scheduled(text) == scheduled(dat)


@MODERATE
@given(FAULTS, st.sampled_from(COLUMNS))
def test_any_history_as_graph(
    tmp_path: Path, faults: list[tuple[int, int, bool, int]], columns: GraphColumns
) -> None:
    guest = Guest()
    ts = 1_000_000
    for cpu, thread, sleeps, token in faults:
        ts = guest.fault(ts, 100 + thread, token, cpu=cpu, sleeps=sleeps)
    rec = recorded(guest.text(tmp_path / "g", "graph", columns))
    told = [row[3] for row in expected(guest, "graph")]
    assert [kind for (kind,) in calls(rec, "kind")] == told
    cpus = [row[1] for row in expected(guest, "graph")]
    assert [cpu for (cpu,) in calls(rec, "cpu")] == cpus


SHOWN = {
    "sym-addr": (r"\((\w+)\+0x0/0x1b0\)", r"(\1+0x0/0x1b0 <ffffffff8107d280>)"),
    "sym-addr, returns": (
        r"\+0x4f/0xb0 <- (\w+)\)",
        r"+0x4f/0xb0 <ffffffff81ce5dcf> <- \1 <ffffffff8107d280>)",
    ),
    "module": (r"\((\w+)\+0x0/0x1b0\)", r"(\1+0x0/0x1b0 [kvm_guest])"),
    "hexadecimal": (r"token=(\d+)", lambda found: f"token={int(found[1]):#x}"),
    "signed": (r"token=(\d+)", lambda found: f"token={int(found[1]) - (int(found[1]) >> 31 << 32)}"),
    "other arguments": (r"token=(\d+)", r'comm="a tok=5" token=\1 regs=0xffffc90000013f58'),
}


@pytest.mark.parametrize("form", SHOWN.values(), ids=SHOWN)
def test_other_ways_to_print_a_probe(
    tmp_path: Path, form: tuple[str, str | Callable[[re.Match[str]], str]]
) -> None:
    guest = history()
    guest.fault(20_000_000, 129, 0x80000001)
    path = guest.text(tmp_path / "g.txt")
    path.write_text(re.sub(*form, path.read_text()))
    assert calls(recorded(path)) == expected(guest, "kprobe")


def test_functions_with_their_addresses(tmp_path: Path) -> None:
    guest = history()
    path = guest.text(tmp_path / "g.txt", "function")
    path.write_text(
        re.sub(r"(\w+) <-(\w+)", r"\1 <ffffffff8107d280> <-\2 <ffffffff8107d281>", path.read_text())
    )
    assert calls(recorded(path)) == expected(guest, "function")
