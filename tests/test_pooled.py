"""The last block runs for the pooled position alone where a tower reads no other, and gives the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isthmus
from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.pooled import pooled_only, pooled_positions
from isthmus.methods import slope
from matrix import MODELS, TEXTS, loaded, pictures
from state import untouched

SIDES = ("image", "text")
# Towers that read one position of what their last block gives, by their own code.
ONE = {"clip": SIDES, "metaclip_2": SIDES, "altclip": SIDES, "chinese_clip": SIDES, "siglip": ("text",)}


def inputs_of(model: DualEncoder, side: Any) -> tuple[Any, Any]:
    if side == "image":
        inputs, _, layouts = model.processing.pictures([open_picture(pictures()[0])])
        return inputs, layouts
    inputs, layouts, _ = model.processing.texts(TEXTS, truncate=False)
    return inputs, layouts


def split_of(model: DualEncoder, side: Any, layer: int) -> Any:
    return model.tower(side).split(inputs_of(model, side)[0], layer)


def embedded(split: Any, state: Tensor, *, narrow: bool) -> tuple[Tensor, Tensor]:
    """Scores of states against a fixed direction, and their gradients, by the code that methods use."""
    target = torch.randn(len(split.hidden), split.embedding.shape[1], generator=torch.Generator().manual_seed(1))
    rows = torch.arange(len(state)) % len(split.hidden)
    (gradient,), scores = slope.slope(split, state, rows, target, narrow=narrow)
    return scores, gradient


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", MODELS)
def test_the_narrowed_block_gives_the_same_scores_and_gradients(name: str, side: Any) -> None:
    model = loaded(name)
    if isinstance(model, str):
        pytest.skip(model)
    split = split_of(model, side, max(0, model.tower(side).depth - 2))
    if split.hidden.ndim == 4:
        assert pooled_positions(split) is None
        return
    noise = torch.randn(2, *split.hidden.shape, generator=torch.Generator().manual_seed(2))
    states = torch.cat([split.hidden, split.hidden * 0.3, split.hidden + noise[0], noise[1]])
    with untouched(model.model):
        whole, narrow = (embedded(split, states, narrow=choice) for choice in (False, True))
    for a, b in zip(whole, narrow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(a.abs().max()))
    if side in ONE.get(name, ()):
        assert pooled_positions(split) is not None, "this tower reads one position, so its last block is narrowed"


def test_pooled_positions_are_cls_and_each_texts_eos() -> None:
    model = isthmus.load("mini")
    text, layouts = inputs_of(model, "text")
    ends = [next(place for name, place in one.special if name == "EOS") for one in layouts]
    found = pooled_positions(model.text.split(text, 2))
    assert found is not None
    assert found.tolist() == ends
    found = pooled_positions(split_of(model, "image", 2))
    assert found is not None
    assert found.tolist() == [0]


def test_most_of_the_last_block_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = isthmus.load("mini"), []
    split = split_of(model, "image", 10)
    pooled_positions(split)
    mlp = model.image.blocks[-1].mlp
    original = mlp.fc1.forward
    monkeypatch.setattr(mlp.fc1, "forward", lambda x: rows.append(x.shape[:2]) or original(x))
    embedded(split, split.hidden.repeat(3, 1, 1), narrow=True)
    embedded(split, split.hidden, narrow=False)
    assert rows == [(3, 1), (1, split.hidden.shape[1])]


@pytest.mark.parametrize("pooling", ["mean", "max", "two"])
def test_a_tower_that_reads_several_positions_runs_its_block_whole(
    make_tiny: Callable[..., Any], pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_tiny()
    tower = model.image
    pool = {"mean": lambda x: x.mean(1), "max": lambda x: x.amax(1), "two": lambda x: x[:, 0] + x[:, 1]}[pooling]

    def encode(inputs: Any) -> Tensor:
        state = model.model.vision_model(**inputs).last_hidden_state
        return model.model.visual_projection(pool(state))

    object.__setattr__(tower, "encode", encode)
    split = split_of(model, "image", 1)
    assert pooled_positions(split) is None
    whole, narrow = (embedded(split, split.hidden, narrow=choice) for choice in (False, True))
    assert torch.equal(whole[1], narrow[1])


def test_a_block_whose_parts_are_not_pointwise_is_refused_by_the_proof(make_tiny: Callable[..., Any]) -> None:
    """Its MLP mixes positions: run for one position it gives something else."""
    model = make_tiny()

    class Mixing(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, state: Tensor) -> Tensor:
            return self.inner(state + state.mean(1, keepdim=True))

    model.image.blocks[-1].mlp = Mixing(model.image.blocks[-1].mlp)
    split = split_of(model, "image", 1)
    assert pooled_positions(split) is None


def test_a_watched_block_is_run_whole_and_nothing_stays_after_an_error() -> None:
    model = isthmus.load("mini")
    split, seen = split_of(model, "image", 10), []
    rows = torch.zeros(1, dtype=torch.long)
    hook = model.image.blocks[-1].mlp.register_forward_hook(lambda _, __, output: seen.append(output.shape[1]))
    try:
        embedded(split, split.hidden, narrow=True)
        assert seen == [split.hidden.shape[1]]
        isthmus.explain(model, pictures()[0], "a dog", layer=10, steps=2)
    finally:
        hook.remove()
    assert {*seen} == {split.hidden.shape[1]}, "neither the proof nor the run shows a watcher a narrowed block"
    with untouched(model.model), pytest.raises(KeyboardInterrupt), pooled_only(split, rows):
        raise KeyboardInterrupt
