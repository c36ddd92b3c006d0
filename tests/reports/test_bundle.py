from __future__ import annotations

import pytest

from apftrace_reports import bundle


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Count how often the script is made; it is a short one here."""
    calls = []

    def make() -> str:
        calls.append(1)
        return "vegaEmbed = 1; // µ\n"

    monkeypatch.setattr(bundle, "_make", make)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return calls


def cached(tmp_path):
    (path,) = (tmp_path / "apftrace").iterdir()
    return path


def test_the_script_is_made_once(made, tmp_path):
    assert bundle.chart_bundle() == bundle.chart_bundle() == "vegaEmbed = 1; // µ\n"
    assert len(made) == 1
    assert cached(tmp_path).name.startswith("vega-")


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff\xfe", None])
def test_a_damaged_file_is_made_anew(made, tmp_path, damage):
    first = bundle.chart_bundle()
    path = cached(tmp_path)
    path.write_bytes(path.read_bytes() + b"alert(1)" if damage is None else damage)
    assert bundle.chart_bundle() == first
    assert len(made) == 2
    assert bundle.chart_bundle() == first
    assert len(made) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(made, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert bundle.chart_bundle() == bundle.chart_bundle()
    assert len(made) == 2


def test_a_relative_cache_home_is_ignored(made, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    bundle.chart_bundle()
    assert list((tmp_path / ".cache" / "apftrace").iterdir())


def test_the_real_script_can_stand_in_a_page():
    script = bundle.chart_bundle()
    assert "vegaEmbed" in script
    assert "</script" not in script
    assert "<!--" not in script
