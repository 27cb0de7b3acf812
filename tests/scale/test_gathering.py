"""errors.parquet keeps what it told, whatever of .work is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from given import errors_in, rows_in, table
from made_rows import made_table

import isthmus
from isthmus.datasets.records import Failure
from isthmus.scale.store import Store

OPTIONS: dict[str, Any] = {"steps": 1, "batch_size": 4, "piece_size": 3}


def test_a_complete_run_does_nothing(tiny: Any, tmp_path: Path) -> None:
    source, output = table(tmp_path / "in", 6, bad=[1, 4]), tmp_path / "out"
    first = isthmus.map(source, output, model=tiny, **OPTIONS)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file() and ".work" not in path.parts}
    shutil.rmtree(output / ".work")
    again = isthmus.map(source, output, model=tiny, **OPTIONS)
    assert (again.rows, again.failures, again.progress.done) == (first.rows, first.failures, 0) == (4, 2, 0)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_a_part_that_is_gone_is_done_again(tiny: Any, tmp_path: Path) -> None:
    source, output = table(tmp_path / "in", 6, bad=[1, 4]), tmp_path / "out"
    isthmus.map(source, output, model=tiny, **OPTIONS)
    rows, failed = rows_in(output), errors_in(output)
    shutil.rmtree(output / ".work")
    (output / "pairs" / "part-00000-00001.parquet").unlink()
    found = isthmus.map(source, output, model=tiny, **OPTIONS)
    assert (found.rows, found.failures, found.progress.done) == (4, 2, 3)
    assert rows_in(output) == rows
    assert errors_in(output) == failed


def test_errors_that_only_the_gathered_table_tells_are_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    store.prepare({})
    store.put(0, 0, made_table(["a"]), [Failure("b", "No.")])
    store.put(0, 1, made_table(["c"]), [Failure("d", "No."), Failure("e", "No.")])
    store.finish("stopped")
    shutil.rmtree(tmp_path / "out" / ".work")
    (tmp_path / "out" / "pairs" / "part-00000-00001.parquet").unlink()
    for again in range(2):  # the first of which is killed
        store.prepare({})
        store.put(0, 1, made_table(["c", "d"]), [Failure("e", "Still not.")])
        if again:
            store.finish()
    assert errors_in(tmp_path / "out") == {"b": "No.", "e": "Still not."}
    store.prepare({})
    assert store.finish()["counts"]["failures"] == 2
    assert not (tmp_path / "out" / ".work" / "kept.parquet").exists()
