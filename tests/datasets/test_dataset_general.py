"""Folders, tables, Parquet, tar shards and Hugging Face datasets, each written here in small."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import picture
from isthmus.datasets import Failure, Sample, open_dataset
from isthmus.datasets.huggingface import _stream
from isthmus.encoders.pictures import open_picture
from isthmus.errors import InputError, OptionError


def encoded(seed: int, kind: str = "PNG", size: tuple[int, int] = (30, 20)) -> bytes:
    stream = io.BytesIO()
    picture(seed, size).save(stream, kind)
    return stream.getvalue()


def draw(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(seed, "JPEG" if name.lower().endswith(("jpg", "jpeg")) else "PNG"))


def split_up(items: Any) -> tuple[dict[str, Sample], dict[str, str]]:
    """Samples and reasons of failures by their ids."""
    found = list(items)
    assert all(isinstance(item, (Sample, Failure)) for item in found)
    samples = {item.id: item for item in found if isinstance(item, Sample)}
    reasons = {item.id: item.reason for item in found if isinstance(item, Failure)}
    assert len(samples) + len(reasons) == len(found)
    return samples, reasons


def test_a_folder_of_pictures_with_texts_beside_them(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "deep/b.jpg", "c.png")
    (tmp_path / "a.txt").write_text("a dog\na cat\n")
    (tmp_path / "deep" / "b.txt").write_text("a bear")
    samples, reasons = split_up(open_dataset(tmp_path))
    assert samples["a.png"].texts == ("a dog", "a cat")
    assert samples["a.png"].image == tmp_path / "a.png"
    assert samples["deep/b.jpg"].texts == ("a bear",)
    assert list(reasons) == ["c.png"]
    given, none = split_up(open_dataset(tmp_path, texts=["a thing"]))
    assert {sample.texts for sample in given.values()} == {("a thing",)}
    assert len(given) == 3
    assert not none


def test_a_folder_with_a_table_in_it_is_read_by_the_table(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_text("file_name,text,label\na.png,a dog,pet\n")
    samples, _ = split_up(open_dataset(tmp_path))
    assert list(samples) == ["a.png"]
    assert samples["a.png"].truth.label == "pet"


def test_a_table_passes_over_every_kind_of_bad_row(tmp_path: Path) -> None:
    draw(tmp_path, "p/a.png", "p/b.png", "p/c.png")
    rows = [
        b"path,caption",
        b"p/a.png, a dog ",
        b"p/none.png,a cat",
        b"p/b.png,",
        b",a cat",
        b"https://x.org/a.png,a cat",
        b"p/c.png,a,b,c",
        b"p/c.png,caf\xe9",
        b"p/a.png,the dog again",
        b'p/c.png,"a bear, brown"',
    ]
    (tmp_path / "t.csv").write_bytes(b"\n".join(rows) + b"\n")
    samples, reasons = split_up(open_dataset(tmp_path / "t.csv"))
    assert {name: sample.texts[0] for name, sample in samples.items()} == {
        "p/a.png": "a dog",
        "p/a.png#2": "the dog again",
        "p/c.png": "a bear, brown",
    }
    assert "no picture 'none.png'" in reasons["p/none.png"]
    assert "no text" in reasons["p/b.png"]
    assert "names no picture" in reasons["row 4"]
    assert "URL" in reasons["a.png"]
    assert "more columns" in reasons["row 6"]
    assert "UTF-8" in reasons["row 7"]


def test_what_is_no_json_or_far_too_long_is_a_bad_row(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    (tmp_path / "t.jsonl").write_bytes(b'{"image": "a.png", "text": "one"}\n[1]\n{"image"\n{"image": "\xe9"}\n\n')
    samples, reasons = split_up(open_dataset(tmp_path / "t.jsonl"))
    assert list(samples) == ["a.png"]
    assert ["UTF-8" in reason for reason in reasons.values()] == [False, False, True]
    (tmp_path / "t.csv").write_text(f"image,text\na.png,{'x' * 16_000_001}\na.png,two\n")
    samples, reasons = split_up(open_dataset(tmp_path / "t.csv"))
    assert samples["a.png"].texts == ("two",)
    assert "broken" in reasons["row 1"]


def test_columns_are_named_or_recognised(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    rows = [{"where": "a.png", "en": "a dog", "de": ["ein Hund", "der Hund"], "kind": 3}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {"image_column": "where", "text_columns": ["en", "de"], "label_column": "kind"}
    samples, _ = split_up(open_dataset(tmp_path / "t.jsonl", **options))
    assert samples["a.png"].texts == ("a dog", "ein Hund", "der Hund")
    assert samples["a.png"].truth.label == "3"
    with pytest.raises(InputError, match=r"no picture column among where, en, de, kind: name it"):
        open_dataset(tmp_path / "t.jsonl")
    with pytest.raises(InputError, match="no column 'fr': choose among where, en, de, kind"):
        open_dataset(tmp_path / "t.jsonl", image_column="where", text_columns="fr")
    with pytest.raises(InputError, match="no text column"):
        open_dataset(tmp_path / "t.jsonl", image_column="where")
    numbered = "image\tcaption_0\tcaption_1\na.png\tone\ttwo\n"
    (tmp_path / "n.tsv").write_text(numbered)
    samples, _ = split_up(open_dataset(tmp_path / "n.tsv"))
    assert samples["a.png"].texts == ("one", "two")


def test_a_label_makes_the_text_where_there_is_none(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_text("image,label\na.png,dog\nb.png,7\n")
    samples, reasons = split_up(open_dataset(tmp_path / "t.csv"))
    assert samples["a.png"].texts == ("a photo of a dog",)
    assert "label has no name" in reasons["b.png"]  # a bare number is no name


def test_a_table_has_splits_where_it_has_the_column(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_text("image,text,split\na.png,one,dev\nb.png,two,train\n")
    assert list(split_up(open_dataset(tmp_path / "t.csv", split="validation"))[0]) == ["a.png"]
    (tmp_path / "u.csv").write_text("image,text\na.png,one\n")
    with pytest.raises(InputError, match="no column 'split'"):
        open_dataset(tmp_path / "u.csv", split="val")


def test_root_is_where_the_pictures_of_a_table_are(tmp_path: Path) -> None:
    draw(tmp_path / "pictures", "a.png")
    (tmp_path / "t.csv").write_text("image,text\na.png,one\n")
    assert not split_up(open_dataset(tmp_path / "t.csv"))[0]
    samples, _ = split_up(open_dataset(tmp_path / "t.csv", root=tmp_path / "pictures"))
    assert samples["a.png"].image == tmp_path / "pictures" / "a.png"


def test_ids_are_the_same_wherever_the_folder_lies(tmp_path: Path) -> None:
    for place in ("one", "two"):
        draw(tmp_path / place, "p/a.png")
        (tmp_path / place / "t.csv").write_text(f"image,text\n{tmp_path / place / 'p' / 'a.png'},a dog\n")
    assert [list(split_up(open_dataset(tmp_path / place / "t.csv"))[0]) for place in ("one", "two")] == [
        ["p/a.png"]
    ] * 2


def parquet(path: Path, columns: dict[str, list[Any]], metadata: dict[bytes, bytes] | None = None) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as writer

    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_table(arrow.table(columns).replace_schema_metadata(metadata), path)


def test_parquet_with_pictures_as_hugging_face_writes_them(tmp_path: Path) -> None:
    pictures = [
        {"bytes": encoded(0), "path": "a.png"},
        {"bytes": encoded(1), "path": None},
        {"bytes": b"no picture", "path": "c.png"},
        {"bytes": None, "path": None},
    ]
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    columns = {"image": pictures, "caption": [["one", "two"], ["three"], ["four"], ["five"]], "label": [1, 0, 0, 0]}
    parquet(tmp_path / "data" / "t.parquet", columns, {b"huggingface": json.dumps(features).encode()})
    for source in (tmp_path, tmp_path / "data" / "t.parquet"):
        samples, reasons = split_up(open_dataset(source))
        assert samples["a.png"].texts == ("one", "two")
        assert samples["a.png"].truth.label == "dog"
        assert open_picture(samples["a.png"].image).image.size == (30, 20)
        digest = next(name for name in samples if name != "a.png")
        assert len(digest) == 16  # of the bytes, since the row has no name
        assert set(reasons) == {"c.png", "row 4"}


def test_parquet_with_paths_plain_bytes_and_splits(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    parquet(tmp_path / "train-00000-of-00001.parquet", {"image": ["a.png"], "text": ["train"]})
    parquet(tmp_path / "validation-00000-of-00001.parquet", {"image": ["a.png", "b.png"], "text": ["val", "none"]})
    samples, reasons = split_up(open_dataset(tmp_path, split="val"))
    assert samples["a.png"].texts == ("val",)
    assert list(reasons) == ["b.png"]
    with pytest.raises(InputError, match="named after the split 'test'"):
        open_dataset(tmp_path, split="test")
    parquet(tmp_path / "bytes" / "b.parquet", {"key": ["k1"], "jpg": [encoded(3)], "text": ["a dog"]})
    assert list(split_up(open_dataset(tmp_path / "bytes"))[0]) == ["k1"]
    (tmp_path / "bytes" / "c.parquet").write_bytes(b"PAR1 and nothing")
    samples, reasons = split_up(open_dataset(tmp_path / "bytes"))
    assert (list(samples), list(reasons)) == (["k1"], ["c.parquet"])  # one broken file does not end the rest
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(InputError, match="no Parquet file that can be read"):
        open_dataset(tmp_path / "broken.parquet")


def tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def shards(folder: Path) -> None:
    pytest.importorskip("webdataset")
    first = {
        "000.png": encoded(0),
        "000.txt": b" a dog ",
        "000.json": json.dumps({"alt": "a hound", "label": "animal"}).encode(),
        "001.jpg": encoded(1, "JPEG"),
        "001.json": json.dumps({"caption": "a cat"}).encode(),
        "002.png": b"broken",
        "002.txt": b"a bear",
        "003.txt": b"no picture",
        "004.png": encoded(4),
        "005.png": encoded(5),
        "005.txt": b"\xff\xfe",
    }
    tar(folder / "set-train-000.tar", first)
    tar(folder / "set-val-001.tar", {"000.png": encoded(6), "000.txt": b"a bird"})


def test_shards_with_broken_records(tmp_path: Path) -> None:
    shards(tmp_path)
    for source in (tmp_path, tmp_path / "*.tar", f"{tmp_path}/set-{{train-000,val-001}}.tar"):
        samples, reasons = split_up(open_dataset(source))
        assert {name: sample.texts for name, sample in samples.items()} == {
            "set-train-000/000": ("a dog",),
            "set-train-000/001": ("a cat",),
            "set-val-001/000": ("a bird",),
        }
        assert samples["set-train-000/000"].truth.label == "animal"
        assert open_picture(samples["set-train-000/001"].image).image.size == (30, 20)
        assert {name[-3:] for name in reasons} == {"002", "003", "004", "005"}
    assert list(split_up(open_dataset(tmp_path, split="dev"))[0]) == ["set-val-001/000"]
    chosen, _ = split_up(open_dataset(tmp_path / "set-train-000.tar", text_columns=["alt"], image_column="png"))
    assert chosen["set-train-000/000"].texts == ("a hound",)


def test_a_shard_that_is_cut_off_keeps_what_came_before(tmp_path: Path) -> None:
    shards(tmp_path)
    whole = (tmp_path / "set-train-000.tar").read_bytes()
    (tmp_path / "set-train-000.tar").write_bytes(whole[:700])
    samples, reasons = split_up(open_dataset(tmp_path))
    assert "set-val-001/000" in samples
    assert list(reasons) == ["set-train-000.tar"]
    assert "cannot be read" in reasons["set-train-000.tar"]


def test_shards_that_are_not_there_or_are_commands(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    with pytest.raises(InputError, match="no shard"):
        open_dataset(tmp_path / "none-{00..02}.tar")
    with pytest.raises(InputError, match="no shards"):
        open_dataset(tmp_path / "*.tar")
    with pytest.raises(InputError, match="cannot be read: give a path"):
        open_dataset(f"pipe:touch {tmp_path / 'made'} x.tar")
    assert not (tmp_path / "made").exists()
    assert open_dataset("https://example.org/cc-{00..03}.tar").streams


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    library = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)  # 5 s after each stream
    library.disable_progress_bars()
    return library


def rows(library: Any, count: int = 5) -> Any:
    features = library.Features(
        {
            "picture": library.Image(),
            "caption": library.Value("string"),
            "label": library.ClassLabel(names=["cat", "dog"]),
            "id": library.Value("int64"),
        }
    )
    columns = {
        "picture": [{"bytes": encoded(n), "path": None} for n in range(count)],
        "caption": [f"text {n}" if n != 2 else "" for n in range(count)],
        "label": [n % 2 for n in range(count)],
        "id": list(range(10, 10 + count)),
    }
    return library.Dataset.from_dict(columns, features=features)


def test_hugging_face_streams_or_loads_a_folder(tmp_path: Path, hub: Any) -> None:
    folder = tmp_path / "set"
    for split in ("train", "test"):
        (folder / "data").mkdir(parents=True, exist_ok=True)
        rows(hub, 5 if split == "test" else 3).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    for streaming in (False, True):
        dataset = open_dataset(f"hf:{folder}", streaming=streaming)
        assert (dataset.name, dataset.split, dataset.streams) == ("hf:set", "test", streaming)
        samples, reasons = split_up(dataset)
        assert {name: sample.texts for name, sample in samples.items()} == {
            "10": ("text 0",),
            "11": ("text 1",),
            "13": ("text 3",),
            "14": ("text 4",),
        }
        assert samples["11"].truth.label == "dog"
        assert open_picture(samples["11"].image).image.size == (30, 20)
        assert "no text" in reasons["12"]
        assert len(list(open_dataset(f"hf:{folder}", split="train", streaming=streaming))) == 3
    order = [item.id for item in open_dataset(f"hf:{folder}", streaming=True, seed=1)]
    assert order == [item.id for item in open_dataset(f"hf:{folder}", streaming=True, seed=1)]
    assert order != [item.id for item in open_dataset(f"hf:{folder}", streaming=True, seed=2)]
    with pytest.raises(InputError, match="has no split 'val': choose one of"):
        open_dataset(f"hf:{folder}", split="val")
    with pytest.raises(InputError, match="no column 'x'"):
        open_dataset(f"hf:{folder}", text_columns=["x"])


def test_hugging_face_reads_what_was_saved_to_disk(tmp_path: Path, hub: Any) -> None:
    rows(hub).save_to_disk(tmp_path / "one")
    hub.DatasetDict({"train": rows(hub, 1), "validation": rows(hub, 2)}).save_to_disk(tmp_path / "two")
    assert len(split_up(open_dataset(f"hf:{tmp_path / 'one'}"))[0]) == 4
    assert list(split_up(open_dataset(tmp_path / "two"))[0]) == ["10", "11"]
    assert open_dataset(tmp_path / "two").split == "validation"
    assert list(split_up(open_dataset(tmp_path / "two", split="train"))[0]) == ["10"]
    assert len(list(open_dataset(f"hf:{tmp_path / 'one'}", streaming=True))) == 5


def test_hugging_face_takes_a_split_from_a_column(tmp_path: Path, hub: Any) -> None:
    data = rows(hub, 2).add_column("split", ["val", "train"])
    hub.DatasetDict({"all": data}).save_to_disk(tmp_path / "one")
    assert list(split_up(open_dataset(tmp_path / "one", split="dev"))[0]) == ["10"]
    hub.DatasetDict({"all": rows(hub, 2)}).save_to_disk(tmp_path / "two")
    with pytest.raises(InputError, match="no split 'dev'"):
        open_dataset(tmp_path / "two", split="dev")


def test_hugging_face_names_pictures_in_folders_and_archives_alike_everywhere(tmp_path: Path, hub: Any) -> None:
    draw(tmp_path / "set" / "train", "a.png", "b/b.png")
    (tmp_path / "set" / "train" / "metadata.csv").write_text("file_name,text\na.png,one\nb/b.png,two\n")
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip" / "train.zip", "w") as archive:
        for path in (tmp_path / "set" / "train").rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path / "set" / "train"))
    for streaming in (False, True):
        samples, _ = split_up(open_dataset(f"hf:{tmp_path / 'set'}", streaming=streaming))
        assert {name: sample.texts[0] for name, sample in samples.items()} == {
            "train/a.png": "one",
            "train/b/b.png": "two",
        }
    samples, _ = split_up(open_dataset(f"hf:{tmp_path / 'zip'}", streaming=True))
    assert {name: sample.texts[0] for name, sample in samples.items()} == {"a.png": "one", "b/b.png": "two"}
    assert open_picture(samples["a.png"].image).image.size == (30, 20)


def test_a_stream_that_breaks_says_so(tmp_path: Path, hub: Any) -> None:
    def broken() -> Any:
        yield {"image": "none.png", "text": "one"}
        raise ConnectionError("the line went dead")

    features = hub.Features({"image": hub.Value("string"), "text": hub.Value("string")})
    stream = hub.IterableDataset.from_generator(broken, features=features)
    found = _stream(stream, "x")
    assert next(found)["text"] == "one"
    with pytest.raises(InputError, match=r"stream of 'x' broke .*the line went dead"):
        next(found)


def test_a_dataset_that_hugging_face_cannot_load(tmp_path: Path, hub: Any) -> None:
    with pytest.raises(InputError, match=r"cannot be loaded .*: check its name"):
        open_dataset(f"hf:{tmp_path / 'nothing'}")


@pytest.mark.parametrize(
    ("module", "make"),
    [("pyarrow.parquet", "x.parquet"), ("webdataset", "x.tar"), ("datasets", "hf:x")],
)
def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, make: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / make).touch()
    source = make if make.startswith("hf:") else tmp_path / make
    with pytest.raises(OptionError, match=r"pip install 'isthmus\[(datasets|evaluate)\]'"):
        open_dataset(source)


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'flickr8k'"):
        open_dataset("flickr8")
    with pytest.raises(InputError, match="no dataset '/nowhere': give a path, hf:NAME, or one of conceptual-captions"):
        open_dataset("/nowhere")
    (tmp_path / "a.zip").touch()
    with pytest.raises(InputError, match="is no dataset: give a folder"):
        open_dataset(tmp_path / "a.zip")
    with pytest.raises(InputError, match="no pictures"):
        open_dataset(tmp_path)
    (tmp_path / "e.csv").touch()
    with pytest.raises(InputError, match="has no rows"):
        open_dataset(tmp_path / "e.csv")


@pytest.mark.parametrize(
    "options",
    [
        {"per_class": 2},
        {"class_names": "first"},
        {"streaming": True},
        {"config": "a"},
        {"per_class": 0},
        {"class_names": "some"},
        {"texts": [" "]},
        {"split": "val"},
        {"image_column": "x"},
        {"root": "."},
    ],
)
def test_options_that_would_be_passed_over_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    draw(tmp_path, "a.png")
    (tmp_path / "a.txt").write_text("a dog")
    with pytest.raises(OptionError):
        open_dataset(tmp_path, **options)


def test_pictures_stay_encoded_until_they_are_opened(tmp_path: Path) -> None:
    parquet(tmp_path / "t.parquet", {"image": [encoded(0)], "text": ["a dog"]})
    (sample,) = open_dataset(tmp_path / "t.parquet")
    assert isinstance(sample, Sample)
    assert isinstance(sample.image, Image.Image)
    assert getattr(sample.image, "_im", None) is None  # Pillow has read the header alone
