"""Killed at any moment and started again, a batch leaves the bytes of one that nobody disturbed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.batch.conftest import tree
from tests.batch.packing import tarred, zipped, zstd
from tests.batch.test_workers import alive, children_of, wait_for

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 20


@pytest.fixture
def corpus(tmp_path: Path, made: dict[str, bytes]) -> Path:
    """Return a folder with 24 inputs of many kinds in all kinds of containers."""
    folder = tmp_path / "in"
    folder.mkdir()
    kinds = list(made.values())
    files = [(f"run-{n:02d}/trace.dat", kinds[n % len(kinds)] + bytes(n)) for n in range(20)]
    files += [(f"bad-{n}/trace.dat", kinds[0][: 50 * n]) for n in range(4)]
    for name, data in files[::4]:
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(data)
    (folder / "a.zip").write_bytes(zipped(files[1::4]))
    (folder / "b.tar.zst").write_bytes(zstd(tarred(files[2::4])))
    (folder / "c.zip").write_bytes(zipped([("d.tar", tarred(files[3::4]))]))
    return folder


def start(corpus: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "apftrace", "batch", corpus, "-o", out, "--jobs", "2", "--reports", "2"]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def whole(out: Path) -> bool:
    """Say whether all that people see is there or nothing is, and no table is half written."""
    made = [out / name for name in ("batch.json", "runs.jsonl")]
    return not made[0].exists() or all(path.read_bytes().endswith(b"\n") for path in made)


def test_twenty_kills_later_the_bytes_are_the_same(corpus: Path, tmp_path: Path):
    with start(corpus, tmp_path / "undisturbed") as running:
        began = time.monotonic()
        assert running.wait() in {1, 4}
        took = time.monotonic() - began
    undisturbed = tree(tmp_path / "undisturbed")
    source = random.Random(20)
    out = tmp_path / "killed"
    killed = 0
    while killed < KILLS:
        # A third of the kills hits a worker: that is no end, and no other result.
        victim_is_worker = killed % 3 == 2
        running = start(corpus, out)
        time.sleep(source.uniform(0.05, 0.9 * took))
        workers = children_of(running.pid)
        if running.poll() is not None:
            # It came to its end before: start again from nothing, or the rest of the kills would hit no work.
            assert tree(out) == undisturbed
            (out / "batch.json").unlink()
            for result in (out / ".apftrace" / "results").rglob("*"):
                if result.is_file() and source.random() < 0.7:
                    result.unlink()
            continue
        if victim_is_worker and workers:
            subprocess.run(["kill", "-9", str(source.choice(workers))], check=False, capture_output=True)
            time.sleep(source.uniform(0, 0.3))
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert wait_for(lambda workers=workers: not any(map(alive, workers)))
        assert whole(out)
        killed += 1
    with start(corpus, out) as running:
        assert running.wait() in {1, 4}
    assert tree(out) == undisturbed


def test_a_second_batch_in_the_same_folder_is_kept_out(corpus: Path, tmp_path: Path):
    with start(corpus, tmp_path / "out") as first:
        assert wait_for((tmp_path / "out" / ".apftrace" / "tmp").exists)
        command = [sys.executable, "-m", "apftrace", "batch", str(corpus), "-o", str(tmp_path / "out")]
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (second.returncode, second.stderr) == (
            3,
            f"apftrace: {tmp_path / 'out'}: another batch is writing here\n",
        )
        assert first.wait() in {1, 4}


def test_ctrl_c_ends_it_in_one_line(corpus: Path, tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "apftrace",
        "batch",
        str(corpus),
        "-o",
        str(tmp_path / "out"),
        "--jobs",
        "2",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        running.stdout.readline()  # the first input is done
        workers = children_of(running.pid)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert said == "apftrace: interrupted; the same command goes on where it was\n"
    assert wait_for(lambda: not any(map(alive, workers)))
    assert not (tmp_path / "out" / ".apftrace" / "tmp").exists()
