"""docs/batch.md: its queries run on a real data set, its recipes say what the command line knows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apftrace.batch.allow import read_allow_list
from apftrace.batch.labels import compiled
from apftrace.batch.runs import STATUSES
from apftrace.cli.batch import batch as verb

if TYPE_CHECKING:
    import pytest

    from tests.batch.conftest import RunBatch

PAGE = (Path(__file__).parents[2] / "docs" / "batch.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.M | re.S)


def test_the_queries_run(
    batch: RunBatch, made: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, data in made.items():
        (tmp_path / f"{name}.dat").write_bytes(data)
    batch(tmp_path / "late.dat", tmp_path / "lost.dat", tmp_path / "calm.dat", output="results", reports=0)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for snippet in blocks("python"):
        exec(compile(snippet, "docs/batch.md", "exec"), names)  # the page is ours
    lives = names["slowest"]["lives"].sum()
    assert lives > 0
    assert names["slowest"]["lost"].sum() == 1
    assert {"lost-wakeup", "late-wakeup"} <= {row[1] for row in names["worst"].fetchall()}
    assert len(names["late"].fetchall()) == min(10, lives)
    assert sum(row[2] for row in names["rates"].fetchall()) == 3
    assert names["table"].num_rows == lives


def test_every_option_in_the_page_exists():
    known = {name for parameter in verb.params for name in parameter.opts}
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert used - known <= {"--nworkers", "--nthreads"}
    for pattern in re.findall(r"--labels '([^']+)'", PAGE):
        assert compiled(pattern)


def test_every_status_is_named():
    assert [status for status in STATUSES if f"`{status}`" not in PAGE] == []


def test_the_allow_list_of_the_page_is_one(tmp_path: Path):
    (text,) = blocks("toml")
    assert tomllib.loads(text)
    (tmp_path / "known.toml").write_text(text, "utf-8")
    (entry,) = read_allow_list(tmp_path / "known.toml", date(2027, 1, 1)).entries
    assert entry.covers("late-wakeup", {"kernel": "6.1.0", "host": "lab3", "path": "x", "job": "y"})


def test_the_nightly_script_compares_with_the_night_before(tmp_path: Path, made: dict[str, bytes]):
    (script,) = [block for block in blocks("sh") if block.startswith("#!/bin/sh")]
    traces = tmp_path / "incoming" / "6.12" / "lab1"
    traces.mkdir(parents=True)
    (traces / "late.dat").write_bytes(made["late"])
    results = tmp_path / "results"
    (results / "2020-01-01").mkdir(parents=True)
    (results / "2020-01-01" / "runs.jsonl").write_text("", "utf-8")
    (tmp_path / "mail").write_text(f'#!/bin/sh\ncat > "{tmp_path}/mailed"\n', "utf-8")
    (tmp_path / "mail").chmod(0o755)
    local = script.replace("/srv/traces/incoming", str(tmp_path / "incoming")).replace(
        "/srv/traces/results", str(results)
    )
    paths = [str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]]
    done = subprocess.run(
        ["sh", "-c", local],
        env={**os.environ, "PATH": ":".join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    (today,) = [folder for folder in results.iterdir() if folder.is_dir() and folder.name != "2020-01-01"]
    assert '"changes": []' in (today / "batch.json").read_text("utf-8")
    assert not (tmp_path / "mailed").exists()
