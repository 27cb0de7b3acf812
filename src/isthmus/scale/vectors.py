"""Prompt-free vectors of pictures for the form "vectors", from which the map of any prompt follows later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.pictures import open_picture
from isthmus.explanation import Box, Completeness
from isthmus.frozen import Array
from isthmus.prompts import prompt_free
from isthmus.scale.schema import completeness_row


@dataclass(frozen=True, eq=False)
class PictureVectors:
    """One picture's embedding as a sum over its patches; see `isthmus.prompts.PromptFreeMaps`.

    Attributes:
        vectors: `(P, D)` float32, row by row of the grid.
        rest, closed, open: `(D,)` float32.
        grid: `(rows, columns)`.
        crop, size, input_size: as in `isthmus.explanation.ImageAttribution`.
    """

    vectors: Array
    rest: Array
    closed: Array
    open: Array
    grid: tuple[int, int]
    crop: Box
    size: tuple[int, int]
    input_size: tuple[int, int]

    def row(self, text: Array) -> dict[str, Any]:
        """What a row tells of the picture's side for a text's embedding `(D,)` of length one."""
        length = float(np.linalg.norm(self.open))
        rest, closed, opened = (float(part @ text) / length for part in (self.rest, self.closed, self.open))
        total = float((self.vectors @ text).sum()) / length + rest
        return {
            "vectors": self.vectors.ravel(),
            "vectors_rest": self.rest,
            "vectors_closed": self.closed,
            "vectors_open": self.open,
            "text_embedding": text,
            "image_rows": self.grid[0],
            "image_columns": self.grid[1],
            "image_crop": [self.crop.left, self.crop.top, self.crop.right, self.crop.bottom],
            "image_size": list(self.size),
            "image_input": list(self.input_size),
            "image_rest": rest,
            "similarity": opened,
            **completeness_row("image", Completeness(opened, closed, total)),
        }


def picture_vectors(
    model: DualEncoder, pictures: Sequence[Any], *, batch_size: int = 8, **options: Any
) -> list[PictureVectors]:
    """The vectors of pictures whose inputs have one size.

    Args:
        model: what `isthmus.load` gives.
        pictures: what `isthmus.encoders.pictures.open_picture` takes.
        batch_size: pictures at once.
        options: see `isthmus.methods.vectors.position_vectors`.

    Raises:
        InputError, ModelError, OptionError: as `isthmus.prompt_free`.
    """
    opened = [open_picture(one) for one in pictures]
    found = prompt_free(model, opened, batch_size=batch_size, **options)
    _, frames, _ = model.processing.pictures(opened)
    vectors, rest, closed, open_ = (
        part.float().cpu().numpy() for part in (found.vectors, found.rest, found.closed, found.open)
    )
    return [
        PictureVectors(vectors[i], rest[i], closed[i], open_[i], found.grid, frame.crop, frame.size, frame.input_size)
        for i, frame in enumerate(frames)
    ]
