"""Reads transformers models from the hub, its cache or a folder; what goes wrong is one sentence."""

from __future__ import annotations

import contextlib
import hashlib
import textwrap
from collections.abc import Iterator
from logging import ERROR
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isthmus.encoders.weights import fingerprint
from isthmus.errors import ModelError

_FEATURES = ("get_image_features", "get_text_features")
_RETRIEVAL = ("BlipForImageTextRetrieval",)  # has the parts of a dual encoder, but offers no features


def pretrained_model(name: str, path: str, *, dtype: torch.dtype | None, attention: str | None) -> nn.Module:
    """The dual encoder of a hub name or a folder, in eval mode.

    Raises:
        ModelError: there is none, it is damaged, or it is another kind of model.
    """
    from transformers import AutoConfig

    with _kindly(name), _quiet():
        if not Path(path).is_dir():
            _ask_hub(path)
        elif not (Path(path) / "config.json").is_file():
            raise FileNotFoundError("there is no config.json")
        config = AutoConfig.from_pretrained(path)
        maker = _class_of(config, name)
    options = {} if attention is None else {"attn_implementation": attention}
    with _kindly(name), _quiet():
        model, info = maker.from_pretrained(
            path,
            torch_dtype=dtype or torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # transformers would refuse them in a report of many lines
            **options,
        )
    for key, found, wanted in sorted(info["mismatched_keys"]):
        raise ModelError(
            f"The weights of {name!r} do not fit its config.json: {key} is of shape {tuple(found)} instead of "
            f"{tuple(wanted)}; take both files from one checkpoint."
        )
    missing = [key for key in info["missing_keys"] if not key.endswith("position_ids")]
    if missing:
        raise ModelError(
            f"{name!r} lacks {len(missing)} of the weights of {type(model).__name__} (such as {sorted(missing)[0]}), "
            "which would be random: it is not a whole checkpoint of a dual encoder."
        )
    model.eval()
    return model  # type: ignore[no-any-return]


def _class_of(config: Any, name: str) -> Any:
    """The class that a checkpoint was saved from, where it has features; else the model within it."""
    import transformers

    for given in getattr(config, "architectures", None) or ():
        found = getattr(transformers, given, None)
        if found is not None and (given in _RETRIEVAL or all(hasattr(found, one) for one in _FEATURES)):
            return found
    mapping = transformers.AutoModel._model_mapping
    found = mapping.get(type(config), None)
    if found is None or not all(hasattr(found, one) for one in _FEATURES):
        raise ModelError(
            f"{name!r} is a {config.model_type!r} model, which transformers {transformers.__version__} knows no dual "
            "encoder of: Isthmus reads models with get_image_features and get_text_features, such as CLIP and SigLIP."
        )
    for given in getattr(config, "architectures", None) or ():
        saved = getattr(transformers, given, None)
        if getattr(saved, "config_class", None) is type(config) and not _holds(saved, found, config):
            raise ModelError(
                f"{name!r} is a {given}, which is no dual encoder that Isthmus can read: it has neither "
                f"get_image_features and get_text_features nor a {found.__name__} within it."
            )
    return found


def _holds(saved: Any, wanted: Any, config: Any) -> bool:
    """Whether models of one class have one of another within them; built without weights."""
    with torch.device("meta"):
        return any(isinstance(module, wanted) for module in saved(config).modules())


def pretrained_processor(name: str, path: str) -> Any:
    """The image processor, on Pillow, and the tokenizer of a hub name or a folder. Raises ModelError, see above."""
    from transformers import AutoImageProcessor, AutoTokenizer

    with _kindly(name), _quiet():
        try:
            image_processor = AutoImageProcessor.from_pretrained(path, backend="pil")
        except TypeError:  # transformers 4 knows no backends
            image_processor = AutoImageProcessor.from_pretrained(path, use_fast=False)
        try:
            tokenizer = AutoTokenizer.from_pretrained(path)
        except Exception as error:
            if Path(path).is_dir() and not _has_vocabulary(Path(path)):
                raise FileNotFoundError("there is no tokenizer.json") from error
            raise
    if is_blank(tokenizer):
        raise ModelError(
            f"The tokenizer of {name!r} has no word in its vocabulary, as transformers makes one where tokenizer.json "
            "is missing: add that file, or give processor= with a tokenizer of the model's own."
        )
    return {"image_processor": image_processor, "tokenizer": tokenizer}


def _has_vocabulary(folder: Path) -> bool:
    names = [file.name for file in folder.iterdir()]
    return any(name == "tokenizer.json" or name.startswith("vocab") or name.endswith(".model") for name in names)


def is_blank(tokenizer: Any) -> bool:
    """Whether a fast tokenizer has special tokens alone, and at most the sign of a space."""
    if not getattr(tokenizer, "is_fast", False):
        return False
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {token for token, i in tokenizer.get_vocab().items() if i not in special} <= {"▁"}


@contextlib.contextmanager
def _kindly(name: str) -> Iterator[None]:
    """A file of somebody else's can fail in any way; the user needs one sentence about which and what to do."""
    try:
        yield
    except (ModelError, KeyboardInterrupt):
        raise
    except Exception as error:
        if Path(name).is_dir() or name == "mini":
            raise ModelError(
                f"The folder {name!r} does not hold a whole transformers model (config.json, model.safetensors, "
                f"tokenizer.json, preprocessor_config.json): {_reason(error)}"
            ) from error
        raise ModelError(
            f"No model {name!r}: there is no such folder, it is not in the local cache, and the Hugging Face hub "
            'does not give it; check the name and the network, or use the bundled "mini".'
        ) from error


def _reason(error: Exception) -> str:
    """The first line of a message; all of it where that line only announces the others."""
    text = str(error).strip()
    first = (text.splitlines() or [type(error).__name__])[0].strip()
    return textwrap.shorten(text, 300, placeholder=" ...") if first.endswith(":") else first


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


def revision_of(model: Any, path: Path) -> str:
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


def is_dual_encoder(model_type: Any) -> bool:
    """Whether transformers knows a dual encoder of a type of model, as a configuration names it."""
    from transformers import MODEL_MAPPING
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        return False
    found = MODEL_MAPPING.get(CONFIG_MAPPING[model_type], None)
    return found is not None and all(hasattr(found, one) for one in _FEATURES)
