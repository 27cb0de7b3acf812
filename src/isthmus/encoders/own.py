"""A dual encoder of two towers that a user has described by hand, with what makes their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.dual import DualEncoder, Readers
from isthmus.encoders.finding import patch_side
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.positions import patches_of
from isthmus.encoders.processing import PictureReader, only_size_of
from isthmus.encoders.reference import EXAMPLE, reference_inputs
from isthmus.encoders.running import Encode, calls_of
from isthmus.encoders.still import undisturbed
from isthmus.encoders.texts import TextReader, alike
from isthmus.encoders.tokens import Tokens
from isthmus.encoders.tower import Inputs, Tower
from isthmus.encoders.weights import device_of, fingerprint, version_of
from isthmus.errors import ModelError, OptionError

_TEXTS = ("a dog", "a photo of two dogs on the grass")


def from_towers(
    image: Tower,
    text: Tower,
    *,
    image_processor: Any,
    tokenizer: Any,
    max_tokens: int,
    pad: int = 0,
    padding_side: str = "right",
    patch: int | None = None,
    name: str = "",
    scale: Callable[[], Tensor] | None = None,
) -> DualEncoder:
    """Make a dual encoder of two towers described by hand.

    The image tower is given `pixel_values` `(B, 3, H, W)`; the text tower `input_ids` `(B, T)` and `attention_mask`
    `(B, T)`, 1 for tokens and 0 for padding. Where patches stand, and whether padding changes a text, is found by
    running the towers.

    Args:
        image, text: the towers; of one model, or of two.
        image_processor: `isthmus.image_processor(...)`, or any image processor of transformers that resizes all
            pictures to one size.
        tokenizer: a function from a text to its tokens `(id, start, end)`, in order, start and end its characters in
            the text, equal for tokens that stand for none (BOS, EOS); or a fast tokenizer of transformers.
        max_tokens: how many positions a text may have.
        pad, padding_side: id of padding, and the side of the text where it stands, "right" or "left"; a tokenizer of
            transformers brings its own.
        patch: side of a patch in pixels, for a tower that cuts the picture up without a convolution.
        name: what results call the model.
        scale: reads the factor of the model's softmax over texts; None where it has none.

    Raises:
        ModelError: a tower cannot be cut, its patches do not stand row by row, or the towers have no joint space.
        OptionError: a tokenizer or image processor of another kind.
    """
    if (image.side, text.side) != ("image", "text"):
        raise OptionError("from_towers takes the image tower first, then the text tower.")
    model = image.model if image.model is text.model else nn.ModuleDict({"image": image.model, "text": text.model})
    with undisturbed(model), torch.no_grad():
        pictures, seen = _pictures(image, image_processor, patch)
        if not callable(tokenizer):
            raise OptionError("tokenizer must be a function from a text to its tokens, or a tokenizer of transformers.")
        if not hasattr(tokenizer, "model_input_names"):
            tokenizer = Tokens(tokenizer, pad=pad, padding_side=padding_side)
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, Integral) or max_tokens < 1:
            raise OptionError(f"max_tokens must be a whole number of 1 or more, not {max_tokens!r}.")
        text, texts, read = _texts(text, tokenizer, int(max_tokens))
    if seen.shape[1:] != read.shape[1:]:
        raise ModelError(
            f"The towers have no joint space: encode gives {tuple(seen.shape)} for one picture and "
            f"{tuple(read.shape)} for one text."
        )
    processing = Readers(pictures, texts)
    image = replace(image, limits=image.limits or pictures.limits, stem_input="pixel_values")
    image = replace(image, reference=image.reference or (lambda: reference_inputs(processing, "image")))
    text = replace(text, reference=text.reference or (lambda: reference_inputs(processing, "text")))
    name = name or " and ".join(dict.fromkeys(type(one.model).__name__ for one in (image, text)))
    return DualEncoder(name, (fingerprint(model), version_of(model)), "", model, image, text, processing, scale)


def image_processor(
    size: int | tuple[int, int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    crop: bool = True,
    resample: int = 3,
) -> Any:
    """Make an image processor for `from_towers`: resizes, divides by 255, subtracts the mean, divides by the deviation.

    Args:
        size: of the model's input, a number or `(height, width)`.
        mean, std: of red, green and blue, where black is 0 and white is 1.
        crop: resize the shorter side and take the centre, which needs a square; else the picture is pressed into the
            size.
        resample: Pillow's number of the filter; 3 is bicubic, 2 bilinear.

    Raises:
        OptionError: a size, mean or deviation of another kind, or a centre crop that is no square.
    """
    height, width = _two_of(size)
    for name, values in (("mean", mean), ("std", std)):
        if not _are(values, 3, Real):
            raise OptionError(f"{name} must be three numbers, of red, green and blue, not {values!r}.")
    if crop and height != width:
        raise OptionError(f"A centre crop is a square here: give one number as size, or crop=False for {size}.")
    return _on_pillow()(
        size={"shortest_edge": height} if crop else {"height": height, "width": width},
        crop_size={"height": height, "width": width},
        do_center_crop=crop,
        resample=resample,
        image_mean=list(mean),
        image_std=list(std),
    )


def _two_of(size: Any) -> tuple[int, int]:
    two = (size, size) if isinstance(size, Integral) else size
    if not _are(two, 2, Integral) or min(two) < 1:
        raise OptionError(f"size must be a whole number of pixels, or (height, width), not {size!r}.")
    return int(two[0]), int(two[1])


def _are(values: Any, count: int, kind: type) -> bool:
    numbers = [*values] if isinstance(values, Iterable) else []
    return len(numbers) == count and all(isinstance(one, kind) and not isinstance(one, bool) for one in numbers)


def _on_pillow() -> Any:
    """transformers 5 keeps its image processors on Pillow apart; transformers 4 has no others by this name."""
    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    except ImportError:
        from transformers import CLIPImageProcessor

        return CLIPImageProcessor
    return CLIPImageProcessorPil


def _pictures(tower: Tower, image_processor: Any, patch: int | None) -> tuple[PictureReader, Tensor]:
    """The reader of pictures, and the embedding of an example."""
    if not callable(image_processor) or not hasattr(image_processor, "do_resize"):
        raise OptionError(
            "image_processor must be isthmus.image_processor(size, mean=..., std=...), or one of transformers, which "
            "tell which part of a picture the model sees."
        )
    device = device_of(tower.model)
    found = image_processor(images=[open_picture(EXAMPLE).image], return_tensors="pt")
    inputs = {"pixel_values": found["pixel_values"].to(device)}
    calls, _ = calls_of(tower.model, tower.encode, inputs)
    entering, last = tower.split(inputs, 0), tower.split(inputs, tower.depth)
    parts: Any = SimpleNamespace(  # what `patches_of` reads of `finding.Parts`
        first=tower.blocks[0],
        entering=entering.hidden,
        leaving=last.hidden,
        patch=patch or patch_side(calls, inputs["pixel_values"]),
        sequence_first=tower.sequence_first,
    )
    patches = patches_of(tower.encode, inputs, parts, entering="pixel_values")
    reader = PictureReader(
        image_processor,
        patches=patches,
        native_size=None,
        image_size=None,
        device=device,
        convolutional=entering.hidden.ndim == 4,
        only_size=only_size_of(tower.encode, inputs["pixel_values"], patches.side),
    )
    return reader, entering.embedding


def _texts(tower: Tower, tokenizer: Any, max_tokens: int) -> tuple[Tower, TextReader, Tensor]:
    """The tower, the reader of its texts, and the embedding of an example."""
    device = device_of(tower.model)
    first = TextReader(tokenizer, max_tokens=max_tokens, device=device)
    inputs, _, _ = first.texts(_TEXTS[:1], truncate=True)
    split = tower.split(inputs, 0)
    if split.hidden.shape[1] != inputs["input_ids"].shape[1]:
        raise ModelError(
            f"{inputs['input_ids'].shape[1]} tokens enter the text tower, but its blocks read {split.hidden.shape[1]} "
            "positions: Isthmus must know what each position is, so let the tokenizer give all of them."
        )
    masked = _heeds_mask(tower, first)
    beside: Inputs = first.texts(_TEXTS, truncate=True)[0]
    padded = not alike(split.embedding[0], tower.embed(beside)[0])
    reader = TextReader(tokenizer, max_tokens=max_tokens, device=device, masked=masked, always_padded=padded)
    return tower if masked else replace(tower, encode=_unmasked(tower.encode)), reader, split.embedding


def _heeds_mask(tower: Tower, reader: TextReader) -> bool:
    """Whether a token that the mask leaves out changes a text; taken for granted where all texts are one token."""
    for text in _TEXTS:
        inputs, layouts, _ = reader.texts([text], truncate=True)
        without = inputs["attention_mask"].clone()
        without[0, layouts[0].pieces[0].position] = 0
        if without.any():  # of no token at all, no model gives an embedding
            return not alike(tower.embed(inputs)[0], tower.embed({**inputs, "attention_mask": without})[0])
    return True


def _unmasked(encode: Encode) -> Encode:
    """Code that asks for a mask, which it does not heed; the inputs have none, so that no method masks in vain."""

    def given(inputs: Inputs) -> Tensor:
        return encode({"attention_mask": torch.ones_like(inputs["input_ids"]), **inputs})

    return given
