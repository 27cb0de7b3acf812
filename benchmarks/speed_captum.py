"""The same integral by captum's LayerIntegratedGradients, used as its documentation says: on the whole model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from speed_models import Pairs


def integrated(
    encoder: Any, pairs: Pairs, side: str, *, layer: int, steps: int, rows: int, method: str = "gausslegendre"
) -> list[Tensor]:
    """Scores `(T,)` of every pair, of the state that enters block `layer`, at least 1, closed to zero.

    Args:
        encoder: what `isthmus.load` gives; only its model and its processing are used.
        pairs, side: what is explained: the cosine of each pair, by its picture or its text.
        steps, method: captum's.
        rows: forward passes at once, at least one of each of `rows` pairs.
    """
    return [
        one
        for part in pairs.parts(rows)
        for one in _batch(encoder, part, side, layer=layer, steps=steps, rows=rows, method=method)
    ]


def _batch(encoder: Any, pairs: Pairs, side: str, *, layer: int, steps: int, rows: int, method: str) -> list[Tensor]:
    from captum.attr import LayerIntegratedGradients

    model = encoder.model
    tokens, _, _ = encoder.processing.texts(pairs.texts, truncate=False)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    with torch.no_grad():
        if side == "image":
            target = _embedding(model.get_text_features(input_ids=ids, attention_mask=mask))
        else:
            target = _embedding(model.get_image_features(pixel_values=pairs.pixels))

    def of_pixels(pixels: Tensor, target: Tensor) -> Tensor:
        return _cosine(model.get_image_features(pixel_values=pixels), target)

    def of_ids(ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        return _cosine(model.get_text_features(input_ids=ids, attention_mask=mask), target)

    tower = model.vision_model if side == "image" else model.text_model
    block = tower.encoder.layers[layer - 1]
    captum = LayerIntegratedGradients(of_pixels if side == "image" else of_ids, block)
    inputs, further = (pairs.pixels, (target,)) if side == "image" else (ids, (mask, target))
    with _zero_baseline(block):
        found = captum.attribute(
            inputs, additional_forward_args=further, n_steps=steps, method=method, internal_batch_size=rows
        )
    sums = found.sum(-1).detach()
    return [one[: int(length)] for one, length in zip(sums, mask.sum(-1), strict=True)] if side == "text" else [*sums]


@contextmanager
def _zero_baseline(block: nn.Module) -> Iterator[None]:
    """Captum runs the block on the input, then on a baseline input, then on the nodes: make the second state zero."""
    calls = 0

    def zeroed(_: nn.Module, __: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != 2:
            return None
        return (torch.zeros_like(output[0]),) if isinstance(output, tuple) else torch.zeros_like(output)

    handle = block.register_forward_hook(zeroed)
    try:
        yield
    finally:
        handle.remove()


def _embedding(features: Any) -> Tensor:
    """transformers 5 gives an output object, transformers 4 the tensor itself."""
    return features if isinstance(features, Tensor) else features.pooler_output  # type: ignore[no-any-return]


def _cosine(features: Any, target: Tensor) -> Tensor:
    return nn.functional.cosine_similarity(_embedding(features), target, dim=-1)
