"""Reads pictures with a torchvision `Compose`, and tells from its steps which part of a picture the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from isthmus.encoders.processing import PictureReader
from isthmus.errors import OptionError
from isthmus.explanation import Box

# Steps that leave every pixel where it is.
_COLOURS = ("MaybeConvertMode", "_convert_to_rgb", "_convert_image_to_rgb", "RGB")
_TYPES = ("MaybeToTensor", "ToTensor", "PILToTensor", "ToImage", "ToDtype", "ConvertImageDtype", "Normalize")
_IN_PLACE = {*_COLOURS, *_TYPES}


class ComposeReader(PictureReader):
    """A `Compose` of open_clip or torchvision, in the place of an image processor."""

    def _read(self, image: Image.Image) -> tuple[Tensor, Box]:
        return self._image_processor(image), seen_part(self._image_processor, image.size)

    @property
    def limits(self) -> tuple[Tensor, Tensor]:
        """`(3, 1, 1)` what black and white become."""
        black, white = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
        for step in steps_of(self._image_processor):
            if _name(step) == "Normalize":
                mean, std = (torch.as_tensor(values).float().view(-1, 1, 1) for values in (step.mean, step.std))
                black, white = (black - mean) / std, (white - mean) / std
        return black, white


def steps_of(preprocess: Any) -> Sequence[Any]:
    """The steps of a `Compose`."""
    return getattr(preprocess, "transforms", (preprocess,))


def seen_part(preprocess: Any, size: tuple[int, int]) -> Box:
    """The part of a picture of `(width, height)` that a `Compose` passes on, in the picture's pixels.

    Raises:
        OptionError: a step is none that can be followed, as those that draw at random.
    """
    left, top, right, bottom = 0.0, 0.0, float(size[0]), float(size[1])
    for step in steps_of(preprocess):
        name = _name(step)
        if name in ("CenterCrop", "CenterCropOrPad"):
            wide, high = (right - left) / size[0], (bottom - top) / size[1]  # of one pixel
            height, width = _pair(step.size)
            left, top = left + wide * _start(size[0], width), top + high * _start(size[1], height)
            right, bottom, size = left + wide * width, top + high * height, (width, height)
        elif name == "Resize":
            size = _resized(step, size)
        elif name == "ResizeKeepRatio" and not (step.random_scale_prob or step.random_aspect_prob):
            height, width = step.get_params(SimpleNamespace(size=size), step.size, step.longest)
            size = (width, height)
        elif name not in _IN_PLACE:
            raise OptionError(
                f"The preprocessing has the step {name}, which Isthmus cannot follow: give the one that is made for "
                "inference (the last that open_clip.create_model_and_transforms returns)."
            )
    return Box(left, top, right, bottom)


def _name(step: Any) -> str:
    return str(getattr(step, "__name__", type(step).__name__))


def _pair(size: Any) -> tuple[int, int]:
    """`(height, width)`."""
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    return height, width


def _start(length: int, crop: int) -> int:
    """Where torchvision's centre crop begins; negative where it pads."""
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)


def _resized(step: Any, size: tuple[int, int]) -> tuple[int, int]:
    """`(width, height)` after torchvision's Resize: one number is that of the shorter side."""
    if not isinstance(step.size, int) and len(step.size) == 2:
        return step.size[1], step.size[0]
    shorter = step.size if isinstance(step.size, int) else step.size[0]
    longer = int(shorter * max(size) / min(size))
    most = getattr(step, "max_size", None)
    if most is not None and longer > most:
        shorter, longer = int(most * shorter / longer), most
    return (shorter, longer) if size[0] <= size[1] else (longer, shorter)
