"""The engine on a real Ray cluster of two machines, and what it does when parts of it are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray_workers

from isthmus.errors import OptionError
from isthmus.scale import ray as engine
from isthmus.scale.job import Job
from isthmus.scale.pieces import pieces
from isthmus.scale.source import Plan, plan
from isthmus.scale.store import Store
from isthmus.scale.worker import Worker

pytest.importorskip("ray.data", reason="needs Ray: pip install 'isthmus[ray]'")
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.xdist_group("ray")

Odd = Callable[[int, int], dict[str, Any]]
HERE = Path(__file__).parent
EXAMPLES = sorted((HERE.parents[1] / "examples").glob("*.jpg"))
STORE = 90 << 20  # bytes that a machine of the cluster shares among its processes
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 2,
}
JOB = Job("mini", methods=("gradcam",), batch_size=4)
SIZE = 4


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def cluster(notes: Path) -> Iterator[Any]:
    """A machine with a core, and one with a core and a GPU, which is none but in Ray's eyes."""
    told = {
        "PYTHONPATH": os.pathsep.join([str(HERE), *(path for path in sys.path if path)]),
        "ISTHMUS_TEST_NOTES": str(notes),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",
        "HF_HUB_OFFLINE": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        made = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "num_gpus": 0,
                "object_store_memory": STORE,
                "include_dashboard": False,
                "_system_config": HEALTH,
            },
        )
        try:
            made.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE)
            yield made
        finally:
            made.shutdown()


@pytest.fixture
def empty(notes: Path) -> None:
    for path in notes.iterdir():
        path.unlink()


def texts(notes: Path, kind: str) -> list[list[str]]:
    return [path.read_text().split() for path in notes.glob(f"{kind}-*")]


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """A run that hangs fails."""

    def late(*_: object) -> None:
        raise AssertionError(f"It took more than {seconds} seconds.")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def made(folder: Path, shards: int = 2, records: int = 8, *, odd: Odd | None = None) -> Plan:
    """An input of so many files with so many pairs each; `odd` replaces values of some."""
    folder.mkdir()
    for shard in range(shards):
        rows = [
            {
                "id": f"p{number}",
                "image": EXAMPLES[(shard + number) % len(EXAMPLES)].read_bytes(),
                "caption": f"a picture of number {number}",
                **(odd(shard, number) if odd else {}),
            }
            for number in range(records)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard}.parquet")
    return plan(folder, image_column="image", text_columns=["caption"])


def store_of(folder: Path) -> Store:
    store = Store(str(folder), pause=0.01)
    store.prepare(JOB.settings())
    return store


def rows_of(store: Store) -> list[dict[str, Any]]:
    store.finish()
    found = [row for name in store.parts() for row in store.read_part(name).read().to_pylist()]
    return sorted(found, key=lambda row: row["id"])


def ids(shards: int = 2, records: int = 8) -> list[str]:
    return sorted(f"{shard}/p{number}" for shard in range(shards) for number in range(records))


def test_rows_are_those_of_a_plain_loop_and_each_worker_loads_once(
    cluster: Any, notes: Path, empty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a mixed cluster: one worker on the GPU, one on the other machine's core, in one pool."""
    monkeypatch.setattr(engine, "Explainer", ray_workers.Together)
    source, store = made(tmp_path / "in"), store_of(tmp_path / "out")
    with within(300):
        parts = list(engine.parts(source, JOB, store, address=cluster.address, size=SIZE))
    assert sorted((part.shard, part.piece, part.pairs, part.rows) for part in parts) == [
        (shard, piece, SIZE, SIZE) for shard in range(2) for piece in range(2)
    ]
    loads = texts(notes, "load")
    assert len({pid for pid, _, _ in loads}) == len(loads) == 2
    assert {kind for *_, kind in loads} == {"cpu", "gpu"}
    found = rows_of(store)
    assert [row["id"] for row in found] == ids()
    with Worker(JOB) as worker:
        tables = [worker.run(piece).table for shard in source.shards for piece in pieces(shard, SIZE)]
    plain = [row for found in tables for row in found.to_pylist()]
    for one, two in zip(found, sorted(plain, key=lambda row: row["id"]), strict=True):
        assert one.keys() == two.keys()
        for name, value in two.items():
            if name.endswith("scores"):
                np.testing.assert_allclose(one[name], value, atol=1e-5)
            elif isinstance(value, float):
                assert one[name] == pytest.approx(value, abs=1e-4)
            else:
                assert one[name] == value
    # nothing is left: no cluster is needed to see it
    assert list(engine.parts(source, JOB, store, address="127.0.0.1:1", size=SIZE)) == []


def test_a_killed_worker_and_a_record_that_kills_it(
    cluster: Any, notes: Path, empty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "Explainer", ray_workers.Deadly)

    def odd(shard: int, number: int) -> dict[str, Any]:
        return {"caption": "a deadly picture"} if (shard, number) == (1, 4) else {}

    source, store = made(tmp_path / "in", records=5, odd=odd), store_of(tmp_path / "out")
    with within(480):
        list(engine.parts(source, JOB, store, address=cluster.address, size=SIZE))
    assert [row["id"] for row in rows_of(store)] == [name for name in ids(2, 5) if name != "1/p4"]
    errors = pq.read_table(tmp_path / "out" / "errors.parquet").to_pylist()
    assert [row["id"] for row in errors] == ["1/p4"]
    assert "ended the process" in errors[0]["reason"]
    assert texts(notes, "death")


def test_a_machine_that_joins_is_used_and_may_be_killed(
    cluster: Any, notes: Path, empty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "Explainer", ray_workers.Patient)
    source, store = made(tmp_path / "in", shards=5), store_of(tmp_path / "out")
    job = Job("mini", methods=("gradcam",), batch_size=4, device="cpu")  # a pool of one kind, which grows
    third = None
    with within(200):
        for _ in engine.parts(source, job, store, address=cluster.address, size=SIZE):
            if third is None:
                third = cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=STORE)
                while not any(node == third.node_id for _, node, _ in texts(notes, "load")):
                    time.sleep(0.1)
                cluster.remove_node(third, allow_graceful=False)
    assert [row["id"] for row in rows_of(store)] == ids(5)


def test_a_killed_driver_and_a_run_that_goes_on(
    cluster: Any, notes: Path, empty: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, store = made(tmp_path / "in", shards=3), store_of(tmp_path / "out")
    script = (
        "import ray_workers, test_ray as t\n"
        "from pathlib import Path\n"
        "t.engine.Explainer = ray_workers.Slow\n"
        f"source = t.plan(Path({str(tmp_path / 'in')!r}), image_column='image', text_columns=['caption'])\n"
        f"store = t.Store({str(tmp_path / 'out')!r})\n"
        f"list(t.engine.parts(source, t.JOB, store, address={cluster.address!r}, size=t.SIZE))\n"
    )
    path = os.pathsep.join([str(HERE), *(path for path in sys.path if path)])
    driver = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path})
    with within(300):
        while not store.done().pieces:
            assert driver.poll() is None
            time.sleep(0.1)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        before = store.done().pieces
        assert 0 < len(before) < 6
        monkeypatch.setattr(engine, "Explainer", ray_workers.Slow)
        store_of(tmp_path / "out")
        parts = list(engine.parts(source, JOB, store, address=cluster.address, size=SIZE))
    assert not before & {(part.shard, part.piece) for part in parts if part.records}
    assert [row["id"] for row in rows_of(store)] == ids(3)


def test_an_error_of_a_worker_or_reader_comes_home_as_it_is(cluster: Any, tmp_path: Path) -> None:
    source, store = made(tmp_path / "in", shards=1), store_of(tmp_path / "out")
    with within(200), pytest.raises(OptionError, match="There is no method 'nonsense'"):
        list(engine.parts(source, Job("mini", methods=("nonsense",)), store, address=cluster.address, size=SIZE))


def test_the_command_ends_at_a_signal_as_on_one_machine(cluster: Any, tiny_folder: Path, tmp_path: Path) -> None:
    """SIGTERM: 143 and a sentence, no dump of Ray's."""
    count, output = made(tmp_path / "in", shards=3).records or 0, tmp_path / "out"
    command = [sys.executable, "-m", "isthmus", "map", tmp_path / "in", output, "--model", tiny_folder]
    command += ["--image-column", "image", "--text-column", "caption", "--option", "steps=400", "--piece-size", "1"]
    command += ["--engine", "ray", "--address", cluster.address, "--device", "cpu", "--batch-size", "1"]
    ran = subprocess.Popen([str(one) for one in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with within(300):
        while not list(output.glob("pairs/*")):
            assert ran.poll() is None
            time.sleep(0.1)
        ran.send_signal(signal.SIGTERM)
        out, err = ran.communicate()
    assert ran.returncode == 143, (out, err)
    assert "Run the same command again to go on." in out
    assert "Traceback" not in err
    assert "SIGTERM received" not in err
    assert 0 < len(list(output.glob("pairs/*"))) < count
