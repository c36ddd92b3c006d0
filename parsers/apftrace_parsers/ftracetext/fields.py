"""Numbers out of the texts of events.

Most tracepoints print ``name value``, ``name=value`` or ``name = value``, and that is read without knowing
them. FORMS holds the others: a pattern per way in which a text was ever printed, with the field's own name
for each group. Texts are those of ``arch/x86/kvm/trace.h`` and ``include/trace/events/{kvm,sched,signal,ras,
workqueue}.h``, and of the plugins of libtraceevent, which trace-cmd report prints instead where it has one.
Comms may hold any bytes, even those of a field: they are taken as long as they can be, TASK_COMM_LEN - 1.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MASK = (1 << 64) - 1
PAIR = re.compile(rb"(?<!\w)([A-Za-z_]\w*)(?:=| = | )(-?0x[\da-f]{1,16}|-?\d{1,20})(?!\w)")
HEX_PAIR = re.compile(rb"(?<!\w)([A-Za-z_]\w*)=([\da-f]{1,16})(?!\w)")
BARE_HEX = frozenset({"ecx", "cr", "apicid", "__probe_ip", "__probe_func", "__probe_ret_ip"})
"""Fields whose print fmt says %x without 0x before it."""
PLACES = frozenset({"__probe_ip", "__probe_ret_ip", "__probe_func", "func", "ip", "parent_ip"})
"""Fields printed as a place in a function; see `place`."""
SYMBOLS = frozenset({"function"}) | PLACES
"""Fields printed as a symbol: a number made of its name stands for it, and is only good to compare."""
UNTABLED = SYMBOLS | {"args", "leaf"}
"""Fields that tables leave to their column of text."""
UNSIGNED = frozenset(
    {"address", "data", "error_code", "fault_address", "function", "gfn", "gva"}
    | {"info1", "info2", "pfn", "rip", "token", "val", "work"}
)
"""Fields that are addresses or bit patterns of 64 bits."""

Decoder = Callable[[Sequence[bytes]], Sequence[Sequence[int | None]]]
"""Makes of texts, which are some, the columns of some fields, null where a text shows none."""


@dataclass(frozen=True)
class Form:
    """One way in which an event's text is printed.

    Attributes:
        pattern: of the start of the text; a group per field, under the field's name.
        readers: what makes a number of a group, or the number itself; other groups are plain numbers of
            less than 64 bits, or have 0x before them. An absent group is 0.
    """

    pattern: re.Pattern[bytes]
    readers: Mapping[str, Callable[[bytes], int] | int] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Fields that it gives."""
        return (*self.pattern.groupindex, *(n for n, r in self.readers.items() if isinstance(r, int)))

    def columns(
        self, texts: Sequence[bytes], names: Sequence[str | None]
    ) -> list[Sequence[int | None]] | None:
        """Return the fields of texts, column by column; null when one of them is printed in another way."""
        # No pattern matches beyond the end of a line, nor twice in one.
        found = self.pattern.findall(b"\n".join(texts))
        if len(found) != len(texts):
            return None
        groups = self.pattern.groupindex
        shown = [found] if len(groups) == 1 else list(zip(*found, strict=True))
        return [
            self._column(name, shown[groups[name] - 1] if name and name in groups else (), len(texts))
            for name in names
        ]

    def _column(self, name: str | None, shown: Sequence[bytes], n: int) -> Sequence[int | None]:
        reader = self.readers.get(name or "", number)
        if isinstance(reader, int):
            return [reader] * n
        if not shown:
            return [None] * n
        if reader is number:
            with contextlib.suppress(ValueError):
                return list(map(int, shown))
        return [reader(text) if text else 0 for text in shown]


def number(text: bytes) -> int:
    """Return the number that a text shows, decimal or with 0x, as a signed value of 64 bits."""
    return signed(int(text, 16 if b"x" in text else 10))


def bare_hex(text: bytes) -> int:
    """Return the number that a text shows, always hexadecimal, as a signed value of 64 bits."""
    return signed(int(text, 16))


def signed(value: int) -> int:
    """Return a value of 64 bits with its highest bit as sign."""
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


def _negative(text: bytes) -> int:
    return -int(text)


def _true(text: bytes) -> int:
    return 1


def _is_write(text: bytes) -> int:
    return int(text == b"write")


def _is_entering(text: bytes) -> int:
    return int(text == b"entering")


@lru_cache(4096)
def symbol(text: bytes) -> int:
    """Return a number for a symbol; a plain address stays itself."""
    if text.startswith(b"0x"):
        return number(text) if re.fullmatch(rb"0x[\da-f]{1,16}", text) else 0
    return zlib.crc32(text.partition(b"+")[0]) | 1 << 62


_OFFSET_BITS = 16
_PLACE = rb"[^\s()<>]{1,512}(?: \[[\w.-]{1,64}\])?"
# Option sym-addr.
_AT = rb"(?: <[\da-f]{1,16}>)?"
_ADDRESS = re.compile(rb"0x[\da-f]{1,16}|[\da-f]{8,16}")
_IN_FUNCTION = re.compile(rb"([^+\s]+)(?:\+0x([\da-f]{1,8}))?")
_CLONE = re.compile(rb"\.(?!cold)")


@lru_cache(4096)
def place(text: bytes) -> int:
    """Return a number for ``function+0x4/0x1b0``: one for the function plus the offset, a plain address itself."""
    if _ADDRESS.fullmatch(text):
        return signed(int(text, 16))
    found = _IN_FUNCTION.match(text)
    name, offset = (found[1], int(found[2] or b"0", 16)) if found else (text, 0)
    # A clone (.isra.0, .constprop.0) is the function; its cold part is not.
    start = zlib.crc32(_CLONE.split(name, maxsplit=1)[0]) << _OFFSET_BITS
    return 1 << 62 | start | min(offset, (1 << _OFFSET_BITS) - 1)


def is_place(value: int) -> bool:
    """Say whether a number stands for a function's name, not for an address."""
    return value >> 62 == 1


# TASK_REPORT of include/linux/sched.h in the letters of sched_switch; + is TASK_REPORT_MAX: preempted.
# K and W are from before 4.14, when a state could have several letters.
_STATES = {"S": 1, "D": 2, "T": 4, "t": 8, "X": 0x10, "Z": 0x20, "P": 0x40, "I": 0x80, "K": 0x80, "W": 0x80}
_KERNEL_STATES = {ord(c): bit for c, bit in _STATES.items()} | {ord("+"): 0x100}
# write_state() of libtraceevent's plugin_sched_switch.c names the bits "SDTtZXxW"; above them it shows none.
_PLUGIN_STATES = {ord(c): 1 << bit for bit, c in enumerate("SDTtZXxW")}


@lru_cache(256)
def _kernel_state(text: bytes) -> int:
    return sum({_KERNEL_STATES.get(c, 0) for c in text})


@lru_cache(256)
def _plugin_state(text: bytes) -> int:
    return sum({_PLUGIN_STATES.get(c, 0) for c in text})


_VMX, _SVM = 1, 2
# The reasons that anything here asks for, as the kernel's symbols and those of trace-cmd's plugin print them: hlt, and
# the window in which guest interrupts are on again.
_EXITS = {
    b"hlt": 0x78, b"EXIT_HLT": 0x78, b"HLT": 12,
    b"vintr": 0x64, b"EXIT_VINTR": 0x64, b"INTERRUPT_WINDOW": 7, b"PENDING_INTERRUPT": 7,
}  # fmt: skip
_VECTORS = dict(
    zip(
        b"#DE #DB #NMI #BP #OF #BR #UD #NM #DF #TS #NP #SS #GP #PF #MF #AC #MC #XM".split(),
        (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19),
        strict=True,
    )
)
_RESULTS = {b"Ignored": 0, b"Failed": 1, b"Delayed": 2, b"Recovered": 3}


def _isa(reason: bytes) -> int:
    # The kernel's symbols of SVM are small, or of an exception, those of trace-cmd's plugin begin with EXIT_; those of
    # VMX are capitals in both. A number, and the plugin's UNKNOWN, may be of either.
    if reason == b"UNKNOWN" or reason[:1].isdigit():
        return 0
    return _SVM if reason.startswith(b"EXIT_") or reason.islower() or reason.endswith(b" excp") else _VMX


def _form(pattern: bytes, **readers: Callable[[bytes], int] | int) -> Form:
    return Form(
        re.compile(
            b"^(?:" + pattern.replace(b"COMM", rb"[^\n]{0,15}").replace(b"INT", rb"-?\d{1,9}") + b")",
            re.MULTILINE,
        ),
        readers,
    )


_SMM = (_form(rb"vcpu (?P<vcpu_id>\d{1,9}): (?P<entering>\w+) SMM", entering=_is_entering),)
# kvm_deliver_mode of arch/x86/kvm/trace.h; Fixed is 0.
_MODES = {name: mode << 8 for mode, name in enumerate(b"Fixed LowPrio SMI Res3 NMI INIT SIPI ExtINT".split())}
_ACCEPT = (
    _form(
        rb"apicid (?P<apicid>[\da-f]{1,8}) vec (?P<vec>\d{1,3})(?: \((?P<dm>\w{1,16})\|)?",
        apicid=bare_hex,
        dm=lambda name: _MODES.get(name, 0),
    ),
)
_WAKE = (
    _form(rb"comm=COMM pid=(?P<pid>INT) prio=INT (?:success=\d+ )?target_cpu=(?P<target_cpu>\d{1,9}) *$"),
    _form(rb"COMM:(?P<pid>INT) \[INT\](?: success=\d+)?(?: CPU:(?P<target_cpu>\d{1,9}))? *$"),
)
_WORK = (
    _form(
        rb"work struct[= ](?:0x)?(?P<work>[\da-f]{1,16})(?!\w)(?::? function[= ](?P<function>\S{1,256}))?",
        work=bare_hex,
        function=symbol,
    ),
)

# print_type_... of kernel/trace/trace_probe.c; libtraceevent shows the bare addresses of the print fmt.
_PROBES = (
    re.compile(rb"\((?P<__probe_ip>%b)%b\)(?P<rest>[^\n]*)" % (_PLACE, _AT)),
    re.compile(
        rb"\((?P<__probe_ret_ip>%b)%b <- (?P<__probe_func>%b)%b\)(?P<rest>[^\n]*)"
        % (_PLACE, _AT, _PLACE, _AT)
    ),
)

_QUOTED = re.compile(rb'"[^"\n]*"')
"""An argument of type string: it may hold anything, a comm too."""

# print_function_args() of kernel/trace/trace_output.c, since 6.15; only the first argument matters here.
_ARGUMENTS = rb"\((?:\w{1,64}=)?\??(?P<args>-?0x[\da-f]{1,16}|-?\d{1,20})?[^\n]*?\)"

FORMS: dict[str, tuple[Form, ...]] = {
    "function": (
        _form(
            rb" *(?P<ip>%b)%b(?:%b)?(?: <--? ?(?P<parent_ip>%b)%b)?(?![^\s(])"
            % (_PLACE, _AT, _ARGUMENTS, _PLACE, _AT),
            ip=place,
            parent_ip=place,
        ),
    ),
    "funcgraph_entry": (_form(rb"(?P<func>" + _PLACE + rb")" + _ARGUMENTS, func=place),),
    "funcgraph_exit": (
        _form(
            rb"\}(?: /\* (?P<func>" + _PLACE + rb") \*/(?P<leaf> leaf)?)?",
            func=place,
            leaf=_true,
        ),
    ),
    "kvm_entry": (
        _form(rb"vcpu (?P<vcpu_id>\d{1,9}),? rip (?P<rip>0x[\da-f]{1,16})"),
        _form(rb"vcpu (?P<vcpu_id>\d{1,9})(?![^\n])"),
    ),
    "kvm_exit": (
        _form(
            rb"(?:vcpu (?P<vcpu_id>\d{1,9}) )?reason (?=(?P<isa>\S{1,64}(?: excp)?))(?P<exit_reason>\S{1,64})",
            exit_reason=lambda name: _EXITS.get(name, -1),
            isa=_isa,
        ),
    ),
    "kvm_msr": (
        _form(
            rb"msr_(?P<write>read|write) (?P<ecx>[\da-f]{1,8}) = (?P<data>0x[\da-f]{1,16}|0)",
            write=_is_write,
            ecx=bare_hex,
        ),
    ),
    "kvm_inj_exception": (
        _form(
            rb"(?P<exception>#[A-Z]{2,3})(?: \((?P<error_code>0x[\da-f]{1,8}|\d{1,10})\))?"
            rb"(?P<reinjected> \[reinjected\])?",
            exception=lambda name: _VECTORS.get(name, -1),
            reinjected=_true,
        ),
    ),
    "kvm_apic_accept_irq": _ACCEPT,
    "kvm_apicv_accept_irq": _ACCEPT,
    "kvm_inj_virq": (_form(rb"IRQ (?P<vector>0x[\da-f]{1,8})"),),
    "kvm_page_fault": (
        _form(
            rb"(?:vcpu (?P<vcpu_id>\d{1,9}) rip (?P<guest_rip>0x[\da-f]{1,16}) )?"
            rb"address (?:0x)?(?P<fault_address>[\da-f]{1,16}) error_code (?:0x)?(?P<error_code>[\da-f]{1,16})",
            fault_address=bare_hex,
            error_code=bare_hex,
        ),
    ),
    "kvm_userspace_exit": (
        _form(rb"reason (?:restart|error) \((?P<errno>\d{1,9})\)", errno=_negative, reason=0),
        _form(rb"reason \S{1,64} \((?P<reason>-?\d{1,9})\)", errno=0),
    ),
    "kvm_smm_transition": _SMM,
    "kvm_enter_smm": _SMM,
    "kvm_cr": (
        _form(
            rb"cr_(?P<rw>read|write) (?P<cr>[\da-f]{1,8}) = (?P<val>0x[\da-f]{1,16}|0)",
            rw=_is_write,
            cr=bare_hex,
        ),
    ),
    "sched_switch": (
        _form(
            rb"prev_comm=COMM prev_pid=(?P<prev_pid>INT) prev_prio=INT prev_state=(?P<prev_state>[^\s\d]{1,16})"
            rb" ==> next_comm=COMM next_pid=(?P<next_pid>INT) next_prio=INT",
            prev_state=_kernel_state,
        ),
        _form(
            rb"COMM:(?P<prev_pid>INT) \[INT\] (?P<prev_state>[^\s\d]{1,16}) ==> COMM:(?P<next_pid>INT) \[INT\]",
            prev_state=_plugin_state,
        ),
        _form(
            rb"prev_comm=COMM prev_pid=(?P<prev_pid>INT) prev_prio=INT prev_state=(?P<prev_state>\d{1,9})"
            rb" next_comm=COMM next_pid=(?P<next_pid>INT) next_prio=INT"
        ),
    ),
    "sched_waking": _WAKE,
    "sched_wakeup": _WAKE,
    "sched_process_exit": (_form(rb"comm=COMM pid=(?P<pid>INT) prio=INT"),),
    "workqueue_queue_work": _WORK,
    "workqueue_activate_work": _WORK,
    "workqueue_execute_start": _WORK,
    "workqueue_execute_end": _WORK,
    "signal_generate": (
        _form(rb"sig=(?P<sig>INT) errno=INT code=(?P<code>INT) comm=COMM pid=(?P<pid>INT) grp=\d+ res=\d+"),
    ),
    "memory_failure_event": (
        _form(
            rb"pfn (?P<pfn>0x[\da-f]{1,16}|0): recovery action for [^:\n]{1,64}: (?P<result>\w{1,16})",
            result=lambda name: _RESULTS.get(name, -1),
        ),
    ),
}


def pairs(text: bytes) -> dict[str, bytes]:
    """Return the names of a text that a number follows, each with its first number."""
    found: dict[str, bytes] = {}
    for name, value in PAIR.findall(text):
        found.setdefault(name.decode("ascii"), value)
    for name, value in HEX_PAIR.findall(text):
        if name.decode("ascii") in BARE_HEX:
            found[name.decode("ascii")] = b"0x" + value
    return found


def _shown(text: bytes) -> dict[str, bytes]:
    # Where a probe hit, if the text begins with that, and the numbers in the rest.
    for pattern in _PROBES:
        if found := pattern.match(text):
            places = {name: value for name, value in found.groupdict().items() if name != "rest"}
            return pairs(_QUOTED.sub(b'""', found["rest"])) | places
    return pairs(text)


def fields_of(event: str, text: bytes) -> dict[str, bool]:
    """Return the fields that a text of an event shows, each with whether it is unsigned."""
    for form in FORMS.get(event, ()):
        if form.pattern.match(text):
            return {name: name in UNSIGNED for name in form.names}
    return {
        name: (value.startswith(b"0x") or name in UNSIGNED) and not value.startswith(b"-")
        for name, value in _shown(text).items()
    }


def decoder(event: str, names: Sequence[str | None]) -> Decoder:
    """Return what makes of texts of an event the columns of these fields."""
    forms = FORMS.get(event, ())

    def decode(texts: Sequence[bytes]) -> Sequence[Sequence[int | None]]:
        # Nearly always one form holds for all of them.
        for form in forms:
            if form.pattern.match(texts[0]):
                columns = form.columns(texts, names)
                if columns is not None:
                    return columns
        rows = [_values(forms, names, text) for text in texts]
        return [[row[n] for row in rows] for n in range(len(names))]

    return decode


def _values(forms: Sequence[Form], names: Sequence[str | None], text: bytes) -> list[int | None]:
    for form in forms:
        columns = form.columns([text], names)
        if columns is not None:
            return [column[0] for column in columns]
    shown = _shown(text)
    return [(place if name in PLACES else number)(shown[name]) if name in shown else None for name in names]
