"""How a transformers model turns its inputs into joint-space embeddings, and what its softmax multiplies them by.

Most models have `get_image_features` and `get_text_features`. The few that have not, or give something else by them,
are told by name: their structure does not say which position of a sequence is meant for the joint space.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from isthmus.encoders.tower import Inputs, Side
from isthmus.encoders.weights import dtype_of
from isthmus.errors import ModelError

_METHODS: dict[Side, str] = {"image": "get_image_features", "text": "get_text_features"}
_FIRST_POSITION = ("flava",)  # model types whose features are sequences, of which the loss takes the first position


def encoder_of(model: Any, side: Side) -> Callable[[Inputs], Tensor]:
    """The model's own code from inputs to embeddings `(B, D)`.

    Raises:
        ModelError: it has none; when it is called, that it gives something else.
    """
    if all(hasattr(model, part) for part in ("vision_proj", "text_proj", "vision_model", "text_encoder")):
        return _blip_retrieval(model, side)
    name = _METHODS[side]
    if not callable(getattr(model, name, None)):
        raise ModelError(
            f"{type(model).__name__} is no dual encoder that Isthmus can read: it has no {name}. Give a model with "
            "get_image_features and get_text_features, or name its parts with isthmus.Tower and isthmus.from_towers."
        )
    first = getattr(getattr(model, "config", None), "model_type", "") in _FIRST_POSITION

    def encode(inputs: Inputs) -> Tensor:
        try:
            features = getattr(model, name)(**_in_its_type(model, inputs))
        except (TypeError, AttributeError) as error:  # Chinese-CLIP of transformers 4.57 is broken so
            raise ModelError(
                f"{type(model).__name__}.{name} fails by itself ({error}): take another version of its library, or "
                "give inputs that it reads."
            ) from error
        return _embedding(features, side, first=first)

    return encode


def takes(model: Any, side: Side, option: str) -> bool:
    """Whether the model's own code names an input."""
    method = getattr(model, _METHODS[side], None)
    return method is not None and option in inspect.signature(method).parameters


def scale_of(model: Any) -> Callable[[], Tensor] | None:
    """Reads the factor of the softmax over texts; None for a sigmoid, which has a bias, and where there is none."""
    if isinstance(getattr(model, "logit_scale", None), nn.Parameter):
        if getattr(model, "logit_bias", None) is not None:
            return None
        highest = getattr(model, "max_log_logit_scale", None)
        return lambda: model.logit_scale.clamp(max=highest).exp() if highest else model.logit_scale.exp()
    if isinstance(getattr(model, "temperature", None), nn.Parameter):
        return lambda: 1 / model.temperature
    return None


def _in_its_type(model: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """Not every model turns pixels into the type of its weights."""
    dtype = dtype_of(model)
    return {
        name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }


def _embedding(features: Any, side: Side, *, first: bool) -> Tensor:
    """transformers 5 gives an output object, transformers 4 the tensor itself."""
    if isinstance(features, tuple):
        raise ModelError("The model returns tuples: set model.config.return_dict = True before you load it.")
    found = features if isinstance(features, Tensor) else features.pooler_output
    if found.ndim == 3 and first:
        return found[:, 0]
    if found.ndim != 2:
        raise ModelError(
            f"The model gives several embeddings for one {side} (a tensor of {found.ndim} axes), of which none is the "
            "joint-space one: Isthmus explains models with one embedding for each picture and text."
        )
    return found


def _blip_retrieval(model: Any, side: Side) -> Callable[[Inputs], Tensor]:
    """BLIP's class for retrieval has the parts of a dual encoder, but offers no features."""

    def image(inputs: Inputs) -> Tensor:
        found: Tensor = model.vision_proj(model.vision_model(**_in_its_type(model, inputs)).last_hidden_state[:, 0])
        return found

    def text(inputs: Inputs) -> Tensor:
        found: Tensor = model.text_proj(model.text_encoder(**inputs).last_hidden_state[:, 0])
        return found

    return image if side == "image" else text
