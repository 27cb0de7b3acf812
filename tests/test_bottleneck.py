"""M2IB and IBA against a float64 loop, closed forms, and what the paper's published code gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import cosine_similarity, normalize

import isthmus
from conftest import picture
from isthmus.encoders.counting import counted
from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.pictures import open_picture
from isthmus.errors import OptionError
from isthmus.methods import METHODS, gates

m2ib, iba = METHODS["m2ib"].function, METHODS["iba"].function


@pytest.fixture(scope="module")
def tiny64(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64)


@pytest.fixture(scope="module")
def wide64(make_tiny: Callable[..., Any]) -> Any:
    """A grid of 4 x 9 patches."""
    return make_tiny(dtype=torch.float64, load_size=(32, 72))


def given(model: Any, side: str) -> tuple[dict[str, Any], list[TokenLayout], torch.Tensor]:
    """Inputs, of which one text is padded, their layouts, and targets."""
    generator = torch.Generator().manual_seed(3)
    target = normalize(torch.randn(2, 16, generator=generator, dtype=torch.float64), dim=-1)
    if side == "image":
        inputs, _, layouts = model.processing.pictures([open_picture(picture(seed)) for seed in range(2)])
    else:
        inputs, layouts, _ = model.processing.texts(["dog", "a very small dog"], truncate=True)
    return dict(inputs), list(layouts), target


def states_of(model: Any, side: str, inputs: Any, layer: int) -> torch.Tensor:
    """transformers' own hidden states."""
    if side == "image":
        out = model.model.vision_model(**inputs, output_hidden_states=True)
    else:
        out = model.model.text_model(**inputs, output_hidden_states=True)
    return out.hidden_states[layer].detach()


def single(inputs: dict[str, Any], row: int, length: int) -> dict[str, Any]:
    """One input without its padding."""
    tensors = {name: value[row : row + 1] for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    return {**inputs, **{name: v if v.ndim > 2 else v[:, :length] for name, v in tensors.items()}}


def oracle(
    tower: Any,
    inputs: dict[str, Any],
    hidden: torch.Tensor,
    target: torch.Tensor,
    *,
    layer: int,
    beta: float,
    steps: int,
    copies: int,
    seed: int,
    mean: torch.Tensor | float = 0.0,
    std: torch.Tensor | float = 1.0,
    blur: torch.Tensor | None = None,
    lr: float = 1.0,
) -> np.ndarray:
    """One input: a hook on the whole model, one copy after another, Adam and the divergence from their definitions."""
    generator = torch.Generator().manual_seed(seed)
    logits, first, second = torch.full_like(hidden, 5.0), torch.zeros_like(hidden), torch.zeros_like(hidden)
    for step in range(1, steps + 1):
        logits = logits.detach().requires_grad_(True)
        gates = torch.sigmoid(logits)
        gates = (gates if blur is None else torch.einsum("ij,bjc->bic", blur, gates)).clamp(max=1 - 1e-4)
        noise = torch.randn(copies, *hidden.shape[1:], generator=generator).double()
        passed, prior = Normal(gates * (hidden - mean) / std, 1 - gates), Normal(0.0, 1.0)
        information = kl_divergence(passed, prior)
        loss = beta * information.mean()
        for copy in noise:
            state = gates * hidden + (1 - gates) * (mean + std * copy)
            handle = tower.blocks[layer].register_forward_pre_hook(lambda _, args, v=state: (v, *args[1:]))
            try:
                loss = loss - cosine_similarity(tower.encode(inputs), target[None]).sum() / copies
            finally:
                handle.remove()
        (slope,) = torch.autograd.grad(loss, logits)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        logits = logits - lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    return information.detach().sum(-1)[0].numpy()  # of the last forward pass


@pytest.mark.parametrize("side", ["image", "text"])
def test_m2ib_equals_a_loop(tiny64: Any, side: str) -> None:
    """Seven steps, so that gates reach their bound."""
    tower, (inputs, layouts, target) = tiny64.tower(side), given(tiny64, side)
    options = {"layer": 1, "beta": 0.01, "steps": 7, "copies": 2, "seed": 4}
    found = m2ib(tower, inputs, target, layouts=layouts, **options)
    hidden = states_of(tiny64, side, inputs, 1)
    for row, layout in enumerate(layouts):
        length = layout.length
        one = single(inputs, row, length)
        expected = oracle(tower, one, hidden[row : row + 1, :length], target[row], **options)
        np.testing.assert_allclose(found.scores[row, :length], expected, rtol=1e-6)
        assert (found.scores[row, length:] == 0).all()
        embedding = tower.encode(one).detach()
        np.testing.assert_allclose(found.open[row], cosine_similarity(embedding, target[row][None])[0], atol=1e-7)


@pytest.mark.parametrize(("side", "sigma"), [("image", 1.0), ("image", 1.4), ("image", 0.0), ("text", 1.0)])
def test_iba_equals_a_loop_with_scipys_filter(wide64: Any, side: str, sigma: float) -> None:
    tower, (inputs, layouts, target) = wide64.tower(side), given(wide64, side)
    options = {"layer": 1, "beta": 0.05, "steps": 4, "copies": 2, "seed": 1}
    found = iba(tower, inputs, target, layouts=layouts, sigma=sigma, **options)
    reference = [states_of(wide64, side, given_, 1)[mask].numpy() for given_, mask in tower.reference()]
    channels = np.concatenate(reference).T.tolist()
    mean = torch.tensor([math.fsum(c) / len(c) for c in channels], dtype=torch.float64)
    std = torch.tensor([np.std(c) for c in channels], dtype=torch.float64)
    blur = None
    if side == "image" and sigma:
        assert layouts[0].grid == (4, 9)
        blur = torch.eye(37, dtype=torch.float64)
        for j, unit in enumerate(np.eye(36)):  # CLS, at 0, stays as it is
            blur[1:, 1 + j] = torch.from_numpy(
                gaussian_filter(unit.reshape(4, 9), sigma, mode="mirror", truncate=2).ravel()
            )
    hidden = states_of(wide64, side, inputs, 1)
    for row, layout in enumerate(layouts):
        one, own = single(inputs, row, layout.length), hidden[row : row + 1, : layout.length]
        expected = oracle(tower, one, own, target[row], mean=mean, std=std, blur=blur, **options)
        np.testing.assert_allclose(found.scores[row, : layout.length], expected / np.log(2), rtol=1e-6)
    assert ("sigma" in found.options[0]) == (side == "image")


@pytest.mark.parametrize("size", [1, 2, 3, 9])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_smoothing_equals_scipys_on_grids_narrower_than_the_kernel(size: int, sigma: float) -> None:
    signal = np.random.default_rng(0).random(size)
    expected = gaussian_filter(signal, sigma, mode="mirror", truncate=2)
    np.testing.assert_allclose(gates._gaussian(size, sigma).numpy() @ signal, expected, rtol=1e-12)


@pytest.mark.parametrize("method", ["m2ib", "iba"])
@pytest.mark.parametrize("side", ["image", "text"])
def test_untouched_gates_pass_what_the_formula_says(tiny64: Any, side: str, method: str) -> None:
    """Before Adam moves them all gates are sigmoid(5), and smoothing leaves equal gates as they are."""
    tower, (inputs, layouts, target) = tiny64.tower(side), given(tiny64, side)
    found = METHODS[method].function(tower, inputs, target, layouts=layouts, layer=2, steps=1, beta=0.0)
    hidden = states_of(tiny64, side, inputs, 2)
    if method == "iba":
        states = torch.cat([states_of(tiny64, side, given_, 2)[mask] for given_, mask in tower.reference()])
        hidden = (hidden - states.mean(0)) / states.var(0, correction=0).sqrt()
    gate = 1 / (1 + math.exp(-5))
    nats = -0.5 * (1 + math.log((1 - gate) ** 2) - (gate * hidden) ** 2 - (1 - gate) ** 2).sum(-1)
    for row, layout in enumerate(layouts):
        own = nats[row, : layout.length] / (math.log(2) if method == "iba" else 1)
        np.testing.assert_allclose(found.scores[row, : layout.length], own, rtol=1e-9)


@pytest.mark.parametrize("method", ["m2ib", "iba"])
def test_nothing_passes_where_information_costs_too_much(tiny64: Any, method: str) -> None:
    inputs, layouts, target = given(tiny64, "image")
    options = {"layer": 3, "steps": 40, "copies": 1, "beta": 1e6}
    found = METHODS[method].function(tiny64.image, inputs, target, layouts=layouts, **options)
    assert found.scores.min() >= 0
    assert found.scores.max() < 1e-6


@pytest.mark.parametrize("options", [{"preset": "paper", "layer": 2}, {}])
def test_gates_that_open_without_end_stay_finite(make_tiny: Callable[..., Any], options: dict[str, Any]) -> None:
    """In float32 a gate is one from 17 on; these reach hundreds where they help the score."""
    model = make_tiny()
    inputs, layouts, target = given(model, "image")
    found = m2ib(model.image, inputs, target.float(), layouts=layouts, beta=0.0, lr=100.0, steps=6, copies=1, **options)
    assert bool(torch.isfinite(found.scores).all())
    hidden = states_of(model, "image", inputs, found.options[0]["layer"])
    bound = (hidden**2).sum(-1) / 2 - 32 * math.log(1e-4)
    assert bool((found.scores <= bound).all()) == ("preset" not in options)


def test_channels_that_are_constant_in_the_reference_set_count_no_bits(tiny64: Any) -> None:
    inputs, layouts, target = given(tiny64, "image")
    lone = [
        (inputs, torch.zeros(2, 50, dtype=torch.bool).index_put((torch.tensor(0), torch.tensor(7)), torch.tensor(True)))
    ]
    found = iba(replace(tiny64.image, reference=lambda: lone), inputs, target, layouts=layouts, steps=2, copies=1)
    assert (found.scores == 0).all()


def test_statistics_are_fitted_once_until_weights_change(make_tiny: Callable[..., Any]) -> None:
    model, fitted = make_tiny(), []
    inputs, layouts, target = given(model, "text")
    reference = model.text.reference

    def watched() -> Iterator[Any]:
        fitted.append(1)
        return reference()

    tower = replace(model.text, reference=watched)
    for written in (False, False, True):
        if written:
            with torch.no_grad():
                model.model.text_model.embeddings.token_embedding.weight.mul_(1.1)
        iba(tower, inputs, target.float(), layouts=layouts, steps=1)
    assert len(fitted) == 2


def test_iba_needs_a_reference_set(tiny64: Any) -> None:
    inputs, layouts, target = given(tiny64, "image")
    with pytest.raises(OptionError, match="fitted to a reference set, which the image side of this model has not"):
        iba(replace(tiny64.image, reference=None), inputs, target, layouts=layouts)


@pytest.mark.parametrize("method", ["m2ib", "iba"])
@pytest.mark.parametrize("memory", [1, 700_000])
def test_chunks_and_companions_do_not_matter(make_tiny: Callable[..., Any], method: str, memory: int) -> None:
    """Budgets of a single pass, and of a few that share out unevenly; scores reach thousands of nats."""
    model = make_tiny()
    for side in ("image", "text"):
        inputs, layouts, target = given(model, side)
        run = METHODS[method].function
        options = {"steps": 3, "copies": 3, "layer": 1}
        whole = run(model.tower(side), inputs, target.float(), layouts=layouts, **options).scores
        parts = run(model.tower(side), inputs, target.float(), layouts=layouts, memory=memory, **options).scores
        np.testing.assert_allclose(parts, whole, atol=2e-6 * float(whole.max()), rtol=0)
        for row, layout in enumerate(layouts):
            one = single(inputs, row, layout.length)
            alone = run(model.tower(side), one, target.float()[row][None], layouts=[layout], **options).scores[0]
            np.testing.assert_allclose(whole[row, : layout.length], alone, atol=2e-6 * float(whole.max()), rtol=0)


@pytest.mark.parametrize("method", ["m2ib", "iba"])
def test_passes_are_those_that_the_registry_states(tiny64: Any, method: str) -> None:
    inputs, layouts, target = given(tiny64, "image")
    for n in (1, 4):
        with counted() as passes:
            METHODS[method].function(tiny64.image, inputs, target, layouts=layouts, layer=2, steps=n)
        assert METHODS[method].passes == ("10n - 9", "10n - 10")
        stated = (10 * n - 9, 10 * n - 10)
        assert tuple(passes.values()) == (2 * stated[0], 2 * stated[1])


def test_the_seed_decides(tiny64: Any) -> None:
    inputs, layouts, target = given(tiny64, "image")
    maps = [
        m2ib(tiny64.image, inputs, target, layouts=layouts, steps=3, copies=2, seed=seed).scores for seed in (0, 0, 1)
    ]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("m2ib", {"beta": -0.1}, "beta must be a number at least 0"),
        ("m2ib", {"beta": math.nan}, "beta must be a number at least 0"),
        ("m2ib", {"beta": "much"}, "beta must be a number at least 0"),
        ("iba", {"steps": 0}, "steps must be a whole number of at least 1"),
        ("iba", {"steps": 2.0}, "steps must be a whole number of at least 1"),
        ("iba", {"copies": True}, "copies must be a whole number of at least 1"),
        ("m2ib", {"lr": 0.0}, "lr must be a number over 0"),
        ("m2ib", {"lr": math.inf}, "lr must be a number over 0"),
        ("iba", {"seed": -1}, "seed must be a whole number of at least 0"),
        ("iba", {"sigma": -1.0}, "sigma must be a number of patches from 0 to 100"),
        ("iba", {"sigma": math.nan}, "sigma must be a number of patches from 0 to 100"),
        ("m2ib", {"layer": 13}, "out of range"),
    ],
)
def test_options_out_of_range_are_refused(mini: Any, method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        isthmus.explain(mini, picture(), "a dog", method=method, **options)


def test_the_default_cut_is_the_papers_at_any_depth(mini: Any, tiny64: Any) -> None:
    assert isthmus.explain(mini, picture(), "a dog", method="m2ib", steps=1).image.options["layer"] == 10
    inputs, layouts, target = given(tiny64, "image")
    assert m2ib(tiny64.image, inputs, target, layouts=layouts, steps=1).options[0]["layer"] == 2


def published(mini: Any, reference: Any, pairs: int, **options: Any) -> tuple[list[Any], dict[str, Any], list[int]]:
    arrays, entries = reference
    images = [isthmus.PreparedImage(torch.from_numpy(p.astype(np.float32))) for p in arrays["pixel_values"][:pairs]]
    texts = [entry["caption"] for entry in entries[:pairs]]
    found = isthmus.explain(mini, images, texts, method="m2ib", preset="paper", **options)
    return found, arrays, [len(entry["ids"]) for entry in entries[:pairs]]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_the_published_noise_the_paper_preset_equals_the_published_maps(
    mini: Any, reference: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stream for image and text of each pair in turn, drawn from in the last step, too."""
    stream, last = torch.Generator().manual_seed(seed), []

    class Stream(gates.Noise):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._generators = [stream for _ in self._generators]
            if last:
                last[-1].draw()
            last.append(self)

    monkeypatch.setattr(gates, "Noise", Stream)
    found, arrays, lengths = published(mini, reference, 8, batch_size=1)
    for i, (one, length) in enumerate(zip(found, lengths, strict=True)):
        np.testing.assert_allclose(one.image.published[::2, ::2], arrays[f"m2ib_image_seed{seed}"][i], atol=1e-4)
        np.testing.assert_allclose(one.text.published, arrays[f"m2ib_text_seed{seed}"][i][:length], atol=1e-4)


def test_with_noise_of_its_own_the_paper_preset_has_the_published_distribution(mini: Any, reference: Any) -> None:
    """Means over seeds agree as well as published seeds do among themselves: the ceiling that the noise leaves."""
    runs = [published(mini, reference, 8, seed=seed) for seed in (10, 11, 12)]
    _, arrays, lengths = runs[0]
    for side in ("image", "text"):
        for i, length in enumerate(lengths):
            if side == "image":
                ours = np.stack([found[i].image.published[::2, ::2].ravel() for found, _, _ in runs])
                theirs = np.stack([arrays[f"m2ib_image_seed{seed}"][i].ravel() for seed in range(3)])
            else:
                ours = np.stack([found[i].text.published for found, _, _ in runs])
                theirs = np.stack([arrays[f"m2ib_text_seed{seed}"][i][:length] for seed in range(3)])
            ceiling = min(spearmanr(theirs[a], theirs[b])[0] for a, b in ((0, 1), (0, 2), (1, 2)))
            assert spearmanr(ours.mean(0), theirs.mean(0))[0] > ceiling - 0.03
            assert np.corrcoef(ours.mean(0), theirs.mean(0))[0, 1] > 0.995
            assert ours.mean() == pytest.approx(theirs.mean(), abs=0.01)
