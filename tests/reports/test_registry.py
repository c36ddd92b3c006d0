from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from apftrace.errors import ReportError
from apftrace_reports import registry
from apftrace_reports.base import save

from . import analyses


def test_names_are_unique_and_listed_in_order():
    assert registry.NAMES == ("html", "text", "md", "json", "junit", "parquet")
    assert [registry.by_name(name).name for name in registry.NAMES] == list(registry.NAMES)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("-", "text"),
        ("a.txt", "text"),
        ("trace.apf.html", "html"),
        ("TRACE.HTML", "html"),
        ("dir.json/a.md", "md"),
        ("a.json", "json"),
        ("a.xml", "junit"),
        ("a.junit.xml", "junit"),
        ("a.parquet", "parquet"),
    ],
)
def test_the_suffix_chooses_the_report(path, name):
    assert registry.report_for(path).name == name


def test_a_format_beats_the_suffix():
    assert registry.report_for("a.html", "json").name == "json"


@pytest.mark.parametrize("path", ["report", "a.pdf", "html", "evil\nname"])
def test_an_unknown_suffix_is_one_line_that_lists_the_known(path):
    with pytest.raises(ReportError) as raised:
        registry.report_for(path)
    message = str(raised.value)
    assert "\n" not in message
    assert all(suffix in message for suffix in (".html", ".txt", ".md", ".json", ".xml", ".parquet"))


def test_an_unknown_name_is_one_line_that_lists_the_known():
    with pytest.raises(ReportError, match=r"known are html, text, md, json, junit, parquet$"):
        registry.by_name("pdf")


def test_only_json_asks_for_digests():
    assert [report.name for report in registry.REPORTS if report.wants_sha256] == ["json"]


@pytest.mark.parametrize("report", registry.BUILTIN, ids=lambda report: report.name)
def test_the_same_analysis_gives_the_same_bytes(report, analysis):
    assert report.render(analysis) == report.render(analysis)


@pytest.mark.parametrize("report", registry.BUILTIN, ids=lambda report: report.name)
def test_row_order_of_equal_counts_does_not_leak(report):
    assert report.render(analyses.rich()) == report.render(analyses.rich())


def test_analysis_writes_by_suffix(tmp_path):
    target = tmp_path / "out.json"
    analyses.single().write(target)
    assert target.read_bytes().startswith(b"{")
    assert analyses.single().text().startswith("CLEAN: ")


def test_saving_replaces_whole_files_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "r.txt"
    target.write_text("old")
    save(b"new", target)
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]
    assert stat.S_IMODE(target.stat().st_mode) & 0o600 == 0o600


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "r.txt"
    target.write_text("old")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", broken)
    with pytest.raises(ReportError, match="No space left on device"):
        save(b"new", target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(ReportError, match=r"cannot be written: No such file or directory$"):
        save(b"", tmp_path / "none" / "r.txt")


def test_a_dash_is_standard_output(capfdbinary):
    save(b"\xc2\xb5s", "-")
    assert capfdbinary.readouterr().out == b"\xc2\xb5s"


def test_a_device_is_written_not_replaced():
    save(b"x", os.devnull)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
