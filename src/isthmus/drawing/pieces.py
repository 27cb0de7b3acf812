"""Pieces of HTML that the pages share: embedded pictures, the boxes over a map, words in colour."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from html import escape
from typing import Any

from isthmus.drawing.heatmap import outlined
from isthmus.drawing.scale import Scale, ink
from isthmus.explanation import Array, ImageAttribution, TextAttribution

# Writes a score as the page does.
Write = Callable[[float], str]


def cells(image: ImageAttribution, write: Write) -> str:
    """The crop's outline, and over each patch an empty box that tells its raw score."""
    (width, height), crop, (rows, columns) = image.size, image.crop, image.scores.shape
    box = (
        f"left:{100 * crop.left / width:.4f}%;top:{100 * crop.top / height:.4f}%;"
        f"width:{100 * (crop.right - crop.left) / width:.4f}%;height:{100 * (crop.bottom - crop.top) / height:.4f}%"
    )
    boxes = "".join(
        f"<i title='row {r + 1}, column {c + 1}: {write(float(image.scores[r, c]))}'></i>"
        for r in range(rows)
        for c in range(columns)
    )
    kind = "crop outlined" if outlined(image) else "crop"
    return f"<div class='{kind}' style='{box};grid-template-columns:repeat({columns},1fr)'>{boxes}</div>"


def words(text: TextAttribution, scale: Scale, write: Write) -> str:
    """The text with its words in colour, each with its score for a pointer, a keyboard and a screen reader."""
    parts, end = [], 0
    for word in text.words:
        colour, value = scale.colour(word.score), write(word.score)
        parts.append(escape(text.text[end : word.start]))
        parts.append(
            f"<span class='word' tabindex='0' style='background:{colour};color:{ink(colour)}' data-score='{value}' "
            f"title='{value}'>{escape(word.text)}<span class='spoken'> {value}</span></span>"
        )
        end = word.end
    return f"<p class='words' dir='auto'>{''.join(parts)}{escape(text.text[end:])}</p>"


def fit(size: tuple[int, int], limit: int) -> tuple[int, int]:
    """A size `(width, height)` shrunk, where need be, to `limit` pixels of its longer side."""
    scale = min(1.0, limit / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def png(array: Array) -> str:
    """A picture as a data URL, without loss."""
    return _data(array, "PNG", optimize=True)


def jpeg(array: Array) -> str:
    """A picture as a small data URL."""
    return _data(array, "JPEG", quality=88)


def _data(array: Array, kind: str, **options: Any) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
