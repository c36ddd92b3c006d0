"""``--redact``, seen from outside: nothing that names people or places leaves, in whatever format."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import polars as pl
import pytest

from apftrace_reports.data import REDACTED
from tests.builders import options
from tests.builders.story import Story
from tests.model.support import LATER, MS, calm, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

HOST, GUEST, COMM, HOG = "prodhost17", "customer-db", "acme-vcpu/7", "acme-batch"
FOLDER, FILE = "acme-case-4711", "acme-capture"
GVA, OTHER_GVA = 0x1DEADB008, 0x1CAFEB008
SECRETS = (HOST, GUEST, COMM, HOG, FOLDER, FILE)
TEXTS = ("text", "md", "html", "json", "junit")


def addresses() -> set[int]:
    """Return the addresses of the trace in the forms in which reports could show them."""
    guest = {GVA, OTHER_GVA, GVA & ~0xFFF, GVA >> 12, OTHER_GVA & ~0xFFF, OTHER_GVA >> 12}
    return guest | {0x7F0000000000 + (gva & ~0xFFF) for gva in (GVA, OTHER_GVA)}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return a trace with late lives on two pages: GVA twice, OTHER_GVA once."""
    story = Story()
    calm(story)
    for n, gva in enumerate((GVA, OTHER_GVA, GVA)):
        at = LATER + n * 500 * MS
        story.pv_life(at=at, gva=gva, injected=at + 90 * MS)
        tid = story.tid(0)
        story.event(at + MS, "sched_switch", tid, 0, prev_pid=tid, prev_state=0, next_pid=900)
        story.event(at + 89 * MS, "sched_switch", 900, 0, prev_pid=900, prev_state=1, next_pid=tid)
    story.comms |= {101: COMM, 900: HOG}
    folder = tmp_path / FOLDER
    folder.mkdir()
    facts = [
        options.uname(f"Linux {HOST} 6.12.0 x86_64"),
        options.guest(GUEST, 0xDEF, [101]),
        options.proc_maps(5, "qemu", [(0x1000, 0x2000, f"/home/{HOG}/lib.so")]),
    ]
    return write(story, folder / f"{FILE}.dat", options=facts)


def survivors(text: str) -> set[str]:
    """Return the names and addresses of the trace that a text still has."""
    numbers = {int(word, 16) for word in re.findall(r"\b(?:0x)?([0-9a-fA-F]{5,16})\b", text)}
    numbers |= {int(word) for word in re.findall(r"\b\d{5,20}\b", text)}
    return {name for name in SECRETS if name in text} | {hex(a) for a in addresses() & numbers}


@pytest.mark.parametrize("format_", TEXTS)
def test_the_fixture_has_secrets_to_lose(run: Run, secret: Path, format_: str) -> None:
    assert (
        survivors(run("analyze", secret, "--format", format_).text) >= {GUEST, hex(GVA)} or format_ == "html"
    )


@pytest.mark.parametrize("format_", TEXTS)
def test_no_name_and_no_address_survives(run: Run, secret: Path, format_: str) -> None:
    result = run("analyze", secret, "--redact", "--format", format_)
    assert survivors(result.text) == set()
    assert survivors(result.err) == set()


def test_no_name_and_no_address_survives_in_the_tables(run: Run, secret: Path, tmp_path: Path) -> None:
    assert run("analyze", secret, "--redact", "-o", "out.parquet").status == 0
    written = [path for path in (tmp_path / "out.parquet").rglob("*") if path.is_file()]
    tables = [path for path in written if path.suffix == ".parquet"]
    assert len(tables) >= 5
    text = " ".join(str(pl.read_parquet(path).to_dicts()) for path in tables)
    assert survivors(text) == set()
    for path in written:
        assert not [name for name in SECRETS if name.encode() in path.read_bytes()], path.name


def test_neither_text_nor_page_of_the_default_call_tells(run: Run, secret: Path, tmp_path: Path) -> None:
    result = run("analyze", secret, "--redact")
    pages = [path for path in tmp_path.iterdir() if path.is_file()]
    assert [path.name for path in pages] == ["trace.redacted.apf.html"]
    assert survivors(result.text + result.err + pages[0].read_text()) == set()


def report(run: Run, path: Path, *arguments: str) -> dict[str, object]:
    parsed: dict[str, object] = json.loads(run("analyze", path, "--format", "json", *arguments).text)
    return parsed


def pages_of(report: dict[str, object]) -> dict[str, str]:
    """Return the page of each finding by its token."""
    return {f["token"]: f["gva"] for f in report["findings"]}  # type: ignore[attr-defined]


def test_equal_pages_keep_one_pseudonym_and_others_another(run: Run, secret: Path) -> None:
    plain, redacted = pages_of(report(run, secret)), pages_of(report(run, secret, "--redact"))
    assert plain.keys() == redacted.keys()
    groups = [
        [sorted(t for t in p if p[t] == page) for page in dict.fromkeys(p.values())]
        for p in (plain, redacted)
    ]
    assert groups[0] == groups[1]
    assert len(set(plain.values())) == 2


def test_the_same_trace_gets_the_same_pseudonyms(run: Run, secret: Path) -> None:
    assert report(run, secret, "--redact") == report(run, secret, "--redact")


def test_the_verdict_and_the_times_stay(run: Run, secret: Path) -> None:
    plain, redacted = report(run, secret), report(run, secret, "--redact")
    for key in ("verdict", "accounting", "latency_ns", "not_run"):
        assert plain[key] == redacted[key], key
    told = [
        [(f["rule"], f["token"], f["ts_ns"], f["phase"], f["tid"]) for f in r["findings"]]  # type: ignore[attr-defined]
        for r in (plain, redacted)
    ]
    assert told[0] == told[1]
    assert len(told[0]) == 3


def test_the_digest_of_the_input_does_not_name_it(run: Run, secret: Path) -> None:
    (told,) = report(run, secret, "--redact")["inputs"]  # type: ignore[misc]
    assert told["sha256"] is None  # type: ignore[index]


def test_the_exit_status_is_that_of_the_plain_call(run: Run, secret: Path, traces: Path) -> None:
    for path, status in ((secret, 0), (traces / "lost.dat", 1), (traces / "lossy.dat", 4)):
        assert run("analyze", path, "--redact", "-o", "-").status == status


@pytest.mark.parametrize("format_", TEXTS)
def test_a_report_says_that_it_is_redacted(run: Run, secret: Path, format_: str) -> None:
    plain = run("analyze", secret, "--format", format_).text
    redacted = run("analyze", secret, "--format", format_, "--redact").text
    words = '"redacted": true' if format_ == "json" else REDACTED
    assert (words in plain, words in redacted) == (False, True)
