"""OUTPUT: whole parts, nothing lost when a run dies, in one sentence what is wrong."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_rows import fresh, made_table

from isthmus.datasets.records import Failure
from isthmus.errors import InputError, OptionError, SaveError
from isthmus.scale.packing import errors_table, packed
from isthmus.scale.rows import table_of
from isthmus.scale.store import Store

URLS = ["local", "memory", "file", "stubborn"]


@pytest.fixture(params=URLS)
def store(request: Any, tmp_path: Path) -> Store:
    kind = request.param
    places = {"local": str(tmp_path / "out"), "file": f"file://{tmp_path}/out"}
    url = places.get(kind) or fresh(kind)
    return Store(url, pause=0.0)


def ids(store: Store) -> list[str]:
    found = []
    for name in store.parts():
        with store.read_part(name) as part:
            found += part.read().column("id").to_pylist()
    return found


def errors(store: Store) -> list[dict[str, Any]]:
    with store.read_part("errors.parquet") as part:
        return part.read().to_pylist()


def test_a_run_and_its_end(store: Store) -> None:
    assert store.prepare({"model": "mini", "layer": 0}, about={"engine": "local"}) is False
    assert store.manifest()["state"] == "running"
    store.put(0, 0, made_table(["a", "b"]))
    store.put(0, 1, made_table(["c"]), [Failure("bad", "It is broken.")], last=True)
    store.put(7, 0, table_of([]), [Failure("worse", "It is gone.")], last=False)
    done = store.done()
    assert done.pieces == {(0, 0), (0, 1), (7, 0)}
    assert done.complete() == {0}
    manifest = store.finish("interrupted", about={"seconds": 3})
    assert manifest == store.manifest()
    assert manifest["counts"] == {"rows": 3, "failures": 2, "parts": 3, "shards_complete": 1}
    assert manifest["about"] == {"engine": "local", "seconds": 3}
    assert manifest["state"] == "interrupted"
    assert ids(store) == ["a", "b", "c"]
    assert errors(store) == [
        {"id": "bad", "reason": "It is broken.", "shard": 0},
        {"id": "worse", "reason": "It is gone.", "shard": 7},
    ]
    assert store.files.names(".work/writing") == []
    assert store.has(0, 1)
    assert not store.has(0, 2)


def test_a_run_goes_on(store: Store) -> None:
    settings = {"model": "mini", "options": {"steps": 10, "layer": (1, 2)}}
    store.prepare(settings)
    store.put(0, 0, made_table(["a"]))
    again = Store(store.url, pause=0.0)
    assert again.prepare({"options": {"layer": [1, 2], "steps": 10}, "model": "mini"}) is True
    assert again.done().pieces == {(0, 0)}
    with pytest.raises(OptionError, match=r"another model \(mini, not other\): give another OUTPUT, or --overwrite\.$"):
        again.prepare({**settings, "model": "other"})
    with pytest.raises(OptionError, match=r"another layer \(1 and 2, not none\), steps \(10, not none\), input:"):
        again.prepare({"model": "mini", "options": {}, "input": "x"})
    assert again.prepare({"model": "other"}, overwrite=True) is False
    assert again.done().pieces == frozenset()


def test_a_part_is_replaced_whole(store: Store) -> None:
    store.prepare({})
    store.put(0, 0, made_table(["a"]), [Failure("b", "It is broken.")])
    store.put(0, 0, made_table(["a", "b"]), last=True)
    store.finish()
    assert ids(store) == ["a", "b"]
    assert errors(store) == [], "an error of an earlier try is gone"


def test_errors_of_a_piece_that_was_not_finished_do_not_count(store: Store, monkeypatch: Any) -> None:
    store.prepare({})
    write = store.files.write
    monkeypatch.setattr(store.files, "write", lambda name, *a, **k: None if "part-" in name else write(name, *a, **k))
    store.put(3, 4, made_table(["a"]), [Failure("b", "It is broken.")], last=True)  # killed before the part
    monkeypatch.undo()
    assert store.done().complete() == set()
    assert store.finish()["counts"]["failures"] == 0
    Store(store.url).prepare({})
    assert [name for name in store.files.names(".work") if name.startswith("errors")] == []


def test_the_journal_tells_of_a_piece_that_killed_a_process(store: Store) -> None:
    store.prepare({})
    assert store.trying(0, 3) is None
    store.note(0, 3, {"tries": 1, "from": 8, "to": 16})
    other = Store(store.url)
    assert other.trying(0, 3) == {"tries": 1, "from": 8, "to": 16}
    assert other.trying(0, 3) == {"tries": 2, "from": 8, "to": 16}
    other.clear(0, 3)
    other.clear(0, 3)
    assert store.trying(0, 3) is None


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    for overwrite in (False, True):
        with pytest.raises(OptionError, match="holds other files"):
            Store(str(tmp_path)).prepare({}, overwrite=overwrite)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"x"


def test_a_lost_manifest_is_not_made_up(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    store.prepare({})
    store.put(0, 0, made_table(["a"]))
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(OptionError, match="holds other files"):
        store.prepare({})


def test_what_a_killed_run_was_writing_is_cleaned(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.prepare({})
    (tmp_path / ".work" / "writing" / "abc").write_bytes(b"half")
    (tmp_path / ".work" / "writing" / "empty").write_bytes(b"")
    (tmp_path / "pairs" / "part-00000-00000.parquet").write_bytes(b"")  # what a power cut leaves
    store.prepare({})
    assert list((tmp_path / ".work" / "writing").iterdir()) == []
    assert store.done().pieces == frozenset()


def test_one_write_in_five_fails() -> None:
    store = Store(fresh("flaky"), pause=0.0)
    store.prepare({})
    for piece in range(20):
        store.trying(0, piece)
        store.put(0, piece, made_table([f"{piece}"]), [Failure(f"bad{piece}", "It is broken.")], last=piece == 19)
        store.clear(0, piece)
    manifest = store.finish()
    assert store.files.fs.failed > 5
    assert manifest["counts"] == {"rows": 20, "failures": 20, "parts": 20, "shards_complete": 1}
    assert ids(store) == [str(n) for n in range(20)]


def test_a_store_that_is_gone_is_told_in_one_sentence() -> None:
    store = Store(fresh("flaky"), pause=0.0, tries=3)
    store.prepare({})
    store.files.fs.every = 1
    with pytest.raises(
        SaveError, match=r"^'flaky://.*part-00000-00000\.parquet' cannot be written \(the store did not"
    ) as e:
        store.put(0, 0, made_table(["a"]))
    assert "\n" not in str(e.value)
    assert store.files.fs.failed == 3


def test_pauses_double(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("isthmus.scale.patience.time.sleep", waited.append)
    store = Store(fresh("flaky"), pause=0.2, tries=4)
    store.files.fs.every = 1
    with pytest.raises(SaveError):
        store.files.write("x", b"x")
    assert [0.1 <= waited[0] <= 0.2, 0.2 <= waited[1] <= 0.4, 0.4 <= waited[2] <= 0.8] == [True] * 3
    assert len(waited) == 3


def test_a_full_disk_ends_at_once_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path / "out"), pause=100)
    store.prepare({})
    store.put(0, 0, made_table(["a"]))

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("isthmus.scale.files.os.fsync", full)
    with pytest.raises(
        SaveError, match=r"No space left on device\): free some space, and run the same command again\.$"
    ):
        store.put(0, 1, made_table(["b"]), last=True)
    monkeypatch.undo()
    assert store.done().pieces == {(0, 0)}
    assert list((tmp_path / "out" / ".work" / "writing").iterdir()) == []
    store.prepare({})
    store.put(0, 1, made_table(["b"]), last=True)
    assert ids(store) == ["a", "b"]


def test_many_errors_are_gathered_in_order(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    store.prepare({})
    for piece in range(300):
        store.files.write(
            f".work/errors-00001-{piece:05d}.parquet", packed(errors_table(1, [Failure(f"{piece}", "No.")]))
        )
        store.files.write(f"pairs/part-00001-{piece:05d}.parquet", packed(table_of([])))
    assert store.finish()["counts"] == {"rows": 0, "failures": 300, "parts": 300, "shards_complete": 0}
    assert [one["id"] for one in errors(store)] == [str(n) for n in range(300)]


def test_programming_errors_are_not_tried_again() -> None:
    store = Store(fresh("memory"), pause=100)
    store.files.fs = None
    with pytest.raises(AttributeError):
        store.files.read("x")


def test_many_writers_of_one_piece(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"), pause=0.01)
    store.prepare({})
    tables = [made_table([f"{k}"] * (k + 1)) for k in range(4)]

    def write(own: Store, k: int) -> None:
        for _ in range(10):
            own.put(0, 0, tables[k], [Failure(str(k), "No.")] if k % 2 else [])

    writers = [threading.Thread(target=write, args=(pickle.loads(pickle.dumps(store)), k)) for k in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    found = ids(store)
    assert len(set(found)) == 1
    assert len(found) == int(found[0]) + 1, "one part, whole"


def test_stores_can_be_sent(store: Store) -> None:
    store.prepare({"a": 1})
    again = pickle.loads(pickle.dumps(store))
    assert again.manifest() == store.manifest()


def test_parts_are_small_on_disk_and_their_schema_stays(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.prepare({})
    store.put(100_000, 0, made_table(["a"] * 300))
    (name,) = store.parts()
    assert name == "pairs/part-100000-00000.parquet"
    found = pq.read_table(tmp_path / name)
    assert found.schema.field("similarity").metadata[b"description"]
    assert (tmp_path / name).stat().st_size < 300 * 1000


@pytest.mark.parametrize("url", ["nosuch://x/y"])
def test_unknown_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="nosuch"):
        Store(url)


def test_damaged_parts_are_told(tmp_path: Path) -> None:
    store = Store(str(tmp_path), tries=1)
    store.prepare({})
    (tmp_path / "pairs" / "part-00000-00000.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(
        SaveError, match=r"part-00000-00000\.parquet is damaged: remove it, and run isthmus map again\.$"
    ):
        store.finish()


def test_what_failed_is_taken_back(store: Store) -> None:
    """A piece whose pictures failed goes alone; one with records that were not read takes all after it along."""
    store.prepare({})
    bad = [Failure("x", "It is broken.")]
    for shard in (0, 1):
        store.put(shard, 0, made_table([f"{shard}a"]))
        store.put(shard, 1, made_table([f"{shard}b"]), [Failure(f"{shard}x", "It is broken.")], all_read=shard == 0)
        store.put(shard, 2, made_table([f"{shard}c"]), last=True)
    store.put(2, 0, made_table(["2a"]), last=True)
    store.finish()
    assert store.done().complete() == {0, 1, 2}
    assert store.prepare({}) is True
    assert store.done().complete() == {0, 1, 2}  # nothing is taken back unless it is asked for
    store.prepare({}, retry_failed=True)
    assert store.done().pieces == {(0, 0), (0, 2), (1, 0), (2, 0)}
    assert store.done().shards == {0: 3, 2: 1}
    assert store.finish("interrupted")["counts"]["failures"] == 0
    store.put(0, 1, made_table(["0b", "0x"]), all_read=True)
    store.put(1, 1, made_table(["1b", "1x"]))
    store.put(1, 2, made_table(["1x:2", "1c"]))
    store.put(1, 3, made_table([]), bad, last=True)
    assert store.finish()["counts"]["failures"] == 1
    assert store.done().complete() == {0, 1, 2}
    assert sorted(ids(store)) == ["0a", "0b", "0c", "0x", "1a", "1b", "1c", "1x", "1x:2", "2a"]
    assert [row["id"] for row in errors(store)] == ["x"]


def test_what_failed_is_taken_back_where_its_piece_is_no_longer_known(store: Store) -> None:
    store.prepare({})
    for shard in (0, 1):
        store.put(shard, 0, made_table([f"{shard}a"]), last=False)
        store.put(shard, 1, made_table([f"{shard}b"]), [Failure("x", "It is broken.")] * (shard == 1), last=True)
    store.finish()
    store.files.remove_folder(".work")
    store.prepare({}, retry_failed=True)
    assert store.done().pieces == {(0, 0), (0, 1)}
    store.put(1, 0, made_table(["1a", "x"]))
    assert store.finish()["counts"]["failures"] == 0
    assert errors(store) == []


@pytest.mark.parametrize("after", range(12))
def test_taking_back_is_ended_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Wherever it dies: the next run, which need not ask for it, takes back what is left from the failed piece on."""
    store = Store(str(tmp_path / "out"))
    store.prepare({})
    for piece in range(4):
        bad = [Failure("x", "It is out of reach.")] * (piece == 1)
        store.put(0, piece, made_table([f"{piece}"]), bad, last=piece == 3)
    store.finish()
    remove, left = Path.unlink, [after]

    def killed(self: Any, *names: str) -> None:
        for name in names:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            remove(tmp_path / "out" / name, missing_ok=True)

    with monkeypatch.context() as patched:
        patched.setattr("isthmus.scale.files.Files.remove", killed)
        try:
            Store(str(tmp_path / "out")).prepare({}, retry_failed=True)
        except KeyboardInterrupt:
            assert (tmp_path / "out" / ".work" / "retrying.json").is_file()
    again = Store(str(tmp_path / "out"))
    again.prepare({})
    assert again.done().pieces == {(0, 0)}
    assert not again.done().shards
    assert not (tmp_path / "out" / ".work" / "retrying.json").exists()
