"""Loads transformers' dual encoders: by hub name, from a folder, or as a model object with its processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.dual import DualEncoder, Pictures, Readers
from isthmus.encoders.features import encoder_of, scale_of, takes
from isthmus.encoders.finding import Parts, parts_of
from isthmus.encoders.flat import PatchReader, trimmed
from isthmus.encoders.hub import is_blank, pretrained_model, pretrained_processor, revision_of
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.positions import Patches, patches_of
from isthmus.encoders.processing import PictureReader, interpolates, only_size_of
from isthmus.encoders.reference import EXAMPLE, reference_inputs
from isthmus.encoders.running import Encode
from isthmus.encoders.still import undisturbed
from isthmus.encoders.texts import TextReader, alike
from isthmus.encoders.tower import Inputs, Tower
from isthmus.encoders.weights import device_of, fingerprint, version_of
from isthmus.errors import ModelError, OptionError

MINI = Path(__file__).parent / "mini"
_MINI_NOTICE = (
    "mini is a small CLIP for demonstration and tests: its maps say something about methods, nothing about CLIP."
)
_NO_LIMIT = 1 << 20  # tokenizers without a limit say 1e30
_TEXTS = ("a dog", "a photo of two dogs on the grass")


def load_transformers(
    source: str | Path | nn.Module,
    *,
    processor: Any = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    attention: str | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> DualEncoder:
    """Make a `DualEncoder` of a transformers model; see `isthmus.load`."""
    if isinstance(source, nn.Module):
        model, name, notice = source, getattr(source, "name_or_path", "") or type(source).__name__, ""
        revision = fingerprint(model)
        if processor is None:
            raise OptionError("A model object needs its processor: isthmus.load(model, processor=processor).")
    else:
        name, notice = str(source), _MINI_NOTICE if source == "mini" else ""
        path = str(MINI) if source == "mini" else str(source)
        model = pretrained_model(name, path, dtype=dtype, attention=attention)
        processor = processor or pretrained_processor(name, path)
        revision = revision_of(model, Path(path))
    if device is not None:
        model.to(device)
    seeing, reading = encoder_of(model, "image"), encoder_of(model, "text")
    image_processor, tokenizer = _halves(processor)
    with undisturbed(model), torch.no_grad():
        image, pictures = _image_side(model, seeing, image_processor, _pair(image_size))
        text, texts = _text_side(model, reading, tokenizer)
    processing = Readers(pictures, texts)
    image = replace(image, reference=lambda: reference_inputs(processing, "image"))
    text = replace(text, reference=lambda: reference_inputs(processing, "text"))
    return DualEncoder(name, (revision, version_of(model)), notice, model, image, text, processing, scale_of(model))


def _image_side(
    model: Any, encode: Encode, image_processor: Any, size: tuple[int, int] | None
) -> tuple[Tower, Pictures]:
    device = device_of(model)
    found = image_processor(images=[open_picture(EXAMPLE).image], return_tensors="pt")
    flat = "spatial_shapes" in found
    inputs: dict[str, Any] = trimmed(found) if flat else {"pixel_values": found["pixel_values"]}
    inputs = {name: value.to(device) for name, value in inputs.items()}
    native = _native_size(model, inputs["pixel_values"]) if takes(model, "image", "interpolate_pos_encoding") else None
    if native is not None and inputs["pixel_values"].shape[-2:] != native:
        inputs["interpolate_pos_encoding"] = True
    parts = _image_parts(model, encode, inputs)
    patches = patches_of(encode, inputs, parts, entering="pixel_values")
    tower = parts.tower("image", model, encode, stem_input="pixel_values")
    if flat:
        if size is not None:
            raise OptionError("This model fits its grid of patches to each picture: leave image_size out.")
        cutting = PatchReader(image_processor, patches=patches, device=device)
        return replace(tower, limits=cutting.limits), cutting
    convolutional = parts.entering.ndim == 4
    native, only = _sizes(encode, inputs["pixel_values"], native, parts, patches)
    if size is not None and not convolutional:
        _check_size(size, patches, native)
    reader = PictureReader(
        image_processor,
        patches=patches,
        native_size=native,
        image_size=size,
        device=device,
        convolutional=convolutional,
        only_size=only,
    )
    return replace(tower, limits=reader.limits), reader


def _image_parts(model: Any, encode: Encode, inputs: Inputs) -> Parts:
    pixels = inputs["pixel_values"]
    try:
        return parts_of(model, encode, inputs, side="image", entering="pixel_values")
    except (RuntimeError, ValueError) as error:
        size, known = tuple(pixels.shape[-2:]), _native_size(model, pixels)
        if pixels.ndim != 4 or size == known:
            raise
        raise ModelError(
            f"The image processor gives pictures of {size[1]} x {size[0]} pixels, which the model does not take: set "
            f"the processor's size to {known[1]} x {known[0]}."
        ) from error


def _sizes(
    encode: Encode, pixels: Tensor, native: tuple[int, int] | None, parts: Parts, patches: Patches
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The size that needs no interpolation, None where there is none; and the only size, None where there are more."""
    if native is None:
        return None, only_size_of(encode, pixels, patches.side)
    return (native, None) if interpolates(encode, pixels, patches.side, parts.first) else (None, native)


def _text_side(model: Any, encode: Encode, tokenizer: Any) -> tuple[Tower, TextReader]:
    device = device_of(model)
    masked = "attention_mask" in tokenizer.model_input_names
    most = _most_tokens(model, tokenizer)
    first = TextReader(tokenizer, max_tokens=most, device=device, masked=masked, always_padded=not masked)
    inputs, _, _ = first.texts(_TEXTS[:1], truncate=True)
    with _known_to(model, tokenizer, inputs["input_ids"]):
        parts = parts_of(model, encode, inputs, side="text", entering="input_ids")
    beside, _, _ = first.texts(_TEXTS, truncate=True)
    # a text is to be the same beside a longer one, which it is padded to
    matters = not masked or not alike(encode(inputs)[0], encode(beside)[0])
    reader = TextReader(
        tokenizer, max_tokens=min(most, parts.length or most), device=device, masked=masked, always_padded=matters
    )
    return parts.tower("text", model, encode), reader


def _native_size(model: Any, pixels: Tensor) -> tuple[int, int]:
    """The size that the position embedding was learnt for, where the configuration tells; else that of the example."""
    for name in ("vision_config", "image_config"):
        size = getattr(getattr(getattr(model, "config", None), name, None), "image_size", None)
        if isinstance(size, int):
            return size, size
    return int(pixels.shape[-2]), int(pixels.shape[-1])


def _check_size(size: tuple[int, int], patches: Patches, native: tuple[int, int] | None) -> None:
    if native is None:
        raise OptionError("This model takes pictures of one size: leave image_size out.")
    if any(side < 1 or side % patches.side for side in size):
        raise OptionError(f"image_size={size} must be multiples of the model's patch, {patches.side}.")


def _most_tokens(model: Any, tokenizer: Any) -> int:
    """What the tokenizer was told to cut at, or the configuration's number of positions."""
    config = getattr(model, "config", None)
    config = getattr(config, "text_config", config)
    known = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
    sizes = [int(one) for one in known if isinstance(one, Integral) and one < _NO_LIMIT]
    if not sizes:
        raise ModelError("Neither the tokenizer nor the model tells how long a text may be: set model_max_length.")
    return min(sizes)


def _halves(processor: Any) -> tuple[Any, Any]:
    def part(name: str) -> Any:
        return processor.get(name) if isinstance(processor, Mapping) else getattr(processor, name, None)

    image_processor, tokenizer = part("image_processor"), part("tokenizer")
    if image_processor is None or tokenizer is None:
        raise OptionError("The processor must have an image_processor and a tokenizer, as CLIPProcessor has.")
    if not getattr(tokenizer, "is_fast", False):
        raise OptionError(
            "Words need a fast tokenizer, which knows character offsets: load it with AutoTokenizer.from_pretrained."
        )
    if is_blank(tokenizer):
        raise OptionError(
            "The processor's tokenizer has no word in its vocabulary, as transformers makes one where tokenizer.json "
            "is missing: load it from a folder that has that file."
        )
    return image_processor, tokenizer


@contextmanager
def _known_to(model: nn.Module, tokenizer: Any, ids: Tensor) -> Iterator[None]:
    """Within it, an embedding that is asked for these ids must have a row for each id of the tokenizer's words."""
    added = tokenizer.added_tokens_decoder  # some are for other models, and behind the rows
    highest = max([int(ids.max()), *(i for i in tokenizer.get_vocab().values() if i not in added)])

    def check(module: nn.Embedding, values: tuple[Any, ...]) -> None:
        asked = bool(values) and isinstance(values[0], Tensor) and torch.equal(values[0], ids)
        if asked and highest >= module.num_embeddings:
            raise OptionError(
                f"The tokenizer is another model's: its ids go up to {highest}, but the model's embedding of tokens "
                f"has {module.num_embeddings} rows; take the tokenizer of the model's own checkpoint."
            )

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                hooks.callback(module.register_forward_pre_hook(check).remove)
        yield


def _pair(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, Integral) else size
    whole = isinstance(pair, (tuple, list)) and all(isinstance(side, Integral) for side in pair)
    if not whole or len(pair) != 2:
        raise OptionError(f"image_size must be a whole number or (height, width), not {size!r}.")
    return int(pair[0]), int(pair[1])
