"""AttnLRP against relevance handed back rule by rule, in numpy, through a CLIP written out in numpy.

The method is a gradient of a model with other derivatives. The oracle has no derivatives: each layer takes the
relevance of its outputs and gives that of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import isthmus
import zoo
from conftest import picture
from isthmus.encoders.counting import counted
from isthmus.errors import ModelError
from isthmus.methods import METHODS
from isthmus.methods.relevance import _activations, _rules
from state import untouched
from test_eclip import SMALL, Handmade, target_of
from test_tower import inputs_of


class Relevance(Handmade):
    """Relevance of layer 0, and of what softmax keeps."""

    def gelu(self, state: Any) -> Any:
        return state / (1 + np.exp(-1.702 * state))

    def back(self, name: str, entering: Any, leaving: Any, relevance: Any) -> Any:
        """The epsilon rule of a linear map at epsilon -> 0."""
        return entering * ((relevance / leaving) @ self.weights[f"{name}.weight"])

    def back_norm(self, name: str, entering: Any, relevance: Any) -> Any:
        """A LayerNorm is linear where its standard deviation is a constant."""
        width = entering.shape[-1]
        deviation = np.sqrt(entering.var(-1, keepdims=True) + 1e-5)
        ratio = relevance / self.norm(name, entering) * self.weights[f"{name}.weight"] / deviation
        return entering * (ratio @ (np.eye(width) - 1 / width))

    def back_block(self, layer: int, state: Any, relevance: Any) -> Any:
        name = f"encoder.layers.{layer}"
        parts = self.attend(layer, state)
        attended = self.out(layer, parts["o"])
        middle = state + attended
        entering = self.norm(f"{name}.layer_norm2", middle)
        inner = self.linear(f"{name}.mlp.fc1", entering)
        active = self.gelu(inner)
        added = self.linear(f"{name}.mlp.fc2", active)
        ratio = relevance / (middle + added)
        r_inner = self.back(f"{name}.mlp.fc2", active, added, added * ratio)  # the activation passes it on
        r_entering = self.back(f"{name}.mlp.fc1", entering, inner, r_inner)
        r_middle = middle * ratio + self.back_norm(f"{name}.layer_norm2", middle, r_entering)
        ratio = r_middle / middle
        r_mixed = self.back(f"{name}.self_attn.out_proj", parts["o"], attended, attended * ratio)
        r_entering = self.back_attention(layer, parts, r_mixed)
        return state * ratio + self.back_norm(f"{name}.layer_norm1", state, r_entering)

    def back_attention(self, layer: int, parts: dict[str, Any], r_mixed: Any) -> Any:
        relevance = {one: np.zeros_like(parts[one]) for one in "qkv"}
        size = r_mixed.shape[1] // self.heads[layer]
        for head, weight in enumerate(parts["A"]):
            part = slice(head * size, (head + 1) * size)
            q, k, v, o = (parts[one][:, part] for one in "qkvo")
            ratio = r_mixed[:, part] / o
            relevance["v"][:, part] = 0.5 * v * (weight.T @ ratio)
            r_weight = 0.5 * weight * (ratio @ v.T)
            logits = np.where(self.allowed, q @ k.T / np.sqrt(size), 0.0)
            r_logits = logits * (r_weight - weight * r_weight.sum(-1, keepdims=True))
            self.kept += r_weight.sum() - r_logits.sum()
            ratio = np.where(self.allowed, r_logits / np.where(self.allowed, logits, 1.0), 0.0) / np.sqrt(size)
            relevance["q"][:, part] = 0.5 * q * (ratio @ k)
            relevance["k"][:, part] = 0.5 * k * (ratio.T @ q)
        name = f"encoder.layers.{layer}.self_attn"
        return sum(self.back(f"{name}.{one}_proj", parts["entering"], parts[one], relevance[one]) for one in "qkv")

    def of(self, target: Any, layer: int = 0) -> Any:
        """`(T,)` relevance of the positions of a layer."""
        self.kept = 0.0
        path = self.states()
        token = path[-1][self.pooled]
        normed = self.norm(self.last, token)
        embedding = self.projection @ normed
        r_embedding = embedding * target / np.linalg.norm(embedding)
        r_normed = normed * (self.projection.T @ (r_embedding / embedding))
        relevance = np.zeros_like(path[-1])
        relevance[self.pooled] = self.back_norm(self.last, token, r_normed)
        for one in reversed(range(layer, self.depth)):
            relevance = self.back_block(one, path[one], relevance)
        return relevance.sum(-1)


class GeluRelevance(Relevance):
    """With the exact GELU."""

    def gelu(self, state: Any) -> Any:
        from scipy.special import erf

        return state * (1 + erf(state / np.sqrt(2))) / 2

    def mlp(self, layer: int, state: Any) -> Any:
        name = f"encoder.layers.{layer}"
        inner = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.layer_norm2", state))
        return state + self.linear(f"{name}.mlp.fc2", self.gelu(inner))


@pytest.fixture(scope="module")
def small(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(**{**SMALL, "depth": 2})


def explained(model: Any, side: str, **options: Any) -> torch.Tensor:
    return METHODS["attnlrp"].function(model.tower(side), inputs_of(model, side), target_of(), **options).scores


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_gradient_is_relevance_handed_back_rule_by_rule(
    make_tiny: Callable[..., Any], side: str, layer: int, attention: str
) -> None:
    model = make_tiny(**{**SMALL, "depth": 2, "attention": attention})
    inputs, found = inputs_of(model, side), explained(model, side, layer=layer)
    for row in range(3):
        expected = Relevance(model, side, inputs, row).of(target_of()[row].numpy(), layer)
        tolerance = 1e-9 if attention == "sdpa" else 1e-5
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("side", ["image", "text"])
def test_the_exact_gelu_has_the_same_rule(make_tiny: Callable[..., Any], side: str) -> None:
    model = make_tiny(**{**SMALL, "depth": 2})
    for tower in (model.image, model.text):
        for block in tower.blocks:
            block.mlp.activation_fn = nn.GELU()
    inputs, found = inputs_of(model, side), explained(model, side)
    for row in range(3):
        expected = GeluRelevance(model, side, inputs, row).of(target_of()[row].numpy())
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def without_biases(make_tiny: Callable[..., Any]) -> Any:
    model = make_tiny(**{**SMALL, "depth": 2})
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return model


@pytest.mark.parametrize("side", ["image", "text"])
def test_without_biases_only_softmax_keeps_relevance(make_tiny: Callable[..., Any], side: str) -> None:
    model = without_biases(make_tiny)
    inputs, found = inputs_of(model, side), explained(model, side)
    for row in range(3):
        oracle, target = Relevance(model, side, inputs, row), target_of()[row].numpy()
        oracle.of(target)
        assert abs(oracle.kept) > 1e-3
        assert float(found[row].sum()) + oracle.kept == pytest.approx(oracle.score(target), abs=1e-9)


@pytest.mark.parametrize("side", ["image", "text"])
def test_without_biases_and_attention_the_sum_is_the_score(make_tiny: Callable[..., Any], side: str) -> None:
    model = without_biases(make_tiny)
    with torch.no_grad():
        for block in model.tower(side).blocks:
            block.self_attn.out_proj.weight.zero_()
    found = METHODS["attnlrp"].function(model.tower(side), inputs_of(model, side), target_of())
    torch.testing.assert_close(found.scores.sum(-1), found.open, rtol=0, atol=1e-12)
    assert float(found.open.abs().max()) > 1e-2


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_the_rules_leave_the_forward_pass_as_it_is(make_tiny: Callable[..., Any], side: str, dtype: Any) -> None:
    model = make_tiny(**{**SMALL, "dtype": dtype})
    tower, inputs = model.tower(side), inputs_of(model, side)
    before = tower.embed(inputs)
    with untouched(model.model):
        with _rules(tower, range(tower.depth)):
            torch.testing.assert_close(tower.embed(inputs), before, rtol=0, atol=0)
        torch.testing.assert_close(tower.embed(inputs), before, rtol=0, atol=0)


def test_gradients_too_steep_for_float16_are_taken_again(make_tiny: Callable[..., Any]) -> None:
    """Those by a long target overflow where they are scaled by 1,024 against rounding."""
    full, half = (make_tiny(**{**SMALL, "dtype": dtype}) for dtype in (torch.float32, torch.float16))
    inputs, target, function = inputs_of(full, "image"), 1000 * target_of(), METHODS["attnlrp"].function
    expected = function(full.image, inputs, target).scores
    for length, times in ((1000, 2), (1, 1)):
        with counted() as passes:
            found = function(half.image, inputs_of(half, "image"), target * length / 1000).scores * 1000 / length
        assert passes == {"forward": 3 + 3 * times, "backward": 3 * times}
        assert np.corrcoef(expected.numpy().ravel(), found.numpy().ravel())[0, 1] > 0.99


def test_it_differs_from_gradient_times_input(mini: Any) -> None:
    """HiResCAM at layer 0 is the plain gradient times the same state."""
    ours, plain = (
        isthmus.explain(mini, picture(), "a dog", method=method, layer=0).image.scores.ravel()
        for method in ("attnlrp", "hirescam")
    )
    assert np.corrcoef(ours, plain)[0, 1] < 0.95


def test_an_mlp_without_an_activation_is_refused(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny(**SMALL)
    model.image.blocks[1].mlp = nn.Linear(32, 32, dtype=torch.float64)
    with untouched(model.model), pytest.raises(ModelError, match="Block 1 of the image tower has no activation module"):
        explained(model, "image")


def test_attention_without_projections_is_refused(small: Any) -> None:
    with pytest.raises(ModelError, match="has no q_proj"):
        METHODS["attnlrp"].function(replace(small.image, attention="mlp"), inputs_of(small, "image"), target_of())


def loaded(name: str) -> Any:
    built = zoo.ZOO[name]()
    return isthmus.load(built.model, processor={"image_processor": built.image_processor, "tokenizer": built.tokenizer})


def test_an_activation_behind_the_blocks_has_its_rule_too() -> None:
    """BERT's pooler is a linear map and a tanh; here by hand, from the last state on."""
    model = loaded("vit-bert")
    inputs, _, _ = model.processing.texts(["a small dog"], truncate=False)
    target = torch.nn.functional.normalize(torch.randn(1, 24, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = METHODS["attnlrp"].function(model.text, inputs, target, layer=model.text.depth).scores[0]
    state = model.text.split(inputs, model.text.depth).hidden[0, 0]
    pooler, projection = model.model.text_model.pooler.dense, model.model.text_projection
    with torch.no_grad():
        entering = pooler(state)
        active = torch.tanh(entering)
        embedding = projection(active)
        back = projection.weight.T @ (target[0] / embedding.norm()) * active / entering
        expected = float(state @ (pooler.weight.T @ back))
    assert float(found[0]) == pytest.approx(expected, rel=1e-4)
    assert not found[1:].any()


def test_blocks_of_berts_build_have_their_activation_found() -> None:
    model = loaded("vit-bert")
    for layer, block in enumerate(model.text.blocks):
        assert block.intermediate.intermediate_act_fn in _activations(model.text, layer)
        assert not any(isinstance(module, nn.LayerNorm | nn.Linear) for module in _activations(model.text, layer))


@pytest.mark.parametrize(("name", "said"), [("siglip", "SiglipMultiheadAttentionPoolingHead"), ("vit-bert", "")])
def test_attention_behind_the_blocks_is_told(name: str, said: str) -> None:
    found = isthmus.explain(loaded(name), picture(), "a dog", method="attnlrp")
    assert any(said in note for note in found.image.notes) if said else not found.image.notes
    assert not found.text.notes
