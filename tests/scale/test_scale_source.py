"""INPUT of every kind, on the disk and elsewhere: the same records whenever it is read, and what is wrong in words."""

from __future__ import annotations

import functools
import http.server
import json
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from given import TEXTS, encoded, parquet, table, tar

from isthmus.datasets.records import Failure
from isthmus.errors import InputError, OptionError
from isthmus.scale import places, raw
from isthmus.scale.pictures import Walks
from isthmus.scale.places import expanded
from isthmus.scale.source import Raw, plan, read


def records(source: Any, **options: Any) -> list[Raw | Failure]:
    return [item for shard in plan(source, **options).shards for item in read(pickle.loads(pickle.dumps(shard)))]


def ids(source: Any, **options: Any) -> list[str]:
    return [item.id for item in records(source, **options)]


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/c.jpg", "a.jpg", ".hidden.jpg", "out/pairs/x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(1))
    (tmp_path / "out" / "manifest.json").write_text("{}")
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    found = records(tmp_path)
    assert [item.id for item in found] == ["a.jpg", "b.jpg", "a/c.jpg"]
    first = found[0]
    assert isinstance(first, Raw)
    assert first.texts == ("one", "two")
    assert first.ids == ("a.jpg", "a.jpg:2")
    assert first.picture == first.where.file == (tmp_path / "a.jpg").as_posix()
    assert found[1] == Failure("b.jpg", "It has no text: put one into 'b.txt'.")
    assert [item.texts for item in records(tmp_path, prompts=["x", "y"])] == [("x", "y")] * 3
    assert plan(tmp_path, prompts=["x", "y"]).texts == 2
    assert plan(tmp_path).records == 3


def test_a_long_folder_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.scale.finding._PICTURES", 2)
    names = ["a/a.jpg", "a/b/c.jpg", "a/c.jpg", "b.jpg", "c/d.jpg", "d.jpg", "c/e/f/g.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(1))
    cut = plan(tmp_path, prompts=["x"])
    assert [shard.records for shard in cut.shards] == [2, 2, 2, 1]
    assert sorted(ids(tmp_path, prompts=["x"])) == sorted(names)


def test_the_table_of_a_folder_speaks_for_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(1))
    (tmp_path / "metadata.csv").write_text("file_name,text\na.jpg,one\na.jpg,two\nb.jpg,three\n")
    found = records(tmp_path)
    assert [item.id for item in found] == ["a.jpg", "a.jpg#2", "b.jpg"]
    assert [item.name for item in found[:2] if isinstance(item, Raw)] == ["a.jpg", "a.jpg"]
    assert isinstance(found[2], Raw)  # that it is missing is seen when it is opened
    assert found[2].picture == (tmp_path / "b.jpg").as_posix()


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "x.parquet", 10)
    found = records(path)
    assert [item.id for item in found] == [f"{n:04d}.jpg" for n in range(10)]
    one = found[6]
    assert isinstance(one, Raw)
    assert one.picture == encoded(6)
    assert one.texts == (TEXTS[1], TEXTS[2])
    assert (one.where.file, one.where.row, one.where.column) == (path.as_posix(), 6, "picture")
    monkeypatch.setattr("isthmus.scale.finding.SECTION", 8)
    cut = plan(path)
    assert [(shard.start, shard.records, shard.groups) for shard in cut.shards] == [(0, 8, (0, 2)), (8, 2, (2, 3))]
    assert [item.where.row for item in records(path) if isinstance(item, Raw)] == list(range(10))
    assert ids(path)[7:9] == ["0007.jpg", "8//0008.jpg"]


def test_several_files_have_ids_of_their_own(tmp_path: Path) -> None:
    for n in (0, 1):
        (tmp_path / f"part{n}").mkdir()
        parquet(tmp_path / f"part{n}" / "x.parquet", 2)
        tar(tmp_path / f"s-{n}.tar", 2)
    assert ids(tmp_path / "part*" / "x.parquet") == [f"part{n}/x/000{k}.jpg" for n in (0, 1) for k in (0, 1)]
    assert ids(f"{tmp_path}/s-{{0..1}}.tar") == [f"s-{n}/000{k}" for n in (0, 1) for k in (0, 1)]
    assert ids(tmp_path / "s-0.tar") == ["0000", "0001"]


def test_paths_in_parquet_beside_their_pictures(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.jpg").write_bytes(encoded(1))
    pq.write_table(pa.table({"image": ["a.jpg"], "text": ["one"]}), tmp_path / "x.parquet")
    (one,) = records(tmp_path)
    assert isinstance(one, Raw)
    assert one.picture == (tmp_path / "a.jpg").as_posix()


def test_shards_that_are_cut_off(tmp_path: Path) -> None:
    whole = tar(tmp_path / "a.tar", 6).read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[: len(whole) // 2])
    found = records(tmp_path)
    good, bad = [f"a/{n:04d}" for n in range(6)], [item for item in found if isinstance(item, Failure)]
    assert [item.id for item in found][: len(good)] == good
    assert 2 <= len(found) - len(good) - len(bad) < 6  # what comes before the cut
    assert [item.id for item in bad] == ["b/b.tar"]
    assert bad[0].reason.endswith("cut off or damaged, and the rest of it cannot be read: get a whole copy.")


def test_parquet_that_is_cut_off(tmp_path: Path) -> None:
    whole = parquet(tmp_path / "a.parquet", 6).read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.parquet").write_bytes(whole.replace(whole[400:900], b"\0" * 500, 1))  # its end is whole
    found = records(tmp_path)
    assert [item.id for item in found][:6] == [f"a/{n:04d}.jpg" for n in range(6)]
    reasons = {item.id: item.reason for item in found if isinstance(item, Failure)}
    assert set(reasons) == {"b/b.parquet", "c/c.parquet"}
    assert all(reason.endswith("get a whole copy.") for reason in reasons.values())


def test_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"image": {"bytes": encoded(n), "path": None}, "text": TEXTS[n], "key": f"k{n}"} for n in range(3)]
    made = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    made.save_to_disk(tmp_path / "saved")
    for source in (tmp_path / "saved", f"hf:{tmp_path / 'saved'}"):
        found = records(source)
        assert [item.id for item in found] == ["k0", "k1", "k2"]
        assert found[1].picture == encoded(1)
        assert found[1].where.row == 1
    assert ids(tmp_path / "saved", limit=2) == ["k0", "k1"]


def test_what_repeats_and_what_ends_like_a_further_text(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(1))
    names = ["a", "a", "a:2", "a#2", "a"]
    rows = "".join(
        f'{{"id": "{name}", "image": {{"bytes": null, "path": "a.jpg"}}, "text": ["x", "y"]}}\n' for name in names
    )
    (tmp_path / "t.jsonl").write_text(rows)
    pairs = [name for item in records(tmp_path / "t.jsonl") for name in item.ids]  # type: ignore[union-attr]
    assert len(set(pairs)) == len(pairs) == 10


def test_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "SECTION", 3)
    names = raw.Names("x/", 0)
    assert [names.unique("a") for _ in range(5)] == ["x/a", "x/a#2", "x/a#3", "x/3//a", "x/3//a#2"]


def test_a_part_of_the_input(tmp_path: Path) -> None:
    for n in range(4):
        parquet(tmp_path / f"{n}.parquet", 3)
    whole = plan(tmp_path)
    halves = [plan(tmp_path, shards=f"{n}/2") for n in (1, 2)]
    assert [[shard.number for shard in half.shards] for half in halves] == [[0, 2], [1, 3]]
    assert {half.fingerprint for half in halves} == {whole.fingerprint}
    assert ids(tmp_path, limit=4) == ["0/0000.jpg", "0/0001.jpg", "0/0002.jpg", "1/0000.jpg"]
    assert plan(tmp_path, limit=4).records == 4
    for wrong in ("0/2", "3/2", "x", "1"):
        with pytest.raises(OptionError, match='shards must be "N/M"'):
            plan(tmp_path, shards=wrong)
    with pytest.raises(InputError, match="too few for 5 parts"):
        plan(tmp_path, shards="1/5")


def test_a_limit_where_the_number_is_not_known(tmp_path: Path) -> None:
    for n in range(3):
        tar(tmp_path / f"s-{n}.tar", 3)
    limited = plan(tmp_path, limit=4)
    assert (limited.records, len(limited.shards)) == (4, 2)
    assert len(records(tmp_path, limit=4)) == 4


def test_the_fingerprint_knows_a_changed_input(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", 3)
    first = plan(tmp_path).fingerprint
    assert plan(path).fingerprint == first == plan(tmp_path).fingerprint
    path.write_bytes(path.read_bytes())
    assert plan(path).fingerprint != first
    parquet(tmp_path / "y.parquet", 3)
    assert plan(tmp_path).fingerprint != first


def test_other_file_systems(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    root = f"/{tmp_path.name}"
    for kind in ("arrow", "tars", "pictures"):
        (tmp_path / kind).mkdir()
    parquet(tmp_path / "arrow" / "x.parquet", 3)
    tar(tmp_path / "tars" / "s.tar", 3)
    (tmp_path / "pictures" / "a.jpg").write_bytes(encoded(1))
    (tmp_path / "pictures" / "a.txt").write_text("one")
    (tmp_path / "pictures" / "t.csv").write_text("image,text\na.jpg,two\n")
    for path in tmp_path.rglob("*.*"):
        memory.pipe_file(f"{root}/{path.relative_to(tmp_path).as_posix()}", path.read_bytes())
    for name in ("arrow", "arrow/x.parquet", "arrow/*.parquet", "tars", "tars/s.tar", "pictures", "pictures/t.csv"):
        here, there = records(tmp_path / name), records(f"memory:/{root}/{name}")
        assert [item.id for item in there] == [item.id for item in here], name
        assert [item.texts for item in there] == [item.texts for item in here]  # type: ignore[union-attr]
        first = there[0]
        assert isinstance(first, Raw)
        assert first.where.file.startswith("memory://")
        if isinstance(first.picture, str):
            with fsspec.open(first.picture) as stream:
                assert stream.read() == encoded(1)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_over_http(tmp_path: Path, web: str) -> None:
    pytest.importorskip("aiohttp")
    parquet(tmp_path / "x.parquet", 3)
    tar(tmp_path / "s.tar", 3)
    assert ids(f"{web}/x.parquet") == ["0000.jpg", "0001.jpg", "0002.jpg"]
    assert ids(f"{web}/s.tar") == ["0000", "0001", "0002"]
    with pytest.raises(InputError, match="There is no file"):
        plan(f"{web}/none.parquet")


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    tar(tmp_path / "mixed" / "a.tar", 1)
    parquet(tmp_path / "mixed" / "a.parquet", 1)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.jpg").write_bytes(encoded(1))
    cases = {
        "nowhere": "There is no input 'nowhere'",
        str(tmp_path / "none-*.parquet"): "There are no files",
        str(tmp_path / "none.tar"): "There is no file",
        str(tmp_path / "empty"): "There is nothing to read",
        str(tmp_path / "mixed"): "holds tar shards and Parquet files, and only one kind is read",
        str(tmp_path / "one"): "have no texts: give prompts",
        "nonsense://x/y.parquet": "cannot be opened",
        " ": "The input is empty",
    }
    for source, message in cases.items():
        with pytest.raises(InputError, match=message):
            plan(source)
    with pytest.raises(OptionError, match="limit must be at least 1"):
        plan(tmp_path / "one", limit=0)
    with pytest.raises(OptionError, match="A prompt is empty"):
        plan(tmp_path / "one", prompts=["a", " "])
    with pytest.raises(InputError, match="has no column 'x'"):
        plan(table(tmp_path / "t", 1), image_column="x")


def test_patterns() -> None:
    assert expanded("memory://a/{01..03}-{x,y}.tar") == [f"memory://a/0{n}-{c}.tar" for n in (1, 2, 3) for c in "xy"]
    assert expanded("memory://a/{one}.tar") == ["memory://a/{one}.tar"]


def test_an_empty_parquet_file_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "x.parquet", 1)
    whole = pq.read_table(tmp_path / "x.parquet")
    pq.write_table(whole.slice(0, 0), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="has no records: give one picture"):
        plan(tmp_path / "x.parquet")


def test_a_folder_that_grows_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.scale.finding._PICTURES", 3)
    for name in ("b.jpg", "c.jpg", "d.jpg", "f.jpg", "k/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(1))
    cut = plan(tmp_path, prompts=["x"])
    for name in ("a.jpg", "bb.jpg", "e.jpg", "j/a.jpg", "z.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(1))
    (tmp_path / "d.jpg").unlink()
    found = [[item.id for item in read(shard)] for shard in cut.shards]
    assert [name for part in found for name in part if name in ("b.jpg", "c.jpg", "f.jpg", "k/a.jpg")] == [
        "b.jpg",
        "c.jpg",
        "f.jpg",
        "k/a.jpg",
    ]
    assert len({name for part in found for name in part}) == sum(map(len, found))


def test_a_folder_is_listed_once_for_all_of_its_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.scale.finding._PICTURES", 2)
    for n in range(9):
        (tmp_path / f"{n}.jpg").write_bytes(encoded(1))
    cut = plan(tmp_path, prompts=["x"])
    listed: list[str] = []
    entries = places._entries
    monkeypatch.setattr(places, "_entries", lambda fs, path: listed.append(path) or entries(fs, path))
    walks = Walks()
    assert [item.id for shard in cut.shards for item in read(shard, walks)] == [f"{n}.jpg" for n in range(9)]
    assert len(listed) == 1
    assert [item.id for shard in cut.shards[::2] for item in read(shard, walks)] == [
        f"{n}.jpg" for n in (0, 1, 4, 5, 8)
    ]
    assert len(listed) == 4


def test_no_error_has_the_id_of_a_pair(tmp_path: Path) -> None:
    rows = [{"image": "a", "text": ["one", "two"]}, {"image": "a:2", "text": ""}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    good, bad = records(tmp_path / "t.jsonl")
    assert isinstance(good, Raw)
    assert good.ids == ("a", "a:2")
    assert isinstance(bad, Failure)
    assert bad.id == "a:2:1"
