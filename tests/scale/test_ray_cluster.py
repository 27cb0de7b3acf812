"""What of the Ray engine needs no cluster: addresses, kinds of workers, what is left to do, errors sent home."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from given import table

import isthmus
from isthmus.datasets.options import Options
from isthmus.errors import IsthmusError, OptionError, SaveError
from isthmus.scale import actors, cluster
from isthmus.scale import ray as engine
from isthmus.scale.job import Job
from isthmus.scale.source import Plan, Shard
from isthmus.scale.store import Store


def node(cpu: float = 0, gpu: float = 0, *, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpu, "GPU": gpu}}


def test_a_worker_on_each_gpu_and_on_every_few_cores_elsewhere() -> None:
    gpus, cores = cluster.kinds([node(16, 2), node(64), node(10), node(8, alive=False), node(0.5)])
    assert (gpus.count, gpus.cores, gpus.gpu) == (2, 8, True)
    assert (cores.count, cores.cores, cores.gpu) == (16 + 2, 4, False)
    assert gpus.needs == {"num_cpus": 8, "num_gpus": 1}
    [few] = cluster.kinds([node(1), node(6)], cores=8)
    assert (few.count, few.cores) == (7, 1)


def test_a_cluster_without_room_is_refused() -> None:
    with pytest.raises(OptionError, match="neither CPUs nor GPUs"):
        cluster.kinds([node(0)])


def test_a_device_keeps_to_one_kind() -> None:
    rooms = cluster.kinds([node(8, 1), node(8)])
    assert [room.gpu for room in engine._suited(rooms, Job())] == [True, False]
    assert [room.gpu for room in engine._suited(rooms, Job(device="cuda"))] == [True]
    assert [room.gpu for room in engine._suited(rooms, Job(device="cpu"))] == [False]
    with pytest.raises(OptionError, match="has no GPU"):
        engine._suited(rooms[1:], Job(device="cuda"))


def test_one_pool_has_workers_of_both_kinds() -> None:
    pool = engine._Pool(cluster.kinds([node(4, 1), node(8)]))
    assert [pool()["num_gpus"] for _ in range(4)] == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("rubbish", "no address of a Ray cluster"),
        ("host:many", "no address of a Ray cluster"),
        ("ray://somewhere:10001", "HOST:PORT"),
        ("host.invalid:6379", "No Ray cluster at host.invalid:6379"),
    ],
)
def test_an_address_where_no_cluster_is(address: str, said: str) -> None:
    pytest.importorskip("ray.data", reason="needs Ray: pip install 'isthmus[ray]'")
    with pytest.raises(OptionError, match=said), cluster.connected(address):
        pass


def test_a_port_that_nothing_listens_at_is_refused_at_once() -> None:
    pytest.importorskip("ray.data", reason="needs Ray: pip install 'isthmus[ray]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OptionError, match="ray start --head"), cluster.connected(f"127.0.0.1:{port}"):
        pass


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    load = importlib.import_module

    def missing(name: str) -> Any:
        if name.startswith("ray"):
            raise ImportError(name)
        return load(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(OptionError, match=r"pip install 'isthmus\[ray\]'"), cluster.connected(None):
        pass


class Elsewhere:
    """A Ray whose machines have what they are told to have."""

    class exceptions:
        RayError = RuntimeError

    def __init__(self, *told: Any) -> None:
        self.told = list(told)

    def remote(self, **_: Any) -> Any:
        return lambda function: self

    def wait(self, tasks: Any, **_: Any) -> Any:
        return tasks, []

    def get(self, _: Any) -> Any:
        found = self.told[0]
        if isinstance(found, Exception):
            raise found
        return found


class Task(Elsewhere):
    def remote(self, *_: Any, **given: Any) -> Any:
        return (lambda function: self) if given else "task"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (("", ""), "cannot be imported on there"),
        (("0.0.1", "x"), "is 0.0.1 on there"),
        ((actors.code()[0], "x"), "of other code"),
    ],
)
def test_a_machine_with_another_isthmus_is_named(told: Any, said: str) -> None:
    pytest.importorskip("ray.data", reason="needs Ray: pip install 'isthmus[ray]'")
    there = {**node(1), "NodeID": "ab" * 28, "NodeManagerHostname": "there"}
    with pytest.raises(OptionError, match=said):
        cluster.check(Task(told), [there])
    cluster.check(Task(actors.code()), [there])
    cluster.check(Task(RuntimeError("it has gone")), [there])


def shard(number: int) -> Shard:
    return Shard(number, "parquet", f"/nowhere/{number}.parquet", Options())


def test_what_is_left_leaves_out_what_is_done(tmp_path: Path) -> None:
    from isthmus.scale.rows import table_of

    store = Store(str(tmp_path / "out"))
    store.prepare({})
    empty = table_of([])
    store.put(0, 0, empty, last=True)
    store.put(1, 1, empty)
    left = engine._left(Plan((shard(0), shard(1), shard(2)), ""), store, 7)
    assert [(one.shard.number, one.size, set(one.done)) for one in left] == [(1, 7, {1}), (2, 7, set())]


def test_errors_come_home_as_they_are_and_others_in_one_sentence() -> None:
    with pytest.raises(SaveError, match=r"^The disk is full: free some space\.$"):
        engine._raise(actors.told(SaveError("The disk is full: free some space.")))
    try:
        raise RuntimeError("went\nwrong.")
    except RuntimeError as error:
        sent = actors.told(error)
    with pytest.raises(IsthmusError, match=r"\(RuntimeError: went wrong\): run the same command again") as caught:
        engine._raise(sent)
    assert "test_ray_cluster" in str(caught.value.__cause__)
    engine._raise(b"")


def test_a_reading_that_fails_is_a_row_that_says_so() -> None:
    [row] = actors.read_pieces({"reading": b"rubbish"})
    assert row["piece"] == b""
    with pytest.raises(IsthmusError, match="UnpicklingError"):
        engine._raise(row["error"])


def test_an_error_of_ray_is_one_sentence() -> None:
    said = r"^The Ray cluster failed \(RuntimeError: no more\): run the same command"
    with pytest.raises(IsthmusError, match=said), engine._telling(Elsewhere()):
        raise RuntimeError("no\n more")


def test_a_cluster_out_of_reach_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="needs Ray: pip install 'isthmus[ray]'")
    with pytest.raises(OptionError, match=r"No Ray cluster at host\.invalid:6379"):
        isthmus.map(table(tmp_path / "in", 2), tmp_path / "out", engine="ray", address="host.invalid:6379")
    assert not (tmp_path / "out").exists()
