"""Whose trace it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from apftrace.model.guest.identity import guest_name, is_guest
from apftrace_parsers.base import Guest, SourceInfo
from apftrace_parsers.registry import open_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Capture = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "guest"),
    [
        ("host-guest/agent-v7-h.dat", False),
        ("host-guest/agent-v7-h-vm1.dat", True),
        ("host-guest/guest-tsc.trace.txt", True),
        ("host-guest/guest-function.trace.txt", True),
        ("host/host-v6-none.dat", False),
        ("text/tracefs-trace.txt.gz", False),
        ("boot/boot.dat", False),
    ],
)
def test_the_captures(capture: Capture, name: str, guest: bool) -> None:
    source = open_source(capture(name))
    assert is_guest(source) is guest
    source.close()


def test_the_machines_of_a_merged_report(capture: Capture) -> None:
    whole = open_source(capture("host-guest/agent-v7-merged-report.txt.gz"))
    host, guest = map(whole.machine, whole.machines)
    assert (is_guest(host), is_guest(guest)) == (False, True)
    assert guest_name(guest.info, host.info) == "vm1"
    whole.close()


def info(path: str, **facts: object) -> SourceInfo:
    return SourceInfo(path, "trace.dat v7", "tsc2nsec", "ns", 2, None, ("",), **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "host", "name"),
    [
        ("/a/trace-vm1.dat", None, "vm1"),
        ("/a/trace-vm1.dat", "/b/trace.dat", "vm1"),
        ("h-vm1.dat", "h.dat", "vm1"),
        ("h-vm1.dat", None, "h-vm1"),
        ("guest-tsc.trace.txt.gz", "trace.dat", "guest-tsc"),
        ("trace.dat", None, "trace"),
        ("trace-.dat", None, "trace-"),
        (".dat", None, "guest"),
    ],
)
def test_a_guest_is_called_as_its_file(path: str, host: str | None, name: str) -> None:
    assert guest_name(info(path), info(host) if host else None) == name


def test_a_guest_is_called_as_its_host_says() -> None:
    host = info("trace.dat", guests=(Guest("vm1", 7, {}), Guest("vm2", 8, {})))
    assert guest_name(info("anything.dat", trace_id=8), host) == "vm2"
    assert guest_name(info("trace-vm3.dat", trace_id=9), host) == "vm3"
