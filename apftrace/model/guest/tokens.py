"""Which field of a probe holds the token: by its name, and where that says nothing by its values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from apftrace.model import tracepoints as tp
from apftrace_parsers.base import PassResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apftrace_parsers.base import EventFormat, Source

U32 = (1 << 32) - 1
SAMPLES = 256
"""Values of a field that are looked at."""
VCPU_IDS = 1024
"""The low VCPU_BITS of a token are the vcpu_id; in a field that holds something else they may be anything.

KVM_MAX_VCPUS (arch/x86/include/asm/kvm_host.h), which is 1024 unless CONFIG_KVM_MAX_NR_VCPUS says up to 4096 (since
f10a570b093e). The trace has no better bound: a vcpu_id is an APIC id, so a VM of few CPUs may have large ones (up to
KVM_MAX_VCPUS * KVM_VCPU_ID_RATIO, all that the bits can say). Of a larger VM the field must be called a token.
"""
LIKELY = 0.9
"""Share of its values that must look like tokens."""

_SAYS_TOKEN = re.compile(r"(?:^|_)tok(?:en)?\d*(?:_|$)", re.IGNORECASE)
_FIRST_ARGUMENT = re.compile(r"^(?:arg_?[01]|r?di|a0)_?$", re.IGNORECASE)
_LEADING = frozenset({"ts", "cpu", "tid", "instance", "text"})


def says_token(name: str) -> bool:
    """Say whether a field is called a token."""
    return bool(_SAYS_TOKEN.search(name))


def as_token(value: int) -> int | None:
    """Return a token as u32, also where it was printed signed; null where a value does not fit."""
    return value & U32 if -(1 << 31) <= value <= U32 else None


def token_field(source: Source, form: EventFormat) -> str | None:
    """Return the field of a probe that holds the token; null where none does, or nothing tells which.

    A field called token, else the first argument by name (``arg1``, ``di``), else the one whose values look
    like tokens.
    """
    own: list[str] = [f.name for f in form.schema if _is_integer(f)]
    for says in (_SAYS_TOKEN, _FIRST_ARGUMENT):
        named = [name for name in own if says.search(name)]
        if named:
            return named[0]
    samples = _sampled(source, form, own)
    shares = {name: _share(samples[name]) for name in own}
    likely = [name for name in own if shares[name] >= LIKELY]
    return likely[0] if len(likely) == 1 else None


def _is_integer(field: pa.Field) -> bool:
    probe = field.name.startswith("__probe_")
    return bool(pa.types.is_integer(field.type)) and not probe and field.name not in _LEADING


def _sampled(source: Source, form: EventFormat, names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {name: [] for name in names}
    if not names:
        return found
    event = f"{form.system}:{form.name}" if form.system else form.name
    for _, batch in source.tables([event], PassResult()):
        for name, values in found.items():
            values += [v for v in batch.column(name)[:SAMPLES].to_pylist() if v is not None]
        if len(found[names[0]]) >= SAMPLES:
            break
    return found


def _share(values: Sequence[int]) -> float:
    tokens = [as_token(value) for value in values]
    alike = [t for t in tokens if t is not None and _looks_like_token(t)]
    return len(alike) / len(values) if values else 0.0


def _looks_like_token(token: int) -> bool:
    vcpu = token & ((1 << tp.VCPU_BITS) - 1)
    return token == tp.BROADCAST or (token >> tp.VCPU_BITS > 0 and vcpu < VCPU_IDS)
