"""TextSpan's map and the decomposition behind it, against the model's own modules in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

import isthmus
from conftest import picture
from isthmus.encoders.counting import counted
from isthmus.errors import ModelError, OptionError
from isthmus.heads import Decomposition, decompose
from isthmus.methods.decomposition import textspan
from state import untouched
from test_tower import inputs_of

DEPTH = 3
SIDES = ["image", "text"]


@pytest.fixture(scope="module")
def tiny64(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64, depth=DEPTH)


def vectors(count: int, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, 16, generator=generator, dtype=torch.float64), dim=-1)


def pooled_of(side: str, inputs: dict[str, Any]) -> list[int]:
    return [0] * len(inputs["pixel_values"]) if side == "image" else inputs["input_ids"].argmax(-1).tolist()


class Oracle:
    """Every part of an embedding in a loop over inputs, blocks, heads and tokens, from the modules' own numbers."""

    def __init__(self, model: Any, side: str, inputs: dict[str, Any]) -> None:
        clip, kept = model.model, {}
        part = clip.vision_model if side == "image" else clip.text_model
        norm = part.post_layernorm if side == "image" else part.final_layer_norm
        projection = clip.visual_projection if side == "image" else clip.text_projection
        hooks = []

        def keep(name: Any) -> Callable[..., None]:
            def hook(_: Any, args: Any, output: Any) -> None:
                kept[name] = (args, output[0] if isinstance(output, tuple) else output)

            return hook

        layers = part.encoder.layers
        for i, layer in enumerate(layers):
            modules = {name: getattr(layer.self_attn, name) for name in ("q_proj", "k_proj", "v_proj")}
            modules |= {"mlp": layer.mlp, "block": layer}
            hooks += [module.register_forward_hook(keep((i, name))) for name, module in modules.items()]
        try:
            with torch.no_grad():
                self.embedding = model.tower(side).encode(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        self.mask = None if side == "image" else inputs["attention_mask"]
        self.norm, self.projection, self.layers, self.kept = norm, projection, layers, kept
        self.pooled = pooled_of(side, inputs)

    def effect(self, row: int, part: torch.Tensor) -> np.ndarray:
        """P gamma (part - its mean) / s."""
        final = self.kept[(len(self.layers) - 1, "block")][1][row, self.pooled[row]]
        s = (final.var(unbiased=False) + self.norm.eps).sqrt()
        return (self.projection.weight @ (self.norm.weight * (part - part.mean()) / s)).detach().numpy()

    def token(self, row: int, layer: int, head: int) -> np.ndarray:
        """`(T, D)` of one head, its weights by a softmax of our own."""
        attention, at = self.layers[layer].self_attn, self.pooled[row]
        c = attention.q_proj.out_features // attention.num_heads
        q, k, v = (self.kept[(layer, f"{n}_proj")][1][row][:, head * c : (head + 1) * c] for n in "qkv")
        logits = k @ q[at] / c**0.5
        if self.mask is not None:
            logits[at + 1 :] = -torch.inf
            logits[self.mask[row] == 0] = -torch.inf
        weights = logits.softmax(0)
        out = attention.out_proj.weight[:, head * c : (head + 1) * c]
        return np.stack([self.effect(row, out @ (weights[i] * v[i])) for i in range(len(v))])


@pytest.fixture(scope="module", params=SIDES)
def taken_apart(request: pytest.FixtureRequest, tiny64: Any) -> tuple[str, Oracle, Decomposition, Any]:
    inputs = inputs_of(tiny64, request.param)
    return request.param, Oracle(tiny64, request.param, inputs), decompose(tiny64.tower(request.param), inputs), inputs


def test_every_token_of_every_head_is_the_loops(taken_apart: Any) -> None:
    _, oracle, found, _ = taken_apart
    for layer in range(DEPTH):
        tokens = found.tokens(layer)
        for row in range(3):
            for head in range(tokens.shape[1]):
                np.testing.assert_allclose(tokens[row, head], oracle.token(row, layer, head), atol=1e-6)


def test_mlps_rest_and_constants_are_the_models_own(taken_apart: Any) -> None:
    _, oracle, found, _ = taken_apart
    for row, at in enumerate(oracle.pooled):
        for layer in range(DEPTH):
            mlp = oracle.kept[(layer, "mlp")][1][row, at]
            np.testing.assert_allclose(found.mlp[row, layer], oracle.effect(row, mlp), atol=1e-6)
        entered = oracle.kept[(0, "block")][0][0][row, at]
        np.testing.assert_allclose(found.rest[row], oracle.effect(row, entered), atol=1e-6)
        biases = sum(layer.self_attn.out_proj.bias for layer in oracle.layers)
        beta = (oracle.projection.weight @ oracle.norm.bias).detach().numpy()
        np.testing.assert_allclose(found.constants[row], oracle.effect(row, biases) + beta, atol=1e-6)


def test_the_parts_sum_to_the_embedding(taken_apart: Any) -> None:
    _, oracle, found, _ = taken_apart
    by_token = sum(found.tokens(layer).sum((1, 2)) for layer in range(DEPTH))
    total = by_token + found.mlp.sum(1) + found.rest + found.constants
    torch.testing.assert_close(total, oracle.embedding, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.embedding, oracle.embedding, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.heads.sum((1, 2)), by_token, rtol=0, atol=1e-12)


def test_later_blocks_alone_leave_the_others_in_the_rest(taken_apart: Any, tiny64: Any) -> None:
    side, _, whole, inputs = taken_apart
    found = decompose(tiny64.tower(side), inputs, start_layer=-2, memory=1)
    assert found.first == DEPTH - 1
    torch.testing.assert_close(found.heads, whole.heads[:, -1:], rtol=0, atol=1e-7)
    torch.testing.assert_close(found.tokens(2), whole.tokens(2), rtol=0, atol=1e-7)
    total = found.heads.sum((1, 2)) + found.mlp.sum(1) + found.rest + found.constants
    torch.testing.assert_close(total, whole.embedding, rtol=0, atol=1e-6)


def test_all_prompts_at_once_are_the_tokens_dot_products(taken_apart: Any) -> None:
    _, _, found, _ = taken_apart
    prompts = vectors(5)
    along = found.along(prompts)
    for layer in range(DEPTH):
        torch.testing.assert_close(along[:, layer], found.tokens(layer) @ prompts.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("subtract", ["share", "mean", "none"])
@pytest.mark.parametrize("start", [0, 1, -2])
def test_the_map_is_the_formula_in_a_loop(taken_apart: Any, tiny64: Any, subtract: str, start: int) -> None:
    side, oracle, _, inputs = taken_apart
    targets, bank = vectors(3, 8), vectors(7, 9) + 0.3
    found = textspan(tiny64.tower(side), inputs, targets, bank=bank, start_layer=start, subtract=subtract)
    first = start if start >= 0 else DEPTH + 1 + start
    mean = bank.mean(0).numpy()
    for row in range(3):
        parts = sum(
            oracle.token(row, layer, head)
            for layer in range(first, DEPTH)
            for head in range(oracle.layers[0].self_attn.num_heads)
        )
        t = targets[row].numpy()
        expected = parts @ t
        if subtract == "mean":  # the paper's own form: the mean of the bank's maps
            expected = expected - np.mean([parts @ other.numpy() for other in bank], axis=0)
        if subtract == "share":
            expected = expected - parts @ mean * (t @ mean) / (mean @ mean)
        length = float(oracle.embedding[row].norm())
        np.testing.assert_allclose(found.scores[row], expected / length, atol=1e-6)
        assert float(found.open[row]) == pytest.approx(float(oracle.embedding[row] @ targets[row]) / length)
    assert found.options[0] == {"start_layer": first, "subtract": subtract}


def test_the_heads_part_of_the_score_is_the_sum_of_the_map(taken_apart: Any, tiny64: Any) -> None:
    side, _, parts, inputs = taken_apart
    targets = vectors(3, 8)
    found = textspan(tiny64.tower(side), inputs, targets, bank=vectors(2), subtract="none")
    others = parts.mlp.sum(1) + parts.rest + parts.constants
    expected = found.open - (others * targets).sum(-1) / parts.embedding.norm(dim=-1)
    torch.testing.assert_close(found.scores.sum(-1), expected, rtol=0, atol=1e-6)


def test_positions_after_the_end_of_a_text_get_nothing(tiny64: Any) -> None:
    inputs = inputs_of(tiny64, "text")
    found = textspan(tiny64.text, inputs, vectors(3), bank=vectors(2, 9))
    end = int(inputs["input_ids"][0].argmax())
    assert end < 8
    assert found.scores[0, end + 1 :].eq(0).all()
    assert found.scores[0, : end + 1].ne(0).all()


def test_a_swapped_contrast_negates_the_map_with_the_default_bank(mini: Any) -> None:
    texts = ["a dog", "a fire hydrant"]
    maps = [
        isthmus.explain(mini, picture(), method="textspan", target=isthmus.Contrast([a], [b])).image.scores
        for a, b in (texts, texts[::-1])
    ]
    np.testing.assert_allclose(maps[0], -maps[1], atol=1e-6)
    assert np.abs(maps[0]).max() > 1e-3


def test_the_default_bank_is_the_reference_set_and_a_given_one_is_used(mini: Any) -> None:
    image, text = picture(), "a dog"
    default = isthmus.explain(mini, image, text, method="textspan")
    inputs = mini.processing.pictures([isthmus.encoders.pictures.open_picture(image)])[0]
    target = isthmus.targets.embeddings_of(mini, [text])[0]
    expected = textspan(mini.image, inputs, target, bank=mini.text.reference_embeddings()).scores
    np.testing.assert_allclose(default.image.scores.ravel(), expected[0, 1:], atol=1e-6)
    others = isthmus.explain(mini, image, text, method="textspan", sides="image", bank=["a cat", "a red bus"])
    assert np.abs(others.image.scores - default.image.scores).max() > 1e-3


@pytest.mark.parametrize("side", SIDES)
def test_passes_are_those_that_are_announced(tiny64: Any, side: str) -> None:
    tower, inputs = tiny64.tower(side), inputs_of(tiny64, side)
    textspan(tower, inputs, vectors(3), bank=vectors(2))  # proves the cut once
    with counted() as passes:
        textspan(tower, inputs, vectors(3), bank=vectors(2))
    method = isthmus.METHODS["textspan"]
    assert {name: n / 3 for name, n in passes.items()} == {
        "forward": int(method.passes[0]),
        "backward": int(method.passes[1]),
    }


@pytest.mark.parametrize("side", SIDES)
def test_memory_changes_nothing(tiny64: Any, side: str) -> None:
    tower, inputs = tiny64.tower(side), inputs_of(tiny64, side)
    whole, single = (textspan(tower, inputs, vectors(3), bank=vectors(2), memory=m) for m in (None, 1))
    torch.testing.assert_close(whole.scores, single.scores, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parts_sum_in_half_precision_to_its_rounding(make_tiny: Callable[..., Any], dtype: torch.dtype) -> None:
    model = make_tiny(dtype=dtype)
    for side in SIDES:
        found = decompose(model.tower(side), inputs_of(model, side))
        total = found.heads.sum((1, 2)) + found.mlp.sum(1) + found.rest + found.constants
        assert found.heads.dtype == torch.float32
        assert float((total - found.embedding).norm() / found.embedding.norm()) < 0.03


def test_decompose_leaves_the_model_as_it_was(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny()
    model.model.train()
    with untouched(model.model), torch.inference_mode():
        decompose(model.image, inputs_of(model, "image"))


def test_refusals_name_the_fix(tiny64: Any) -> None:
    inputs = inputs_of(tiny64, "image")
    with pytest.raises(OptionError, match="subtract must be one of share, mean, none"):
        textspan(tiny64.image, inputs, vectors(3), bank=vectors(2), subtract="all")
    with pytest.raises(OptionError, match="is the last block's output: give a block, 0 to 2"):
        textspan(tiny64.image, inputs, vectors(3), bank=vectors(2), start_layer=3)
    found = decompose(tiny64.image, inputs, tokens=False, start_layer=1)
    with pytest.raises(OptionError, match="tokens=True"):
        found.tokens(1)
    with pytest.raises(OptionError, match="Blocks 1 to 2 are here, not 0"):
        found.tokens(0)
    with pytest.raises(OptionError, match=r"must be \(M, 16\)"):
        found.along(torch.ones(16))


def broken(model: Any, what: str) -> None:
    vision = model.model.vision_model
    if what == "no v_proj":
        attention = vision.encoder.layers[1].self_attn
        attention.value, attention.v_proj = attention.v_proj, nn.Sequential(attention.v_proj)
    if what == "gated":
        vision.encoder.layers[1].self_attn.out_proj.register_forward_hook(lambda _, __, output: output * 1.1)
    if what == "no norm":
        vision.post_layernorm = nn.Identity()
    if what == "mean":
        model.image.owner.register_forward_hook(mean_of_positions)
    if what == "tanh":
        model.model.visual_projection.register_forward_hook(lambda _, __, output: output.tanh())


def mean_of_positions(_: Any, __: Any, output: Any) -> Any:
    state = output.last_hidden_state
    output.last_hidden_state = state.mean(1, keepdim=True).expand_as(state)
    return output


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no v_proj", "Attention of block 1 of the image tower has no linear v_proj and out_proj"),
        ("gated", "Attention of block 1 of the image tower is more than weights, values and out_proj"),
        ("no norm", "does not pool one position through a LayerNorm"),
        ("mean", "does not pool one position through a LayerNorm"),
        ("tanh", "head is more than a LayerNorm and a linear map"),
    ],
)
def test_towers_of_another_build_are_refused(make_tiny: Callable[..., Any], what: str, message: str) -> None:
    model = make_tiny(dtype=torch.float64)
    inputs = inputs_of(model, "image")
    broken(model, what)
    with pytest.raises(ModelError, match=message):
        decompose(model.image, inputs)


def test_a_text_of_one_position_has_a_map(tiny64: Any) -> None:
    inputs = {"input_ids": torch.tensor([[8191], [8191]]), "attention_mask": torch.ones(2, 1, dtype=torch.long)}
    found = textspan(tiny64.text, inputs, vectors(2), bank=vectors(2, 9))
    assert found.scores.shape == (2, 1)
    assert float(found.scores.abs().min()) > 0


def test_a_target_of_zero_has_a_map_of_zeros(mini: Any) -> None:
    for options in ({"against": "a dog"}, {"bank": ["a dog"]}):
        found = isthmus.explain(mini, picture(), "a dog", method="textspan", sides="image", **options)
        assert np.abs(found.image.scores).max() < 1e-6
