"""Lines of ftrace text, one form after the other, and what a source makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apftrace.errors import TraceFormatError, TraceUnsupported
from apftrace.model import tracepoints as tp
from apftrace_parsers.base import PassResult, Pick
from apftrace_parsers.registry import open_source
from tests.builders.ftracetext import HEADER, line, written

from .support import streamed, tabled

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = (Pick(("kvm:kvm_entry",), (("vcpu_id",),)),)


def one(tmp_path: Path, text: str) -> tuple[int, ...]:
    """Return ts, cpu and tid of the only record of a text."""
    rows, result = streamed(written(tmp_path, text), ENTRY)
    assert result.notes == []
    assert [row["pick"] for row in rows] == [0]
    return rows[0]["ts"], rows[0]["cpu"], rows[0]["tid"]


HEADS = {
    "tracefs": "       CPU 0/KVM-3099    [001] d..1.  1741.894739: ",
    "tgid": "       CPU 0/KVM-3099    (   3084) [001] d..1.  1741.894739: ",
    "no tgid": "       CPU 0/KVM-3099    (-------) [001] d..1.  1741.894739: ",
    "no flags": "       CPU 0/KVM-3099    [001]  1741.894739: ",
    "four flags": "       CPU 0/KVM-3099    [001] d..1  1741.894739: ",
    "lazy": "       CPU 0/KVM-3099    [001] dLb2.  1741.894739: ",
    "letters": "       CPU 0/KVM-3099    [001] bNHff  1741.894739: ",
    "trace-cmd": "       CPU 0/KVM-3099  [001]  1741.894739: ",
    "trace-cmd with flags": "       CPU 0/KVM-3099  [001] d..1.  1741.894739: ",
    "indentation lost": "CPU 0/KVM-3099 [001] d..1. 1741.894739: ",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_heads_of_lines(tmp_path: Path, head: str) -> None:
    assert one(tmp_path, head + "kvm_entry: vcpu 0, rip 0x1\n") == (1741894739000, 1, 3099)


def test_nanoseconds(tmp_path: Path) -> None:
    text = "            bash-1     [000]  1621.056585298: kvm_entry:            vcpu 0 rip 0x1\n"
    assert one(tmp_path, text)[0] == 1621056585298


@pytest.mark.parametrize("stamp", ["          12345", "5423523031971"])
def test_stamps_without_a_dot_are_ticks(tmp_path: Path, stamp: str) -> None:
    path = written(tmp_path, f"            bash-1     [000]{stamp}: kvm_entry: vcpu 0, rip 0x1\n")
    source = open_source(path)
    assert source.info.clock_unit == "ticks"
    source.close()
    assert streamed(path, ENTRY)[0][0]["ts"] == int(stamp)


@pytest.mark.parametrize(
    ("comm", "shown"),
    [
        ("CPU 0/KVM", "CPU 0/KVM"),
        ("<...>", None),
        ("<idle>", "<idle>"),
        ("a-1 [0] 1: b:", "a-1 [0] 1: b:"),
        ("x-7 (   1) [00", "x-7 (   1) [00"),
        ("kworker/u4:0-ev", "kworker/u4:0-ev"),
        ("[0] ..1. 1.5:", "[0] ..1. 1.5:"),
        ("\u00e9t\u00e9", "\u00e9t\u00e9"),
        ("-", "-"),
    ],
)
def test_a_comm_may_be_anything(tmp_path: Path, comm: str, shown: str | None) -> None:
    padded = b" " * (16 - len(comm.encode())) + comm.encode()
    path = written(tmp_path, padded + b"-3099    [001] d..1.  1.000001: kvm_entry: vcpu 0, rip 0x1\n")
    source = open_source(path)
    assert source.info.comms == ({} if shown is None else {3099: shown})
    source.close()
    assert streamed(path, ENTRY)[0][0]["tid"] == 3099


def test_the_header_and_the_tgid_column(tmp_path: Path) -> None:
    text = HEADER.format(entries=2, written=2)
    text += "       CPU 0/KVM-3099    (   3084) [001] d..1.  1.000001: kvm_entry: vcpu 0, rip 0x1\n"
    text += "          <idle>-0       (-------) [000] d..1.  1.000002: kvm_entry: vcpu 0, rip 0x1\n"
    source = open_source(written(tmp_path, text))
    info = source.info
    assert (info.cpus, info.clock_unit, info.tgids) == (4, "ns", {3099: 3084})
    assert info.comms == {3099: "CPU 0/KVM", 0: "<idle>"}
    assert info.options == {"tracer": "nop"}
    source.close()


# Text, tracepoint of the model, fields a, b, c.
TEXTS: list[tuple[str, str, tuple[int, int, int]]] = [
    ("kvm_try_async_get_page", "gva = 0xb772000, gfn = 0xb772", (0xB772000, 0xB772, 0)),
    ("kvm_async_pf_doublefault", "gva = 0xb772000, gfn = 0xb772", (0xB772000, 0xB772, 0)),
    ("kvm_async_pf_not_present", "token 0x1000 gva 0xb772000", (0x1000, 0xB772000, 0)),
    ("kvm_async_pf_not_present", "token=0x1000 gva=0xb772000", (0x1000, 0xB772000, 0)),
    ("kvm_async_pf_ready", "token 0xffffffff gva 0x0", (0xFFFFFFFF, 0, 0)),
    ("kvm_async_pf_ready", "token 0xffffffff gva 0", (0xFFFFFFFF, 0, 0)),
    ("kvm_async_pf_completed", "gva 0xb772000 address 0x7f78b9572000", (0xB772000, 0x7F78B9572000, 0)),
    ("kvm_async_pf_completed", "gva 0xb772000 address 0x7f78b9572000 pfn 0x5", (0xB772000, 0x7F78B9572000, 0)),
    ("kvm_entry", "vcpu 1, rip 0xffffffff81a592eb", (1, -0x7E5A6D15, 0)),
    ("kvm_entry", "vcpu 1, rip 0xffffffff81a592eb[immediate exit]", (1, -0x7E5A6D15, 0)),
    ("kvm_entry", "vcpu 1 rip 0xffffffff81a592eb", (1, -0x7E5A6D15, 0)),
    ("kvm_entry", "vcpu 1", (1, 0, 0)),
    ("kvm_exit", "vcpu 0 reason hlt rip 0x1 info1 0x0 info2 0x0 intr_info 0x0 error_code 0x0", (0x78, 2, 0)),
    ("kvm_exit", "vcpu 0 reason HLT rip 0x1 info1 0x0", (12, 1, 0)),
    ("kvm_exit", "vcpu 0 reason vintr rip 0x1 info1 0x0", (0x64, 2, 0)),
    ("kvm_exit", "vcpu 0 reason PF excp rip 0x1 info1 0x0", (-1, 2, 0)),
    ("kvm_exit", "vcpu 0 reason 0x4c rip 0x1 info1 0x0", (-1, 0, 0)),
    ("kvm_exit", "reason UNKNOWN rip 0x1 info 0 0", (-1, 0, 0)),
    ("kvm_exit", "vcpu 0 reason INTERRUPT_WINDOW rip 0x1 info1 0x0", (7, 1, 0)),
    ("kvm_exit", "reason EXIT_HLT rip 0x1 info 0 0", (0x78, 2, 0)),
    ("kvm_exit", "reason EXIT_NPF rip 0x1 info 100000004 13f16880", (-1, 2, 0)),
    ("kvm_exit", "vcpu 0 reason EPT_VIOLATION rip 0x1", (-1, 1, 0)),
    ("kvm_exit", "exit_reason=120 guest_rip=0x1 isa=2 info1=0x0", (120, 2, 0)),
    ("kvm_msr", "msr_write 4b564d07 = 0x1", (1, tp.MSR_ACK, 1)),
    ("kvm_msr", "msr_read 832 = 0x0 (#GP)", (0, 0x832, 0)),
    ("kvm_msr", "msr_write 4b564d02 = 0", (1, tp.MSR_EN, 0)),
    ("kvm_msr", "write=1 ecx=4b564d02 data=0xffffffffffffffff exception=0", (1, tp.MSR_EN, -1)),
    ("kvm_msr", "write=1 ecx=832 data=0x1 exception=0", (1, 0x832, 1)),
    ("kvm_inj_exception", "#PF (0x0)", (14, 0, 0)),
    ("kvm_inj_exception", "#PF (0x0) [reinjected]", (14, 0, 1)),
    ("kvm_inj_exception", "#PF (0)", (14, 0, 0)),
    ("kvm_inj_exception", "#GP (0x10)", (13, 0x10, 0)),
    ("kvm_inj_exception", "#MC", (18, 0, 0)),
    (
        "kvm_inj_exception",
        "[FAILED TO PARSE] exception=14 has_error=1 error_code=0 reinjected=1",
        (14, 0, 1),
    ),
    ("kvm_apic_accept_irq", "apicid 10 vec 243 (Fixed|edge)", (243, 16, 0)),
    ("kvm_apic_accept_irq", "apicid=10 dm=0 tm=0 vec=243", (243, 16, 0)),
    ("kvm_apic_accept_irq", "apicid 1 vec 0 (INIT|level)", (0, 1, 0x500)),
    ("kvm_apic_accept_irq", "apicid 1 vec 154 (SIPI|edge)", (154, 1, 0x600)),
    ("kvm_apicv_accept_irq", "apicid 0 vec 243 (Fixed|edge)", (243, 0, 0)),
    ("kvm_inj_virq", "IRQ 0xf3", (243, 0, 0)),
    ("kvm_inj_virq", "IRQ 0xf3 [reinjected]", (243, 0, 0)),
    ("kvm_inj_virq", "irq 243", (243, 0, 0)),
    ("kvm_page_fault", "vcpu 0 rip 0x1 address 0x0000000002a1aa40 error_code 0x100000007", (0x2A1AA40, 0x100000007, 1)),
    ("kvm_page_fault", "address 2a1aa40 error_code 14", (0x2A1AA40, 0x14, 0)),
    ("kvm_userspace_exit", "reason KVM_EXIT_IO (2)", (2, 0, 0)),
    ("kvm_userspace_exit", "reason restart (4)", (0, -4, 0)),
    ("kvm_userspace_exit", "reason error (14)", (0, -14, 0)),
    ("kvm_smm_transition", "vcpu 0: entering SMM, smbase 0x30000", (1, 0, 0)),
    ("kvm_enter_smm", "vcpu 0: entering SMM, smbase 0x30000", (1, 0, 0)),
    ("kvm_smm_transition", "vcpu 0: leaving SMM, smbase 0x30000", (0, 0, 0)),
    ("kvm_cr", "cr_write 0 = 0x80050033", (1, 0, 0x80050033)),
    ("kvm_cr", "cr_read 3 = 0", (0, 3, 0)),
    (
        "sched_switch",
        "prev_comm=CPU 0/KVM prev_pid=3099 prev_prio=120 prev_state=R+ ==> next_comm=bash next_pid=7 next_prio=120",
        (3099, 0x100, 7),
    ),
    (
        "sched_switch",
        "prev_comm=a prev_pid=1 x prev_pid=5 prev_prio=120 prev_state=D|K ==> "
        "next_comm=next_pid=9 next_pid=7 next_prio=120",
        (5, 0x82, 7),
    ),
    (
        "sched_switch",
        "prev_comm=a prev_pid=5 prev_prio=120 prev_state=2 next_comm=b next_pid=7 next_prio=120",
        (5, 2, 7),
    ),
    ("sched_switch", "CPU 0/KVM:3099 [120] R ==> bash:3554 [120]", (3099, 0, 3554)),
    ("sched_switch", "kworker/0:0:1037 [100] W ==> a:1 [2] S ==> b:3554 [-1]", (1037, 0x80, 3554)),
    ("sched_switch", "a:5 [120] Z ==> b:0 [120]", (5, 0x10, 0)),
    (
        "sched_switch",
        "prev_comm=a prev_pid=5 prev_prio=120 prev_state=Z ==> next_comm=b next_pid=0 next_prio=120",
        (5, 0x20, 0),
    ),
    ("sched_wakeup", "comm=x pid=5 prio=1 pid=3099 prio=120 target_cpu=001", (3099, 0, 0)),
    ("sched_wakeup", "comm=x pid=3099 prio=120 success=1 target_cpu=001", (3099, 0, 0)),
    ("sched_wakeup", "CPU 0/KVM:3099 [120] CPU:001", (3099, 0, 0)),
    ("sched_waking", "kworker/0:1H:57 [100]<CANT FIND FIELD success> CPU:000", (0, 0, 0)),
    ("sched_waking", "kworker/0:1H:57 [100] success=1 CPU:000", (57, 0, 0)),
    ("workqueue_execute_end", "work struct 00000000b6024aa3: function async_pf_execute [kvm]", (0xB6024AA3, 0, 0)),
    ("workqueue_execute_end", "work struct 0xffff888003b6024a", (0xFFFF888003B6024A - (1 << 64), 0, 0)),
    ("sched_process_exit", "comm=a pid=1 prio=2 pid=77 prio=120", (77, 0, 0)),
    ("signal_generate", "sig=7 errno=0 code=4 comm=x pid=9 pid=77 grp=0 res=0", (7, 4, 77)),
    ("memory_failure_event", "pfn 0x7d1f: recovery action for free buddy page: Recovered", (0x7D1F, 0, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("event", "text", "fields"), TEXTS, ids=[f"{e}: {t}" for e, t, _ in TEXTS])
def test_fields_out_of_a_text(tmp_path: Path, event: str, text: str, fields: tuple[int, int, int]) -> None:
    path = written(tmp_path, line(event, text) * 3)
    rows, _ = streamed(path, tp.PICKS)
    assert [(row["a"], row["b"], row["c"]) for row in rows] == [fields] * 3
    tables, _ = tabled(path)
    assert [row["text"] for row in tables[event]] == [text] * 3


def test_a_text_that_is_printed_in_two_ways(tmp_path: Path) -> None:
    text = line("sched_wakeup", "a:5 [120] CPU:001") + line(
        "sched_wakeup", "comm=a pid=6 prio=1 target_cpu=001"
    )
    text += line("sched_wakeup", "pid=7") + line("sched_wakeup", "nothing at all")
    rows, _ = streamed(written(tmp_path, text), tp.PICKS)
    assert [row["a"] for row in rows] == [5, 6, 7, 0]


def test_a_symbol_is_the_same_number_in_every_event(tmp_path: Path) -> None:
    text = line(
        "workqueue_queue_work",
        "work struct=00000000b6024aa3 function=async_pf_execute [kvm] workqueue=events req_cpu=8192 cpu=0",
    )
    text += line("workqueue_execute_start", "work struct 00000000b6024aa3: function async_pf_execute [kvm]")
    text += line("workqueue_execute_start", "work struct 00000000b6024aa3: function async_pf_execute+0x0")
    text += line("workqueue_execute_start", "work struct 0xb6024aa3: function another")
    text += line("workqueue_execute_start", "work struct 0xb6024aa3: function 0xffffffffc0001000")
    rows, _ = streamed(written(tmp_path, text), tp.PICKS)
    assert {row["a"] for row in rows} == {0xB6024AA3}
    functions = [row["b"] for row in rows]
    assert functions[0] == functions[1] == functions[2] != functions[3]
    assert functions[4] == 0xFFFFFFFFC0001000 - (1 << 64)


def test_what_is_asked_for_and_not_there(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, line("kvm_exit", "vcpu 0 reason npf rip 0x1")))
    exit_, repeated = source.resolve([tp.PICKS[tp.EXIT], tp.PICKS[tp.REPEATED]])
    assert exit_ is not None
    assert (exit_.event, exit_.fields) == ("kvm_exit", ("exit_reason", "isa", None))
    assert repeated is None
    with pytest.raises(KeyError):
        source.tables(["kvm_entry"], PassResult())
    assert list(source.tables(["sched:*"], PassResult())) == []
    assert [f"{f.system}:{f.name}" for f in source.formats()] == ["kvm:kvm_exit"]
    source.close()


def test_unknown_events_have_the_numbers_that_they_show(tmp_path: Path) -> None:
    text = line("w", "(kvm_async_pf_task_wait_schedule+0x0/0x280) tok=4097 cpu=3 where=0xffffffffffffffff")
    text += line("w", "(kvm_async_pf_task_wait_schedule+0x0/0x280) tok=5")
    rows = tabled(written(tmp_path, text))[0]["w"]
    assert [(row["tok"], row["cpu_"], row["where"]) for row in rows] == [
        (4097, 3, (1 << 64) - 1),
        (5, None, None),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# tracer: nop\n#\nno record at all\n", "no line is an ftrace record"),
        ("# tracer: nop\n#\n4430 0 1719013168681 type: 319\n", "type: 319"),
        ("cpus=2\n" + line("a") + "cpus=2\n" + line("a"), "several texts"),
    ],
)
def test_texts_that_cannot_be_read(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(TraceUnsupported, match=sentence):
        open_source(written(tmp_path, text))


@pytest.mark.parametrize("text", ["hello\n", ""])
def test_other_texts_are_not_taken(tmp_path: Path, text: str) -> None:
    with pytest.raises(TraceFormatError, match="ftrace text"):
        open_source(written(tmp_path, text))
