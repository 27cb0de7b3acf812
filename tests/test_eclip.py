"""Grad-ECLIP, LeGrad and rollout against a CLIP written out in numpy, its derivatives by finite differences.

transformers' eager attention takes its softmax in float32 also for float64, hence tolerances of 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import isthmus
from conftest import picture
from isthmus.encoders.anatomy import anatomy, states
from isthmus.encoders.counting import counted
from isthmus.encoders.layout import Piece, TokenLayout, image_layout
from isthmus.encoders.tower import unit
from isthmus.errors import ModelError, OptionError
from isthmus.methods import METHODS
from isthmus.methods.rollout import pooled_position
from state import untouched
from test_tower import inputs_of

DEPTH = 3
GRID = (3, 3)
SMALL = {"image_size": 24, "patch": 8, "depth": DEPTH, "dtype": torch.float64}


@pytest.fixture(scope="module")
def small(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(**SMALL)


def target_of(batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return normalize(torch.randn(batch, 16, generator=generator, dtype=torch.float64), dim=-1)


def layouts_of(side: str, inputs: dict[str, Any]) -> list[TokenLayout]:
    if side == "image":
        return [image_layout(GRID, patch=8)] * len(inputs["pixel_values"])
    return [TokenLayout(9, pieces=tuple(Piece(i, i, i + 1) for i in range(1, 5)), special=(("EOS", 8),))] * 3


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


class Handmade:
    """One tower of a transformers CLIP, for one input, in numpy and from its weights alone.

    `heads` may be set for each block.
    """

    def __init__(self, model: Any, side: str, inputs: dict[str, Any], row: int) -> None:
        clip = model.model
        self.inside = clip.vision_model if side == "image" else clip.text_model
        weights = {name: value.detach().numpy() for name, value in self.inside.state_dict().items()}
        self.weights: Any = weights
        self.last = "post_layernorm" if side == "image" else "final_layer_norm"
        projection = clip.visual_projection if side == "image" else clip.text_projection
        self.projection = projection.weight.detach().numpy()
        self.depth = len(self.inside.encoder.layers)
        self.heads = [self.inside.config.num_attention_heads] * self.depth
        self.first = model.tower(side).split(inputs, 0).hidden[row].numpy()
        length = len(self.first)
        self.allowed = np.ones((length, length), dtype=bool)
        self.pooled = 0
        if side == "text":
            self.allowed = np.tril(self.allowed) & (inputs["attention_mask"][row].numpy() == 1)
            self.pooled = inputs["input_ids"][row].tolist().index(8191)

    def linear(self, name: str, state: Any) -> Any:
        return state @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, state: Any) -> Any:
        centred = state - state.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def mlp(self, layer: int, state: Any) -> Any:
        name = f"encoder.layers.{layer}"
        inner = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.layer_norm2", state))
        return state + self.linear(f"{name}.mlp.fc2", inner / (1 + np.exp(-1.702 * inner)))

    def attend(self, layer: int, state: Any) -> dict[str, Any]:
        name = f"encoder.layers.{layer}"
        entering = self.norm(f"{name}.layer_norm1", state)
        q, k, v = (self.linear(f"{name}.self_attn.{one}_proj", entering) for one in "qkv")
        size = q.shape[1] // self.heads[layer]
        weights, mixed = [], np.zeros_like(v)
        for head in range(self.heads[layer]):
            part = slice(head * size, (head + 1) * size)
            logits = np.where(self.allowed, q[:, part] @ k[:, part].T / np.sqrt(size), -np.inf)
            weights.append(softmax(logits))
            mixed[:, part] = weights[-1] @ v[:, part]
        return {"entering": entering, "q": q, "k": k, "v": v, "A": weights, "o": mixed}

    def out(self, layer: int, mixed: Any) -> Any:
        return self.linear(f"encoder.layers.{layer}.self_attn.out_proj", mixed)

    def block(self, layer: int, state: Any) -> Any:
        return self.mlp(layer, state + self.out(layer, self.attend(layer, state)["o"]))

    def states(self) -> list[Any]:
        found = [self.first]
        for layer in range(self.depth):
            found.append(self.block(layer, found[-1]))
        return found

    def head(self, token: Any) -> Any:
        embedding = self.projection @ self.norm(self.last, token)
        return embedding / np.linalg.norm(embedding)

    def score(self, target: Any) -> float:
        return float(self.head(self.states()[-1][self.pooled]) @ target)

    def slope_by_attention(self, layer: int, target: Any) -> Any:
        """`(d,)` derivative of the score by the output of a block's attention at the pooled position."""
        state = self.states()[layer]
        mixed, found = self.attend(layer, state)["o"], np.zeros(state.shape[1])
        for channel in range(len(found)):
            for step in (1e-5, -1e-5):
                nudged = mixed.copy()
                nudged[self.pooled, channel] += step
                leaving = self.mlp(layer, state + self.out(layer, nudged))
                for rest in range(layer + 1, self.depth):
                    leaving = self.block(rest, leaving)
                found[channel] += self.head(leaving[self.pooled]) @ target / (2 * step)
        return found


@pytest.mark.parametrize("side", ["image", "text"])
def test_the_handmade_tower_is_the_model(small: Any, side: str) -> None:
    inputs, target = inputs_of(small, side), target_of()
    embeddings = unit(small.tower(side).embed(inputs))
    for row in range(3):
        found = Handmade(small, side, inputs, row).score(target[row].numpy())
        assert found == pytest.approx(float(embeddings[row] @ target[row]), abs=1e-12)


def cosine(a: Any, b: Any) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def eclip_map(hand: Handmade, target: Any, blocks: int, patches: range | None, official: bool) -> Any:
    """Loops over blocks, heads, positions and channels."""
    width = hand.first.shape[1]
    if official:
        hand.heads = [one if layer < DEPTH - blocks else 1 for layer, one in enumerate(hand.heads)]
    path, result = hand.states(), np.zeros(len(hand.first))
    for layer in range(DEPTH - blocks, DEPTH):
        parts, slope = hand.attend(layer, path[layer]), hand.slope_by_attention(layer, target)
        size = width // hand.heads[layer]
        taken = [i for i in range(len(result)) if hand.allowed[hand.pooled, i]] if patches is None else list(patches)
        q, k = (hand.out(layer, parts[one]) if official else parts[one] for one in "qk")
        for head in range(hand.heads[layer]):
            channels = range(head * size, (head + 1) * size)
            alike = {i: cosine(q[hand.pooled, channels], k[i, channels]) for i in taken}
            low, high = min(alike.values()), max(alike.values())
            for i in taken:
                for c in channels:
                    result[i] += slope[c] * parts["v"][i, c] * (alike[i] - low) / (high - low)
    return result


@pytest.mark.parametrize(("side", "blocks"), [("image", None), ("image", 2), ("text", None), ("text", 1)])
@pytest.mark.parametrize("official", [False, True])
def test_grad_eclip_equals_the_formula_in_a_loop(small: Any, side: str, blocks: int | None, official: bool) -> None:
    inputs, target = inputs_of(small, side), target_of()
    function, layouts = METHODS["grad-eclip"].function, layouts_of(side, inputs)
    options = {"layouts": layouts, "blocks": blocks, "official": official}
    found = function(small.tower(side), inputs, target, relu=False, **options)
    count = blocks or (1 if side == "image" else DEPTH)
    for row in range(2):
        hand = Handmade(small, side, inputs, row)
        expected = eclip_map(hand, target[row].numpy(), count, range(1, 10) if side == "image" else None, official)
        np.testing.assert_allclose(found.scores[row], expected, rtol=1e-5, atol=2e-6 * np.abs(expected).max())
        assert np.abs(expected).max() > 1e-4
    cut = function(small.tower(side), inputs, target, **options)
    torch.testing.assert_close(cut.scores, found.scores.clamp(min=0), rtol=0, atol=0)
    assert found.options[0] == {"blocks": count, "official": official, "relu": False}
    embeddings = unit(small.tower(side).embed(inputs))
    torch.testing.assert_close(found.open, (embeddings * target).sum(-1), rtol=0, atol=1e-12)


def test_the_official_network_is_another_one(small: Any) -> None:
    """It says what that network scores, and its map is not that of the model."""
    inputs, target = inputs_of(small, "image"), target_of()
    options = {"layouts": layouts_of("image", inputs), "relu": False}
    ours, official = (
        METHODS["grad-eclip"].function(small.image, inputs, target, official=one, **options) for one in (False, True)
    )
    assert ours.notes == ()
    for row in range(3):
        hand = Handmade(small, "image", inputs, row)
        hand.heads[-1] = 1
        assert f"scores {hand.score(target[row].numpy()):.3f}" in official.notes[row][0]
        assert cosine(ours.scores[row].numpy(), official.scores[row].numpy()) < 0.999


def test_padding_has_no_score_and_no_say(small: Any) -> None:
    """A text of seven tokens, alone and padded by two others that would be the most alike."""
    inputs, layouts = inputs_of(small, "text"), layouts_of("text", {})
    function = METHODS["grad-eclip"].function
    padded = function(small.text, inputs, target_of(), layouts=layouts, relu=False).scores[0]
    alone = {name: value[:1, :7] for name, value in inputs.items()}
    single = function(small.text, alone, target_of()[:1], layouts=layouts[:1], relu=False).scores[0]
    torch.testing.assert_close(padded[:7], single, rtol=0, atol=1e-9)
    assert padded[7:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("start", [None, 0, -2])
def test_legrad_equals_a_loop_over_weights(small: Any, start: int | None) -> None:
    """`d s / d A_hij` is the sum over the head's channels of `d s / d o_ic` (by finite differences) times `v_jc`."""
    inputs, target = inputs_of(small, "image"), target_of()
    layouts = layouts_of("image", inputs)
    found = METHODS["legrad"].function(small.image, inputs, target, layouts=layouts, start_layer=start)
    first = {None: DEPTH - 2, 0: 0, -2: DEPTH - 1}[start]
    assert found.options[0] == {"start_layer": first}
    for row in range(2):
        hand = Handmade(small, "image", inputs, row)
        path, expected = hand.states(), np.zeros(10)
        for layer in range(first, DEPTH):
            parts, slope = hand.attend(layer, path[layer]), np.zeros_like(path[0])
            for index in np.ndindex(*slope.shape):
                for step in (1e-5, -1e-5):
                    mixed = parts["o"].copy()
                    mixed[index] += step
                    output = hand.mlp(layer, path[layer] + hand.out(layer, mixed))
                    slope[index] += hand.head(output.mean(0)) @ target[row].numpy() / (2 * step)
            for head in (slice(0, 16), slice(16, 32)):
                by_weight = slope[:, head] @ parts["v"][:, head].T
                expected += np.maximum(by_weight, 0).sum(0) / 10 / 2
        np.testing.assert_allclose(found.scores[row], expected, rtol=1e-5)


def test_legrad_runs_its_blocks_once(small: Any) -> None:
    inputs = inputs_of(small, "image", batch=1)
    with counted() as passes:
        METHODS["legrad"].function(small.image, inputs, target_of(1), layouts=layouts_of("image", inputs))
    assert passes == {"forward": 4, "backward": 2}
    assert METHODS["legrad"].passes == ("4", "2")


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("start", [0, 1])
def test_rollout_equals_a_product_of_the_models_own_weights(
    make_tiny: Callable[..., Any], small: Any, side: str, start: int
) -> None:
    inputs, model = inputs_of(small, side), make_tiny(**SMALL, attention="eager").model
    inside = model.vision_model if side == "image" else model.text_model
    weights = [a.detach().numpy() for a in inside(**inputs, output_attentions=True).attentions]
    found = METHODS["rollout"].function(small.tower(side), inputs, target_of(), start_layer=start)
    for row in range(3):
        product = np.eye(weights[0].shape[-1])
        for weight in weights[start:]:
            product = (0.5 * weight[row].mean(0) + 0.5 * np.eye(len(product))) @ product
        pooled = 0 if side == "image" else inputs["input_ids"][row].tolist().index(8191)
        np.testing.assert_allclose(found.scores[row], product[pooled], rtol=1e-6, atol=1e-12)
        assert float(found.scores[row].sum()) == pytest.approx(1.0, abs=1e-6)
    again = METHODS["rollout"].function(small.tower(side), inputs, -target_of(), start_layer=start)
    torch.testing.assert_close(again.scores, found.scores, rtol=0, atol=0)
    torch.testing.assert_close(again.open, -found.open, rtol=0, atol=0)


@pytest.mark.parametrize("eos", [2, 8191])
def test_the_pooled_position_is_found_wherever_it_is(make_tiny: Callable[..., Any], eos: int) -> None:
    """Old configurations pool at the highest id, newer ones at the first EOS."""
    model, length = make_tiny(eos=eos), 77
    ids = torch.randint(10, 8000, (length, length), generator=torch.Generator().manual_seed(1))
    ids[torch.arange(length), torch.arange(length)] = 8191  # in row i at position i
    ids[:, -1] = 8191  # and once more, as in padding with EOS
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found = pooled_position(model.text.split(inputs, model.text.depth))
    assert found.tolist() == list(range(length))
    pixels = inputs_of(model, "image")
    assert pooled_position(model.image.split(pixels, model.image.depth), memory=1).tolist() == [0, 0, 0]


def test_towers_that_pool_all_positions_are_refused(small: Any) -> None:
    clip = small.model

    def mean(inputs: Any) -> Any:
        return clip.visual_projection(clip.vision_model(**inputs).last_hidden_state.mean(1))

    tower, inputs = replace(small.image, encode=mean), inputs_of(small, "image")
    with pytest.raises(ModelError, match="pools more than one position"):
        METHODS["rollout"].function(tower, inputs, target_of())
    with pytest.raises(ModelError, match="pools more than one position"):
        METHODS["grad-eclip"].function(tower, inputs, target_of(), layouts=layouts_of("image", inputs))


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_anatomy_shows_what_attention_is_made_of(make_tiny: Callable[..., Any], side: str, attention: str) -> None:
    model = make_tiny(**SMALL, attention=attention)
    inputs, seen, tower = inputs_of(model, side), {}, model.tower(side)

    def visit(layer: int, parts: Any) -> None:
        seen[layer] = parts
        parts.output(parts.mixed)  # a run of its own is not shown again

    with untouched(model.model):
        with anatomy(tower, [0, 2], visit, masks=True), states(tower, [0, 1, 3]) as kept:
            tower.embed(inputs)
        shown = dict(seen)
        tower.embed(inputs)
    assert seen == shown
    assert sorted(seen) == [0, 2]
    for row in range(3):
        hand = Handmade(model, side, inputs, row)
        path = hand.states()
        for layer in (0, 1, 3):
            np.testing.assert_allclose(kept[layer][row], path[layer], atol=1e-6)
        for layer, parts in seen.items():
            expected = hand.attend(layer, path[layer])
            assert parts.heads == hand.heads[layer]
            names = {"entering": "entering", "queries": "q", "keys": "k", "values": "v", "mixed": "o"}
            for name, one in names.items():
                np.testing.assert_allclose(getattr(parts, name)[row], expected[one], atol=1e-6)
            if side == "text":
                assert (parts.attended.expand(3, -1, -1, -1)[row, 0].numpy() == hand.allowed).all()
            else:
                assert parts.attended is None


@pytest.mark.parametrize("masked", [-torch.inf, torch.finfo(torch.float16).min, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_anatomy_reads_masks_of_any_strength(small: Any, masked: float, dtype: torch.dtype) -> None:
    """Towers add -inf, the least number of the type, or -10,000 to the logits of what is not attended to."""
    seen: list[torch.Tensor | None] = []
    block = small.text.blocks[0]
    allowed = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    mask = torch.zeros(1, 1, 5, 5, dtype=dtype).masked_fill(~allowed, masked)
    with torch.no_grad(), anatomy(small.text, [0], lambda _, parts: seen.append(parts.attended), masks=True):
        block(torch.ones(1, 5, 32, dtype=torch.float64), mask)
    assert seen[0] is not None
    assert torch.equal(seen[0], allowed)


@pytest.mark.parametrize("method", ["grad-eclip", "legrad", "rollout"])
@pytest.mark.parametrize("failure", [RuntimeError("lost"), KeyboardInterrupt()])
def test_nothing_is_left_behind_after_an_exception(small: Any, method: str, failure: BaseException) -> None:
    """The projection fails when it runs again: in the pass back, or in the search for the pooled position."""
    inputs, runs = inputs_of(small, "image"), []
    options = {"layouts": layouts_of("image", inputs)} if METHODS[method].needs_layouts else {}

    def fail(*_: Any) -> None:
        runs.append(1)
        if len(runs) == 3:
            raise failure

    METHODS[method].function(small.image, inputs, target_of(), **options)  # the cut is proved
    handle = small.model.visual_projection.register_forward_hook(fail)
    try:
        with untouched(small.model), pytest.raises(type(failure)):
            METHODS[method].function(small.image, inputs, target_of(), memory=1, **options)
    finally:
        handle.remove()


def test_attention_without_its_parts_is_refused(small: Any) -> None:
    inputs = inputs_of(small, "image")
    options = {"layouts": layouts_of("image", inputs)}
    for name, message in [("nothing", "has no module 'nothing'"), ("mlp", "has no q_proj: choose a method")]:
        with pytest.raises(ModelError, match=message):
            METHODS["grad-eclip"].function(replace(small.image, attention=name), inputs, target_of(), **options)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("grad-eclip", {"blocks": 13}, "blocks=13 is too many: the image tower has 12 blocks"),
        ("grad-eclip", {"blocks": 0}, "blocks must be a whole number of at least 1, not 0"),
        ("legrad", {"start_layer": 12}, "is the last block's output: give a block, 0 to 11"),
        ("rollout", {"start_layer": -1}, "is the last block's output: give a block, 0 to 11"),
    ],
)
def test_wrong_options_are_refused(mini: Any, method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        isthmus.explain(mini, picture(), "a dog", method=method, sides="image", **options)


def test_legrad_explains_pictures_alone(mini: Any) -> None:
    with pytest.raises(OptionError, match="legrad is not defined for the text side"):
        isthmus.explain(mini, picture(), "a dog", method="legrad", sides="text")
    assert isthmus.explain(mini, picture(), "a dog", method="legrad").text is None
