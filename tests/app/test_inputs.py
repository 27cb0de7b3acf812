"""Gradio's components for pictures and files, with what a request may put into them."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio import processing_utils
from gradio.data_classes import FileData, ImageData, ListFiles
from PIL import Image

import isthmus.app
from isthmus.app.asking import there
from isthmus.app.inputs import FilesInput, PictureInput, refuse_addresses
from isthmus.app.saving import Shown, _packer, _writer, file_of, save_row
from isthmus.app.sentences import Refused, told
from isthmus.app.snippets import PICTURE, Asked, as_command
from isthmus.errors import InputError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def test_a_picture_is_read_by_the_apps_own_reader(cache: Path) -> None:
    component = PictureInput(label="Picture")
    assert component.get_block_name() == "image"
    assert Path(component.GRADIO_CACHE) == cache
    wanted = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    wanted.save(cache / "a.png")
    (cache / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    outside = cache.parent / "outside.png"
    wanted.save(outside)
    found = component.preprocess(ImageData(path=str(cache / "a.png"), orig_name="../../x.svg"))
    assert np.array_equal(np.asarray(found), np.asarray(wanted))
    assert component.preprocess(None) is None
    for bad in ("/etc/passwd", str(outside), str(cache / "bad.png"), str(cache), "http://127.0.0.1/a.png"):
        refused = component.preprocess(ImageData(path=bad))
        assert isinstance(refused, Refused)
        assert refused.sentence.endswith(".")
        assert str(cache) not in refused.sentence
        with pytest.raises(InputError, match=re.escape(refused.sentence)):
            there(refused)
    refused = component.preprocess(ImageData(url="data:image/png;base64,iVBORw0KGgo="))
    assert "did not arrive" in refused.sentence


def test_files_are_gathered(cache: Path) -> None:
    component = FilesInput(file_count="multiple")
    assert component.get_block_name() == "file"
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    with zipfile.ZipFile(cache / "a.zip", "w") as archive:
        archive.writestr("../../b.png", buffer.getvalue())
    found = component.preprocess(ListFiles([FileData(path=str(cache / "a.zip"))]))
    assert [one.name for one in found.uploads] == ["b.png"]
    (cache / "Wow 5 x.png").write_bytes(buffer.getvalue())
    given = FileData(path=str(cache / "Wow 5 x.png"), orig_name="Wow! $5 {x}.png")
    (own,) = component.preprocess(ListFiles([given])).uploads
    assert own.name == own.called == "Wow! $5 {x}.png"
    (cache / "Wow 5 x.png").unlink()
    assert component.preprocess(None) is None
    assert component.preprocess(ListFiles([])) is None
    with pytest.raises(gr.Error, match="no longer"):
        component.preprocess(ListFiles([FileData(path="/etc/passwd")]))
    assert sorted(path.name for path in cache.iterdir()) == ["a.zip"]


def test_a_component_that_gradio_makes_anew_still_reads_so(cache: Path) -> None:
    component = PictureInput(label="Picture", elem_id="x")
    again = component.__class__(**component.constructor_args)
    assert "no longer" in again.preprocess(ImageData(path="/etc/passwd")).sentence


def test_no_stub_is_written_beside_the_source() -> None:
    assert not list(Path(isthmus.app.__file__).parent.glob("*.pyi"))


def test_addresses_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_get", processing_utils.async_ssrf_protected_get)
    refuse_addresses()
    with pytest.raises(gr.Error, match="not fetched"):
        asyncio.run(processing_utils.async_ssrf_protected_download("http://127.0.0.1:9/a.png", "/tmp"))
    data = {"path": "http://127.0.0.1:9/a.png", "meta": {"_type": "gradio.FileData"}}
    with gr.Blocks():
        box = gr.Textbox()
    with pytest.raises(gr.Error, match="not fetched"):
        asyncio.run(processing_utils.async_move_files_to_cache(data, box, check_in_upload_folder=True))


def test_the_buttons_save_and_copy_what_the_state_holds(mini: Any, dog: Path) -> None:
    with gr.Blocks() as blocks:
        save_row("x", gr.State(None))
    ids = {block.elem_id for block in blocks.blocks.values()}
    assert {"x-save-png", "x-save-svg", "x-save-html", "x-save-json", "x-save-npz", "x-python", "x-command"} <= ids
    asked = Asked("mini", ("a dog",), methods=("gradcam",))
    shown = Shown((isthmus.explain(mini, Image.open(dog), "a dog", method="gradcam"),), (asked,))
    parcel = _packer("json")(shown)
    assert parcel["name"] == "explanation.json"
    assert base64.b64decode(parcel["data"]) == file_of(shown, "json")[1]
    with pytest.raises(gr.Error, match="no one picture"):
        told(_packer("picture"))(shown)
    given = Image.open(dog).convert("RGB")
    parcel = _packer("picture")(replace(shown, picture=given))
    assert (parcel["name"], parcel["type"]) == (PICTURE, "image/png")
    with Image.open(io.BytesIO(base64.b64decode(parcel["data"]))) as found:
        assert np.array_equal(np.asarray(found), np.asarray(given))
    code, note = _writer(as_command, "shell")(shown)
    assert code.value == as_command([asked])
    assert note["visible"] is True
    for handler in (_packer("png"), _writer(as_command, "shell")):
        with pytest.raises(gr.Error, match="nothing to save"):
            told(handler)(None)
