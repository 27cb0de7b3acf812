"""isthmus.map and `isthmus map`: rows that other tools read, settings that are kept to, memory that stays flat."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from given import TEXTS, errors_in, parquet, rows_in, table

import isthmus
from isthmus.cli.map import _ended_as_interrupted, said
from isthmus.errors import IsthmusError, ModelError, OptionError
from isthmus.scale.progress import Progress, TooManyFailuresError, counted

OPTIONS: dict[str, Any] = {"steps": 1, "batch_size": 4, "piece_size": 6}


def test_a_run_in_full(tiny: Any, tmp_path: Path) -> None:
    source, output = parquet(tmp_path / "x.parquet", 10), tmp_path / "out"
    seen: list[tuple[int, int]] = []

    def listen(progress: Progress) -> None:
        assert progress.total == 10
        seen.append((progress.pairs, progress.records))

    found = isthmus.map(source, output, model=tiny, progress=listen, **OPTIONS)
    assert (found.rows, found.failures, found.folder) == (20, 0, str(output))
    assert seen == sorted(seen)
    assert seen[-1] == (20, 10)
    assert len({pairs for pairs, _ in seen}) > 5  # told after each batch
    rows = rows_in(output)
    assert [row["id"] for row in rows[:3]] == ["0000.jpg", "0000.jpg:2", "0001.jpg"]
    assert [path.name for path in sorted(output.glob("pairs/*"))] == [f"part-00000-0000{n}.parquet" for n in range(4)]
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["state"] == "complete"
    assert manifest["settings"]["methods"] == ["nib"]
    assert manifest["about"]["input"] == str(source)
    assert manifest["about"]["prompts"] == []
    again = isthmus.map(source, output, model=tiny, **OPTIONS)
    assert (again.rows, again.progress.pairs, again.progress.records) == (20, 0, 10)


def test_other_tools_read_it(tiny: Any, tmp_path: Path) -> None:
    isthmus.map(table(tmp_path / "in", 5), tmp_path / "out", model=tiny, **OPTIONS)
    pairs = tmp_path / "out" / "pairs"
    expected = [row["similarity"] for row in rows_in(tmp_path / "out")]
    pandas = pytest.importorskip("pandas")
    assert pandas.read_parquet(pairs)["similarity"].tolist() == pytest.approx(expected)
    polars = pytest.importorskip("polars")
    assert polars.read_parquet(pairs / "*.parquet")["similarity"].to_list() == pytest.approx(expected)
    duckdb = pytest.importorskip("duckdb")
    read = duckdb.sql(f"select similarity, words from read_parquet('{pairs}/*.parquet') order by id").fetchall()
    assert [row[0] for row in read] == pytest.approx(expected)
    assert read[0][1] == TEXTS[0].split()
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset("parquet", data_files=str(pairs / "*.parquet"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"]["similarity"][:] == pytest.approx(expected)


def test_another_run_is_refused(tiny: Any, make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    source, output = table(tmp_path / "in", 5), tmp_path / "out"
    isthmus.map(source, output, model=tiny, limit=3, **OPTIONS)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"limit": 4}, "limit"),
        ({"method": ["nib", "gradcam"]}, "methods"),
        ({"prompts": ["x"]}, "prompts"),
        ({"stored": "int8"}, "stored"),
        ({"layer": 1}, r"layer \(none, not 1\)"),
        ({"model": make_tiny()}, "model"),
    ]
    for other, name in cases:
        with pytest.raises(OptionError, match=f"holds a run with another .*{name}"):
            isthmus.map(source, output, **{"model": tiny, "limit": 3, **OPTIONS, **other})
    source.write_text(source.read_text() + "\n")
    with pytest.raises(OptionError, match="holds a run with another input"):
        isthmus.map(source, output, model=tiny, limit=3, **OPTIONS)
    assert isthmus.map(source, output, model=tiny, overwrite=True, **OPTIONS).rows == 5
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "mine.txt").write_text("x")
    with pytest.raises(OptionError, match="holds other files"):
        isthmus.map(source, tmp_path / "else", model=tiny, **OPTIONS)


def test_a_run_may_go_on_with_another_batch_size(tiny: Any, tmp_path: Path) -> None:
    source, output = table(tmp_path / "in", 12, bad=[0, 1, 2, 3, 4, 5]), tmp_path / "out"
    with pytest.raises(TooManyFailuresError):
        isthmus.map(source, output, model=tiny, max_failures=0, **OPTIONS)
    assert isthmus.map(source, output, model=tiny, **{**OPTIONS, "batch_size": 3}).rows == 6


def test_into_memory_from_memory(tiny: Any, tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", 3)
    fsspec.filesystem("memory").pipe_file("/map/in/x.parquet", path.read_bytes())
    found = isthmus.map("memory://map/in", "memory://map/out", model=tiny, **OPTIONS)
    assert found.rows == 6
    with fsspec.open("memory://map/out/pairs/part-00000-00000.parquet") as stream:
        assert pq.read_table(stream).num_rows == 6


def test_parts_of_the_input_make_the_whole(tiny: Any, tmp_path: Path) -> None:
    for n in range(3):
        parquet(tmp_path / f"{n}.parquet", 2)
    isthmus.map(f"{tmp_path}/*.parquet", tmp_path / "whole", model=tiny, **OPTIONS)
    for n in (1, 2):
        isthmus.map(f"{tmp_path}/*.parquet", tmp_path / f"half{n}", model=tiny, shards=f"{n}/2", **OPTIONS)
    halves = rows_in(tmp_path / "half1") + rows_in(tmp_path / "half2")
    assert sorted(halves, key=lambda row: row["id"]) == sorted(rows_in(tmp_path / "whole"), key=lambda row: row["id"])


def test_what_makes_no_sense_is_refused_at_once(tiny: Any, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"engine": "spark"}, "engine must be"),
        ({"engine": "ray", "model": tiny}, "loads the model in each of its actors"),
        ({"piece_size": 0}, "piece_size must be"),
        ({"cores": 0}, "cores must be"),
        ({"cores": 2}, "of a Ray cluster: add engine='ray'"),
        ({"address": "auto"}, "of a Ray cluster: add engine='ray'"),
        ({"max_failures": -1}, "max_failures must be"),
        ({"sides": "top"}, "sides must be"),
        ({"nonsense": 1}, "has no option 'nonsense'"),
    ]
    for options, message in cases:
        with pytest.raises(OptionError, match=message):
            isthmus.map(tmp_path / "nowhere", tmp_path / "out", **options)
    with pytest.raises(ModelError):
        isthmus.map(table(tmp_path / "in", 1), tmp_path / "out", model=tmp_path / "nothing", **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_reader_that_fails_ends_the_run(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> Any:
        raise IsthmusError("The reader has failed.")
        yield

    monkeypatch.setattr("isthmus.scale.local.pieces", failing)
    with pytest.raises(IsthmusError, match=r"^The reader has failed\.$"):
        isthmus.map(table(tmp_path / "in", 3), tmp_path / "out", model=tiny, **OPTIONS)


def test_the_command(run: Callable[..., Any], tiny_folder: Path, tmp_path: Path) -> None:
    source, prompts = table(tmp_path / "in", 4, bad=[2]), tmp_path / "prompts.txt"
    prompts.write_text("a dog\n\na cat\n")
    arguments = ["map", source, tmp_path / "out", "--model", tiny_folder, "--option", "steps=1", "--device", "cpu"]
    code, out, err = run(*arguments, "--prompts", prompts)
    assert code == 2
    assert out == f"6 rows: {tmp_path}/out/pairs\n2 failed, listed in {tmp_path}/out/errors.parquet\n"
    assert "Traceback" not in err
    assert sorted(errors_in(tmp_path / "out")) == ["pictures/0002.jpg", "pictures/0002.jpg:2"]
    code, out, err = run(*arguments, "--prompts", prompts, "--limit", 1)
    assert (code, out) == (1, "")
    assert "holds a run with another limit (none, not 1)" in " ".join(err.split())
    code, out, err = run(
        "map", source, tmp_path / "two", "--model", tiny_folder, "--steps", 1, "--text", "a", "--limit", 2
    )
    assert (code, out) == (0, f"2 rows: {tmp_path}/two/pairs\n")
    for wrong, message in (
        (["--option", "steps"], "--option takes NAME=VALUE"),
        (["--prompts", tmp_path / "none.txt"], "There is no file of prompts"),
        (["--shards", "5/4"], 'shards must be "N/M"'),
        (["--max-failures", 0, "--overwrite"], "Stopped: 1 failed"),
    ):
        code, out, err = run(*arguments, *wrong)
        assert code == 1
        assert message in " ".join(err.split())
        assert "Traceback" not in err


def test_what_is_said_of_the_progress() -> None:
    assert said(Progress()) == "0"
    assert said(Progress(total=5)) == "0/5"
    half = Progress(pairs=100, records=60, done=50, total=110, seconds=10.0, failures=2)
    assert said(half) == "60/110, 10.0 pairs/s, 0:00:10 left, 2 failed"
    assert said(Progress(pairs=4000, records=2000, done=2000, seconds=2.0)) == "2,000, 2,000.0 pairs/s"


class Made:
    """A part from elsewhere."""

    pairs, records, failures = 10, 5, 1


def test_parts_from_other_machines_are_counted() -> None:
    seen: list[int] = []
    found = counted(
        [Made()] * 3, 20, before=5, max_failures=None, errors="", listen=lambda progress: seen.append(progress.records)
    )
    assert (found.pairs, found.done, found.records, found.failures) == (30, 15, 20, 3)
    assert seen == [5, 10, 15, 20]
    with pytest.raises(TooManyFailuresError, match="2 failed, more than the 1 that were allowed; out/errors says"):
        counted([Made()] * 3, None, before=0, max_failures=1, errors="out/errors", listen=None)


MEMORY = """
import json, resource, sys
sys.path[:0] = {path!r}
import isthmus, torch
import numpy as np
from isthmus.datasets.records import Failure
torch.set_num_threads(1)
def explain(model, pictures, texts, **options):
    found = real(model, pictures[:1], texts[:1], **options)
    from dataclasses import replace
    return [replace(found[0], caption=text) for text in texts]
import isthmus.scale.worker as worker
real, worker.explain = worker.explain, explain
peaks = []
isthmus.map({source!r}, {output!r}, model={model!r}, device="cpu", steps=1, batch_size=64, piece_size=128,
    progress=lambda p: peaks.append((p.pairs, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)))
at = lambda n: max(peak for pairs, peak in peaks if pairs <= n)
print(json.dumps([at(300), at(1500)]))
"""


def test_memory_does_not_grow_with_the_input(tiny_folder: Path, tmp_path: Path) -> None:
    """The model explains one pair a batch here, so that thousands go through in seconds."""
    source = tmp_path / "pairs.jsonl"
    folder = table(tmp_path / "in", 40).parent
    rows = [{"image": f"{folder}/pictures/{n % 40:04d}.jpg", "text": TEXTS[n % 5]} for n in range(1500)]
    source.write_text("\n".join(map(json.dumps, rows)))
    code = MEMORY.format(path=sys.path, source=str(source), output=str(tmp_path / "out"), model=str(tiny_folder))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    early, late = json.loads(ran.stdout.splitlines()[-1])
    assert late < 1.05 * early + 8192  # KiB
    assert len(rows_in(tmp_path / "out")) == 1500


def _end_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


def test_a_signal_to_end_is_an_interruption() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), _ended_as_interrupted():
        _end_this_process()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("cut", ["a", "b"])
def test_a_parquet_file_that_is_cut_in_half_is_one_line(tiny: Any, tmp_path: Path, cut: str) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        parquet(tmp_path / "in" / f"{name}.parquet", 3)
    broken = tmp_path / "in" / f"{cut}.parquet"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    for _ in range(2):
        found = isthmus.map(tmp_path / "in", tmp_path / "out", model=tiny, **OPTIONS)
        assert (found.rows, found.failures) == (6, 1)
    assert len({row["id"] for row in rows_in(tmp_path / "out")}) == 6
    assert list(errors_in(tmp_path / "out")) == [f"{cut}/{cut}.parquet"]  # one of several files
