"""Gradio's components where they would read a visitor's file, or fetch an address, before this package sees it."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from PIL import Image

from isthmus.app.sentences import told
from isthmus.app.uploads import read_upload
from isthmus.errors import InputError


class PictureInput(gr.Image):
    """A picture from a visitor: its event functions get an RGB picture, read by `isthmus.app.uploads`, or None."""

    is_template = True  # Gradio shows it as its own picture component

    @told
    def preprocess(self, payload: ImageData | None) -> Image.Image | None:
        """The picture of an uploaded file. Raises `gr.Error`, one sentence, where it cannot be used."""
        if payload is None:
            return None
        if not payload.path:  # such as a data URL in a request that no page sends
            raise InputError("This picture did not arrive: give it again.")
        return read_upload(payload.path, self.GRADIO_CACHE)


def refuse_addresses() -> None:
    """Make Gradio refuse, in this process, the addresses that a request gives in place of files: it would fetch them.

    A page never sends any, but whoever can reach the server could have it ask other servers.
    """
    from gradio import processing_utils

    async def refused(url: str) -> Any:  # noqa: ARG001
        raise gr.Error("Addresses are not fetched: give a file.", print_exception=False)

    processing_utils.async_ssrf_protected_get = refused
