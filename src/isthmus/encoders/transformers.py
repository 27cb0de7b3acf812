"""Loads transformers' CLIP: by hub name, from a folder, or as a model object with its processor."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from logging import ERROR
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.processing import TransformersProcessing
from isthmus.encoders.reference import reference_inputs
from isthmus.encoders.tower import Tower
from isthmus.encoders.weights import fingerprint, version_of
from isthmus.errors import ModelError, OptionError

MINI = Path(__file__).parent / "mini"
_MINI_NOTICE = (
    "mini is a small CLIP for demonstration and tests: its maps say something about methods, nothing about CLIP."
)


def load_clip(
    source: str | Path | nn.Module,
    *,
    processor: Any = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    attention: str | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> DualEncoder:
    """Make a `DualEncoder` of a transformers CLIP; see `isthmus.load`."""
    if isinstance(source, nn.Module):
        model, name, notice = source, getattr(source, "name_or_path", "") or type(source).__name__, ""
        revision = fingerprint(model)
        if processor is None:
            raise OptionError("A model object needs its processor: isthmus.load(model, processor=processor).")
    else:
        name, notice = str(source), _MINI_NOTICE if source == "mini" else ""
        path = str(MINI) if source == "mini" else str(source)
        model = _pretrained_model(name, path, dtype=dtype, attention=attention)
        processor = processor or _pretrained_processor(name, path)
        revision = _revision(model, Path(path))
    if device is not None:
        model.to(device)
    _check_clip(model, name)
    return _dual_encoder(model, processor, name, revision, notice, _pair(image_size))


def _pretrained_model(name: str, path: str, *, dtype: torch.dtype | None, attention: str | None) -> nn.Module:
    from transformers import AutoConfig, CLIPModel

    with _kindly(name), _quiet():
        if not Path(path).is_dir():
            _ask_hub(path)
        elif not (Path(path) / "config.json").is_file():
            raise FileNotFoundError("there is no config.json")
        config = AutoConfig.from_pretrained(path)
    if config.model_type != "clip":
        raise ModelError(
            f"{name!r} is a {config.model_type!r} model; Isthmus reads transformers' CLIP (model_type 'clip')."
        )
    options = {} if attention is None else {"attn_implementation": attention}
    with _kindly(name), _quiet():
        model, info = CLIPModel.from_pretrained(
            path, torch_dtype=dtype or torch.float32, output_loading_info=True, **options
        )
    missing = [key for key in info["missing_keys"] if not key.endswith("position_ids")]
    if missing:
        raise ModelError(
            f"{name!r} lacks {len(missing)} of CLIP's weights (such as {sorted(missing)[0]}), which would be "
            "random: it is not a whole CLIP checkpoint."
        )
    model.eval()
    return model  # type: ignore[no-any-return]


def _pretrained_processor(name: str, path: str) -> Any:
    from transformers import AutoImageProcessor, AutoTokenizer

    with _kindly(name), _quiet():
        try:
            image_processor = AutoImageProcessor.from_pretrained(path, backend="pil")
        except TypeError:  # transformers 4 knows no backends
            image_processor = AutoImageProcessor.from_pretrained(path, use_fast=False)
        return {"image_processor": image_processor, "tokenizer": AutoTokenizer.from_pretrained(path)}


@contextlib.contextmanager
def _kindly(name: str) -> Iterator[None]:
    """A file of somebody else's can fail in any way; the user needs one sentence about which and what to do."""
    try:
        yield
    except (ModelError, KeyboardInterrupt):
        raise
    except Exception as error:
        if Path(name).is_dir() or name == "mini":
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"The folder {name!r} does not hold a whole transformers CLIP (config.json, model.safetensors, "
                f"tokenizer.json, preprocessor_config.json): {reason}"
            ) from error
        raise ModelError(
            f"No model {name!r}: there is no such folder, it is not in the local cache, and the Hugging Face hub "
            'does not give it; check the name and the network, or use the bundled "mini".'
        ) from error


def _ask_hub(name: str) -> None:
    """Fail at once where the hub does not have a model or is out of reach; its own download would retry for long."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(name, "config.json"), str):
        get_hf_file_metadata(hf_hub_url(name, "config.json"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back transformers' own bar and advice, and the hub's; the hub's download bars stay."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    level, bars, hub_level = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub_logging.get_verbosity()
    logging.set_verbosity_error()
    hub_logging.set_verbosity(ERROR)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()


def _check_clip(model: nn.Module, name: str) -> None:
    for part in (
        "vision_model.encoder.layers",
        "text_model.encoder.layers",
        "visual_projection",
        "text_projection",
    ):
        try:
            model.get_submodule(part)
        except AttributeError as error:
            raise ModelError(
                f"{name!r} is no transformers CLIPModel: it has no {part}; pass a CLIPModel with both towers."
            ) from error


def _dual_encoder(
    model: Any, processor: Any, name: str, revision: str, notice: str, image_size: tuple[int, int] | None
) -> DualEncoder:
    vision, text = model.config.vision_config, model.config.text_config
    image_processor, tokenizer = _parts(processor)
    device = next(model.parameters()).device
    if image_size is not None and any(side < 1 or side % vision.patch_size for side in image_size):
        raise OptionError(f"image_size={image_size} must be multiples of the model's patch, {vision.patch_size}.")
    processing = TransformersProcessing(
        image_processor,
        tokenizer,
        patch=vision.patch_size,
        max_tokens=text.max_position_embeddings,
        native_size=(vision.image_size, vision.image_size),
        image_size=image_size,
        device=device,
    )
    image_tower = Tower(
        side="image",
        model=model,
        encode=lambda inputs: _pooled(model.get_image_features(**inputs)),
        owner=model.vision_model.encoder,
        stack="layers",
        stem=(model.vision_model, "embeddings"),
        stem_input="pixel_values",
        limits=processing.limits,
        reference=lambda: reference_inputs(processing, "image"),
    )
    text_tower = Tower(
        side="text",
        model=model,
        encode=lambda inputs: _pooled(model.get_text_features(**inputs)),
        owner=model.text_model.encoder,
        stack="layers",
        lookup=(model.text_model.embeddings, "token_embedding"),
        reference=lambda: reference_inputs(processing, "text"),
    )
    loaded = revision, version_of(model)
    return DualEncoder(name, loaded, notice, model, image_tower, text_tower, processing, model.logit_scale)


def _pooled(features: Any) -> Tensor:
    """transformers 5 gives an output object, transformers 4 the tensor itself."""
    if isinstance(features, tuple):
        raise ModelError("The model returns tuples: set model.config.return_dict = True before you load it.")
    return features if isinstance(features, Tensor) else features.pooler_output


def _parts(processor: Any) -> tuple[Any, Any]:
    def part(name: str) -> Any:
        return processor.get(name) if isinstance(processor, Mapping) else getattr(processor, name, None)

    image_processor, tokenizer = part("image_processor"), part("tokenizer")
    if image_processor is None or tokenizer is None:
        raise OptionError("The processor must have an image_processor and a tokenizer, as CLIPProcessor has.")
    if not getattr(tokenizer, "is_fast", False):
        raise OptionError(
            "Words need a fast tokenizer, which knows character offsets: load it with AutoTokenizer.from_pretrained."
        )
    return image_processor, tokenizer


def _pair(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, Integral) else size
    whole = isinstance(pair, (tuple, list)) and all(isinstance(side, Integral) for side in pair)
    if not whole or len(pair) != 2:
        raise OptionError(f"image_size must be a whole number or (height, width), not {size!r}.")
    return int(pair[0]), int(pair[1])


def _revision(model: Any, path: Path) -> str:
    """Short hash of the weights: of the file where there is one, the hub's commit, else of the tensors."""
    file = path / "model.safetensors"
    if file.is_file():
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()[:12]
    commit = getattr(model.config, "_commit_hash", None)
    return str(commit)[:12] if commit else fingerprint(model)
