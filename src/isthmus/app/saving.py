"""Saves what a tab shows: files made on the click, and sent to the browser without staying on the server."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.app.sentences import told
from isthmus.app.snippets import PICTURE, Asked, as_command, as_python
from isthmus.app.stored import keeps_pictures
from isthmus.errors import InputError
from isthmus.export import STEM, arrays_of, to_json
from isthmus.extras import needed

if TYPE_CHECKING:
    from PIL import Image

    from isthmus.comparison import Comparison
    from isthmus.explanation import Explanation

KINDS = {
    "png": "image/png",
    "svg": "image/svg+xml",
    "html": "text/html",
    "json": "application/json",
    "npz": "application/octet-stream",
}
_LABELS = {"png": "PNG", "svg": "SVG", "html": "HTML report", "json": "JSON", "npz": "NPZ"}
_FILES = "Files hold the whole result, drawn in the colours of the library, not in those chosen under Display."
_DRAWING = Lock()  # matplotlib's settings are the whole process's
# The browser makes the file of the bytes, so that none is left on the server.
_DOWNLOAD = """(parcel) => {
  if (!parcel) return;
  const bytes = Uint8Array.from(atob(parcel.data), (one) => one.charCodeAt(0));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes], {type: parcel.type}));
  link.download = parcel.name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""
# Without a secure context there is no clipboard: the text is on the page to be copied by hand.
_COPY = """async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    return "<p role='status'>Copied.</p>";
  } catch (error) {
    return "<p role='status'>This browser does not let the page copy: select the lines above.</p>";
  }
}"""


@keeps_pictures("picture")
@dataclass(frozen=True, eq=False)
class Shown:
    """What a tab shows, complete enough to save it and to ask it again.

    Attributes:
        explanations: in the order of the page, the first one the main one.
        calls: the calls that made them.
        comparison: where methods are compared.
        picture: the one picture of the page, as it was read.
    """

    explanations: Sequence[Explanation]
    calls: tuple[Asked, ...]
    comparison: Comparison | None = None
    picture: Image.Image | None = None


def file_of(shown: Shown, kind: str) -> tuple[str, bytes]:
    """Name and bytes of a file; `kind` is one of "png", "svg", "html", "json", "npz"."""
    if kind not in KINDS:
        raise InputError(f"There is no such kind of file: choose among {', '.join(KINDS)}.")
    with _DRAWING:
        if shown.comparison is not None:
            return f"comparison.{kind}", _comparison(shown.comparison, kind)
        if len(shown.explanations) == 1:
            return f"{STEM}.{kind}", _one(shown.explanations[0], kind)
        return f"{STEM}s.{kind}", _several(tuple(shown.explanations), kind)


def picture_of(shown: Shown) -> bytes:
    """The picture of the page as a PNG, which is the same to the bit."""
    if shown.picture is None:
        raise InputError("There is no one picture here: the pictures are the files that you gave.")
    buffer = io.BytesIO()
    shown.picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _one(explanation: Explanation, kind: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="isthmus-") as folder:
        (path,) = explanation.save(folder, formats=(kind,))
        return path.read_bytes()


def _several(many: tuple[Explanation, ...], kind: str) -> bytes:
    from isthmus.drawing import page, to_png, to_svg

    if kind == "json":
        return _dumped({"explanations": [json.loads(to_json(one)) for one in many]})
    if kind == "npz":
        return _zipped({str(number): one for number, one in enumerate(many, 1)})
    makers: dict[str, Callable[[Any], bytes]] = {
        "png": to_png,
        "svg": to_svg,
        "html": lambda found: page(found).encode(),
    }
    return makers[kind](many)


def _comparison(comparison: Comparison, kind: str) -> bytes:
    from isthmus.drawing.compared import to_svg

    if kind == "npz":
        return _zipped({row.method: row.explanation for row in comparison.rows if row.explanation is not None})
    if kind == "svg":
        return to_svg(comparison)
    with tempfile.TemporaryDirectory(prefix="isthmus-") as folder:
        comparison.save(folder)
        return Path(folder, "index.html" if kind == "html" else f"comparison.{kind}").read_bytes()


def _zipped(many: dict[str, Explanation]) -> bytes:
    """Arrays of several explanations, each behind the name of its own; one picture that all have is there once."""
    arrays: dict[str, Any] = {}
    for name, one in many.items():
        arrays |= {f"{name}/{key}": value for key, value in arrays_of(one).items()}
    pictures = [value for key, value in arrays.items() if key.endswith("/picture")]
    if pictures and all(np.array_equal(one, pictures[0]) for one in pictures):
        arrays = {key: value for key, value in arrays.items() if not key.endswith("/picture")}
        arrays["picture"] = pictures[0]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _dumped(data: Any) -> bytes:
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False).encode()


def save_row(prefix: str, state: Any, *, picture: bool = True) -> None:
    """Buttons that save and copy what a `gr.State` holds: a `Shown`, or None as long as there is nothing to save.

    They are there once there is something. Their ids are `PREFIX-save-KIND`, `PREFIX-python`, `PREFIX-command` and
    `PREFIX-save-picture`, which saves the one `picture` that the copied lines name.
    """
    gr = needed("gradio")
    with gr.Row(visible=False, elem_id=f"{prefix}-save", elem_classes="isthmus-save") as row:
        buttons = {
            kind: gr.Button(label, size="sm", elem_id=f"{prefix}-save-{kind}") for kind, label in _LABELS.items()
        }
        python = gr.Button("Copy as Python", size="sm", elem_id=f"{prefix}-python")
        command = gr.Button("Copy as command", size="sm", elem_id=f"{prefix}-command")
        if picture:
            buttons["picture"] = gr.Button(PICTURE, size="sm", elem_id=f"{prefix}-save-picture")
    code = gr.Code(visible=False, interactive=False, elem_id=f"{prefix}-code", lines=1, wrap_lines=True)
    note = gr.HTML(visible=False, elem_id=f"{prefix}-copied", elem_classes="isthmus-status")
    parcel = gr.JSON(visible=False)
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    state.change(_appear, state, [row, code, note], queue=False, **quiet)
    for kind, button in buttons.items():
        made = button.click(told(_packer(kind)), state, parcel, concurrency_id="saving", concurrency_limit=2, **quiet)
        made.success(None, parcel, None, js=_DOWNLOAD).then(lambda: None, None, parcel, queue=False, **quiet)
    for button, write, language in ((python, as_python, "python"), (command, as_command, "shell")):
        # In the queue, without which an error is not shown.
        own = {"concurrency_id": "copying", "concurrency_limit": 4}
        copied = button.click(told(_writer(write, language)), state, [code, note], **own, **quiet)
        copied.success(None, code, note, js=_COPY)


def _appear(shown: Shown | None) -> list[Any]:
    """The buttons are there with something to save; what was copied of a former result is not."""
    update = needed("gradio").update
    there = shown is not None
    return [update(visible=there), update(visible=False), update(value=f"<p>{_FILES}</p>", visible=there)]


def _packer(kind: str) -> Callable[[Shown | None], dict[str, str]]:
    def pack(shown: Shown | None) -> dict[str, str]:
        there = _there(shown)
        name, data = (PICTURE, picture_of(there)) if kind == "picture" else file_of(there, kind)
        return {"name": name, "type": KINDS.get(kind, KINDS["png"]), "data": base64.b64encode(data).decode("ascii")}

    return pack


def _writer(write: Callable[..., str], language: str) -> Callable[[Shown | None], list[Any]]:
    def written(shown: Shown | None) -> list[Any]:
        gr, label = needed("gradio"), "Python" if language == "python" else "Command"
        code = gr.Code(write(_there(shown).calls), language=language, label=label, visible=True)
        return [code, gr.update(value="", visible=True)]

    return written


def _there(shown: Shown | None) -> Shown:
    if shown is None:
        raise InputError("There is nothing to save here, since the server has forgotten this visit: explain it again.")
    return shown
