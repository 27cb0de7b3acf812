"""Methods beside NIB against independent oracles: the model's own attentions, hooks and loops in float64.

transformers' eager attention takes its softmax in float32 also for float64, hence tolerances of 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

import isthmus
from conftest import picture
from isthmus.encoders.layout import Piece, TokenLayout, content_of
from isthmus.errors import OptionError
from isthmus.methods import METHODS
from test_tower import inputs_of

DEPTH = 3


@pytest.fixture(scope="module")
def tiny64(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64, depth=DEPTH)


@pytest.fixture(scope="module")
def eager64(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64, depth=DEPTH, attention="eager").model


def target_of(batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return normalize(torch.randn(batch, 16, generator=generator, dtype=torch.float64), dim=-1)


def oracle_attentions(model: Any, side: str, inputs: dict[str, Any]) -> tuple[list[Any], list[Any], list[int]]:
    """Weights and gradients of all blocks from transformers' own output, and each input's pooled position."""
    if side == "image":
        out = model.vision_model(**inputs, output_attentions=True)
        embedding, pooled = model.visual_projection(out.pooler_output), [0] * len(inputs["pixel_values"])
    else:
        out = model.text_model(**inputs, output_attentions=True)
        embedding, pooled = model.text_projection(out.pooler_output), inputs["input_ids"].argmax(-1).tolist()
    score = cosine_similarity(embedding, target_of(), dim=-1).sum()
    gradients = torch.autograd.grad(score, out.attentions)
    return [a.detach().numpy() for a in out.attentions], [g.numpy() for g in gradients], pooled


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("start", [0, 1, -2])
def test_chefer_equals_the_rule_in_a_loop(tiny64: Any, eager64: Any, side: str, start: int) -> None:
    inputs = inputs_of(tiny64, side)
    found = METHODS["chefer"].function(tiny64.tower(side), inputs, target_of(), start_layer=start)
    weights, gradients, pooled = oracle_attentions(eager64, side, inputs)
    first = start if start >= 0 else DEPTH - 1
    for row in range(3):
        relevance = np.eye(weights[0].shape[-1])
        for a, g in list(zip(weights, gradients, strict=True))[first:]:
            mean = np.mean([np.maximum(a[row, head] * g[row, head], 0) for head in range(a.shape[1])], axis=0)
            relevance = relevance + mean @ relevance
        np.testing.assert_allclose(found.scores[row], relevance[pooled[row]], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("layer", [1, 2])
def test_attention_gradients_are_those_of_the_models_own_weights(
    tiny64: Any, eager64: Any, side: str, layer: int
) -> None:
    inputs = inputs_of(tiny64, side)
    weights, gradients, _ = oracle_attentions(eager64, side, inputs)
    a, g = weights[layer], gradients[layer]
    for name, expected in (
        ("attention-gradient", np.abs(g).mean(1).sum(1)),
        ("attention-x-gradient", (a * g).mean(1).sum(1)),
    ):
        found = METHODS[name].function(tiny64.tower(side), inputs, target_of(), layer=layer)
        np.testing.assert_allclose(found.scores, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("relu", [True, False])
def test_activation_maps_equal_a_loop_over_channels(tiny64: Any, side: str, relu: bool) -> None:
    inputs, tower, kept = inputs_of(tiny64, side), tiny64.tower(side), []

    def keep(_: Any, __: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        output.retain_grad()
        kept.append(output)

    with torch.enable_grad():
        handle = tower.blocks[0].register_forward_hook(keep)
        try:
            cosine_similarity(tower.encode(inputs), target_of(), dim=-1).sum().backward()
        finally:
            handle.remove()
            tiny64.model.zero_grad()
    features, gradient = kept[0].detach().numpy(), kept[0].grad.numpy()
    layout = TokenLayout(
        5, pieces=tuple(Piece(i, i, i + 1) for i in range(1, 5)), special=(("EOS", len(features[0]) - 1),)
    )
    pooled = [np.mean(gradient[row][1:5], axis=0) for row in range(3)]
    cam = [
        [sum(f * a for f, a in zip(position, pooled[row], strict=True)) for position in features[row]]
        for row in range(3)
    ]
    cut = (lambda x: np.maximum(x, 0)) if relu else np.asarray
    found = METHODS["gradcam"].function(tower, inputs, target_of(), layouts=[layout] * 3, layer=1, relu=relu)
    np.testing.assert_allclose(found.scores, cut(cam), rtol=1e-8, atol=1e-12)
    found = METHODS["hirescam"].function(tower, inputs, target_of(), layer=1, relu=relu)
    np.testing.assert_allclose(found.scores, cut((features * gradient).sum(-1)), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("batch", [8, 1])
@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("chefer", "chefer"),
        ("attention-gradient", "saliencymap"),
        ("attention-x-gradient", "fast_ig"),
        ("hirescam", "gradcam"),
    ],
)
def test_paper_presets_equal_the_published_comparison(
    mini: Any, reference: Any, batch: int, method: str, key: str
) -> None:
    arrays, entries = reference
    images = [isthmus.PreparedImage(torch.from_numpy(p.astype(np.float32))) for p in arrays["pixel_values"]]
    texts = [entry["caption"] for entry in entries]
    found = isthmus.explain(mini, images, texts, method=method, preset="paper", batch_size=batch)
    for i, one in enumerate(found):
        np.testing.assert_allclose(one.image.published[::2, ::2], arrays[f"{key}_image"][i], atol=1e-4)
        length = len(entries[i]["ids"])
        np.testing.assert_allclose(one.text.published, arrays[f"{key}_text"][i][:length], atol=1e-4)


def test_gradients_are_pooled_over_patches_and_words_alone(mini: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, torch.Tensor] = {}
    original = METHODS["gradcam"].function

    def watched(tower: Any, *arguments: Any, layouts: Any, **options: Any) -> Any:
        seen[tower.side] = content_of(layouts)
        return original(tower, *arguments, layouts=layouts, **options)

    monkeypatch.setattr("isthmus.methods.registry.METHODS", {"gradcam": _with(METHODS["gradcam"], watched)})
    isthmus.explain(mini, [picture(0), picture(1)], ["a dog", "a very small dog"], method="gradcam")
    assert seen["image"].tolist() == [[False] + [True] * 49] * 2
    assert seen["text"].tolist() == [
        [False, True, True, False, False, False],
        [False, True, True, True, True, False],
    ]


def _with(method: Any, function: Any) -> Any:
    from dataclasses import replace

    return replace(method, function=function)


@pytest.mark.parametrize("method", ["chefer", "attention-gradient"])
def test_the_output_of_the_last_block_has_no_attention(mini: Any, method: str) -> None:
    option = "start_layer" if method == "chefer" else "layer"
    with pytest.raises(OptionError, match="is the last block's output: give a block, 0 to 11"):
        isthmus.explain(mini, picture(), "a dog", method=method, **{option: 12})
