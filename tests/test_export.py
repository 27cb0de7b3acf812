"""Saving and loading: an equal object, and all files or none."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus import export
from isthmus.errors import OptionError, SaveError
from isthmus.explanation import Explanation
from samples import image_side, sample, text_side

CASES: dict[str, Any] = {
    "both": sample(),
    "image alone": sample(""),
    "text alone": sample(image=None, picture=None),
    "published": sample(
        image=image_side(published=np.random.default_rng(0).random((30, 30), np.float32)),
        text=text_side(published=np.array([0.0, np.nan, 1.0], np.float32)),
    ),
    "float64 and NaN": sample(image=image_side(np.array([[1 / 3, np.nan], [np.inf, -1e-300]]))),
    "scripts": sample("emoji 🐕 漢字 كلب"),
    "no similarity": sample(similarity=None, probability=0.25),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_explanation_equals_the_saved_one(tmp_path: Path, name: str) -> None:
    one = CASES[name]
    paths = one.save(tmp_path / "a" / "b")
    assert sorted(p.name for p in paths) == sorted(f"explanation.{f}" for f in export.FORMATS)
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == sorted(p.name for p in paths)
    assert Explanation.load(tmp_path / "a" / "b") == one
    assert Explanation.load(tmp_path / "a" / "b" / "explanation.json") == one


def test_equality_sees_every_difference() -> None:
    one = sample()
    assert one == sample()
    assert one != replace(one, similarity=0.31)
    assert one != replace(one, image=image_side(image_side().scores + 1e-7))
    assert one != replace(one, image=image_side(image_side().scores.astype(np.float64)))
    assert one != replace(one, picture=None)
    assert one != "an explanation"


def test_results_cannot_be_changed() -> None:
    one = sample()
    with pytest.raises(ValueError, match="read-only"):
        one.image.scores[0, 0] = 1
    with pytest.raises(AttributeError):
        one.similarity = 1  # type: ignore[misc]


def test_json_stands_alone_and_is_json(tmp_path: Path) -> None:
    one = CASES["float64 and NaN"]
    one.save(tmp_path, formats=("json",))
    text = (tmp_path / "explanation.json").read_text(encoding="utf-8")
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert data["format"] == 1
    assert data["image"]["scores"]["values"][0][0] == 1 / 3
    assert Explanation.load(tmp_path) == replace(one, picture=None)


def test_npz_holds_the_arrays(tmp_path: Path) -> None:
    sample().save(tmp_path, formats=("npz",))
    with np.load(tmp_path / "explanation.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["image_scores", "picture", "token_scores", "word_scores"]
        np.testing.assert_array_equal(arrays["image_scores"], sample().image.scores)


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no format 'pdf': choose among png, svg"):
        sample().save(tmp_path, formats=("pdf",))


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_leaves_the_old_files_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    old, folder = sample(), tmp_path / "out"
    old.save(folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(export, "to_json", full)
    kind = SaveError if isinstance(failure, OSError) else KeyboardInterrupt
    for target in (folder, tmp_path / "new" / "deep"):
        with pytest.raises(kind) as caught:
            sample("another").save(target)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert not (tmp_path / "new").exists()
    if kind is SaveError:
        assert "No space left on device" in str(caught.value)
        assert "free some space" in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"cannot be made.*choose another one"):
        sample().save(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "There is no explanation"),
        (lambda p: p.write_text(p.read_text(encoding="utf-8")[:500], encoding="utf-8"), "is damaged"),
        (lambda p: p.write_text("[]"), "is damaged"),
        (lambda p: p.write_text('{"format": 99}'), "newer Isthmus"),
        (lambda p: p.write_bytes(b"\xff\xfe"), "is damaged"),
        (lambda p: p.with_suffix(".npz").write_bytes(b"no zip"), "is damaged"),
    ],
)
def test_what_is_not_whole_is_refused(tmp_path: Path, damage: Any, message: str) -> None:
    sample().save(tmp_path)
    damage(tmp_path / "explanation.json")
    with pytest.raises(SaveError, match=message):
        Explanation.load(tmp_path)


def test_notebooks_show_it() -> None:
    shown = sample()._repr_html_()
    assert shown.startswith("<div class='isthmus'>")
    assert "dog" in shown


def test_completeness_is_told_plainly() -> None:
    from isthmus.explanation import Completeness

    found = Completeness(open=0.5, closed=0.1, total=0.38)
    assert found.delta == pytest.approx(-0.02)
    assert found.relative_delta == pytest.approx(0.05)
    assert Completeness(0.5, None, 0.3).delta is None
    assert Completeness(0.5, None, 0.3).relative_delta is None
    assert Completeness(0.5, 0.5, 0.0).relative_delta == 0.0
    assert Completeness(0.5, 0.5, 0.1).relative_delta == float("inf")


def test_files_of_two_results_are_not_read_as_one(tmp_path: Path) -> None:
    """An interrupt may leave new arrays beside an older JSON: the JSON comes last and vouches for them."""
    older, newer = sample("older"), sample("newer", picture=np.zeros((4, 4, 3), np.uint8))
    older.save(tmp_path)
    newer.save(tmp_path / "n")
    shutil.copy(tmp_path / "n" / "explanation.npz", tmp_path / "explanation.npz")
    with pytest.raises(SaveError, match="damaged"):
        Explanation.load(tmp_path)
    (tmp_path / "explanation.npz").unlink()
    with pytest.raises(SaveError, match="damaged"):
        Explanation.load(tmp_path)
    newer.save(tmp_path, formats=("json",))
    assert Explanation.load(tmp_path).picture is None
    assert [path.suffix for path in newer.save(tmp_path)][-1] == ".json"
