"""Pseudonyms for what a report should not carry to other people.

Addresses, comms, host names, guest names and paths go; tokens, thread ids, times and event names stay,
because a finding is about them. One value has one pseudonym throughout an analysis, so that two faults on
one page still are two faults on one page. A name that could be anything inside a sentence (digits, one
character, a comm such as ``sleep``) is replaced only where a name must stand.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import polars as pl

from apftrace import uname

if TYPE_CHECKING:
    from collections.abc import Callable

    from apftrace.analysis import Analysis, GuestLink, Input, Story

_PAGE_SHIFT = 12
_PAGE = 1 << _PAGE_SHIFT
_FIRST_FRAME = 0xAF00000000001
"""Page frame of the first pseudonym: its address is neither canonical nor physical, so no machine has it."""

_FLAGS = 0x3F
"""Bits of MSR_KVM_ASYNC_PF_EN below its 64-byte aligned address."""

# What stands right before a hexadecimal number and tells what it is.
_TOKEN = re.compile(r"(?:\btokens?|\bpredecessor)\W{0,3}$")
_CODE = re.compile(r"(?:\berror_code|\bIRQ|\bvec(?:tor)?|#PF|#MC|\bcr_(?:read|write) [048])\W{0,3}$")
_FRAME = re.compile(r"\b[gp]fn\W{0,3}$")
_ENABLE = re.compile(r"(?:\bEN|\b4b564d02)\W{0,3}$")
_LOOK_BACK = 24

_NUMBER = r"(?P<number>\b0x[0-9a-fA-F]+\b)"
_POINTER = r"(?P<pointer>(?<=\bstruct[ =])[0-9a-f]{5,16}\b|\b(?=0|[0-9a-f]*[a-f])[0-9a-f]{16}\b)"
"""A pointer without 0x, as %p prints it; looked for in raw trace lines only."""
_PATH = r"(?P<path>(?<![\w/.])(?:~|\.{1,2})?/[^\s'\"`,;:()<>|]+)"

# Where the names of tasks stand in a raw trace line.
_COMMS = (
    re.compile(r"^\s*(\S.*?)-\d+\s+(?:\([\s\d-]+\)\s+)?\[\d+\]"),
    re.compile(r"comm=(\S.*?) (?:prev_|next_|parent_|child_)?(?:pid|prio|tid)="),
    re.compile(r"(?:sched_\w+:|==>)\s+(\S.*?):\d+ \[\d+\]"),
)
# And where a finding names a task: see model.rules.causes, guest_findings and guest_causes.
_TASK = r"(?P<task>(?<=while ).+?(?= \(\d+\) ran)|(?<=guest thread )(?!\d+ ).{1,16}?(?=-\d+\b))"
_NO_COMM = frozenset({"<idle>", "<...>"})
_OWN_VM = re.compile(r"(?:pid|vm)-\d+")


def redacted(analysis: Analysis) -> Analysis:
    """Return the analysis under pseudonyms; equal values stay equal, and the same input gives the same.

    Digests of the inputs are dropped: they would identify the files.
    """
    redactor = _Redactor(analysis)
    return replace(
        analysis,
        redacted=True,
        inputs=tuple(redactor.input(one) for one in analysis.inputs),
        headline=redactor.sentence(analysis.headline),
        unsafe=tuple(redactor.sentence(reason) for reason in analysis.unsafe),
        protocol=replace(analysis.protocol, why=redactor.sentence(analysis.protocol.why)),
        faults=redactor.frame(analysis.faults),
        findings=redactor.frame(analysis.findings),
        vcpus=redactor.frame(analysis.vcpus),
        accounting=redactor.frame(analysis.accounting),
        stories=tuple(redactor.story(story) for story in analysis.stories),
        losses=tuple(replace(loss, machine=redactor.guest(loss.machine)) for loss in analysis.losses),
        guests=tuple(redactor.link(link) for link in analysis.guests),
        unread=tuple(redactor.trace(path) for path in analysis.unread),
        excerpts={
            finding: tuple(redactor.raw(line) for line in lines)
            for finding, lines in analysis.excerpts.items()
        },
    )


class _Names:
    # Pseudonyms of one kind of name, numbered in the order in which the names are first met.
    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.given: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        return self.given.setdefault(name, f"{self._kind}-{len(self.given) + 1}")


class _Redactor:
    def __init__(self, analysis: Analysis) -> None:
        self._frames: dict[int, int] = {}
        self._traces = _Names("trace")
        self._paths = _Names("path")
        self._hosts = _Names("host")
        self._guests = _Names("guest")
        self._comms = _Names("comm")
        self._texts: dict[tuple[bool, str], str] = {}
        self._meet(analysis)
        # Where one word is of two kinds, the later one wins.
        kinds = (self._comms, self._guests, self._hosts, self._traces)
        self._known = {name: new for kind in kinds for name, new in kind.given.items()}
        distinct = {name for name in self._known if len(name) > 1 and not name.isdecimal()}
        words = {name for name in self._comms.given if name.isalpha() and name.islower()}
        self._in_sentence = re.compile("|".join([_TASK, *_any_of(distinct - words), _PATH, _NUMBER]))
        self._in_raw = re.compile("|".join([*_any_of(distinct), _PATH, _NUMBER, _POINTER]))

    def _meet(self, analysis: Analysis) -> None:
        # All names must be known before the first text: a note may speak of a guest of a later input.
        for one in analysis.inputs:
            self.trace(one.path)
            self.guest(one.machine)
            self._kernel(one.kernel)
        for path in analysis.unread:
            self.trace(path)
        for frame in (analysis.vcpus, analysis.faults, analysis.findings, analysis.accounting):
            for column in ("machine", "vm"):
                for name in frame[column].drop_nulls().unique(maintain_order=True):
                    self.guest(name)
        comms = [*analysis.vcpus["comm"].drop_nulls()]
        lines = [line for lines in analysis.excerpts.values() for line in lines]
        comms += [comm for line in lines for form in _COMMS for comm in form.findall(line)]
        for column in ("cause", "message"):
            for text in analysis.findings[column].drop_nulls().unique(maintain_order=True):
                comms += re.findall(_TASK, text)
        for story in analysis.stories:
            for step in story.steps:
                comms += re.findall(_TASK, step.text)
        for comm in comms:
            self.comm(comm)

    def trace(self, path: str) -> str:
        pseudonym = self._traces(path)
        name = PurePath(path).name
        if name:
            self._traces.given.setdefault(name, pseudonym)
        return pseudonym

    def _kernel(self, line: str | None) -> str | None:
        host = uname.node(line)
        if line is None or host is None:
            return line
        pseudonym = self._hosts(host)
        self._hosts.given.setdefault(host.partition(".")[0], pseudonym)
        sysname, _, *rest = line.split()
        return " ".join([sysname, pseudonym, *rest])

    def input(self, one: Input) -> Input:
        return replace(
            one,
            path=self.trace(one.path),
            format=self.sentence(one.format),
            machine=self.guest(one.machine),
            kernel=self._kernel(one.kernel),
            notes=tuple(self.sentence(note) for note in one.notes),
            sha256=None,
        )

    def link(self, one: GuestLink) -> GuestLink:
        return replace(
            one,
            machine=self.guest(one.machine),
            vm=None if one.vm is None else self.guest(one.vm),
            refused=None if one.refused is None else self.sentence(one.refused),
            contradictions=tuple(self.sentence(text) for text in one.contradictions),
            notes=tuple(self.sentence(text) for text in one.notes),
        )

    def guest(self, name: str) -> str:
        # "host", "pid-7" and "vm-7" are the model's own words for machines that the trace does not name.
        return name if name == "host" or _OWN_VM.fullmatch(name) else self._guests(name)

    def story(self, story: Story) -> Story:
        return replace(
            story,
            machine=self.guest(story.machine),
            vm=story.vm and self.guest(story.vm),
            steps=tuple(replace(step, text=self.sentence(step.text)) for step in story.steps),
        )

    def comm(self, name: str) -> str:
        return name if name in _NO_COMM else self._comms(name)

    def page(self, frame: int) -> int:
        """Return the pseudonym of a page frame; frame 0 says nothing and stays."""
        return self._frames.setdefault(frame, _FIRST_FRAME + len(self._frames)) if frame else 0

    def address(self, value: int) -> int:
        """Return the first address of the page's pseudonym."""
        return self.page(value >> _PAGE_SHIFT) << _PAGE_SHIFT

    def sentence(self, text: str) -> str:
        return self._text(text, self._in_sentence)

    def raw(self, text: str) -> str:
        return self._text(text, self._in_raw)

    def _text(self, text: str, form: re.Pattern[str]) -> str:
        key = (form is self._in_raw, text)
        if key not in self._texts:
            self._texts[key] = form.sub(self._replacement, text)
        return self._texts[key]

    def _replacement(self, match: re.Match[str]) -> str:
        found = match[0]
        if match.lastgroup == "task":
            return self.comm(found)
        if match.lastgroup == "name":
            return self._known[found]
        if match.lastgroup == "path":
            return f"/{self._paths(found)}"
        if match.lastgroup == "pointer":
            return f"{self.address(int(found, 16)):016x}"
        return self._number(found, match.string[max(0, match.start() - _LOOK_BACK) : match.start()])

    def _number(self, found: str, before: str) -> str:
        value = int(found, 16)
        if _TOKEN.search(before) or _CODE.search(before):
            return found
        if _FRAME.search(before):
            return f"{self.page(value):#x}"
        if value < _PAGE:  # a flag, a vector, an offset into a function
            return found
        flags = value & _FLAGS if _ENABLE.search(before) else 0
        return f"{self.address(value) | flags:#x}"

    def frame(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return a table with every column that tells too much under pseudonyms."""
        change: dict[str, Callable[[Any], Any]] = {
            "gva": self.address,
            "hva": self.address,
            "gfn": self.page,
            "vm": self.guest,
            "machine": self.guest,
            "guest": self.guest,
            "comm": self.comm,
            "message": self.sentence,
            "cause": self.sentence,
            "ruled_out": self._sentences,
            "not_ruled_out": self._sentences,
            "broken": self._sentences,
            "evidence": self._evidence,
        }
        return frame.with_columns(_changed(frame[c], change[c]) for c in frame.columns if c in change)

    def _sentences(self, texts: list[str]) -> list[str]:
        return [self.sentence(text) for text in texts]

    def _evidence(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            event | {"event": self._event(event["event"]), "text": self.raw(event["text"] or "")}
            for event in events
        ]

    def _event(self, name: str | None) -> str | None:
        # A guest's event has the guest's name in front.
        guest, colon, event = (name or "").rpartition(":")
        return f"{self.guest(guest)}:{event}" if colon else name


def _changed(series: pl.Series, change: Callable[[Any], Any]) -> pl.Series:
    if series.dtype.is_nested():
        rows = [None if row is None else change(row) for row in series.to_list()]
        return pl.Series(series.name, rows, series.dtype)
    old = series.drop_nulls().unique(maintain_order=True)
    new = pl.Series([change(value) for value in old], dtype=series.dtype)
    return series.replace_strict(old, new, default=None, return_dtype=series.dtype)


def _any_of(names: set[str]) -> list[str]:
    # The longest first: it may contain another one.
    found = "|".join(_bounded(name) for name in sorted(names, key=lambda n: (-len(n), n)))
    return [f"(?P<name>{found})"] if found else []


def _bounded(name: str) -> str:
    before = r"(?<!\w)" if re.match(r"\w", name) else ""
    after = r"(?!\w)" if re.match(r"\w", name[-1:]) else ""
    return before + re.escape(name) + after
