"""Makes the inputs of transformers' dual encoders, and says which part of a picture the model sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from isthmus.encoders.dual import Frame, PreparedImage
from isthmus.encoders.layout import TokenLayout, image_layout, text_layout
from isthmus.encoders.pictures import Picture
from isthmus.encoders.tower import Inputs
from isthmus.encoders.weights import lock_of
from isthmus.errors import InputError
from isthmus.explanation import Box


class TransformersProcessing:
    """A transformers image processor and fast tokenizer behind `Processing`.

    Args:
        image_processor: resizes, crops and normalises.
        tokenizer: a fast tokenizer, since words need character offsets.
        patch: side of a patch in pixels.
        max_tokens: positions that the text tower has.
        native_size: `(height, width)` for which the position embedding needs no interpolation.
        image_size: `(height, width)` to use in place of the processor's, None for the processor's own.
        device: where the inputs go.
    """

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        *,
        patch: int,
        max_tokens: int,
        native_size: tuple[int, int],
        image_size: tuple[int, int] | None,
        device: torch.device,
    ) -> None:
        """Keep the parts; see the class."""
        self._image_processor, self._tokenizer = image_processor, tokenizer
        self._patch, self._native_size, self._image_size = patch, native_size, image_size
        self._max_tokens = min(max_tokens, tokenizer.model_max_length)
        self._device = device

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
        inputs: dict[str, Any] = {"pixel_values": torch.stack(values).to(self._device)}
        if (height, width) != self._native_size:
            inputs["interpolate_pos_encoding"] = True
        rows, columns = height // self._patch, width // self._patch
        layout = image_layout((rows, columns), patch=self._patch)
        used = (rows * self._patch / height, columns * self._patch / width)
        return inputs, [_shrunk(frame, used) for frame in frames], [layout] * len(values)

    def _prepare(self, picture: Picture | PreparedImage) -> tuple[Tensor, Frame]:
        if isinstance(picture, PreparedImage):
            values = self._checked(picture.pixel_values)
            height, width = values.shape[-2:]
            return values, Frame(Box(0.0, 0.0, float(width), float(height)), (width, height), (height, width))
        image, options = picture.image, {}
        crop = seen_part(self._image_processor, image.size)
        if self._image_size is not None:
            height, width = self._image_size
            crop = covering_part(image.size, self._image_size)
            resample = getattr(self._image_processor, "resample", None) or Image.Resampling.BICUBIC
            corners = (crop.left, crop.top, crop.right, crop.bottom)
            image = image.resize((width, height), Image.Resampling(int(resample)), box=corners)
            options = {"do_resize": False, "do_center_crop": False}
        values = self._image_processor(images=image, return_tensors="pt", **options)["pixel_values"][0]
        return values, Frame(crop, picture.image.size, (int(values.shape[-2]), int(values.shape[-1])))

    def _checked(self, values: Tensor) -> Tensor:
        if not isinstance(values, Tensor) or values.ndim != 3 or values.shape[0] != 3 or not values.is_floating_point():
            raise InputError(
                "A PreparedImage holds a tensor of normalised pixel values of shape (3, height, width), not "
                f"{getattr(values, 'dtype', type(values).__name__)} of {tuple(getattr(values, 'shape', ()))}."
            )
        if not values.numel() or values.shape[1] % self._patch or values.shape[2] % self._patch:
            raise InputError(
                f"A PreparedImage of {values.shape[1]} x {values.shape[2]} pixels cannot be cut into patches of "
                f"{self._patch}: make both sides multiples of {self._patch}."
            )
        if not bool(torch.isfinite(values).all()):
            raise InputError("A PreparedImage holds values that are NaN or infinite: check its normalisation.")
        return values.detach().to("cpu")

    @property
    def limits(self) -> tuple[Tensor, Tensor]:
        """`(3, 1, 1)` what black and white become."""
        mean = torch.tensor(self._image_processor.image_mean)[:, None, None]
        std = torch.tensor(self._image_processor.image_std)[:, None, None]
        return -mean / std, (1 - mean) / std

    def shown(self, prepared: PreparedImage) -> Picture:
        """Undo the normalisation, to draw on what the model saw."""
        values = prepared.pixel_values.detach().to("cpu", torch.float32)
        black, white = self.limits
        pixels = (((values - black) / (white - black)).clamp(0, 1) * 255).round().to(torch.uint8)
        return Picture(Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())), "")

    def texts(self, texts: Sequence[str], *, truncate: bool) -> tuple[Inputs, list[TokenLayout], list[str]]:
        """Token ids padded to the longest text, their layouts, and a note where a text was cut or is cut off."""
        with lock_of(self._tokenizer):  # a fast tokenizer keeps padding and truncation as its state
            return self._texts(texts, truncate=truncate)

    def _texts(self, texts: Sequence[str], *, truncate: bool) -> tuple[Inputs, list[TokenLayout], list[str]]:
        full = [self._encode(text) for text in texts]
        notes = []
        for text, ids in zip(texts, full, strict=True):
            if len(ids) > self._max_tokens and not truncate:
                raise InputError(
                    f"The text {_short(text)} has {len(ids)} tokens with its start and end, but the model reads at "
                    f"most {self._max_tokens}: shorten it, or pass truncate=True (--truncate)."
                )
            cut = len(ids) > self._max_tokens
            notes.append(f"cut from {len(ids)} to {self._max_tokens} tokens" if cut else "")
        batch = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._max_tokens,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        layouts = [self._layout(text, i, batch) for i, text in enumerate(texts)]
        for i, (text, layout) in enumerate(zip(texts, layouts, strict=True)):
            if not layout.pieces:
                raise InputError(f"The text {_short(text)} is empty for this model: give at least one word.")
            early = self._early_end(layout, batch["input_ids"][i])
            notes[i] = "; ".join(filter(None, (notes[i], early)))
        inputs = {name: batch[name].to(self._device) for name in ("input_ids", "attention_mask")}
        return inputs, layouts, notes

    def _encode(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise InputError(f"A text must be a string, not {type(text).__name__}.")
        if not text.strip():
            raise InputError("The text is empty: give at least one word.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"The text {_short(text)} is not valid Unicode: save it as UTF-8.") from error
        ids: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
        return ids

    def _layout(self, text: str, row: int, batch: Any) -> TokenLayout:
        seen: set[str | None] = set()
        names: list[str | None] = []
        for token, special, kept in zip(
            batch["input_ids"][row].tolist(),
            batch["special_tokens_mask"][row].tolist(),
            batch["attention_mask"][row].tolist(),
            strict=True,
        ):
            name = None if kept and not special else "PAD" if not kept else self._special_name(token, seen)
            seen.add(name)
            names.append(name)
        return text_layout(text, [tuple(o) for o in batch["offset_mapping"][row].tolist()], names)

    def _special_name(self, token: int, seen: set[str | None]) -> str:
        if token == self._tokenizer.bos_token_id and "BOS" not in seen:
            return "BOS"
        return "EOS" if token == self._tokenizer.eos_token_id else self._tokenizer.convert_ids_to_tokens(token)

    def _early_end(self, layout: TokenLayout, ids: Tensor) -> str:
        """CLIP reads a text only up to its first end-of-text id, which unknown characters may bear too."""
        ends = [p.start for p in layout.pieces if int(ids[p.position]) == self._tokenizer.eos_token_id]
        if not ends:
            return ""
        return f"the model stops reading at character {ends[0]}, which it takes for the end of the text"


def _shrunk(frame: Frame, used: tuple[float, float]) -> Frame:
    """Patches cover `used` of the input's height and width; what is left over at the end is not seen."""
    crop = frame.crop
    bottom = crop.top + (crop.bottom - crop.top) * used[0]
    right = crop.left + (crop.right - crop.left) * used[1]
    return frame if used == (1, 1) else replace(frame, crop=Box(crop.left, crop.top, right, bottom))


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


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
    left, top = (width - w) / 2, (height - h) / 2
    return Box(left, top, min(left + w, width), min(top + h, height))
