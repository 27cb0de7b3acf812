"""NIB against independent oracles: captum, a float64 loop, exact identities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients

import isthmus
from conftest import picture
from isthmus.encoders.counting import counted
from isthmus.encoders.tower import unit
from isthmus.errors import OptionError
from isthmus.methods.nib import nib
from test_tower import inputs_of


@pytest.fixture(scope="module")
def tiny64(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64)


def target_of(model: Any, side: str, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.nn.functional.normalize(torch.randn(batch, 16, generator=generator, dtype=torch.float64), dim=-1).to(
        model.dtype
    )


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("layer", [1, 2])
def test_equals_captums_layer_integrated_gradients(tiny64: Any, side: str, layer: int) -> None:
    """captum attributes the output of block `layer - 1`, which is the state that enters block `layer`."""
    tower, inputs, target = tiny64.tower(side), inputs_of(tiny64, side), target_of(tiny64, side)
    ours = nib(tower, inputs, target, layer=layer, steps=300, rule="right", closed="zero")
    name = "pixel_values" if side == "image" else "input_ids"
    rest = {k: v for k, v in inputs.items() if k != name}

    def score(main: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        times = len(main) // len(target)
        fields = dict(zip(rest, others, strict=True))
        return (unit(tower.encode({name: main, **fields})) * target.repeat(times, 1)).sum(-1)

    captum = LayerIntegratedGradients(score, tower.blocks[layer - 1])
    kwargs = {"n_steps": 300, "method": "riemann_right", "additional_forward_args": tuple(rest.values())}
    with LayerZero(tower.blocks[layer - 1]):
        theirs = captum.attribute(inputs[name], baselines=None, **kwargs)
    np.testing.assert_allclose(ours.scores, theirs.sum(-1).detach(), atol=1e-4)


class LayerZero:
    """captum takes the layer's baseline from a baseline input; this makes that state zero, as in the paper.

    On its first pass, that of the input, the block's output is let through; on its second, that of the baseline,
    it is replaced by zeros.
    """

    def __init__(self, block: torch.nn.Module) -> None:
        self.block, self.calls = block, 0

    def __enter__(self) -> None:
        def zeroed(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor | None:
            self.calls += 1
            return torch.zeros_like(output) if self.calls == 2 else None

        self.handle = self.block.register_forward_hook(zeroed)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def loop(tower: Any, inputs: Any, target: torch.Tensor, layer: int, closed: torch.Tensor, nodes: Any) -> Any:
    """Equation 10, one input and one node at a time, through a hook in the whole model."""
    hidden = tower.split(inputs, layer).hidden
    rows = []
    for i in range(len(hidden)):
        one = {k: v[i : i + 1] for k, v in inputs.items()}
        change = hidden[i : i + 1] - closed[i : i + 1]
        total = torch.zeros_like(change)
        for gate, weight in nodes:
            state = (closed[i : i + 1] + gate * change).requires_grad_(True)
            handle = tower.blocks[layer].register_forward_pre_hook(lambda _, args, s=state: (s, *args[1:]))
            try:
                score = (unit(tower.encode(one)) * target[i]).sum()
            finally:
                handle.remove()
            total += weight * torch.autograd.grad(score, state)[0]
        rows.append((change * total).sum(-1))
    return torch.cat(rows)


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("closed", ["zero", "floor", "mean"])
def test_equals_a_loop_over_nodes(tiny64: Any, side: str, closed: str) -> None:
    tower, inputs, target = tiny64.tower(side), inputs_of(tiny64, side), target_of(tiny64, side)
    hidden = tower.split(inputs, 1).hidden
    state = {
        "zero": torch.zeros_like(hidden),
        "floor": 0.1 * hidden,
        "mean": tower.mean_state(1).expand_as(hidden),
    }[closed]
    u, w = np.polynomial.legendre.leggauss(6)
    nodes = [(((x + 1) / 2) ** 3, 3 * ((x + 1) / 2) ** 2 * y / 2) for x, y in zip(u, w, strict=True)]
    ours = nib(tower, inputs, target, layer=1, steps=6, rule="gauss-legendre-cubic", closed=closed)
    torch.testing.assert_close(ours.scores, loop(tower, inputs, target, 1, state, nodes), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("closed", ["zero", "floor", "mean"])
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_scores_sum_to_the_score_lost(tiny64: Any, side: str, closed: str, layer: int) -> None:
    tower, inputs, target = tiny64.tower(side), inputs_of(tiny64, side), target_of(tiny64, side)
    found = nib(tower, inputs, target, layer=layer, steps=200, rule="gauss-legendre-sinh", closed=closed)
    torch.testing.assert_close(found.scores.sum(-1), found.open - found.closed, rtol=1e-6, atol=1e-9)


def test_open_and_closed_scores_are_the_models(tiny64: Any) -> None:
    tower, inputs, target = tiny64.text, inputs_of(tiny64, "text"), target_of(tiny64, "text")
    found = nib(tower, inputs, target, layer=2, closed="floor", floor=0.3)
    split = tower.split(inputs, 2)
    torch.testing.assert_close(found.open, (unit(split.embedding) * target).sum(-1))
    torch.testing.assert_close(found.closed, (unit(split.resume(0.3 * split.hidden)) * target).sum(-1))


def test_a_tensor_may_be_the_closed_state(tiny64: Any) -> None:
    tower, inputs, target = tiny64.image, inputs_of(tiny64, "image"), target_of(tiny64, "image")
    mean = tower.mean_state(1)
    for given in (mean, mean.expand(50, -1), mean.expand(3, 50, -1)):
        torch.testing.assert_close(
            nib(tower, inputs, target, layer=1, closed=given).scores,
            nib(tower, inputs, target, layer=1, closed="mean").scores,
        )
    with pytest.raises(OptionError, match="does not fit"):
        nib(tower, inputs, target, layer=1, closed=mean[:5])


def test_memory_changes_nothing_beyond_rounding(tiny64: Any) -> None:
    tower, inputs, target = tiny64.text, inputs_of(tiny64, "text"), target_of(tiny64, "text")
    whole, small = (nib(tower, inputs, target, layer=1, memory=m).scores for m in (None, 1))
    torch.testing.assert_close(whole, small, rtol=1e-10, atol=1e-14)


def test_running_out_of_memory_halves_the_chunk(tiny64: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from isthmus.encoders.split import Split

    tower, inputs, target = tiny64.text, inputs_of(tiny64, "text"), target_of(tiny64, "text")
    expected = nib(tower, inputs, target, layer=1).scores
    resume, sizes = Split.resume, []

    def scarce(self: Any, hidden: torch.Tensor, rows: Any = None) -> torch.Tensor:
        sizes.append(len(hidden))
        if len(hidden) > 4:
            raise torch.OutOfMemoryError("no more")
        return resume(self, hidden, rows)

    monkeypatch.setattr(Split, "resume", scarce)
    torch.testing.assert_close(nib(tower, inputs, target, layer=1).scores, expected, rtol=1e-10, atol=1e-14)
    assert max(sizes) == 30
    monkeypatch.setattr(Split, "resume", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(isthmus.IsthmusError, match="memory does not hold one pass"):
        nib(tower, inputs, target, layer=1)


@pytest.mark.parametrize("rule", [None, "right", "gauss-legendre-cubic"])
@pytest.mark.parametrize("closed", ["zero", "floor", "mean"])
def test_auto_reaches_its_tolerance_or_says_that_it_did_not(tiny64: Any, rule: str | None, closed: str) -> None:
    tower, inputs, target = tiny64.image, inputs_of(tiny64, "image"), target_of(tiny64, "image")
    found = nib(tower, inputs, target, layer=1, steps="auto", rule=rule, closed=closed, tolerance=0.02, limit=48)
    change = found.open - found.closed
    delta = ((found.scores.sum(-1) - change) / change).abs()
    for i, options in enumerate(found.options):
        assert options["converged"] == bool(delta[i] <= 0.02)
        assert options["steps"] <= 48
        assert bool(found.notes[i]) != options["converged"]
    if rule is None:
        assert all(options["converged"] for options in found.options)


def test_auto_evaluates_no_node_twice_where_the_rule_nests(tiny64: Any) -> None:
    tower, inputs, target = tiny64.image, inputs_of(tiny64, "image"), target_of(tiny64, "image")
    with counted() as passes:
        found = nib(
            tower, inputs, target, layer=1, steps="auto", rule="right", tolerance=1e-6, limit=32, closed="floor"
        )
    assert passes["backward"] == 3 * 32
    assert found.options[0]["steps"] == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 9}, "out of range"),
        ({"steps": 0}, "steps must be"),
        ({"steps": "many"}, "steps must be"),
        ({"rule": "simpson"}, "no rule 'simpson'"),
        ({"closed": "shut"}, "no closed state 'shut'"),
        ({"closed": "floor", "floor": 1.0}, "floor must be"),
        ({"steps": "auto", "tolerance": 0}, "tolerance must"),
        ({"steps": "auto", "limit": 3}, "limit must"),
        ({"preset": "mine"}, "no preset 'mine'"),
    ],
)
def test_options_out_of_range_are_refused(tiny64: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        nib(tiny64.image, inputs_of(tiny64, "image"), target_of(tiny64, "image"), **options)


def test_contrast_of_one_text_is_the_pair_and_swapping_negates(mini: Any) -> None:
    image, options = picture(), {"layer": 9, "steps": 4, "sides": "image"}

    def scores(target: Any) -> np.ndarray:
        return isthmus.explain(mini, image, "a dog", target=target, **options).image.scores

    pair = scores(None)
    np.testing.assert_allclose(scores(isthmus.Contrast(for_=["a dog"])), pair, atol=1e-6)
    one = scores(isthmus.Contrast(for_=["a dog", "a cat"], against=["a car"]))
    other = scores(isthmus.Contrast(for_=["a car"], against=["a dog", "a cat"]))
    np.testing.assert_array_equal(one, -other)
    np.testing.assert_allclose(scores(isthmus.Contrast(against=["a dog"])), -pair, atol=1e-6)


def test_maps_are_linear_in_the_target(mini: Any) -> None:
    image, options = picture(), {"layer": 9, "steps": 4, "sides": "image"}
    dog, car = (isthmus.explain(mini, image, text, **options).image.scores for text in ("a dog", "a car"))
    both = isthmus.explain(mini, image, "a dog", against=["a car"], **options).image
    np.testing.assert_allclose(both.scores, dog - car, atol=2e-6)
    assert both.target == "cosine with 'a dog' rather than with 'a car'"
