"""Whatever dies, and whenever: after the same call again every good id is there once, every bad one in the errors."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import poison
import pytest
from fsspec.implementations.local import LocalFileSystem
from given import encoded, errors_in, rows_in, table, tar

import isthmus
from isthmus.errors import IsthmusError, SaveError
from isthmus.scale import mapping

OPTIONS: dict[str, Any] = {"steps": 1, "batch_size": 4, "piece_size": 6}


def ids(count: int) -> list[str]:
    return [f"pictures/{n:04d}.jpg" for n in range(count)]


def in_a_child(work: Callable[[], object]) -> int:
    """Run something in a copy of this process; its id. It ends with 0 where it returns, and 3 where it raises."""
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            import torch

            torch.set_num_threads(1)  # threads do not come along
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def ended(pid: int) -> int:
    """How it ended: its exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check(output: Path, good: list[str], bad: list[str], tiny: Any) -> None:
    """Every good id is there once with the row that `explain` gives, and every bad id is in the errors."""
    rows = rows_in(output)
    assert sorted(row["id"] for row in rows) == sorted(good)
    assert sorted(errors_in(output)) == sorted(bad)
    for row in random.Random(0).sample(rows, 3):
        picture = row["where"]["file"]
        if row["where"]["member"] is None:
            one = isthmus.explain(tiny, picture, row["text"], steps=1)
            assert isinstance(one, isthmus.Explanation)
            assert one.image is not None
            assert np.allclose(row["image_scores"], one.image.scores.ravel(), atol=1e-5)
            assert row["similarity"] == pytest.approx(one.similarity, abs=1e-5)


def test_the_driver_is_killed(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9, wherever it is at: reading, explaining, writing, ending."""
    source, output = table(tmp_path / "in", 48, bad=[7, 30]), tmp_path / "out"
    explain = isthmus.explain

    def slow(*given: Any, **options: Any) -> Any:
        time.sleep(0.05)
        return explain(*given, **options)

    monkeypatch.setattr("isthmus.scale.worker.explain", slow)
    rng, killed = random.Random(1), 0
    for _ in range(5):
        pid = in_a_child(lambda: isthmus.map(source, output, model=tiny, **OPTIONS))
        time.sleep(rng.uniform(0.3, 2.5))
        os.kill(pid, signal.SIGKILL)
        if ended(pid) == 0:
            break
        killed += 1
    assert killed >= 2
    found = isthmus.map(source, output, model=tiny, **OPTIONS)
    bad = [name for n, name in enumerate(ids(48)) if n in (7, 30)]
    assert (found.rows, found.failures) == (46, 2)
    check(output, [name for name in ids(48) if name not in bad], bad, tiny)
    left = [path.name for path in (output / ".work").rglob("*") if path.is_file()]
    assert not any(name.startswith("trying") for name in left)
    assert not list((output / ".work" / "writing").iterdir())


def test_the_command_is_interrupted_and_goes_on(tiny_folder: Path, tiny: Any, tmp_path: Path) -> None:
    """Ctrl-C: what is finished is there, one sentence says how to go on, and nothing of it is done again."""
    source, output = table(tmp_path / "in", 40), tmp_path / "out"
    command = [sys.executable, "-m", "isthmus", "map", source, output, "--model", tiny_folder]
    command += ["--batch-size", "2", "--piece-size", "4", "--option", "steps=40"]
    ran = subprocess.Popen([str(one) for one in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if len(list(output.glob("pairs/*"))) > 1 or ran.poll() is not None:
            break
        time.sleep(0.1)
    ran.send_signal(signal.SIGINT)
    out, err = ran.communicate(timeout=60)
    assert ran.returncode == 130, (out, err)
    assert "Run the same command again to go on." in out
    assert "Traceback" not in err
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("pairs/*")}
    assert 1 < len(before) < 10
    found = isthmus.map(source, output, model=tiny_folder, batch_size=2, piece_size=4, steps=40)
    assert found.rows == 40
    assert {name: (output / "pairs" / name).stat().st_mtime_ns for name in before} == before
    assert sorted(row["id"] for row in rows_in(output)) == ids(40)


def test_processes_that_decode_are_killed(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = table(tmp_path / "in", 24, bad=[3]), tmp_path / "out"
    job = mapping.Job
    monkeypatch.setattr(mapping, "Job", lambda **given: job(**given, opener="poison:slow"))
    me, killed = os.getpid(), []

    def kill(_: object) -> None:
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(path.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == me and len(killed) < 4 and int(path.parent.name) not in killed:
                killed.append(int(path.parent.name))
                os.kill(killed[-1], signal.SIGKILL)

    isthmus.map(source, output, model=tiny, progress=kill, workers=2, **OPTIONS)
    assert len(killed) == 4
    check(output, [name for name in ids(24) if name != ids(24)[3]], [ids(24)[3]], tiny)


def test_a_disk_that_is_full(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = table(tmp_path / "in", 24), tmp_path / "out"
    fsync, writes = os.fsync, []

    def full(descriptor: int) -> None:
        writes.append(1)
        if len(writes) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("isthmus.scale.files.os.fsync", full)
        with pytest.raises(SaveError, match=r"No space left on device\): free some space"):
            isthmus.map(source, output, model=tiny, **OPTIONS)
    assert 0 < len(rows_in(output)) < 24
    isthmus.map(source, output, model=tiny, **OPTIONS)
    check(output, ids(24), [], tiny)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=False)


def test_a_small_disk_that_is_full(tiny: Any, tmp_path: Path, small_disk: Path) -> None:
    source, output = table(tmp_path / "in", 24), small_disk / "out"
    (small_disk / "other").write_bytes(b"\0" * 200_000)
    with pytest.raises(SaveError, match=r"No space left on device\): free some space"):
        isthmus.map(source, output, model=tiny, **OPTIONS)
    assert 0 < len(rows_in(output)) < 24
    (small_disk / "other").unlink()
    isthmus.map(source, output, model=tiny, **OPTIONS)
    check(output, ids(24), [], tiny)


def test_an_input_shard_that_is_cut_in_half(tiny: Any, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    tar(source / "a.tar", 8)
    whole = tar(source / "b.tar", 8, start=8).read_bytes()
    (source / "b.tar").write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        isthmus.map(source, tmp_path / "out", model=tiny, **OPTIONS)
    rows = rows_in(tmp_path / "out")
    names = [row["id"] for row in rows]
    assert names[:8] == [f"a/{n:04d}" for n in range(8)]
    assert names[8:] == [f"b/{n:04d}" for n in range(8, len(names))]
    assert 2 <= len(names) - 8 < 8
    assert list(errors_in(tmp_path / "out")) == ["b/b.tar"]


class Unsteady(LocalFileSystem):
    """A store that fails one write in five, some after half of it."""

    protocol = "unsteady"
    draws = random.Random(0)
    failed = 0

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if self.draws.random() < 0.2:
            type(self).failed += 1
            super().pipe_file(path, value[: len(value) // 2], mode, **options)
            raise OSError(errno.EIO, "the store is unsteady")
        super().pipe_file(path, value, mode, **options)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        if self.draws.random() < 0.2:
            type(self).failed += 1
            raise OSError(errno.EIO, "the store is unsteady")
        super().mv(path1, path2, **options)


def test_a_store_that_fails_one_write_in_five(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("unsteady", Unsteady, clobber=True)
    monkeypatch.setattr("isthmus.scale.patience.random.uniform", lambda *_: 0.0)  # no pauses
    source, output = table(tmp_path / "in", 40, bad=[9]), tmp_path / "out"
    isthmus.map(source, f"unsteady://{output}", model=tiny, **OPTIONS)
    assert Unsteady.failed > 2
    check(output, [name for name in ids(40) if name != ids(40)[9]], [ids(40)[9]], tiny)


def test_five_per_cent_are_damaged(tiny: Any, tmp_path: Path) -> None:
    bad = [11, 12, 33]
    source = table(tmp_path / "in", 60, bad=bad)
    isthmus.map(source, tmp_path / "out", model=tiny, **OPTIONS)
    good = [name for n, name in enumerate(ids(60)) if n not in bad]
    check(tmp_path / "out", good, [ids(60)[n] for n in bad], tiny)


def test_a_budget_of_failures(tiny: Any, tmp_path: Path) -> None:
    source = table(tmp_path / "in", 40, bad=[*range(8, 16)])
    with pytest.raises(IsthmusError, match=r"^Stopped: \d failed, more than the 3 that were allowed"):
        isthmus.map(source, tmp_path / "out", model=tiny, max_failures=3, **OPTIONS)
    assert len(rows_in(tmp_path / "out")) >= 8
    assert len(errors_in(tmp_path / "out")) > 3
    found = isthmus.map(source, tmp_path / "out", model=tiny, max_failures=8, **OPTIONS)
    assert (found.rows, found.failures) == (32, 8)


def test_a_picture_that_kills_what_decodes_it(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = table(tmp_path / "in", 16)
    (tmp_path / "in" / ids(16)[5]).rename(tmp_path / "in" / "pictures" / "deadly.jpg")
    source.write_text(source.read_text().replace(ids(16)[5], "pictures/deadly.jpg"))
    job = mapping.Job
    monkeypatch.setattr(mapping, "Job", lambda **given: job(**given, opener="poison:deadly"))
    isthmus.map(source, tmp_path / "out", model=tiny, **OPTIONS)
    check(tmp_path / "out", [name for name in ids(16) if name != ids(16)[5]], ["pictures/deadly.jpg"], tiny)


@pytest.mark.parametrize("deadly", [[9], [0, 1]])
def test_pairs_that_kill_what_explains_them(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadly: list[int]
) -> None:
    """The first death ends the run; the next one finds the pair in a process that it watches."""
    source, output = table(tmp_path / "in", 20), tmp_path / "out"
    bad = [ids(20)[n] for n in deadly]
    text = source.read_text()
    for name in bad:
        text = text.replace(f'"{name}", "text": "', f'"{name}", "text": "deadly ')
    source.write_text(text)
    monkeypatch.setattr("isthmus.scale.quarantine.BEFORE", "import poison; poison.patch()")

    def work() -> None:
        poison.patch()
        isthmus.map(source, output, model=tiny, **OPTIONS)

    lives = 1
    while code := ended(in_a_child(work)):
        assert code == -signal.SIGKILL
        lives += 1
    assert lives <= len(deadly) + 1
    check(output, [name for name in ids(20) if name not in bad], bad, tiny)
    assert all("ended the process" in errors_in(output)[name] for name in bad)
    assert not list((output / ".work").glob("trying*"))


def test_pictures_come_and_go_between_two_runs(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is the same, and so are the pieces that are cut of it: no pair is lost, none is there twice."""
    source = tmp_path / "in" / "t.jsonl"
    source.parent.mkdir()
    rows = [{"image": f"{n:02d}.jpg", "text": ["a dog", "a cat", "a cow"]} for n in range(20)]
    source.write_text("\n".join(map(json.dumps, rows)))

    def there(*missing: int) -> None:
        for n in range(20):
            (source.parent / f"{n:02d}.jpg").unlink(missing_ok=True)
            if n not in missing:
                (source.parent / f"{n:02d}.jpg").write_bytes(encoded(n))

    def pairs(*numbers: int) -> list[str]:
        return sorted(f"{n:02d}.jpg{end}" for n in numbers for end in ("", ":2", ":3"))

    def stop(progress: Any) -> None:
        if progress.pairs > 30:
            raise KeyboardInterrupt

    options: dict[str, Any] = {**OPTIONS, "piece_size": 12, "model": tiny}
    there(3, 4)
    with pytest.raises(KeyboardInterrupt):
        isthmus.map(source, tmp_path / "out", progress=stop, **options)
    there(0, 1, 19)
    found = isthmus.map(source, tmp_path / "out", **options)
    assert (found.rows, found.failures) == (60 - 9, 9)
    assert sorted(row["id"] for row in rows_in(tmp_path / "out")) == pairs(*(n for n in range(19) if n not in (3, 4)))
    assert sorted(errors_in(tmp_path / "out")) == pairs(3, 4, 19)
    there(12)
    found = isthmus.map(source, tmp_path / "out", retry_failed=True, **options)
    assert sorted(row["id"] for row in rows_in(tmp_path / "out")) == pairs(*range(20))
    assert (found.rows, found.failures) == (60, 0)
