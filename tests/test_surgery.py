"""CLIP Surgery and GEM against loops over heads and positions of a CLIP written out in numpy."""

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
from isthmus.encoders.counting import counted
from isthmus.errors import ModelError, OptionError
from isthmus.methods import METHODS
from state import untouched
from test_eclip import DEPTH, SMALL, Handmade, layouts_of, softmax, target_of
from test_tower import inputs_of


@pytest.fixture(scope="module")
def small(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(**SMALL)


@pytest.fixture(scope="module")
def bank() -> torch.Tensor:
    return normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(8), dtype=torch.float64), dim=-1)


def by_values(parts: dict[str, Any], head: slice) -> Any:
    values = parts["v"][:, head]
    rows = []
    for query in values:
        weight = softmax(np.array([query @ key for key in values]) / np.sqrt(len(query)))
        rows.append(sum(w * value for w, value in zip(weight, values, strict=True)))
    return np.array(rows)


def by_all_three(parts: dict[str, Any], head: slice, iterations: int) -> Any:
    temperature = np.mean([np.linalg.norm(one) for one in parts["entering"]]) / np.sqrt(head.stop - head.start)
    found = []
    for name in "qkv":
        alike = np.array([one / np.linalg.norm(one) for one in parts[name][:, head]])
        for _ in range(iterations):
            alike = softmax(temperature * alike @ alike.T) @ alike
            alike = np.array([one / np.linalg.norm(one) for one in alike])
        found.append(softmax(temperature * alike @ alike.T) @ parts["v"][:, head])
    return sum(found) / 3


def features_of(hand: Handmade, blocks: int, mix: Callable[..., Any], *options: Any) -> Any:
    """`(T, 16)`: the second path beside the last blocks, and CLS of the model's own."""
    path = hand.states()
    second = path[hand.depth - blocks].copy()
    for layer in range(hand.depth - blocks, hand.depth):
        parts = hand.attend(layer, path[layer])
        mixed = [mix(parts, slice(start, start + 16), *options) for start in (0, 16)]
        second += hand.out(layer, np.concatenate(mixed, 1))
    second[0] = path[-1][0]
    return np.array([hand.head(token) for token in second])


@pytest.mark.parametrize("blocks", [None, 1, 2])
@pytest.mark.parametrize("surgery", ["labels", "mean", "none"])
def test_clip_surgery_equals_a_loop(small: Any, bank: torch.Tensor, blocks: int | None, surgery: str) -> None:
    inputs, target = inputs_of(small, "image"), target_of()
    options = {"layouts": layouts_of("image", inputs), "bank": bank, "blocks": blocks, "surgery": surgery}
    found = METHODS["clip-surgery"].function(small.image, inputs, target, **options)
    count = blocks or DEPTH
    assert found.options[0] == {"blocks": count, "surgery": surgery}
    for row in range(3):
        features = features_of(Handmade(small, "image", inputs, row), count, by_values)
        labels = [target[row].numpy(), *bank.numpy()]
        likeness = np.array([features[0] @ label for label in labels])
        weight = softmax(2 * likeness) / np.mean(softmax(2 * likeness))
        if surgery == "labels":
            by_label = np.array([[w * (f @ t) for w, t in zip(weight, labels, strict=True)] for f in features])
            expected = by_label[:, 0] - by_label.mean(1)
        elif surgery == "mean":
            expected = features @ (labels[0] - np.mean(labels[1:], 0))
        else:
            expected = features @ labels[0]
        np.testing.assert_allclose(found.scores[row], expected, rtol=0, atol=1e-9)
        assert float(found.open[row]) == pytest.approx(likeness[0], abs=1e-12)


@pytest.mark.parametrize("blocks", [None, 1])
@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_gem_equals_a_loop(small: Any, blocks: int | None, iterations: int) -> None:
    inputs, target = inputs_of(small, "image"), target_of()
    options = {"layouts": layouts_of("image", inputs), "blocks": blocks, "iterations": iterations}
    found = METHODS["gem"].function(small.image, inputs, target, **options)
    for row in range(3):
        hand = Handmade(small, "image", inputs, row)
        features = features_of(hand, blocks or DEPTH, by_all_three, iterations)
        np.testing.assert_allclose(found.scores[row], features @ target[row].numpy(), rtol=0, atol=1e-9)


def test_gem_of_the_mini_model_differs_from_surgery_and_from_its_plain_patches(mini: Any) -> None:
    """The default is six blocks of twelve; `blocks` and `iterations` change the map."""
    maps = [
        isthmus.explain(mini, picture(), "a dog", method=method, **options).image.scores.ravel()
        for method, options in [
            ("gem", {}),
            ("gem", {"blocks": 6}),
            ("gem", {"blocks": 1}),
            ("gem", {"iterations": 0}),
            ("clip-surgery", {"surgery": "none"}),
        ]
    ]
    assert np.array_equal(maps[0], maps[1])
    for other in maps[2:]:
        assert np.abs(maps[0] - other).max() > 1e-3


def test_a_bank_may_be_given(mini: Any) -> None:
    """Where all labels are the text itself, nothing of it is left."""
    found = isthmus.explain(mini, picture(), "a dog", method="clip-surgery", bank=["a dog", "a dog"])
    assert np.abs(found.image.scores).max() < 1e-6
    reference = isthmus.explain(mini, picture(), "a dog", method="clip-surgery")
    assert np.abs(reference.image.scores).max() > 1e-3


@pytest.mark.parametrize("method", ["clip-surgery", "gem"])
def test_one_run_of_the_tower_and_one_of_the_head_for_each_position(
    small: Any, bank: torch.Tensor, method: str
) -> None:
    options: dict[str, Any] = {"bank": bank} if method == "clip-surgery" else {}
    inputs, runs = inputs_of(small, "image", batch=1), []
    handle = small.image.blocks[0].register_forward_hook(lambda *_: runs.append(1))
    try:
        with counted() as passes:
            METHODS[method].function(
                small.image, inputs, target_of(1), layouts=layouts_of("image", inputs), memory=1, **options
            )
    finally:
        handle.remove()
    assert runs == [1]
    assert passes == {"forward": 1 + 10, "backward": 0}
    assert METHODS[method].passes == ("1 + T", "0")


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("clip-surgery", {"surgery": "all"}, "There is no surgery 'all': choose labels, mean, none"),
        ("clip-surgery", {"blocks": 4}, "blocks=4 is too many: the image tower has 3 blocks"),
        ("gem", {"blocks": True}, "blocks must be a whole number of at least 1, not True"),
        ("gem", {"iterations": -1}, "iterations must be a whole number of at least 0, not -1"),
    ],
)
def test_wrong_options_are_refused(
    small: Any, bank: torch.Tensor, method: str, options: dict[str, Any], message: str
) -> None:
    inputs, given = inputs_of(small, "image"), {"bank": bank} if method == "clip-surgery" else {}
    layouts = layouts_of("image", inputs)
    with pytest.raises(OptionError, match=message):
        METHODS[method].function(small.image, inputs, target_of(), layouts=layouts, **given, **options)


@pytest.mark.parametrize("method", ["clip-surgery", "gem"])
def test_nothing_is_left_behind_after_an_exception(small: Any, bank: torch.Tensor, method: str) -> None:
    """The head fails: the projection runs once in the tower, then for each position."""
    inputs, given, runs = inputs_of(small, "image"), {"bank": bank} if method == "clip-surgery" else {}, []

    def fail(*_: Any) -> None:
        runs.append(1)
        if len(runs) == 4:
            raise RuntimeError("lost")

    handle = small.model.visual_projection.register_forward_hook(fail)
    try:
        with untouched(small.model), pytest.raises(RuntimeError, match="lost"):
            METHODS[method].function(
                small.image, inputs, target_of(), layouts=layouts_of("image", inputs), memory=1, **given
            )
    finally:
        handle.remove()


@pytest.mark.parametrize("method", ["clip-surgery", "gem"])
@pytest.mark.parametrize("failure", [RuntimeError("lost"), KeyboardInterrupt()])
def test_nothing_is_left_behind_where_a_block_fails(
    small: Any, bank: torch.Tensor, method: str, failure: BaseException
) -> None:
    inputs, given = inputs_of(small, "image"), {"bank": bank} if method == "clip-surgery" else {}

    def fail(*_: Any) -> None:
        raise failure

    handle = small.image.blocks[1].register_forward_hook(fail)
    try:
        with untouched(small.model), pytest.raises(type(failure)):
            METHODS[method].function(small.image, inputs, target_of(), layouts=layouts_of("image", inputs), **given)
    finally:
        handle.remove()


@pytest.mark.parametrize("method", ["clip-surgery", "gem"])
def test_towers_without_projections_are_refused(small: Any, bank: torch.Tensor, method: str) -> None:
    inputs = inputs_of(small, "image")
    options: dict[str, Any] = {"bank": bank} if method == "clip-surgery" else {}
    with pytest.raises(ModelError, match="has no q_proj"):
        METHODS[method].function(
            replace(small.image, attention="mlp"), inputs, target_of(), layouts=layouts_of("image", inputs), **options
        )
