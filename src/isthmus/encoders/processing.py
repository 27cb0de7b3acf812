"""Turns pictures into the inputs of an image tower, and says which part of a picture the model sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from isthmus.encoders.dual import Frame, PreparedImage
from isthmus.encoders.layout import TokenLayout, image_layout
from isthmus.encoders.pictures import Picture
from isthmus.encoders.positions import Patches
from isthmus.encoders.running import Encode, entering_states
from isthmus.encoders.tower import Inputs
from isthmus.encoders.weights import moved
from isthmus.errors import InputError
from isthmus.explanation import Box


class PictureReader:
    """A transformers image processor.

    Args:
        image_processor: resizes, crops and normalises.
        patches: where the tower's patches stand.
        native_size: `(height, width)` for which the position embedding needs no interpolation; None where the tower
            has none, or interpolates without being asked.
        image_size: `(height, width)` to use in place of the processor's, None for the processor's own.
        device: where the inputs go.
        convolutional: whether the tower has a grid of places, not a sequence of patches.
        only_size: `(height, width)` where the tower takes no other.
    """

    def __init__(
        self,
        image_processor: Any,
        *,
        patches: Patches,
        native_size: tuple[int, int] | None,
        image_size: tuple[int, int] | None,
        device: torch.device,
        convolutional: bool = False,
        only_size: tuple[int, int] | None = None,
    ) -> None:
        """Keep the parts; see the class."""
        self._image_processor, self._patches = image_processor, patches
        self._native_size, self._image_size = native_size, image_size
        self._device, self._convolutional, self._only_size = device, convolutional, only_size

    @property
    def _patch(self) -> int:
        return self._patches.side

    def pictures(self, pictures: Sequence[Picture | PreparedImage]) -> tuple[Inputs, list[Frame], list[TokenLayout]]:
        """Inputs, frames and layouts of pictures; all inputs of one batch have one size."""
        values, frames = zip(*map(self._prepare, pictures), strict=True)
        sizes = {tuple(v.shape[-2:]) for v in values}
        if len(sizes) > 1:
            raise InputError(
                f"The model's inputs of these pictures have {len(sizes)} sizes: explain pictures of one size at once "
                "(batch_size=1), or load the model with an image_size."
            )
        height, width = values[0].shape[-2:]
        if self._only_size is not None and any(
            given // self._patch != only // self._patch  # what is left over behind the last patch is not seen
            for given, only in zip((height, width), self._only_size, strict=True)
        ):
            raise InputError(
                "This model takes pictures of {} x {} pixels alone, not {} x {}: prepare them at that size.".format(
                    *self._only_size[::-1], width, height
                )
            )
        inputs: dict[str, Any] = {"pixel_values": moved(torch.stack(values), self._device)}
        if self._native_size is not None and (height, width) != self._native_size:
            inputs["interpolate_pos_encoding"] = True
        patch, found = self._patch, self._patches
        rows, columns = (-(-n // patch) if self._convolutional else n // patch for n in (height, width))
        layout = image_layout((rows, columns), patch=patch, special=found.names_before, after=found.names_after)
        if not self._convolutional:  # where places are convolved, they share the whole input
            frames = tuple(_shrunk(frame, (rows * patch / height, columns * patch / width)) for frame in frames)
        return inputs, list(frames), [layout] * len(values)

    def _prepare(self, picture: Picture | PreparedImage) -> tuple[Tensor, Frame]:
        if isinstance(picture, PreparedImage):
            values = self._checked(picture.pixel_values)
            height, width = values.shape[-2:]
            return values, Frame(Box(0.0, 0.0, float(width), float(height)), (width, height), (height, width))
        values, crop = self._read(picture.image)
        return values, Frame(crop, picture.image.size, (int(values.shape[-2]), int(values.shape[-1])))

    def _read(self, image: Image.Image) -> tuple[Tensor, Box]:
        """`(3, height, width)` values of a picture, and the part of it that they show."""
        options: dict[str, bool] = {}
        crop = seen_part(self._image_processor, image.size)
        if self._image_size is not None:
            height, width = self._image_size
            crop = covering_part(image.size, self._image_size)
            resample = getattr(self._image_processor, "resample", None) or Image.Resampling.BICUBIC
            corners = (crop.left, crop.top, crop.right, crop.bottom)
            image = image.resize((width, height), Image.Resampling(int(resample)), box=corners)
            options = {"do_resize": False, "do_center_crop": False}
            if getattr(self._image_processor, "do_pad", False):
                options["do_pad"] = False
        return self._image_processor(images=image, return_tensors="pt", **options)["pixel_values"][0], crop

    def _checked(self, values: Tensor) -> Tensor:
        if not isinstance(values, Tensor) or values.ndim != 3 or values.shape[0] != 3 or not values.is_floating_point():
            raise InputError(
                "A PreparedImage holds a tensor of normalised pixel values of shape (3, height, width), not "
                f"{getattr(values, 'dtype', type(values).__name__)} of {tuple(getattr(values, 'shape', ()))}."
            )
        uneven = not self._convolutional and (values.shape[1] % self._patch or values.shape[2] % self._patch)
        if not values.numel() or uneven:
            raise InputError(
                f"A PreparedImage of {values.shape[1]} x {values.shape[2]} pixels cannot be cut into patches of "
                f"{self._patch}: make both sides multiples of {self._patch}."
            )
        if not bool(torch.isfinite(values).all()):
            raise InputError("A PreparedImage holds values that are NaN or infinite: check its normalisation.")
        return values.detach().to("cpu")

    @cached_property
    def limits(self) -> tuple[Tensor, Tensor]:
        """`(3, 1, 1)` what black and white become."""
        return limits_of(self._image_processor)

    def shown(self, prepared: PreparedImage) -> Picture:
        """Undo the normalisation, to draw on what the model saw."""
        values = prepared.pixel_values.detach().to("cpu", torch.float32)
        black, white = self.limits
        pixels = (((values - black) / (white - black)).clamp(0, 1) * 255).round().to(torch.uint8)
        return Picture(Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())), "")


def interpolates(encode: Encode, pixels: Tensor, side: int, first: nn.Module) -> bool:
    """Whether a tower that names `interpolate_pos_encoding` heeds it: AIMv2 names it in vain.

    Args:
        encode: the tower's own code.
        pixels: `(1, 3, H, W)` of an example.
        side: of a patch.
        first: the tower's first block, before which the run ends.
    """
    larger = pixels.new_zeros(1, 3, pixels.shape[-2] + side, pixels.shape[-1] + side)
    try:
        entering_states(encode, {"pixel_values": larger, "interpolate_pos_encoding": True}, first)
    except Exception:  # a model may refuse in any way
        return False
    return True


def only_size_of(encode: Encode, pixels: Tensor, side: int) -> tuple[int, int] | None:
    """The size `(height, width)` of an example's pixels, where a tower takes no picture that is a patch larger."""
    height, width = pixels.shape[-2:]
    larger = pixels.new_zeros(1, 3, height + side, width + side)
    try:
        encode({"pixel_values": larger})
    except Exception:  # a model may refuse in any way
        return int(height), int(width)
    return None


def limits_of(image_processor: Any) -> tuple[Tensor, Tensor]:
    """`(3, 1, 1)` what an image processor makes of black and of white: it is asked, as each computes in its way."""
    black, white = (_colour_of(image_processor, level) for level in (0, 255))
    return black, white


def _colour_of(image_processor: Any, level: int) -> Tensor:
    picture = Image.new("RGB", (64, 64), (level, level, level))
    values: Tensor = image_processor(images=[picture], return_tensors="pt")["pixel_values"][0].float()
    if values.ndim == 2:  # flat patches, the colours of one pixel side by side
        return values[0, :3, None, None].clone()
    height, width = values.shape[-2:]
    return values[:, height // 2, width // 2, None, None].clone()  # a centre crop may pad the edges


def _shrunk(frame: Frame, used: tuple[float, float]) -> Frame:
    """Patches cover `used` of the input's height and width; what is left over at the end is not seen."""
    crop = frame.crop
    bottom = crop.top + (crop.bottom - crop.top) * used[0]
    right = crop.left + (crop.right - crop.left) * used[1]
    return frame if used == (1, 1) else replace(frame, crop=Box(crop.left, crop.top, right, bottom))


def _get(size: Any, name: str) -> int | None:
    return size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)


def seen_part(processor: Any, size: tuple[int, int]) -> Box:
    """The part of a picture of `(width, height)` that an image processor passes on, in the picture's pixels."""
    width, height = size
    new_width, new_height = width, height
    if getattr(processor, "do_resize", False):
        shortest = _get(processor.size, "shortest_edge")
        if shortest:
            short, long = min(size), max(size)
            new_long = int(shortest * long / short)
            new_width, new_height = (shortest, new_long) if width <= height else (new_long, shortest)
        else:
            new_height = _get(processor.size, "height") or height
            new_width = _get(processor.size, "width") or width
    if not getattr(processor, "do_center_crop", False):
        if getattr(processor, "do_pad", False):  # OWLv2 pads to a square, below and at the right
            return Box(0.0, 0.0, float(max(size)), float(max(size)))
        return Box(0.0, 0.0, float(width), float(height))
    crop_height = _get(processor.crop_size, "height") or new_height
    crop_width = _get(processor.crop_size, "width") or new_width
    left, top = _crop_start(new_width, crop_width), _crop_start(new_height, crop_height)
    sx, sy = width / new_width, height / new_height
    return Box(left * sx, top * sy, (left + crop_width) * sx, (top + crop_height) * sy)


def _crop_start(length: int, crop: int) -> int:
    """Where transformers' centre crop begins; negative where it pads."""
    return (length - crop) // 2 if length >= crop else -math.ceil((crop - length) / 2)


def covering_part(size: tuple[int, int], input_size: tuple[int, int]) -> Box:
    """The largest centred part of a picture of `(width, height)` with the aspect of `(height, width)`."""
    width, height = size
    scale = min(width / input_size[1], height / input_size[0])
    w, h = input_size[1] * scale, input_size[0] * scale
    left, top = max(0.0, (width - w) / 2), max(0.0, (height - h) / 2)  # rounding may lead outside
    return Box(left, top, min(left + w, width), min(top + h, height))
