"""An input that is out of reach for a moment costs no record; one that stays so costs none after --retry-failed."""

from __future__ import annotations

import errno
import functools
import http.server
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from given import TEXTS, damaged, encoded, errors_in, parquet, rows_in, table, tar

import isthmus
from isthmus.datasets.records import Failure
from isthmus.errors import InputError
from isthmus.scale import mapping, patience
from isthmus.scale.opening import fetched
from isthmus.scale.source import Raw, plan, read


class ShakyFileSystem(MemoryFileSystem):
    """Memory of which some answers, and every one of what is `dead`, are an error of the network."""

    protocol = "shaky"
    dice = random.Random(0)
    failed = 0
    rate = 0.1  # of the answers
    dead: str | None = None  # a part of the paths that do not answer
    error: type[OSError] | None = ConnectionResetError

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("shaky://", "memory://"))

    def unstrip_protocol(self, name: str) -> str:
        return f"shaky://{self._strip_protocol(name)}"

    @classmethod
    def answer(cls, path: str) -> None:
        if (cls.dead is not None and cls.dead in path) or (cls.error is not None and cls.dice.random() < cls.rate):
            cls.failed += 1
            raise (cls.error or ConnectionResetError)(errno.ECONNRESET, "Connection reset by peer")

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        self.answer(path)
        stream = super().open(path, mode, **options)
        return Shaky(stream, path) if mode == "rb" else stream

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        self.answer(path)
        return super().ls(path, detail, **options)

    def info(self, path: str, **options: Any) -> Any:
        self.answer(path)
        return super().info(path, **options)


class Shaky:
    """A stream of `ShakyFileSystem`, which may break off anywhere."""

    def __init__(self, stream: Any, path: str) -> None:
        self._stream, self._path = stream, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> Shaky:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, size: int = -1) -> bytes:
        ShakyFileSystem.answer(self._path)
        return bytes(self._stream.read(size))


fsspec.register_implementation("shaky", ShakyFileSystem, clobber=True)


@pytest.fixture
def shaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a folder there."""
    monkeypatch.setattr(patience.time, "sleep", lambda _: None)
    monkeypatch.setattr(ShakyFileSystem, "dice", random.Random(1))
    monkeypatch.setattr(ShakyFileSystem, "failed", 0)
    monkeypatch.setattr(ShakyFileSystem, "dead", None)
    monkeypatch.setattr(ShakyFileSystem, "error", ConnectionResetError)
    return f"shaky://{tmp_path}"


def put(folder: Path) -> None:
    """What is in a folder, into the memory under the same path."""
    memory = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe_file(path.as_posix(), path.read_bytes())


def fill(folder: Path, kind: str) -> str:
    """An input of a kind; its name in the folder."""
    if kind == "parquet":
        parquet(folder / "x.parquet", 60, group=3)
        return "x.parquet"
    if kind == "tar":
        tar(folder / "x.tar", 40)
        return "x.tar"
    if kind == "table":
        table(folder / "t", 40)
        return "t/pairs.jsonl"
    for n in range(12):
        (folder / f"{n}.jpg").write_bytes(encoded(n))
        (folder / f"{n}.txt").write_text(TEXTS[n % 5])
    return ""


@pytest.mark.parametrize(("kind", "rate"), [("parquet", 0.1), ("tar", 0.3), ("table", 0.4), ("pictures", 0.1)])
@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError, OSError])
def test_what_answers_the_next_time_is_read_whole(
    shaky: str, tmp_path: Path, kind: str, rate: float, error: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fill(tmp_path, kind)
    put(tmp_path)
    here = [item for shard in plan(tmp_path / name).shards for item in read(shard)]
    monkeypatch.setattr(ShakyFileSystem, "error", error)
    monkeypatch.setattr(ShakyFileSystem, "rate", rate)
    cut = plan(f"{shaky}/{name}".rstrip("/"))
    there = [item for shard in cut.shards for item in read(shard)]
    assert ShakyFileSystem.failed > 1
    assert all(isinstance(item, Raw) for item in there), there
    assert [told(item) for item in there] == [told(item) for item in here]


def told(item: Raw | Failure) -> tuple[object, ...]:
    assert isinstance(item, Raw)
    return (item.id, item.texts, item.picture if isinstance(item.picture, bytes) else item.name)


def test_what_never_answers_is_told(shaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar(tmp_path / "a.tar", 3)
    tar(tmp_path / "b.tar", 3)
    put(tmp_path)
    cut = plan(shaky)
    monkeypatch.setattr(ShakyFileSystem, "dead", "a.tar")
    first, second = (list(read(shard)) for shard in cut.shards)
    assert [item.id for item in second] == ["b/0000", "b/0001", "b/0002"]
    assert isinstance(first[0], Failure)
    assert len(first) == 1
    assert first[0].reason == (
        "The rest of 'a.tar' cannot be read ([Errno 104] Connection reset by peer): run it with --retry-failed once "
        "it can be reached."
    )


@pytest.mark.parametrize("kind", ["parquet", "tar", "table", "pictures"])
def test_an_input_out_of_reach_at_the_start_is_refused(
    shaky: str, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above all Parquet: its shards are cut by the ends of its files, and would be others than before."""
    name = fill(tmp_path, kind)
    put(tmp_path)
    monkeypatch.setattr(ShakyFileSystem, "dead", tmp_path.name)
    with pytest.raises(InputError, match=r"cannot be (reached|read) .*: "):
        plan(f"{shaky}/{name}".rstrip("/"))


def test_the_end_of_a_file_out_of_reach_is_refused(shaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(tmp_path / "x.parquet", 8)
    put(tmp_path)
    monkeypatch.setattr(ShakyFileSystem, "error", None)

    def closed(self: Any, path: str, *_: Any, **__: Any) -> Any:
        raise TimeoutError("no answer")

    monkeypatch.setattr(ShakyFileSystem, "open", closed)
    with pytest.raises(InputError, match=r"x\.parquet' cannot be reached \(no answer\): run the same command again\."):
        plan(f"{shaky}/x.parquet")


OPTIONS: dict[str, Any] = {"steps": 1, "batch_size": 4, "piece_size": 4}


def test_a_shard_out_of_reach_is_done_when_it_is_retried(
    shaky: str, tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        tar(tmp_path / f"{name}.tar", 7)
    put(tmp_path)
    monkeypatch.setattr(ShakyFileSystem, "error", None)
    find = mapping.plan

    def planned(*given: Any, **options: Any) -> Any:
        found = find(*given, **options)
        monkeypatch.setattr(ShakyFileSystem, "dead", "b.tar")
        return found

    monkeypatch.setattr(mapping, "plan", planned)
    output = tmp_path / "out"
    first = isthmus.map(shaky, output, model=tiny, **OPTIONS)
    assert (first.rows, first.failures) == (14, 1)
    assert "--retry-failed" in errors_in(output)["b/b.tar"]
    written = {path.name: path.stat().st_mtime_ns for path in output.glob("pairs/*")}
    monkeypatch.setattr(mapping, "plan", find)
    monkeypatch.setattr(ShakyFileSystem, "dead", None)
    again = isthmus.map(shaky, output, model=tiny, **OPTIONS)
    assert (again.rows, again.failures, again.progress.done) == (14, 1, 0)
    retried = isthmus.map(shaky, output, model=tiny, retry_failed=True, **OPTIONS)
    assert (retried.rows, retried.failures, retried.progress.done) == (21, 0, 7)
    assert errors_in(output) == {}
    assert sorted(row["id"] for row in rows_in(output)) == [f"{s}/{n:04d}" for s in "abc" for n in range(7)]
    kept = {name: (output / "pairs" / name).stat().st_mtime_ns for name in written if "00001-" not in name}
    assert kept == {name: at for name, at in written.items() if "00001-" not in name}
    assert isthmus.map(shaky, output, model=tiny, retry_failed=True, **OPTIONS).progress.done == 0


def test_pictures_that_came_later_are_explained_when_it_is_retried(
    tmp_path: Path, tiny_folder: Path, run: Callable[..., Any]
) -> None:
    """One that was not there, whose texts move those after it to other pieces, and one that was damaged."""
    (tmp_path / "in").mkdir()
    rows = [{"image": f"{n}.jpg", "text": ["a dog", "a cat", "a cow"]} for n in range(9)]
    (tmp_path / "in" / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for n in range(9):
        if n != 4:
            (tmp_path / "in" / f"{n}.jpg").write_bytes(damaged(n) if n == 1 else encoded(n))
    output = tmp_path / "out"
    arguments = ["map", tmp_path / "in" / "t.jsonl", output, "--model", tiny_folder, "--steps", 1, "--piece-size", 6]
    code, out, _ = run(*arguments)
    assert (code, out.splitlines()[0]) == (2, f"21 rows: {output}/pairs")
    for n in (1, 4):
        (tmp_path / "in" / f"{n}.jpg").write_bytes(encoded(n))
    code, out, _ = run(*arguments)
    assert (code, out.splitlines()[0]) == (2, f"Nothing was left to do: 21 rows: {output}/pairs")
    code, out, _ = run(*arguments, "--retry-failed")
    assert (code, out) == (0, f"27 rows: {output}/pairs\n")
    found = sorted(row["id"] for row in rows_in(output))
    assert found == sorted(f"{n}.jpg{end}" for n in range(9) for end in ("", ":2", ":3"))
    assert len({row["id"] for row in rows_in(output)}) == 27


class Busy(http.server.SimpleHTTPRequestHandler):
    """A web server that says now and then that it is too busy."""

    asked = busy = 0

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        Busy.asked += 1
        if Busy.asked % 3 == 1:
            Busy.busy += 1
            self.send_error(503)
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        if "forbidden" in self.path:
            self.send_error(403)
        else:
            super().do_HEAD()


def test_a_busy_web_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    tar(tmp_path / "x.tar", 5)
    parquet(tmp_path / "x.parquet", 5)
    table(tmp_path / "t", 5)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Busy, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for name in ("x.tar", "x.parquet", "t/pairs.jsonl"):
            here = [item for shard in plan(tmp_path / name).shards for item in read(shard)]
            url = f"http://127.0.0.1:{server.server_port}/{name}"
            there = [item for shard in plan(url).shards for item in read(shard)]
            assert [item.id for item in there] == [item.id for item in here]
            assert all(isinstance(item, Raw) for item in there)
        far = [item.picture for item in there if isinstance(item, Raw)]
        assert [fetched(str(url)) for url in far] == [encoded(n) for n in range(5)]
        assert Busy.busy > 3
    finally:
        server.shutdown()
        server.server_close()
