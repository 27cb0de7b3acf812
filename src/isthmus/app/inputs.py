"""Gradio's components where they would read a visitor's file, or fetch an address, before this package sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles
from PIL import Image

from isthmus.app.sentences import Refused, sentence, told
from isthmus.app.stored import Stored
from isthmus.app.uploads import Gathered, gather, read_upload
from isthmus.errors import InputError


def _picture(self: Any, payload: ImageData | None) -> Image.Image | Refused | None:
    """The picture. One that cannot be read is no error here, where every event that has it would end with it."""
    if payload is None:
        return None
    try:
        if not payload.path:  # such as a data URL in a request that no page sends
            raise InputError("This picture did not arrive: give it again.")
        picture = read_upload(payload.path, self.GRADIO_CACHE)
        Stored(picture, Path(payload.path).read_bytes())  # what is kept of it
        return picture
    except Exception as error:
        return Refused(sentence(error))


@told
def _files(self: Any, payload: ListFiles | FileData | None) -> Gathered | None:
    if payload is None:
        return None
    files = list(payload) if isinstance(payload, ListFiles) else [payload]
    if not files:
        return None
    return gather([file.path for file in files], self.GRADIO_CACHE, names=[file.orig_name for file in files])


def _reading(base: type, name: str, doc: str, preprocess: Callable[..., Any]) -> Any:
    """A component with its own way to read; Gradio shows it as the one that it is based on (`is_template`).

    It is not made by a class statement, for which Gradio writes a stub file beside the source.
    """
    attributes = {"__module__": __name__, "__doc__": doc, "is_template": True, "preprocess": preprocess}
    return type.__new__(type(base), name, (base,), attributes)


PictureInput = _reading(
    gr.Image,
    "PictureInput",
    "A picture from a visitor: event functions get it as RGB, read by `isthmus.app.uploads`, a `Refused`, or None.",
    _picture,
)
FilesInput = _reading(
    gr.File,
    "FilesInput",
    "Pictures and zips of pictures from a visitor: event functions get what `uploads.gather` found, or None.",
    _files,
)


def refuse_addresses() -> None:
    """Make Gradio refuse, in this process, the addresses that a request gives in place of files: it would fetch them.

    A page never sends any, but whoever can reach the server could have it ask other servers.
    """
    from gradio import processing_utils

    async def refused(url: str) -> Any:  # noqa: ARG001
        raise gr.Error("Addresses are not fetched: give a file.", print_exception=False)

    processing_utils.async_ssrf_protected_get = refused
