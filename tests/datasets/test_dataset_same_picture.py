"""Which samples are of one picture, and ids that depend on their record alone."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_dataset_general import draw, encoded, hub, parquet, split_up, tar

from isthmus.datasets import Dataset, Failure, Sample, open_dataset, read_ids, sampled, write_ids
from isthmus.datasets.values import file_name, one_line, picture_name

__all__ = ["hub"]


def grouped(dataset: Dataset) -> dict[str, list[str]]:
    """Ids by what they say is their picture; every record can be used."""
    samples, reasons = split_up(dataset)
    assert not reasons
    found: dict[str, list[str]] = {}
    for sample in samples.values():
        found.setdefault(sample.picture, []).append(sample.id)
    return found


def test_a_sample_alone_is_its_own_picture() -> None:
    assert Sample("a", "a.jpg", ("a dog",)).picture == "a"
    told = Sample("a", "a.jpg", ("a dog",), picture="b")
    assert (told.picture, replace(told, id="c").picture) == ("b", "b")
    with pytest.raises(TypeError):
        Sample("a", "a.jpg", ("a dog",), None, "b")  # type: ignore[arg-type, misc]


CAPTIONS = [
    ("1.jpg", "a dog"),
    ("2.jpg", "a cat"),
    ("./1.jpg", "a hound"),
    ("p/../1.jpg", "a pet"),
    ("p/1.jpg", "an ox"),
]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rows_of_one_file_are_of_one_picture(tmp_path: Path, kind: str) -> None:
    draw(tmp_path, "1.jpg", "2.jpg", "p/1.jpg")
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        path.write_text("image,text\n" + "".join(f"{image},{text}\n" for image, text in CAPTIONS))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"image": image, "text": text}) + "\n" for image, text in CAPTIONS))
    else:
        parquet(path, {"image": [image for image, _ in CAPTIONS], "text": [text for _, text in CAPTIONS]})
    whole = {"1.jpg": ["1.jpg", "1.jpg#2", "1.jpg#3"], "2.jpg": ["2.jpg"], "p/1.jpg": ["p/1.jpg"]}
    assert grouped(open_dataset(path)) == whole
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path, moved)
    assert grouped(open_dataset(moved / path.name)) == whole  # nothing in it is of one machine


def test_files_outside_the_folder_of_a_table_are_told_apart(tmp_path: Path) -> None:
    """Their ids are their names, which repeat though they are two pictures."""
    draw(tmp_path / "data", "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "lists").mkdir()
    table = tmp_path / "lists" / "t.csv"
    table.write_text("image,text\n../data/cat/1.jpg,a cat\n../data/dog/1.jpg,a dog\n../data/cat/1.jpg,a tom\n")
    assert grouped(open_dataset(table)) == {"../data/cat/1.jpg": ["1.jpg", "1.jpg#3"], "../data/dog/1.jpg": ["1.jpg#2"]}
    whole = [(tmp_path / "data" / kind / "1.jpg").as_posix() for kind in ("cat", "dog")]
    table.write_text(f"image,text\n{whole[0]},a cat\n{whole[1]},a dog\n")
    assert grouped(open_dataset(table)) == {whole[0]: ["1.jpg"], whole[1]: ["1.jpg#2"]}
    assert set(grouped(open_dataset(table, root=tmp_path / "data"))) == {"cat/1.jpg", "dog/1.jpg"}


def test_embedded_pictures_are_known_by_their_bytes(tmp_path: Path, hub: Any) -> None:
    """A path beside the bytes is often a bare name, which repeats in another folder."""
    one, other = encoded(1), encoded(2)
    pictures = [{"bytes": data, "path": name} for data, name in ((one, "1.png"), (other, "1.png"), (one, "1.png"))]
    columns = {"image": pictures, "text": ["a", "b", "c"]}
    parquet(tmp_path / "set" / "train.parquet", columns)
    found = grouped(open_dataset(tmp_path / "set"))
    assert sorted(map(len, found.values())) == [1, 2]
    assert ["1.png" not in picture and len(picture) == 16 for picture in found] == [True, True]
    features = hub.Features({"image": hub.Image(), "text": hub.Value("string"), "id": hub.Value("string")})
    data = hub.Dataset.from_dict({**columns, "id": ["k0", "k1", "k2"]}, features=features)
    data.save_to_disk(tmp_path / "saved")
    for streaming in (False, True):
        by_id = grouped(open_dataset(f"hf:{tmp_path / 'saved'}", streaming=streaming))
        assert sorted(map(sorted, by_id.values())) == [["k0", "k2"], ["k1"]]
        assert set(by_id) == set(found)


def test_keys_of_shards_do_not_hide_that_a_picture_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    members = {"0.png": encoded(1), "0.txt": b"a dog", "1.png": encoded(1), "1.txt": b"a hound"}
    tar(tmp_path / "a.tar", members)
    tar(tmp_path / "b.tar", {"0.png": encoded(2), "0.txt": b"a cat"})
    assert sorted(grouped(open_dataset(tmp_path)).values()) == [["a/0", "a/1"], ["b/0"]]
    bare = grouped(open_dataset("conceptual-captions", root=tmp_path))  # whose keys need no shard
    assert sorted(bare.values()) == [["0", "1"], ["0#2"]]


def test_pictures_in_archives_of_the_hub_are_known_by_their_address(tmp_path: Path) -> None:
    image = open_dataset_image(tmp_path)
    names = [
        picture_name({"path": path, "bytes": None}, image, tmp_path)
        for path in (
            f"zip://cat/1.jpg::{tmp_path}/train.zip",
            f"zip://dog/1.jpg::{tmp_path}/train.zip",
            "hf://datasets/a/b@1/cat/1.jpg",
            "hf://datasets/a/b@1/dog/1.jpg",
        )
    ]
    assert names[:2] == ["zip://cat/1.jpg::train.zip", "zip://dog/1.jpg::train.zip"]
    assert len(set(names)) == 4
    assert picture_name(image, image, tmp_path) == ""  # nothing tells; a sample takes its id


def open_dataset_image(folder: Path) -> Any:
    parquet(folder / "t.parquet", {"image": [encoded(0)], "text": ["a dog"]})
    (item,) = open_dataset(folder / "t.parquet")
    assert isinstance(item, Sample)
    return item.image


def test_objects_of_an_index_may_share_a_picture(tmp_path: Path) -> None:
    draw(tmp_path / "index", "1.jpg", "2.jpg")
    rows = [{"id": n, "file": file, "caption": "a dog"} for n, file in enumerate(("1.jpg", "2.jpg", "./1.jpg"))]
    (tmp_path / "index.json").write_text(json.dumps(rows))
    assert grouped(open_dataset(tmp_path / "index.json")) == {"1.jpg": ["0", "2"], "2.jpg": ["1"]}


def test_names_that_repeat_in_two_folders_are_two_pictures(tmp_path: Path) -> None:
    draw(tmp_path, "train/1.jpg", "val/1.jpg")
    (tmp_path / "c.json").write_text(json.dumps({"train/1.jpg": ["a dog"], "val/1.jpg": ["a cat"]}))
    assert grouped(open_dataset(tmp_path / "c.json")) == {"train/1.jpg": ["1.jpg"], "val/1.jpg": ["1.jpg#2"]}
    draw(tmp_path / "net", "val/n01/1.jpg", "val/n02/1.jpg")
    (tmp_path / "net" / "words.txt").write_text("n01\tdog\nn02\tcat\n")
    assert grouped(open_dataset("imagenet", root=tmp_path / "net")) == {
        "n01/1.jpg": ["1.jpg"],
        "n02/1.jpg": ["1.jpg#2"],
    }


def test_a_file_is_named_alike_from_wherever_the_folder_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path("set"), tmp_path / "set"):
        for path in (Path("set/p/1.jpg"), tmp_path / "set" / "q" / ".." / "p" / "1.jpg"):
            assert file_name(path, folder) == "p/1.jpg"


def test_ids_of_a_folder_depend_on_nothing_else_in_it(tmp_path: Path) -> None:
    names = ["a,b.jpg", "a/b.jpg", "a_b.jpg", "two  words.jpg", "two words.jpg", "café é.jpg", "con.jpg"]
    names += ["a.jpg#2.jpg", "x" * 120 + ".jpg"]
    draw(tmp_path / "all", *names)
    samples, _ = split_up(open_dataset(tmp_path / "all", texts=["a thing"]))
    assert set(samples) == set(names)
    assert all(sample.image == tmp_path / "all" / name for name, sample in samples.items())
    for n, name in enumerate(names):
        draw(tmp_path / str(n), name)
        (only,) = open_dataset(tmp_path / str(n), texts=["a thing"])
        assert only.id == name


@pytest.mark.skipif(os.name != "posix", reason="needs file names that Windows refuses")
def test_odd_names_come_back_from_a_list_of_ids(tmp_path: Path) -> None:
    odd = ["a\nb.png", "a\tb.png", " a.png", "#1.png", "a\\x0ab.png", "a\\b.png", "a\u2028b.png", "\ufeffa.png"]
    folder = tmp_path / "set"
    draw(folder, *odd)
    with open(os.fsencode(folder) + b"/caf\xe9.png", "wb") as stream:  # noqa: PTH123  no UTF-8
        stream.write(encoded(0))
    dataset = open_dataset(folder, texts=["a thing"])
    samples, failures = sampled(dataset)
    assert (len({sample.id for sample in samples}), failures) == (9, [])
    assert {"a\\x0ab.png", "a\\\\x0ab.png", "\\x20a.png", "\\x231.png", "caf\\udce9.png"} <= {s.id for s in samples}
    ids = [sample.id for sample in samples]
    write_ids(tmp_path / "ids.txt", ids, dataset="x", seed=0)
    (tmp_path / "sample.txt").write_text("".join(f"{name}\n" for name in sorted(ids, reverse=True)), encoding="utf-8")
    for name in ("ids.txt", "sample.txt"):
        again, _ = sampled(dataset, ids=read_ids(tmp_path / name))
        assert [sample.image for sample in again] == [sample.image for sample in samples]


def test_one_line_can_be_undone() -> None:
    names = ["a", "a\\nb", "a\nb", "\\", "\\\\", "\\x0a", "\n", " ", "# a #", "é\x85\u2029", "\udc80", "a b", "a  b "]
    shown = [one_line(name) for name in names]
    assert len(set(shown)) == len(names)
    for name, line in zip(names, shown, strict=True):
        assert line.splitlines() == [line.strip()]
        assert line.encode()
        back = re.sub(r"\\(?:(\\)|x(..)|u(....))", lambda m: m[1] or chr(int(m[2] or m[3], 16)), line)
        assert back == name
    assert [one_line(name) for name in ("a,b.jpg", "p/ä b#2.jpg", "000/1")] == ["a,b.jpg", "p/ä b#2.jpg", "000/1"]


def test_a_number_goes_to_no_id_that_is_there() -> None:
    def items() -> Any:
        for name in ("a", "a#2", "a", "a", "b", "b", "b#2"):
            yield Sample(name, "a.jpg", ("a",))
        yield Failure("c\nd", "It is bad.")

    dataset = Dataset("toy", items)
    assert [item.id for item in dataset] == ["a", "a#2", "a#3", "a#4", "b", "b#2", "b#2#2", "c\\x0ad"]
    assert [item.picture for item in dataset if isinstance(item, Sample)] == ["a", "a#2", "a", "a", "b", "b", "b#2"]
