"""Files of what a tab shows: whole, readable, and none left on the server."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import isthmus
from isthmus.app.saving import KINDS, Shown, file_of
from isthmus.app.snippets import Asked
from isthmus.errors import InputError

TEXTS = ("a <b>dog</b> & 'hydrant'", "a cat")


@pytest.fixture(scope="module")
def shown(mini: Any, dog: Path) -> dict[str, Shown]:
    picture = Image.open(dog)
    many = isthmus.explain(mini, picture, list(TEXTS))
    comparison = isthmus.compare(mini, picture, TEXTS[0], methods=["nib", "gradcam"])
    calls = (Asked("mini", TEXTS),)
    return {
        "one": Shown((many[0],), calls),
        "several": Shown(tuple(many), calls),
        "comparison": Shown(comparison.explanations, calls, comparison),
    }


@pytest.mark.parametrize("what", ["one", "several", "comparison"])
def test_every_file_holds_what_is_shown(what: str, shown: dict[str, Shown], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = {kind: file_of(shown[what], kind) for kind in KINDS}
    assert list(tmp_path.iterdir()) == []
    names = {"one": "explanation", "several": "explanations", "comparison": "comparison"}
    assert [name for name, _ in files.values()] == [f"{names[what]}.{kind}" for kind in KINDS]
    content = {kind: data for kind, (_, data) in files.items()}
    with Image.open(io.BytesIO(content["png"])) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
    assert ElementTree.fromstring(content["svg"]).tag.endswith("svg")
    html = content["html"].decode()
    assert "&lt;b&gt;dog" in html
    assert "<b>dog" not in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_the_numbers_are_those_of_the_explanations(shown: dict[str, Shown]) -> None:
    first, second = shown["several"].explanations
    assert first.image is not None
    assert second.image is not None
    data = json.loads(file_of(shown["several"], "json")[1])
    assert [one["caption"] for one in data["explanations"]] == list(TEXTS)
    assert np.array_equal(data["explanations"][1]["image"]["scores"]["values"], second.image.scores)
    with np.load(io.BytesIO(file_of(shown["several"], "npz")[1])) as arrays:
        assert np.array_equal(arrays["2/image_scores"], second.image.scores)
        assert np.array_equal(arrays["picture"], first.picture)
        assert "1/picture" not in arrays
    nib, _ = shown["comparison"].explanations
    assert nib.image is not None
    with np.load(io.BytesIO(file_of(shown["comparison"], "npz")[1])) as arrays:
        assert np.array_equal(arrays["nib/image_scores"], nib.image.scores)
        assert "gradcam/image_scores" in arrays


def test_one_explanation_is_read_back(shown: dict[str, Shown], tmp_path: Path) -> None:
    (tmp_path / "explanation.json").write_bytes(file_of(shown["one"], "json")[1])
    found, (wanted,) = isthmus.Explanation.load(tmp_path), shown["one"].explanations
    assert found.image == wanted.image
    assert found.text == wanted.text
    with np.load(io.BytesIO(file_of(shown["one"], "npz")[1])) as arrays:
        assert np.array_equal(arrays["picture"], wanted.picture)


def test_another_kind_of_file_is_refused(shown: dict[str, Shown]) -> None:
    with pytest.raises(InputError, match="no such kind"):
        file_of(shown["one"], "../etc/passwd")
