"""Occlusion, RISE and LIME against captum and loops over single masked copies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from captum._utils.models.model import Model
from captum.attr import LimeBase, Occlusion
from scipy.optimize import minimize
from torch.nn.functional import cosine_similarity, interpolate, normalize

import isthmus
from conftest import picture
from isthmus.encoders.pictures import open_picture
from isthmus.errors import OptionError
from isthmus.masking import masking
from isthmus.methods import METHODS

TEXTS = ["a dog", "two brown dogs run on the beach"]


@pytest.fixture(scope="module")
def model(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64, load_size=(24, 40))


def parts(model: Any, side: str) -> tuple[Any, Any, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    target = normalize(torch.randn(2, 16, generator=generator, dtype=torch.float64), dim=-1)
    if side == "text":
        inputs, layouts, _ = model.processing.texts(TEXTS, truncate=False)
        return inputs, layouts, target
    inputs, _, layouts = model.processing.pictures([open_picture(picture(i, (80, 48))) for i in range(2)])
    inputs["pixel_values"] = inputs["pixel_values"].double()
    return inputs, layouts, target


def one_by_one(model: Any, side: str, inputs: Any, layouts: Any, target: Any) -> Callable[[int, np.ndarray], float]:
    """Scores one mask of one input at a time, through the engine that test_masking holds to the model."""
    engine = masking(model.tower(side), inputs, layouts)

    def score(row: int, keep: np.ndarray) -> float:
        return float(engine.scores(torch.from_numpy(keep)[None], torch.tensor([row]), target))

    return score


@pytest.mark.parametrize("window", [1, 2])
def test_occlusion_of_pictures_is_captums(model: Any, window: int) -> None:
    inputs, layouts, target = parts(model, "image")
    found = METHODS["occlusion"].function(model.image, inputs, target, layouts=layouts, window=window)

    def score(values: torch.Tensor) -> torch.Tensor:
        embedding = model.image.embed({**inputs, "pixel_values": values})
        return cosine_similarity(embedding, target.repeat(len(values) // 2, 1), dim=-1)

    values = inputs["pixel_values"]
    expected = Occlusion(score).attribute(
        values,
        sliding_window_shapes=(3, 8 * window, 8 * window),
        strides=(3, 8, 8),
        baselines=values.mean((2, 3), keepdim=True).expand_as(values),
    )
    for row in range(2):
        cells = expected[row, 0, ::8, ::8].flatten()
        np.testing.assert_allclose(found.scores[row, list(layouts[row].patches)], cells, atol=1e-9)
    assert found.scores[:, 0].tolist() == [0, 0]


def test_occlusion_of_texts_takes_one_run_of_tokens_after_another(model: Any) -> None:
    inputs, layouts, target = parts(model, "text")
    score = one_by_one(model, "text", inputs, layouts, target)
    found = METHODS["occlusion"].function(model.text, inputs, target, layouts=layouts, window=2)
    width = found.scores.shape[1]
    for row, layout in enumerate(layouts):
        whole, positions = score(row, np.ones(width)), layout.content
        lost = {p: [] for p in positions}
        for pair in itertools.pairwise(positions):
            keep = np.ones(width)
            keep[list(pair)] = 0
            for p in pair:
                lost[p].append(whole - score(row, keep))
        np.testing.assert_allclose(found.scores[row, list(positions)], [np.mean(lost[p]) for p in positions], atol=1e-8)
        assert not found.scores[row, [p for p in range(width) if p not in positions]].any()


@pytest.mark.parametrize("centred", [True, False])
def test_rise_of_texts_equals_a_loop_over_masks(model: Any, centred: bool) -> None:
    inputs, layouts, target = parts(model, "text")
    score = one_by_one(model, "text", inputs, layouts, target)
    options = {"samples": 12, "keep": 0.4, "centred": centred, "seed": 5}
    found = METHODS["rise"].function(model.text, inputs, target, layouts=layouts, **options)
    for row, layout in enumerate(layouts):
        generator = torch.Generator().manual_seed(5)
        masks = (torch.rand(12, len(layout.content), generator=generator) < 0.4).double().numpy()
        scores = []
        for mask in masks:
            keep = np.ones(found.scores.shape[1])
            keep[list(layout.content)] = mask
            scores.append(score(row, keep))
        about = np.array(scores) - np.mean(scores) if centred else np.array(scores)
        weight = masks.sum(0) if centred else 12 * 0.4
        np.testing.assert_allclose(found.scores[row, list(layout.content)], about @ masks / weight, atol=1e-8)


def test_rise_of_pictures_equals_a_loop_over_soft_masks(model: Any) -> None:
    inputs, layouts, target = parts(model, "image")
    found = METHODS["rise"].function(model.image, inputs, target, layouts=layouts, samples=34, cells=3, seed=2)
    generator = torch.Generator().manual_seed(2)
    coarse = (torch.rand(34, 1, 3, 3, generator=generator) < 0.5).float()
    down, right = (torch.randint(n, (34,), generator=generator) for n in (8, 14))
    values = inputs["pixel_values"]
    fill = values.mean((2, 3), keepdim=True)
    masks, scores = [], []
    for k in range(34):
        large = interpolate(coarse[k : k + 1], size=(32, 56), mode="bilinear")[0, 0].double()
        mask = large[down[k] : down[k] + 24, right[k] : right[k] + 40]
        masks.append(mask.view(3, 8, 5, 8).mean((1, 3)).flatten().numpy())
        masked = model.image.embed({**inputs, "pixel_values": values * mask + fill * (1 - mask)})
        scores.append(cosine_similarity(masked, target, dim=-1).numpy())
    masks, scores = np.array(masks), np.array(scores)
    for row in range(2):
        expected = (scores[:, row] - scores[:, row].mean()) @ masks / masks.sum(0)
        np.testing.assert_allclose(found.scores[row, list(layouts[row].patches)], expected, atol=1e-7)


def test_the_standard_error_of_rise_is_the_spread_over_seeds(model: Any) -> None:
    inputs, layouts, target = parts(model, "text")
    runs = [
        METHODS["rise"].function(model.text, inputs, target, layouts=layouts, samples=200, seed=seed)
        for seed in range(20)
    ]
    content = list(layouts[1].content)
    spread = float(torch.stack([one.scores[1, content] for one in runs]).std(0).median())
    stated = np.mean([one.options[1]["standard_error"] for one in runs])
    assert 0.6 < spread / stated < 1.6


def test_centring_takes_the_noise_of_the_offset_away(mini: Any, dog: Any) -> None:
    """Where all scores lie far from 0 together, another seed means another map unless the mean is taken off."""
    text = "a brown dog is tied to a red fire hydrant in front of a small shop"

    def noise(centred: bool) -> float:
        options = {"method": "rise", "sides": "text", "samples": 120, "centred": centred}
        found = [isthmus.explain(mini, dog, text, seed=seed, **options).text.tokens for seed in range(4)]
        maps = np.array([[token.score for token in one] for one in found])
        return float((maps - maps.mean(1, keepdims=True)).std(0).mean())

    assert noise(True) < 0.5 * noise(False)


@pytest.mark.parametrize("side", ["image", "text"])
def test_lime_is_the_weighted_ridge_regression(model: Any, side: str) -> None:
    inputs, layouts, target = parts(model, side)
    score = one_by_one(model, side, inputs, layouts, target)
    options = {"samples": 40, "width": 0.4, "ridge": 0.5, "seed": 7}
    found = METHODS["lime"].function(model.tower(side), inputs, target, layouts=layouts, **options)
    for row, layout in enumerate(layouts):
        players = len(layout.content)
        masks = (torch.rand(40, players, generator=torch.Generator().manual_seed(7)) < 0.5).double().numpy()
        masks[0] = 1
        scores = []
        for mask in masks:
            keep = np.ones(found.scores.shape[1])
            keep[list(layout.content)] = mask
            scores.append(score(row, keep))
        distance = 1 - masks.sum(1) / np.maximum(np.linalg.norm(masks, axis=1), 1e-12) / np.sqrt(players)
        weight = np.sqrt(np.exp(-(distance**2) / 0.4**2))
        # The penalty as rows of a least-squares system; the last column is the free intercept.
        design = np.vstack(
            [np.sqrt(weight)[:, None] * np.c_[masks, np.ones(40)], np.sqrt(0.5) * np.eye(players, players + 1)]
        )
        right = np.r_[np.sqrt(weight) * scores, np.zeros(players)]
        expected = np.linalg.lstsq(design, right, rcond=None)[0]
        np.testing.assert_allclose(found.scores[row, list(layout.content)], expected[:-1], atol=1e-9)
        left = weight @ (scores - np.c_[masks, np.ones(40)] @ expected) ** 2
        about = weight @ (scores - np.average(scores, weights=weight)) ** 2
        assert found.options[row]["r_squared"] == pytest.approx(1 - left / about, abs=1e-6)


class Ridge(Model):
    """captum's interpretable model: a ridge regression with a free intercept, by scipy's minimiser."""

    def __init__(self, ridge: float) -> None:
        self.ridge, self.weights = ridge, torch.empty(0)

    def fit(self, train_data: Any, **_: Any) -> dict[str, float]:
        masks, scores, near = (part.double().numpy() for part in next(iter(train_data)))

        def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
            left = scores.ravel() - masks @ x[:-1] - x[-1]
            slope = -2 * np.r_[masks.T @ (near * left) - self.ridge * x[:-1], near @ left]
            return float(near @ left**2 + self.ridge * x[:-1] @ x[:-1]), slope

        found = minimize(loss, np.zeros(masks.shape[1] + 1), jac=True, method="BFGS", options={"gtol": 1e-12})
        self.weights = torch.from_numpy(found.x[:-1])
        return {}

    def representation(self) -> torch.Tensor:
        return self.weights[None]

    def __call__(self, *_: Any, **__: Any) -> torch.Tensor:
        raise AssertionError


def test_lime_of_few_words_is_captums(model: Any) -> None:
    inputs, layouts, target = parts(model, "text")
    score = one_by_one(model, "text", inputs, layouts, target)
    options = {"samples": 30, "width": 0.5, "ridge": 0.1, "seed": 5}
    found = METHODS["lime"].function(model.text, inputs, target, layouts=layouts, **options)
    for row, layout in enumerate(layouts):
        players = list(layout.content)
        drawn = (torch.rand(30, len(players), generator=torch.Generator().manual_seed(5)) < 0.5).double()
        drawn[0] = 1

        def scored(mask: torch.Tensor, row: int = row, players: list[int] = players) -> torch.Tensor:
            keep = np.ones(found.scores.shape[1])
            keep[players] = mask[0].numpy()
            return torch.tensor([score(row, keep)])

        def near(full: torch.Tensor, mask: torch.Tensor, *_: Any, **__: Any) -> float:
            angle = float(cosine_similarity(full, mask)[0])
            return float(np.sqrt(np.exp(-((1 - angle) ** 2) / 0.5**2)))

        def one_after_another(*_: Any, drawn: torch.Tensor = drawn, **__: Any) -> Iterator[torch.Tensor]:
            for mask in drawn:
                yield mask[None]

        lime = LimeBase(
            scored,
            Ridge(0.1),
            near,
            one_after_another,
            True,
            lambda mask, *_, **__: mask,
            None,
        )
        theirs = lime.attribute(torch.ones(1, len(players), dtype=torch.float64), n_samples=30)
        np.testing.assert_allclose(found.scores[row, players], theirs[0], atol=2e-7)


def test_another_seed_gives_another_result_and_the_seed_is_kept(mini: Any) -> None:
    for method in ("rise", "lime", "shapley", "banzhaf"):
        options = {"method": method, "samples": 60, "sides": "text"}
        text = "two brown dogs run on the wide sandy beach"
        a, b = (isthmus.explain(mini, picture(), text, seed=seed, **options) for seed in (0, 1))
        assert (a.provenance.seed, b.provenance.seed) == (0, 1)
        assert [token.score for token in a.text.tokens] != [token.score for token in b.text.tokens]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("occlusion", {"window": 0}, "window must be a whole number of at least 1, not 0"),
        ("rise", {"samples": 1}, "samples must be a whole number of at least 2"),
        ("rise", {"keep": 1.0}, "keep must lie between 0 and 1"),
        ("rise", {"replacement": "green"}, "There is no replacement 'green' for the image"),
        ("lime", {"width": 0}, "width must be a number over 0"),
        ("lime", {"ridge": "much"}, "ridge must be a number over 0"),
        ("banzhaf", {"keep": 2}, "keep must lie between 0 and 1"),
        ("banzhaf", {"samples": 60}, "49 players need samples of at least 98, not 60"),
        ("shapley", {"samples": True}, "samples must be a whole number of at least 2"),
    ],
)
def test_bad_options_are_refused(mini: Any, method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        isthmus.explain(mini, picture(), "a dog", method=method, **options)


def test_another_picture_may_stand_in(mini: Any, dog: Any) -> None:
    """A picture in place of itself changes nothing."""
    same = isthmus.explain(mini, dog, "a dog", method="occlusion", sides="image", replacement=dog)
    assert np.abs(same.image.scores).max() < 1e-6
    other = isthmus.explain(mini, dog, "a dog", method="occlusion", sides="image", replacement=dog.parent / "bear.jpg")
    assert np.abs(other.image.scores).max() > 1e-3
