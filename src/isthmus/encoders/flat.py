"""Reads pictures for towers that take them cut into patches, of a grid that follows the picture (SigLIP 2 NaFlex)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.dual import Frame, PreparedImage
from isthmus.encoders.layout import TokenLayout, image_layout
from isthmus.encoders.pictures import Picture
from isthmus.encoders.positions import Patches
from isthmus.encoders.processing import limits_of
from isthmus.encoders.tower import Inputs
from isthmus.encoders.weights import moved
from isthmus.errors import InputError
from isthmus.explanation import Box

_UNPREPARED = "This model cuts pictures into patches of its own: give a picture, not a PreparedImage."


class PatchReader:
    """An image processor that gives patches `(N, values)`, a mask of those that are there, and the grid's shape.

    Args:
        image_processor: resizes whole pictures, normalises, cuts and pads to `max_num_patches`.
        patches: where the tower's patches stand.
        device: where the inputs go.
    """

    def __init__(self, image_processor: Any, *, patches: Patches, device: torch.device) -> None:
        """Keep the parts; see the class."""
        self._image_processor, self._patches, self._device = image_processor, patches, device

    def pictures(self, pictures: Sequence[Picture | PreparedImage]) -> tuple[Inputs, list[Frame], list[TokenLayout]]:
        """Inputs, frames and layouts of pictures, padded to the one with the most patches."""
        if any(isinstance(picture, PreparedImage) for picture in pictures):
            raise InputError(_UNPREPARED)
        images = [picture.image for picture in pictures if isinstance(picture, Picture)]
        found = self._image_processor(images=images, return_tensors="pt")
        inputs = trimmed(found)
        grids = [(int(rows), int(columns)) for rows, columns in inputs["spatial_shapes"].tolist()]
        side = self._patches.side
        layouts = [image_layout(grid, patch=side, special=()) for grid in grids]
        frames = [
            Frame(Box(0.0, 0.0, float(w), float(h)), (w, h), (rows * side, columns * side))
            for (w, h), (rows, columns) in zip((image.size for image in images), grids, strict=True)
        ]
        return {name: moved(value, self._device) for name, value in inputs.items()}, frames, layouts

    @property
    def limits(self) -> tuple[Tensor, Tensor]:
        """`(values,)` what black and white become, in a patch."""
        black, white = (one.flatten().repeat(self._patches.side**2) for one in limits_of(self._image_processor))
        return black, white

    def shown(self, _: PreparedImage) -> Picture:
        """None is: see `pictures`."""
        raise InputError(_UNPREPARED)


def trimmed(found: Any) -> dict[str, Tensor]:
    """A processor's output without padding that no picture of the batch needs."""
    longest = int(found["spatial_shapes"].prod(-1).max())
    return {
        "pixel_values": found["pixel_values"][:, :longest],
        "pixel_attention_mask": found["pixel_attention_mask"][:, :longest],
        "spatial_shapes": found["spatial_shapes"],
    }
