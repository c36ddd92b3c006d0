"""The allow-list: what it covers, where, and until when."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from apftrace.batch.allow import BadAllowList, read_allow_list, today
from tests.batch.conftest import RunBatch, lines

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
[[allow]]
rule = "lost-*"
scope = { kernel = "6.12*", path = "*/lab3/*" }
reason = "ticket 17"
expires = 2030-01-31
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "allow.toml"
    path.write_text(text, "utf-8")
    return path


def test_an_entry_covers_its_rule_in_its_scope_until_its_day(tmp_path: Path):
    path = write(tmp_path, GOOD)
    here = {"kernel": "6.12.3", "host": "a", "job": "b", "path": "in/lab3/trace.dat"}
    allow = read_allow_list(path, date(2030, 1, 31))
    assert allow.reason("lost-wakeup", here) == "ticket 17"
    assert allow.reason("late-wakeup", here) is None
    assert allow.reason("lost-wakeup", here | {"kernel": "6.1"}) is None
    assert allow.reason("lost-wakeup", here | {"path": "in/lab4/trace.dat"}) is None
    assert allow.reason("lost-wakeup", {"kernel": "6.12.3"}) is None  # a group has no path
    assert allow.remarks() == []
    late = read_allow_list(path, date(2030, 2, 1))
    assert late.reason("lost-wakeup", here) is None
    assert late.remarks() == ["expired on 2030-01-31: lost-* (ticket 17)"]


def test_an_entry_that_covers_nothing_is_told(tmp_path: Path):
    assert read_allow_list(write(tmp_path, GOOD), date(2029, 1, 1)).remarks() == [
        "covers nothing: lost-* (ticket 17)"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("allow = 3", "nothing but"),
        ("[other]", "nothing but"),
        ("[[allow]]\nrule = 3", "rule is missing"),
        ("[[allow]]\nrule = 'a'\nexpires = 2030-01-01\nscope = {}", "reason is missing"),
        ("[[allow]]\nrule = 'a'\nreason = ' '\nexpires = 2030-01-01\nscope = {}", "reason is missing"),
        ("[[allow]]\nrule = 'a'\nreason = 'b'\nscope = {}", "expires is missing"),
        ("[[allow]]\nrule = 'a'\nreason = 'b'\nexpires = '2030-01-01'\nscope = {}", "expires is missing"),
        ("[[allow]]\nrule = 'a'\nreason = 'b'\nexpires = 2030-01-01", "scope must be"),
        ("[[allow]]\nrule = 'a'\nreason = 'b'\nexpires = 2030-01-01\nscope = { cpu = '1' }", "scope must be"),
        ("[[allow]]\nrules = 'a'", "expected only"),
        ("[[allow]", "no TOML"),
    ],
)
def test_an_entry_that_does_not_say_all_is_refused(tmp_path: Path, text: str, words: str):
    with pytest.raises(BadAllowList, match=words):
        read_allow_list(write(tmp_path, text), date(2029, 1, 1))


def test_the_day_can_be_fixed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1893456000")
    assert today() == date(2030, 1, 1)


def test_what_is_allowed_fails_nothing_and_is_still_told(
    batch: RunBatch, made: dict[str, bytes], tmp_path: Path
):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "lost.dat").write_bytes(made["lost"])
    assert batch(tmp_path / "in").is_failing
    allow = write(tmp_path, GOOD.replace("*/lab3/*", "*/in/*"))
    done = batch(tmp_path / "in", allow=allow)
    assert not done.is_failing
    assert done.remarks == []
    assert lines(tmp_path / "out")["lost.dat"]["allowed"] == {"lost-wakeup": "ticket 17"}
    assert "allowed: lost-wakeup: ticket 17" in (tmp_path / "out" / "junit.xml").read_text("utf-8")
    (wrong,) = batch(tmp_path / "in", allow=write(tmp_path, GOOD)).remarks
    assert wrong == "covers nothing: lost-* (ticket 17)"
