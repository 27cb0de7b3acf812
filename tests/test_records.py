"""Folders and tables of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from isthmus.datasets import Failure, Record, read_records
from isthmus.datasets.records import is_collection, safe_name
from isthmus.errors import InputError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def read(source: Path, **options: Any) -> list[Record | Failure]:
    return list(read_records(source, **options))


def test_a_folder_with_given_texts(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a/x.png", "a/notes.md", ".hidden/y.png")
    assert read(tmp_path, texts=["one", "two"]) == [
        Record("a_x.png", tmp_path / "a" / "x.png", ("one", "two")),
        Record("b.JPG", tmp_path / "b.JPG", ("one", "two")),
    ]


def test_a_folder_with_sidecars(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "c.png", "d.png")
    (tmp_path / "a.txt").write_text("\ufeffa dog\n\n a cat \n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xff")
    found = read(tmp_path)
    assert found[0] == Record("a.png", tmp_path / "a.png", ("a dog", "a cat"))
    assert [type(one) for one in found[1:]] == [Failure] * 3
    assert [one.reason for one in found[1:]] == [
        "Its text 'b.txt' is empty: write one text a line.",
        "Its text 'c.txt' cannot be read: save it as UTF-8.",
        "It has no text: put one into 'd.txt'.",
    ]


@pytest.mark.parametrize(("name", "delimiter"), [("m.csv", ","), ("m.csv", ";"), ("m.tsv", "\t")])
def test_tables(tmp_path: Path, name: str, delimiter: str) -> None:
    rows = [["n", "File_Name", "Caption"], ["1", "x/a b.png", '"a dog, big; old"'], ["2", "", "b"], ["3", "c.png", ""]]
    (tmp_path / name).write_text("\n".join(delimiter.join(row) for row in rows), encoding="utf-8-sig")
    found = read(tmp_path / name)
    assert found[0] == Record("000001-a_b", tmp_path / "x" / "a b.png", ("a dog, big; old",))
    assert found[1] == Failure("000002", "Row 2 names no picture: fill in 'File_Name'.")
    assert found[2] == Failure("000003-c", "Row 3 has no text: fill in 'Caption'.")


def test_a_table_takes_given_texts_in_place_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image\na.png\n")
    assert read(tmp_path / "m.csv", texts=["one"]) == [Record("000001-a", tmp_path / "a.png", ("one",))]


def test_json_lines_in_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    rows = [{"file_name": "a.png", "text": ["one", "two"]}, {"file_name": "a.png", "text": "three"}]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "metadata.jsonl").write_text("\n".join([lines[0], "", "no json", "[1]", lines[1]]), encoding="utf-8")
    found = read(tmp_path)
    assert found[0] == Record("000001-a", tmp_path / "a.png", ("one", "two"))
    assert [one.id for one in found[1:3]] == ["000002", "000003"]
    assert found[3] == Record("000004-a", tmp_path / "a.png", ("three",))


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ({}, "", "no pictures"),
        ({"a.png": b""}, "", r"no texts.*metadata\.csv.*NAME\.txt"),
        ({}, "missing.csv", "check the path"),
        ({"m.csv": b""}, "m.csv", "has no rows"),
        ({"m.csv": b"a,b\n1,2\n"}, "m.csv", "no picture column among a, b"),
        ({"m.csv": b"image,b\n1,2\n"}, "m.csv", "no text column among image, b"),
        ({"m.csv": b"image,text\na.png,\xff\xff\n"}, "m.csv", "UTF-8"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, files: dict[str, bytes], source: str, message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / source)


def test_names_are_safe_and_unique_everywhere(tmp_path: Path) -> None:
    assert safe_name("../../etc/passwd") == "etc_passwd"
    assert safe_name("CON.png") == "_CON.png"
    assert safe_name("???") == "picture"
    assert safe_name("a:b*c.png ") == "a_b_c.png"
    assert len(safe_name("x" * 500)) < 110
    assert safe_name("x" * 500) != safe_name("x" * 501)
    touch(tmp_path, "a/b.png", "a_b.png", "A_B.png")
    names = [one.id for one in read(tmp_path, texts=["t"])]
    assert len({name.lower() for name in names}) == 3


def test_collections_are_told_from_pictures(tmp_path: Path) -> None:
    assert is_collection(tmp_path)
    assert is_collection(Path("x.CSV"))
    assert not is_collection(Path("x.png"))


def test_tables_stream(tmp_path: Path) -> None:
    """The first record comes before the bad end of the file is reached."""
    (tmp_path / "m.csv").write_bytes(b"image,text\n" + b"a.png,t\n" * 50_000 + b"\xff\n")
    records = read_records(tmp_path / "m.csv")
    assert next(records).id == "000001-a"


def test_rows_that_would_be_misread_are_failures(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,text\ndog.jpg,a dog, on the grass\nhttps://x.org/a.jpg,a cat\nb.jpg,fine\n")
    first, second, third = read_records(tmp_path / "t.csv")
    assert isinstance(first, Failure)
    assert "quotes around a text with commas" in first.reason
    assert isinstance(second, Failure)
    assert "URLs are not fetched" in second.reason
    assert isinstance(third, Record)
    lines = ['{"image": "a.jpg", "text": {"en": "a"}}', '{"image": "a.jpg", "text": [["a"]]}', "[" * 100_000]
    (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n")
    assert all(isinstance(item, Failure) for item in read_records(tmp_path / "t.jsonl"))
