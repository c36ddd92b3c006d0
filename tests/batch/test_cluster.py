"""The same work on a Dask cluster of several processes, of which one is killed meanwhile."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client, LocalCluster

from apftrace.batch.children import Caps
from apftrace.batch.cluster import NoCluster, work
from apftrace.batch.job import Task
from apftrace.batch.limits import Limits
from apftrace.batch.wire import decode
from tests.batch.conftest import Heard, RunBatch, lines, tree
from tests.batch.packing import tarred, zipped, zstd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


BLIND = "from apftrace.batch import cluster; cluster._is_absent = lambda access: 'hex' not in access"
SEEING = "import importlib; from apftrace.batch import cluster; importlib.reload(cluster)"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Return a scheduler with three worker processes."""
    with LocalCluster(
        n_workers=3,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        worker_dashboard_address=None,
    ) as made:
        yield made


@pytest.fixture
def corpus(tmp_path: Path, made: dict[str, bytes]) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    kinds = list(made.values())
    files = [(f"run-{n:02d}/trace.dat", kinds[n % len(kinds)] + bytes(n)) for n in range(11)]
    files.append(("run-99/trace.dat", kinds[0][:300]))
    (folder / "a.zip").write_bytes(zipped(files[::3]))
    (folder / "b.tar.zst").write_bytes(zstd(tarred(files[1::3])))
    for name, data in files[2::3]:
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(data)
    return folder


class Killer(Heard):
    """Kills a worker of the cluster as soon as some inputs are done."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__()
        self.pids = pids
        self.killed: int | None = None

    def done(self, *told: Any) -> None:
        super().done(*told)
        if len(self.inputs) == 3:
            self.killed = self.pids[0]
            os.kill(self.killed, signal.SIGKILL)


def test_a_cluster_gives_the_same_bytes_though_a_worker_is_killed(
    batch: RunBatch, cluster: Any, corpus: Path, tmp_path: Path
):
    from apftrace.batch.run import Settings, run_batch
    from tests.batch.conftest import CAPS

    batch(corpus, output="here", jobs=2)
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        pids = list(client.run(os.getpid).values())
    killer = Killer(pids)
    settings = Settings(
        (str(corpus),), tmp_path / "there", 1, CAPS, cluster=cluster.scheduler_address, reports=1
    )
    run_batch(settings, killer)
    assert killer.killed
    assert len(set(pids)) == 3
    assert len(killer.inputs) == 12
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_what_is_there_is_not_done_again(batch: RunBatch, cluster: Any, corpus: Path, tmp_path: Path):
    batch(corpus, jobs=2)
    before = tree(tmp_path / "out")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / ".apftrace" / "results").rglob("*")}
    batch(corpus, cluster=cluster.scheduler_address)
    assert tree(tmp_path / "out") == before
    assert stamps == {
        p: p.stat().st_mtime_ns for p in (tmp_path / "out" / ".apftrace" / "results").rglob("*")
    }


def test_a_worker_that_does_not_see_the_file_says_so(tmp_path: Path):
    for access in ({"file": str(tmp_path / "gone")}, {"zip": str(tmp_path / "gone"), "index": 0}):
        task = Task("analyse", (("gone", access),), None, None, Limits())
        frame, *_ = work(task.message().encode(), b"", (10, 1 << 30))
        assert decode(frame).data == {"status": "absent"}


def test_bytes_travel_where_files_are_not_shared(batch: RunBatch, cluster: Any, corpus: Path, tmp_path: Path):
    # To the workers, every file of the client is absent.
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        client.run(exec, BLIND)
        try:
            batch(corpus, output="there", cluster=cluster.scheduler_address)
        finally:
            client.run(exec, SEEING)
    batch(corpus, output="here")
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_no_scheduler_is_one_line(batch: RunBatch, corpus: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("apftrace.batch.cluster._WAIT", 1)
    with pytest.raises(NoCluster, match="no Dask scheduler answers") as caught:
        batch(corpus, cluster="tcp://127.0.0.1:9")
    assert "\n" not in str(caught.value)


def test_caps_hold_on_a_cluster_too(batch: RunBatch, cluster: Any, corpus: Path, tmp_path: Path):
    batch(corpus / "a.zip", caps=Caps(seconds=1e-9, memory=1 << 30), cluster=cluster.scheduler_address)
    statuses = {line["status"] for line in lines(tmp_path / "out").values()}
    assert statuses == {"timeout"}
