"""Example pictures to begin with, each with a text."""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from isthmus.app.uploads import read_picture
from isthmus.app.viewer import mounted
from isthmus.drawing.pieces import jpeg

SAMPLES = (
    ("dog", "a dog is tied to a fire hydrant"),
    ("bird", "a seagull flies over the beach"),
    ("horses", "two people ride horses on the beach"),
    ("elephant", "a man stands beside an elephant"),
    ("pizza", "a pizza with tomatoes on a table"),
)
_SIDE = 96


def sample(place: Any) -> tuple[Image.Image, str] | None:
    """The picture and text at a place that a request names; None where there is none."""
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(SAMPLES):
        return None
    name, text = SAMPLES[place]
    return read_picture(_bytes(name)), text


def strip(elem_id: str) -> Any:
    """The examples as a row of small pictures; its event `select` tells the `index` of the one that is chosen."""
    return mounted(elem_id, "samples", _thumbnails())


@cache
def _thumbnails() -> dict[str, Any]:
    items = []
    for name, text in SAMPLES:
        image = Image.open(io.BytesIO(_bytes(name))).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        small = image.crop((left, top, left + side, top + side)).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        items.append({"text": text, "picture": jpeg(np.asarray(small))})
    return {"items": items}


def _bytes(name: str) -> bytes:
    return files("isthmus.app").joinpath("examples", f"{name}.jpg").read_bytes()
