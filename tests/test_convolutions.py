"""Class activation maps in a convolutional tower, against captum."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn
from torch.nn.functional import cosine_similarity, normalize

import isthmus
import zoo
from cheap import CHEAP
from conftest import picture
from isthmus.assembly import image_attribution, rows_of
from isthmus.encoders.dual import Frame
from isthmus.encoders.layout import image_layout
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.processing import covering_part
from isthmus.encoders.tower import Tower
from isthmus.entering import gathered, over_patches
from isthmus.explanation import Box
from isthmus.masking import masking
from isthmus.methods import METHODS
from state import untouched


class Convolutions(nn.Module):
    """Three stages, of which the later two halve the grid, a mean over places, a projection."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 6, 8, 10]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=1 + (i > 0), padding=1), nn.GELU())
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.head = nn.Linear(10, 5)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            pixel_values = stage(pixel_values)
        return self.head(pixel_values.mean((2, 3)))


@pytest.fixture(scope="module")
def tower() -> Tower:
    torch.manual_seed(0)
    model = Convolutions().double().eval()
    return Tower("image", model, lambda x: model(x["pixel_values"]), model, "stages", stem_input="pixel_values")


def inputs_of(batch: int = 3) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(batch, 3, 12, 20, generator=generator, dtype=torch.float64)
    return {"pixel_values": pixels}, normalize(torch.randn(batch, 5, generator=generator, dtype=torch.float64), dim=-1)


LAYOUTS = [image_layout((3, 5), patch=4, special=())] * 3


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_gradcam_at_every_stage_is_captums(tower: Tower, layer: int, relu: bool) -> None:
    inputs, target = inputs_of()
    found = METHODS["gradcam"].function(tower, inputs, target, layouts=LAYOUTS, layer=layer, relu=relu)

    def score(pixels: torch.Tensor) -> torch.Tensor:
        return cosine_similarity(tower.model(pixels), target, dim=-1)

    theirs = LayerGradCam(score, tower.blocks[layer - 1]).attribute(inputs["pixel_values"], relu_attributions=relu)
    assert found.grid == tuple(theirs.shape[-2:])
    np.testing.assert_allclose(found.scores, theirs.detach().flatten(1), atol=1e-12)


def test_hirescam_sums_products_at_each_place(tower: Tower) -> None:
    inputs, target = inputs_of()
    found = METHODS["hirescam"].function(tower, inputs, target, layer=2)
    state = tower.split(inputs, 2).hidden.clone().requires_grad_(True)
    embedding = tower.model.head(tower.blocks[2](state).mean((2, 3)))
    (gradient,) = torch.autograd.grad(cosine_similarity(embedding, target, dim=-1).sum(), state)
    np.testing.assert_allclose(found.scores, (state * gradient).sum(1).flatten(1).detach(), atol=1e-12)


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "input-x-gradient"])
def test_a_batch_equals_its_singles_and_nothing_is_left_behind(tower: Tower, method: str) -> None:
    inputs, target = inputs_of()

    def run(rows: slice) -> torch.Tensor:
        given: dict[str, Any] = {"layouts": LAYOUTS[rows]} if METHODS[method].needs_layouts else {}
        part = {"pixel_values": inputs["pixel_values"][rows]}
        return METHODS[method].function(tower, part, target[rows], layer=2, **given).scores

    with untouched(tower.model):
        whole = run(slice(0, 3))
    for i in range(3):
        torch.testing.assert_close(run(slice(i, i + 1))[0], whole[i], rtol=0, atol=1e-14)


def test_nib_is_complete_in_a_convolutional_tower(tower: Tower) -> None:
    inputs, target = inputs_of()
    found = METHODS["nib"].function(tower, inputs, target, layer=1, closed="zero", steps="auto", tolerance=1e-4)
    assert found.grid == (12, 20)
    np.testing.assert_allclose(found.scores.sum(-1), found.open - found.closed, rtol=1e-4)


def test_a_result_has_the_grid_of_its_stage(tower: Tower) -> None:
    inputs, target = inputs_of()
    frame = Frame(crop=Box(0, 0, 20, 12), size=(20, 12), input_size=(12, 20))
    for layer, grid in ((1, (12, 20)), (2, (6, 10)), (3, (3, 5))):
        row = rows_of(METHODS["gradcam"].function(tower, inputs, target, layouts=LAYOUTS, layer=layer))[0]
        found = image_attribution(row, LAYOUTS[0], frame, "a target")
        assert found.scores.shape == grid
        assert found.special == ()
        assert found.heatmap().shape == (12, 20)


@pytest.fixture(scope="module")
def uneven() -> Any:
    """ALIGN on pictures that are no whole number of places: 60 x 50 pixels give 8 x 7 places of 8."""
    built = zoo.ZOO["align"]()
    processor = {"image_processor": built.image_processor, "tokenizer": built.tokenizer}
    return isthmus.load(built.model, processor=processor, image_size=(60, 50))


def test_places_share_the_whole_input_and_nothing_beyond(uneven: Any) -> None:
    _, (frame,), _ = uneven.processing.pictures([open_picture(picture(0, (100, 120)))])
    assert frame.crop == covering_part((100, 120), (60, 50))


@pytest.mark.parametrize("place", [(40, 40), (170, 300), (296, 299)])
def test_the_state_of_aligns_own_preprocessing_is_where_the_frame_says(place: tuple[int, int]) -> None:
    """Pictures of 346 pixels, of which the middle 289 are seen: no whole number of places."""
    built, (y, x) = zoo.ZOO["align"](), place
    sizes = {"size": {"height": 346, "width": 346}, "crop_size": {"height": 289, "width": 289}}
    processor = type(built.image_processor)(**{**built.image_processor.to_dict(), **sizes})
    model = isthmus.load(built.model, processor={"image_processor": processor, "tokenizer": built.tokenizer})
    plain = np.full((346, 346, 3), 110, np.uint8)
    marked = plain.copy()
    marked[y : y + 16, x : x + 16] = 255
    inputs, frames, _ = model.processing.pictures([open_picture(one) for one in (plain, marked)])
    crop = frames[0].crop
    assert (crop.left, crop.top, crop.right, crop.bottom) == (28, 28, 317, 317)
    hidden = model.image.split(inputs, 0).hidden  # of the stem: later blocks weigh all places by their mean
    change = (hidden[1] - hidden[0]).abs().sum(0)
    for axis, middle in ((1, y + 8), (0, x + 8)):
        share = change.sum(axis) / change.sum()
        centres = 28 + 289 / len(share) * (torch.arange(len(share)) + 0.5)
        assert abs(float(share @ centres) - middle) < 2


def test_places_that_reach_over_the_edge_hold_all_pixels(uneven: Any) -> None:
    inputs, (frame,), (layout,) = uneven.processing.pictures([open_picture(picture(0, (100, 120)))])
    values = inputs["pixel_values"]
    assert frame.input_size == (60, 50)
    assert layout.grid == (8, 7)
    rows = torch.zeros(1, dtype=torch.long)
    found = gathered(values, [layout], rows, layout.length)
    expected = torch.nn.functional.pad(values.sum(1), (0, 6, 0, 4)).view(1, 8, 8, 7, 8).sum((2, 4)).flatten(1)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    means = over_patches(values[:, 0], layout)
    torch.testing.assert_close(means[0, -1], values[0, 0, 56:, 48:].mean())
    side = masking(uneven.image, inputs, [layout], replacement="zero")
    keep = torch.ones(1, side.positions)
    keep[0, -1] = 0
    share = side._share(keep, rows)
    assert share.shape == (1, 1, 60, 50)
    assert (share == 0).sum() == 4 * 2
    assert bool((share[..., 56:, 48:] == 0).all())


@pytest.mark.parametrize("method", ["occlusion", "rise", "lime", "shapley", "banzhaf", "integrated-gradients"])
def test_methods_of_pixels_run_on_uneven_inputs(uneven: Any, method: str) -> None:
    options = {"banzhaf": {"samples": 128}, "integrated-gradients": {"steps": 24}}.get(method, CHEAP.get(method, {}))
    found = isthmus.explain(uneven, picture(0, (100, 120)), "a dog", method=method, sides="image", **options).image
    assert found.scores.shape == (8, 7)
    assert np.isfinite(found.scores).all()
    if METHODS[method].complete:
        assert found.completeness.relative_delta < 0.05


@pytest.mark.parametrize("method", ["m2ib", "iba", "nib", "gradcam"])
def test_gates_and_maps_of_states_have_the_states_grid(uneven: Any, method: str) -> None:
    for layer in (0, 3):
        options = {**CHEAP.get(method, {}), "layer": layer}
        found = isthmus.explain(uneven, picture(0, (100, 120)), "a dog", method=method, sides="image", **options).image
        state = uneven.image.split(uneven.processing.pictures([open_picture(picture(0, (100, 120)))])[0], layer).hidden
        assert found.scores.shape == state.shape[-2:]
        assert np.isfinite(found.scores).all()
        assert not found.special


def test_gates_of_places_are_learned_as_gates_of_positions(uneven: Any) -> None:
    """M2IB written out on `(C, H, W)`, without noise in its way: one step of Adam from open gates."""
    inputs, _, layouts = uneven.processing.pictures([open_picture(picture(0, (100, 120)))])
    target = normalize(torch.randn(1, 24, generator=torch.Generator().manual_seed(0)), dim=-1)
    split = uneven.image.split(inputs, 3)
    one = METHODS["m2ib"].function(uneven.image, inputs, target, layouts=layouts, layer=3, steps=1)
    shut = torch.sigmoid(torch.tensor(-5.0))
    nats = (((1 - shut) * split.hidden) ** 2 + shut**2 - 1) / 2 - shut.log()
    torch.testing.assert_close(one.scores, nats.sum(1).flatten(1), atol=1e-3, rtol=1e-4)
    two = METHODS["m2ib"].function(uneven.image, inputs, target, layouts=layouts, layer=3, steps=2, copies=3)
    assert two.grid == split.hidden.shape[-2:]
    noise = torch.randn(
        3, split.hidden[0, 0].numel(), split.hidden.shape[1], generator=torch.Generator().manual_seed(0)
    )
    noise = noise.transpose(1, 2).reshape(3, *split.hidden.shape[1:])
    logits = torch.full_like(split.hidden, 5.0, requires_grad=True)
    closed = torch.sigmoid(-logits)
    price = 0.1 * ((((1 - closed) * split.hidden) ** 2 + closed**2 - 1) / 2 - closed.log()).mean()
    state = split.hidden - closed * (split.hidden - noise)
    score = (normalize(split.resume(state, torch.zeros(3, dtype=torch.long)), dim=-1) * target).sum(-1).mean()
    (logits.grad,) = torch.autograd.grad(price - score, logits)
    torch.optim.Adam([logits], lr=1.0).step()
    moved = torch.sigmoid(-logits.detach()).clamp(min=1e-4)
    nats = (((1 - moved) * split.hidden) ** 2 + moved**2 - 1) / 2 - moved.log()
    torch.testing.assert_close(two.scores, nats.sum(1).flatten(1), atol=1e-2, rtol=1e-3)
