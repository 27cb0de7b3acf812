"""Files are labelled shortly and safely, and keep their own names where they are written."""

from __future__ import annotations

from isthmus.app.naming import label, labels_of, told_apart


def test_files_are_told_apart() -> None:
    assert labels_of(["a/1.png", "b/1.png", "b/2.png"]) == ["a/1.png", "b/1.png", "2.png"]
    long = [f"{'x' * 70}{n}.png" for n in range(2)]
    assert labels_of(long)[0] != labels_of(long)[1]
    assert {len(one) for one in labels_of(long)} == {60}
    assert labels_of(["a/\u202e\n<b>.png", "b/\u202e\n<b>.png"]) == ["a/<b>.png", "b/<b>.png"]
    names = ["1.png", "1.png", "a/1.png", "1 (2).png", "a/1.png", "x", "x"]
    assert told_apart(names) == ["1.png", "1 (2).png", "a/1.png", "1 (2) (2).png", "a/1 (2).png", "x", "x (2)"]


def test_labels_are_printable_and_short() -> None:
    assert label("../../a\u202eb/../<b>.png") == "<b>.png"
    assert label("a\u202e\x00gnp.png") == "agnp.png"
    assert len(label("x" * 500)) == 60
    assert label("/") == "picture"
