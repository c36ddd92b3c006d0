"""Host and guests on the command line: roles, names, offsets, and what is left where one cannot be read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.model.guest.histories import END, lost_in_guest
from tests.model.guest.pairs import BOOTED, Pair
from tests.model.support import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a calm host and its guest, and the guest of a host that lost nothing."""
    path = tmp_path_factory.mktemp("pair")
    calm, stuck = Pair().calm().until(END), lost_in_guest()
    write(calm.host, path / "trace.dat")
    calm.guest.write(path / "trace-vm1.txt")
    write(stuck.host, path / "stuck.dat")
    stuck.guest.write(path / "stuck-vm1.txt")
    (path / "broken.dat").write_bytes(b"\x17\x08\x44tracing7\0" + bytes(90))
    return path


@pytest.mark.parametrize("order", [("trace.dat", "trace-vm1.txt"), ("trace-vm1.txt", "trace.dat")])
def test_the_order_of_the_traces_does_not_matter(run: Run, folder: Path, order: tuple[str, str]) -> None:
    result = run("analyze", *(folder / name for name in order), "--format", "json")
    report = json.loads(result.out)
    assert result.status == 0
    assert [one["machine"] for one in report["inputs"]] == ["host", "vm1"]
    (guest,) = report["guests"]
    assert (guest["method"], guest["lives"]) == ("inferred", {"told": 60, "joined": 60})
    assert guest["offset_least_ns"] <= BOOTED <= guest["offset_most_ns"]
    assert (report["latency_ns"]["P6"]["n"], report["latency_ns"]["e2e"]["n"]) == (40, 60)


def test_text_and_page_tell_how_the_clocks_were_joined(run: Run, folder: Path, tmp_path: Path) -> None:
    result = run("analyze", folder / "trace.dat", folder / "trace-vm1.txt")
    assert result.status == 0
    assert "60 followed into vm1" in result.text
    assert "inferred from causality" in " ".join(result.text.split())
    assert "60 of 60 that the guest knew of were followed" in " ".join(result.text.split())
    assert all(len(line) <= 72 for line in result.text.splitlines())
    page = (tmp_path / "trace.apf.html").read_text()
    assert "inferred from causality" in page


def test_a_guest_gets_the_name_that_it_is_given(run: Run, folder: Path) -> None:
    result = run(
        "analyze", folder / "trace.dat", "--guest", f"web={folder / 'trace-vm1.txt'}", "--format", "json"
    )
    report = json.loads(result.out)
    assert report["guests"][0]["machine"] == "web"
    assert {vcpu["vm"] for vcpu in report["vcpus"]} == {"web"}


@pytest.mark.parametrize("form", ["html", "text", "md", "json", "junit", "parquet"])
def test_every_format_takes_a_pair(run: Run, folder: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    result = run("analyze", folder / "stuck.dat", folder / "stuck-vm1.txt", "--format", form, "-o", out)
    assert result.status == 1
    assert "1 wakeup lost in the guest" in result.one_line()
    if form != "parquet":
        assert b"lost-in-guest" in out.read_bytes()


def test_a_guest_alone(run: Run, folder: Path) -> None:
    calm, stuck = (run("analyze", folder / name, "-o", "-") for name in ("trace-vm1.txt", "stuck-vm1.txt"))
    assert (calm.status, stuck.status) == (0, 1)
    assert "60 ended in vm1, without its host's trace" in " ".join(calm.text.split())
    assert "lost-in-guest" in stuck.text


def test_a_guest_that_cannot_be_read_costs_only_itself(run: Run, folder: Path) -> None:
    result = run("analyze", folder / "trace.dat", folder / "broken.dat", "--format", "json")
    report = json.loads(result.out)
    assert result.status == 4
    assert "broken.dat" in result.err
    assert any("broken.dat" in reason for reason in report["unsafe"])
    assert report["accounting"]["answered"] == 60


def test_the_only_one_that_cannot_be_read_fails(run: Run, folder: Path) -> None:
    assert run("analyze", folder / "broken.dat", folder / "missing.dat", "-o", "-").status == 3


def test_two_hosts_and_guests_without_a_host_are_wrong_usage(run: Run, folder: Path) -> None:
    hosts = run("analyze", folder / "trace.dat", folder / "stuck.dat")
    guests = run("analyze", folder / "trace-vm1.txt", folder / "stuck-vm1.txt")
    assert (hosts.status, guests.status) == (2, 2)
    assert "several host traces: trace.dat, stuck.dat" in hosts.one_line()
    assert "no host trace among trace-vm1.txt, stuck-vm1.txt" in guests.one_line()


@pytest.mark.parametrize("offset", ["x", "", "vm1=", "12*0", "1*-2", "9" * 30])
def test_a_wrong_tsc_offset_is_wrong_usage(run: Run, folder: Path, offset: str) -> None:
    result = run("analyze", folder / "trace.dat", folder / "trace-vm1.txt", "--tsc-offset", offset)
    assert result.status == 2
    assert "--tsc-offset" in result.one_line()


def test_a_tsc_offset_without_a_guest_is_wrong_usage(run: Run, folder: Path) -> None:
    for trace in ("trace.dat", "trace-vm1.txt"):
        result = run("analyze", folder / trace, "--tsc-offset", "12")
        assert (result.status, result.out) == (2, b"")
        assert "--tsc-offset is that of a guest beside its host, and there is none" in result.one_line()


def test_clocks_that_cannot_be_joined_leave_both_sides_judged(run: Run, folder: Path, tmp_path: Path) -> None:
    other = Pair().calm(4)
    other.tokens.clear()
    lines = [(at, cpu, text.replace("token=", "token=99")) for at, cpu, text in other.guest.lines]
    other.guest.lines = lines
    strange = other.guest.write(tmp_path / "strange.txt")
    result = run("analyze", folder / "trace.dat", strange, "--format", "json")
    report = json.loads(result.out)
    assert result.status == 4
    assert report["guests"][0]["refused"]
    assert report["accounting"]["answered"] == 60
    assert any("not on the host's clock" in reason for reason in report["unsafe"])


def test_redacted_nothing_of_the_guest_is_left(run: Run, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "acme-payroll.txt"
    text = (folder / "stuck-vm1.txt").read_text().replace("touch300", "payroll")
    secret.write_text(text)
    for form in ("text", "json", "html", "md", "junit"):
        result = run("analyze", folder / "stuck.dat", secret, "--format", form, "--redact")
        assert result.status == 1
        for word in (b"payroll", b"acme"):
            assert word not in result.out, (form, word)
        assert b"lost-in-guest" in result.out


def test_the_output_is_not_one_of_the_traces(run: Run, folder: Path) -> None:
    guest = folder / "trace-vm1.txt"
    before = guest.read_bytes()
    assert run("analyze", folder / "trace.dat", guest, "-o", guest, "--format", "text").status == 2
    assert guest.read_bytes() == before
