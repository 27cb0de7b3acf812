"""Folders of several kinds of data, and shards that are cut off or damaged."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
from pathlib import Path

import pytest
from test_dataset_general import draw, encoded, parquet, split_up, tar

from isthmus.datasets import Dataset, Failure, open_dataset
from isthmus.errors import InputError


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(InputError, match=".*".join(map(re.escape, parts))):
        open_dataset(folder, texts=["a thing"])


def test_pictures_beside_a_stray_shard_are_not_passed_over(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    folder = tmp_path / "pets [1]"
    draw(folder, "deep/a.png", "b.png")
    tar(folder / "stray.tar", {"0.png": encoded(0), "0.txt": b"a dog"})
    with pytest.raises(InputError, match="only one kind is read") as refusal:
        open_dataset(folder)
    said = str(refusal.value)
    assert "tar shards (such as 'stray.tar') and pictures (such as " in said
    assert said.endswith("for the tar shards, or move all but the pictures out of it.")
    (way,) = re.findall(r"give '([^']+)'", said)
    assert list(split_up(open_dataset(way))[0]) == ["stray/0"]
    (folder / "stray.tar").rename(tmp_path / "stray.tar")
    assert set(split_up(open_dataset(folder, texts=["a thing"]))[0]) == {"deep/a.png", "b.png"}


def test_pictures_beside_parquet_with_pictures_in_it(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    for n in range(2):
        pictures = [{"bytes": encoded(n), "path": f"{n}.png"}]
        parquet(tmp_path / "data" / f"{n}.parquet", {"image": pictures, "text": ["a dog"]})
    way = f"{(tmp_path / 'data').as_posix()}/*.parquet"
    refused(tmp_path, "Parquet files (such as 'data/0.parquet') and pictures (such as 'a.png')", way)
    dataset = open_dataset(way)
    assert dataset.name == "data"
    assert set(split_up(dataset)[0]) == {"0.png", "1.png"}
    assert set(split_up(open_dataset(tmp_path / "data"))[0]) == {"0.png", "1.png"}
    (tmp_path / "a.png").unlink()
    assert set(split_up(open_dataset(tmp_path))[0]) == {"0.png", "1.png"}
    with pytest.raises(InputError, match="There are no files"):
        open_dataset(f"{tmp_path}/*.parquet")


def test_parquet_that_is_no_dataset_or_is_broken_does_not_hide_pictures(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    parquet(tmp_path / "t.parquet", {"length": [1.0]})
    refused(tmp_path, "Parquet files (such as 't.parquet') and pictures")
    (tmp_path / "t.parquet").write_bytes(b"no Parquet")
    refused(tmp_path, "Parquet files (such as 't.parquet') and pictures")


def test_parquet_with_paths_is_a_table_of_the_pictures(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png")
    parquet(tmp_path / "t.parquet", {"where": ["a.png"], "text": ["a dog"]})
    assert list(split_up(open_dataset(tmp_path, image_column="where"))[0]) == ["a.png"]
    with pytest.raises(InputError, match="no column 'here': choose among where, text"):
        open_dataset(tmp_path, image_column="here")
    parquet(tmp_path / "t.parquet", {"image": ["a.png"], "text": ["a dog"]})
    assert list(split_up(open_dataset(tmp_path))[0]) == ["a.png"]
    elsewhere = open_dataset(f"{tmp_path}/*.parquet", root=tmp_path / "none")
    assert list(split_up(elsewhere)[1]) == ["a.png"]


def test_shards_beside_parquet(tmp_path: Path) -> None:
    tar(tmp_path / "s.tar", {"0.png": encoded(0), "0.txt": b"a dog"})
    parquet(tmp_path / "t.parquet", {"image": [encoded(0)], "text": ["a dog"]})
    place = tmp_path.as_posix()
    ways = f"give '{place}/*.tar' for the tar shards or '{place}/*.parquet' for the Parquet files."
    refused(tmp_path, "tar shards (such as 's.tar') and Parquet files (such as 't.parquet')", ways)


def test_a_table_of_a_known_name_speaks_for_the_folder(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png")
    tar(tmp_path / "s.tar", {"0.png": encoded(0), "0.txt": b"a dog"})
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a dog\n")
    assert list(split_up(open_dataset(tmp_path))[0]) == ["a.png"]


def test_a_table_of_another_name_is_named_where_texts_lack(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    table = tmp_path / "pets.csv"
    table.write_text("image,text\na.png,a dog\n")
    with pytest.raises(InputError, match=re.escape(f"or give the table {str(table)!r} in place of the folder.")):
        open_dataset(tmp_path)
    assert list(split_up(open_dataset(table))[0]) == ["a.png"]


def test_results_and_what_is_hidden_are_no_data(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    parquet(tmp_path / "out" / "rows.parquet", {"image": [encoded(0)], "text": ["a dog"]})
    (tmp_path / "out" / "run.json").write_text("{}")
    parquet(tmp_path / ".cache" / "t.parquet", {"image": [encoded(0)], "text": ["a dog"]})
    assert list(split_up(open_dataset(tmp_path, texts=["a thing"]))[0]) == ["a.png"]


@pytest.mark.skipif(os.name != "posix", reason="Windows lets few users make links")
def test_a_link_to_nowhere_is_a_failure(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    samples, reasons = split_up(open_dataset(tmp_path, texts=["a thing"]))
    assert (list(samples), list(reasons)) == (["a.png"], ["b.png"])


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Two shards whose keys are the same: without care a cut one runs on into the next."""
    pytest.importorskip("webdataset")
    for n, name in enumerate(("a.tar", "b.tar")):
        members = {}
        for key in ("000", "001"):
            members |= {f"{key}.png": encoded(n), f"{key}.txt": f"text {name} {key}".encode()}
        tar(tmp_path / name, members)
    return tmp_path


def found(dataset: Dataset) -> tuple[dict[str, tuple[str, ...]], list[Failure]]:
    items = list(dataset)
    return {i.id: i.texts for i in items if not isinstance(i, Failure)}, [i for i in items if isinstance(i, Failure)]


def test_a_shard_cut_off_anywhere_is_one_failure(pair: Path) -> None:
    """Wherever the cut is, there is one failure, no sample that lacks a file, and all of the next shard."""
    whole, none = found(open_dataset(pair))
    assert (len(whole), none) == (4, [])
    data = (pair / "a.tar").read_bytes()
    with tarfile.open(pair / "a.tar") as archive:
        members = archive.getmembers()
    ends = [member.offset_data + member.size for member in members]
    within = [place for member in members for place in (member.offset + 100, member.offset_data + 7)]
    for cut in (*within, *(end + 3 for end in ends), *(member.offset for member in members[1:])):
        (pair / "a.tar").write_bytes(data[:cut])
        samples, failures = found(open_dataset(pair))
        assert [failure.id for failure in failures] == ["a.tar"], cut
        reason = "The shard 'a.tar' is cut off or damaged, and the rest of it cannot be read: get a whole copy."
        assert failures[0].reason == reason
        assert samples.items() <= whole.items()
        assert {"b/000", "b/001"} <= set(samples)
        assert ("a/000" in samples) == (cut >= ends[2])  # once a file of the next one was read


def test_damaged_and_unreadable_shards_say_why(pair: Path) -> None:
    packed = gzip.compress((pair / "a.tar").read_bytes())
    (pair / "c.tar.gz").write_bytes(packed[: len(packed) // 2])
    _, failures = found(open_dataset(pair / "c.tar.gz"))
    assert [(f.id, "is cut off or damaged" in f.reason) for f in failures] == [("c.tar.gz", True)]
    (pair / "d.tar").write_bytes(b"no archive at all")
    _, failures = found(open_dataset(pair / "d.tar"))
    assert [(f.id, "is cut off or damaged" in f.reason) for f in failures] == [("d.tar", True)]
    dataset = open_dataset(pair / "b.tar")
    (pair / "b.tar").unlink()
    assert found(dataset)[1] == [
        Failure("b.tar", "The shard 'b.tar' cannot be read (No such file or directory): check the file.")
    ]


def test_a_shard_that_cannot_be_fetched_says_so_without_what_is_in_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    gopen = pytest.importorskip("webdataset.gopen")

    def dead(url: str, *args: object, **options: object) -> io.BytesIO:
        raise OSError(f"(['curl {url}'], {{}}): exit 6 (read) {{}}")

    monkeypatch.setitem(gopen.gopen_schemes, "https", dead)
    (failure,) = open_dataset("https://example.org/a.tar?token=secret")
    assert isinstance(failure, Failure)
    assert failure.id == "a.tar"
    assert failure.reason.startswith("The shard 'a.tar' cannot be fetched whole: ")
    assert "secret" not in str(failure)


def test_a_file_that_is_twice_in_a_shard_is_told_once(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in (
            ("0.png", encoded(0)),
            ("0.json", json.dumps({"caption": "a dog"}).encode()),
            ("0.PNG", encoded(1)),
            ("0.png", encoded(2)),
            ("1.png", encoded(3)),
            ("1.txt", b"a cat"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    samples, failures = found(open_dataset(tmp_path))
    assert samples == {"a/0": ("a dog",), "a/1": ("a cat",)}
    assert failures == [
        Failure("a.tar", "The shard 'a.tar' holds '0.PNG' twice, and the first is taken: pack it again.")
    ]
