"""Loads open_clip's models: by name and weights, or as a model object with its preprocessing and tokenizer."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.compose import ComposeReader
from isthmus.encoders.dual import DualEncoder, Readers
from isthmus.encoders.features import scale_of
from isthmus.encoders.finding import parts_of
from isthmus.encoders.open_clip_texts import OpenClipTexts
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.positions import patches_of
from isthmus.encoders.reference import EXAMPLE, reference_inputs
from isthmus.encoders.still import undisturbed
from isthmus.encoders.tower import Inputs, Tower
from isthmus.encoders.weights import device_of, fingerprint, version_of
from isthmus.errors import ModelError, OptionError
from isthmus.extras import needed

PREFIX = "open_clip:"
_WITH_OWN_WEIGHTS = ("hf-hub:", "local-dir:")
_EXAMPLE_TEXT = "a photo of two dogs on the grass"


def is_open_clip(model: Any) -> bool:
    """Whether this is a name of an open_clip model, or an object with its interface."""
    if isinstance(model, nn.Module):
        own = all(callable(getattr(model, name, None)) for name in ("encode_image", "encode_text"))
        return own and not hasattr(model, "get_image_features")
    return isinstance(model, str) and model.startswith(PREFIX)


def load_open_clip(
    source: str | nn.Module,
    *,
    processor: Any = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> DualEncoder:
    """Make a `DualEncoder` of an open_clip model; see `isthmus.load`."""
    if isinstance(source, nn.Module):
        if image_size is not None:
            raise OptionError("This model takes pictures of one size: make it in open_clip with force_image_size.")
        model, name, (preprocess, tokenizer) = source, f"open_clip {type(source).__name__}", _pair(processor)
    else:
        if processor is not None:
            raise OptionError("An open_clip model that is loaded by name has its own processor: leave it out.")
        name = source
        model, preprocess, tokenizer = _pretrained(source.removeprefix(PREFIX), image_size)
        model.to(dtype or torch.float32).eval()
    if device is not None:
        model.to(device)
    with undisturbed(model), torch.no_grad():
        image, pictures = _image_side(model, preprocess)
        text, texts = _text_side(model, tokenizer)
    readers = Readers(pictures, texts)
    image = replace(image, reference=lambda: reference_inputs(readers, "image"))
    text = replace(text, reference=lambda: reference_inputs(readers, "text"))
    return DualEncoder(name, (fingerprint(model), version_of(model)), "", model, image, text, readers, scale_of(model))


def _pair(processor: Any) -> tuple[Any, Any]:
    if not isinstance(processor, (tuple, list)) or len(processor) != 2 or not all(map(callable, processor)):
        raise OptionError(
            "An open_clip model needs its preprocessing and its tokenizer: isthmus.load(model, processor=(preprocess, "
            "tokenizer)), the last that open_clip.create_model_and_transforms returns and open_clip.get_tokenizer."
        )
    if hasattr(processor[0], "context_length") or hasattr(processor[1], "transforms"):
        raise OptionError("The tokenizer stands first: swap the two, processor=(preprocess, tokenizer).")
    return processor[0], processor[1]


def _pretrained(name: str, image_size: int | tuple[int, int] | None) -> tuple[Any, Any, Any]:
    """A model with its weights, its preprocessing and its tokenizer. Raises ModelError, OptionError."""
    open_clip = needed("open_clip")
    tag = None
    if not name.startswith(_WITH_OWN_WEIGHTS):
        name, _, tag = name.partition("/")
        _check_name(open_clip, name, tag)
    options: dict[str, Any] = {} if image_size is None else {"force_image_size": image_size}
    if tag is not None and (open_clip.pretrained.get_pretrained_cfg(name, tag) or {}).get("quick_gelu"):
        options["force_quick_gelu"] = True  # open_clip would only warn that it makes another network than was trained
    try:
        model, preprocess = open_clip.create_model_from_pretrained(name, tag, **options)
        return model, preprocess, open_clip.get_tokenizer(name)
    except Exception as error:  # a file of somebody else's can fail in any way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        given = name if tag is None else f"{name}/{tag}"
        raise ModelError(
            f"open_clip cannot load {given!r}: {reason.rstrip('.')}; check the name, the file and the network."
        ) from error


def _check_name(open_clip: Any, name: str, tag: str) -> None:
    if name not in open_clip.list_models():
        near = difflib.get_close_matches(name, open_clip.list_models(), 3) or ["ViT-B-32", "RN50"]
        raise ModelError(f"open_clip has no model {name!r}: try one of open_clip.list_models(), as {', '.join(near)}.")
    if not open_clip.pretrained.get_pretrained_cfg(name, tag) and not Path(tag).is_file():
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise ModelError(
            f"open_clip has no weights {tag!r} of {name}: name them as in {PREFIX}{name}/WEIGHTS, where WEIGHTS is a "
            f"file{' or one of ' * bool(tags)}{', '.join(tags)}."
        )


def _image_side(model: Any, preprocess: Any) -> tuple[Tower, ComposeReader]:
    dtype = _type_of_pixels(model)

    def encode(inputs: Inputs) -> Tensor:
        return _embedding(model.encode_image(inputs["pixel_values"].to(dtype()), normalize=False))

    device = device_of(model)
    inputs = {"pixel_values": preprocess(open_picture(EXAMPLE).image)[None].to(device)}
    parts = parts_of(model, encode, inputs, side="image", entering="pixel_values")
    patches = patches_of(encode, inputs, parts, entering="pixel_values")
    reader = ComposeReader(
        preprocess,
        patches=patches,
        native_size=None,
        image_size=None,
        device=device,
        convolutional=parts.entering.ndim == 4,
    )
    tower = parts.tower("image", model, encode, stem_input="pixel_values", limits=reader.limits)
    return tower, reader


def _type_of_pixels(model: Any) -> Callable[[], torch.dtype]:
    """Gives the type of the first convolution: in open_clip's mixed precision other parameters have another."""
    first = next((module for module in model.visual.modules() if isinstance(module, nn.Conv2d)), None)
    return lambda: (next(model.parameters()) if first is None else first.weight).dtype


def _text_side(model: Any, tokenizer: Any) -> tuple[Tower, OpenClipTexts]:
    def encode(inputs: Inputs) -> Tensor:
        return _embedding(model.encode_text(inputs["input_ids"], normalize=False))

    device = device_of(model)
    length = _positions(model, tokenizer)
    reader = OpenClipTexts(tokenizer, length=length, device=device)
    inputs, layouts, _ = reader.texts([_EXAMPLE_TEXT], truncate=True)
    parts = parts_of(model, encode, inputs, side="text", entering="input_ids")
    tower = parts.tower("text", model, encode)
    padding = [position for name, position in layouts[0].special if name == "PAD"]
    return tower, OpenClipTexts(
        tokenizer,
        length=length,
        device=device,
        appended=parts.entering.shape[1] - length,
        padding_is_read=_is_read(tower, inputs, padding),
    )


def _positions(model: Any, tokenizer: Any) -> int:
    """A tower of open_clip's own takes texts of its length; one of transformers, of that which the tokenizer has."""
    own = getattr(model, "text", model)
    length = own.context_length if hasattr(own, "positional_embedding") else tokenizer.context_length
    if not isinstance(length, int) or length < 1:
        raise OptionError("The tokenizer has no context_length: make it with open_clip.get_tokenizer.")
    return length


def _is_read(tower: Tower, inputs: Inputs, padding: list[int]) -> bool:
    """Whether a text's embedding is another where its padding is."""
    if tower.lookup is None or not padding:
        return True
    entrance = tower.enter(inputs)
    other = entrance.hidden.clone()
    other[:, padding] = other[:, padding].roll(1, -1)
    found, own = entrance.resume(other).float(), entrance.embedding.float()
    limit = 1e-5 if entrance.embedding.dtype in (torch.float32, torch.float64) else 0.01
    return bool((found - own).norm() > limit * own.norm())


def _embedding(found: Any) -> Tensor:
    """Towers that also give their tokens give the embedding first."""
    embedding: Tensor = found[0] if isinstance(found, tuple) else found
    if embedding.ndim != 2:
        raise ModelError("This open_clip model does not pool its positions to one embedding: Isthmus cannot read it.")
    return embedding
