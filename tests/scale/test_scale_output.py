"""OUTPUT where it is not as a run left it: a stranger's folder, a damaged part, a disk full or answering badly."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from given import errors_in, rows_in, table
from made_rows import fresh, made_table

import isthmus
from isthmus.datasets.records import Failure
from isthmus.errors import OptionError, SaveError
from isthmus.scale.store import Store
from isthmus.scale.summary import summarise

OPTIONS: dict[str, Any] = {"steps": 1, "batch_size": 4, "piece_size": 4}


@pytest.mark.parametrize("manifest", ['{"name": "my web app"}', "[1]", '{"format": 1}'])
def test_a_stranger_with_a_manifest_is_left_alone(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "mine.txt").write_text("mine")
    (tmp_path / "manifest.json").write_text(manifest)
    for overwrite in (False, True):
        with pytest.raises(OptionError, match="holds other files"):
            Store(str(tmp_path)).prepare({}, overwrite=overwrite)
    assert (tmp_path / "pairs" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "manifest.json").read_text() == manifest


def test_options_that_nothing_came_of_bind_nobody(tiny: Any, tmp_path: Path) -> None:
    source, output = table(tmp_path / "in", 5), tmp_path / "out"
    with pytest.raises(OptionError, match="layer"):
        isthmus.map(source, output, model=tiny, layer=99, **OPTIONS)
    assert isthmus.map(source, output, model=tiny, layer=1, **OPTIONS).rows == 5
    with pytest.raises(OptionError, match=r"another layer \(1, not 0\)"):
        isthmus.map(source, output, model=tiny, layer=0, **OPTIONS)


def test_a_run_that_may_be_alive_keeps_its_folder(tmp_path: Path) -> None:
    """Two that begin at once in one folder: the second is refused although the first has written nothing yet."""
    Store(str(tmp_path / "out")).prepare({"layer": 1})
    with pytest.raises(OptionError, match=r"another layer \(1, not 0\)"):
        Store(str(tmp_path / "out")).prepare({"layer": 0})


@pytest.mark.parametrize("name", ["batch_size=4", "model=mini", "progress=1", "retry-failed=1"])
def test_an_option_of_the_command_is_none_of_a_method(
    run: Callable[..., Any], tmp_path: Path, name: str, tiny_folder: Path
) -> None:
    code, _, err = run("map", table(tmp_path / "in", 1), tmp_path / "out", "--model", tiny_folder, "--option", name)
    assert code == 1
    assert "--option is for options of the methods" in " ".join(err.split())
    assert "Traceback" not in err


def test_one_bad_answer_loses_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that says once that a file cannot be looked at: it is asked again, not taken for an absent one."""
    store = Store(str(tmp_path / "out"), pause=0.0)
    store.prepare({})
    store.put(0, 0, made_table(["a"]), [Failure("b", "It is broken.")], last=True)
    store.finish()
    look, failing = store.files.fs.info, []

    def info(path: Any, **options: Any) -> Any:
        name = os.fspath(path)
        if "errors" in name and name not in failing:
            failing.append(name)
            raise OSError(errno.ESTALE, "Stale file handle")
        return look(path, **options)

    monkeypatch.setattr(type(store.files.fs), "info", lambda self, path, **options: info(path, **options))
    again = Store(str(tmp_path / "out"), pause=0.0)
    again.prepare({})
    assert again.finish()["counts"]["failures"] == 1
    assert failing
    failing.clear()
    again.put(0, 0, made_table(["a", "b"]), last=True)
    assert again.finish()["counts"]["failures"] == 0


def test_a_part_that_is_damaged_inside_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    store.prepare({})
    store.put(0, 0, made_table([f"{n}" for n in range(50)]), last=True)
    store.finish()
    part = tmp_path / "out" / next(store.parts())
    content = bytearray(part.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    part.write_bytes(content)
    with pytest.raises(SaveError, match=r"part-00000-00000\.parquet is damaged: remove it, and run isthmus map again"):
        summarise(tmp_path / "out")


@pytest.mark.parametrize("times", [1, 99])
def test_a_part_that_cannot_be_read_for_a_moment_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    url = fresh("memory")
    store = Store(url, pause=0.0)
    store.prepare({})
    store.put(0, 0, made_table(["a", "b"]), last=True)
    store.finish()
    opened, left = store.files.fs.open, [times]

    def failing(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        if "pairs" in path and mode == "rb" and left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, mode, **options)

    monkeypatch.setattr(type(store.files.fs), "open", failing)
    again = Store(url, pause=0.0)
    if times == 1:
        with again.read_part(next(again.parts())) as part:
            assert part.metadata.num_rows == 2
    else:
        with pytest.raises(SaveError, match=r"cannot be read \(Input/output error\): check that it can be reached"):
            again.read_part(next(again.parts()))


def test_a_full_disk_for_temporary_files_is_one_sentence(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = table(tmp_path / "in", 5, bad=[1]), tmp_path / "out"

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "TemporaryFile", full)
        with pytest.raises(SaveError, match=r"errors\.parquet' cannot be gathered \(No space left on device\): free"):
            isthmus.map(source, output, model=tiny, **OPTIONS)
    assert isthmus.map(source, output, model=tiny, **OPTIONS).failures == 1
    assert list(errors_in(output)) == ["pictures/0001.jpg"]


def test_restarts_hold_no_more_errors_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What errors.parquet alone tells is found although it is looked at in batches."""
    monkeypatch.setattr("isthmus.scale.gathering._LINES", 3)
    store = Store(str(tmp_path / "out"))
    store.prepare({})
    for shard in range(4):
        bad = [Failure(f"{shard}{n}", "It is broken.") for n in range(5)]
        store.put(shard, 0, made_table([f"{shard}"]), bad, last=True)
    assert store.finish()["counts"]["failures"] == 20
    for shard in (1, 3):
        (tmp_path / "out" / ".work" / f"errors-{shard:05d}-00000.parquet").unlink()
    for _ in range(2):
        Store(str(tmp_path / "out")).prepare({})
        assert Store(str(tmp_path / "out")).finish()["counts"]["failures"] == 20
        rows = pq.read_table(tmp_path / "out" / "errors.parquet").column("id").to_pylist()
        assert sorted(rows) == [f"{shard}{n}" for shard in range(4) for n in range(5)]


def test_an_interrupted_run_leaves_no_piece_at_work(tiny: Any, tmp_path: Path) -> None:
    source, output = table(tmp_path / "in", 20), tmp_path / "out"

    def stop(progress: Any) -> None:
        if progress.pairs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        isthmus.map(source, output, model=tiny, progress=stop, **OPTIONS)
    store = Store(str(output))
    assert not [name for name in store.files.names(".work") if name.startswith("trying")]
    store.trying(7, 7)  # as a worker elsewhere, which was ended with the run
    store.put_down()
    assert not [name for name in store.files.names(".work") if name.startswith("trying")]
    assert isthmus.map(source, output, model=tiny, **OPTIONS).rows == len(rows_in(output)) == 20


def test_what_the_manifest_tells(tiny: Any, tmp_path: Path) -> None:
    isthmus.map(table(tmp_path / "in", 1), tmp_path / "out", model=tiny, prompts="a dog", **OPTIONS)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["about"]["prompts"] == ["a dog"]
    with pytest.raises(OptionError, match="leave the sides out"):
        isthmus.map(tmp_path / "in" / "pairs.jsonl", tmp_path / "b", model=tiny, stored="vectors", sides="text")


def test_a_name_that_no_disk_has(run: Callable[..., Any], tmp_path: Path) -> None:
    code, _, err = run("map", tmp_path / ("x" * 300), tmp_path / "out")
    assert code == 1
    assert "cannot be read" in " ".join(err.split())
    assert "Traceback" not in err
