"""What is saved by real clicks opens, and equals what the library itself says."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import isthmus
from app.acting import Explain
from app.browsing import Visit

TEXT = "a dog on the grass"


def saved(explain: Explain, kind: str, folder: Path) -> Path:
    with explain.page.expect_download() as download:
        explain.part(f"save-{kind}").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    assert path.suffix == f".{kind}"
    return path


def test_files_open_and_equal(visit: Callable[..., Visit], mini: Any, dog: Path, tmp_path: Path) -> None:
    explain = Explain(visit().page)
    explain.asked(dog, TEXT, "joint")
    files = {kind: saved(explain, kind, tmp_path) for kind in ("png", "svg", "html", "json", "npz")}
    with Image.open(files["png"]) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 200
    assert ET.parse(files["svg"]).getroot().tag.endswith("svg")
    page = files["html"].read_text(encoding="utf-8")
    assert "grass" in page
    assert "<script src" not in page
    right = isthmus.explain(mini, dog, TEXT)
    read = isthmus.Explanation.load(tmp_path)
    assert read.caption == TEXT
    np.testing.assert_allclose(read.image.scores, right.image.scores, atol=1e-6)
    assert [word.text for word in read.text.words] == [word.text for word in right.text.words]
    np.testing.assert_allclose([w.score for w in read.text.words], [w.score for w in right.text.words], atol=1e-6)


def clipboard(page: Any, start: str) -> str:
    """What is in the clipboard once it begins so; Playwright's own wait does not wait for a promise."""
    text, until = "", time.monotonic() + 60
    while not text.startswith(start):
        assert time.monotonic() < until, text
        page.wait_for_timeout(50)
        text = page.evaluate("() => navigator.clipboard.readText()")
    return text


def test_copies_are_in_the_clipboard(visit: Callable[..., Visit], dog: Path) -> None:
    one = visit(permissions=["clipboard-read", "clipboard-write"])
    explain = Explain(one.page)
    explain.asked(dog, TEXT, "joint")
    for kind, start in (("python", "import isthmus"), ("command", "isthmus explain")):
        explain.part(kind).click()
        copied = clipboard(one.page, start)
        assert TEXT in copied
        one.page.wait_for_function(
            "line => document.querySelector('#explain-code')?.innerText.includes(line)",
            arg=copied.strip().splitlines()[0],
        )
