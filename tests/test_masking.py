"""The masked-scores engine against the model itself, run on inputs that were masked by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from conftest import picture
from isthmus.encoders.counting import counted
from isthmus.encoders.layout import content_of
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.tower import unit
from isthmus.entering import replaced
from isthmus.errors import OptionError
from isthmus.masking import masked_scores, masking
from state import untouched

TEXTS = ["a dog", "two brown dogs run on the beach"]


@pytest.fixture(scope="module")
def model(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64, load_size=(24, 40))


def sides(model: Any) -> tuple[Any, Any]:
    images, _, image_layouts = model.processing.pictures([open_picture(picture(1, (80, 48)))] * 2)
    images["pixel_values"] = images["pixel_values"].double() + torch.tensor([0.0, 0.3]).view(2, 1, 1, 1)
    texts, text_layouts, _ = model.processing.texts(TEXTS, truncate=False)
    return (images, image_layouts), (texts, text_layouts)


def masks(layouts: Any, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(len(layouts), count, content_of(layouts).shape[1], generator=generator) > 0.5).double()


def masked_pixels(values: torch.Tensor, keep: torch.Tensor, layout: Any, fill: torch.Tensor) -> torch.Tensor:
    values = values.clone()
    for i, position in enumerate(layout.patches):
        row, column = divmod(i, layout.grid[1])
        box = np.s_[..., row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
        values[box] = keep[position] * values[box] + (1 - keep[position]) * fill[box]
    return values


@pytest.mark.parametrize("replacement", ["mean", "zero", "another"])
def test_masked_pairs_score_as_the_model_scores_inputs_masked_by_hand(model: Any, replacement: str) -> None:
    (images, image_layouts), (texts, text_layouts) = sides(model)
    other = torch.randn(3, 24, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    fill = {"mean": "mean", "zero": "zero", "another": other}[replacement]
    image = masking(model.image, images, image_layouts, replacement=fill)
    text = masking(model.text, texts, text_layouts, replacement="zero" if replacement == "another" else replacement)
    image_masks, text_masks = masks(image_layouts, 4, 0), masks(text_layouts, 3, 1)
    with counted() as passes:
        found = masked_scores(image, text, image_masks, text_masks)
    assert found.shape == (2, 4, 3)
    assert passes == {"forward": 2 * (4 + 3), "backward": 0}

    by_hand = copy.deepcopy(model.model)
    spare = 7000  # a row of the table that no text uses holds the replacement
    vector = model.text.mean_state(None) if replacement == "mean" else torch.zeros(32)
    by_hand.text_model.embeddings.token_embedding.weight.data[spare] = vector
    for b in range(2):
        values = images["pixel_values"][b]
        if replacement == "mean":
            filled = values.mean((1, 2), keepdim=True).expand_as(values)
        else:
            filled = torch.zeros_like(values) if replacement == "zero" else other
        pictures = [masked_pixels(values, keep, image_layouts[b], filled) for keep in image_masks[b]]
        u = unit(model.image.embed({**images, "pixel_values": torch.stack(pictures)}))
        ids = texts["input_ids"][b].repeat(3, 1)
        for k, keep in enumerate(text_masks[b]):
            for piece in text_layouts[b].pieces:
                if keep[piece.position] == 0:
                    ids[k, piece.position] = spare
        w = by_hand.get_text_features(ids, texts["attention_mask"][b].repeat(3, 1)).pooler_output
        torch.testing.assert_close(found[b], u @ unit(w.detach()).T, rtol=1e-6, atol=1e-8)


def test_removal_takes_tokens_out_of_the_attention_mask(model: Any) -> None:
    _, (texts, layouts) = sides(model)
    side = masking(model.text, texts, layouts, replacement="remove")
    keep = masks(layouts, 3, 2)
    found = side.embeddings(keep.flatten(0, 1), torch.arange(2).repeat_interleave(3)).view(2, 3, -1)
    for b in range(2):
        mask = texts["attention_mask"][b].repeat(3, 1)
        for piece in layouts[b].pieces:
            mask[:, piece.position] = keep[b, :, piece.position].long()
        expected = model.model.get_text_features(texts["input_ids"][b].repeat(3, 1), mask).pooler_output
        torch.testing.assert_close(found[b], unit(expected.detach()), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("replacement", ["mean", "zero", "remove"])
def test_special_positions_stay_whatever_a_mask_says(model: Any, replacement: str) -> None:
    _, (texts, layouts) = sides(model)
    side = masking(model.text, texts, layouts, replacement=replacement)
    keep = content_of(layouts).double()  # keeps all words, and asks for all else to go
    torch.testing.assert_close(side.embeddings(keep, torch.arange(2)), unit(side.entrance.embedding), rtol=1e-6, atol=0)


def test_a_full_mask_changes_nothing_and_soft_masks_mix(model: Any) -> None:
    (images, layouts), _ = sides(model)
    side = masking(model.image, images, layouts, replacement="zero")
    rows = torch.arange(2)
    whole = side.embeddings(torch.ones(2, side.positions), rows)
    torch.testing.assert_close(whole, unit(side.entrance.embedding), rtol=1e-9, atol=0)
    half = side.embeddings(torch.full((2, side.positions), 0.5), rows)
    expected = unit(model.image.embed({**images, "pixel_values": images["pixel_values"] / 2}))
    torch.testing.assert_close(half, expected, rtol=1e-6, atol=1e-9)
    pixels = side.embeddings(torch.full((2, 24, 40), 0.5), rows)
    torch.testing.assert_close(pixels, expected, rtol=1e-6, atol=1e-9)


def test_the_blur_is_gaussian(model: Any) -> None:
    (images, layouts), _ = sides(model)
    entrance = model.image.enter(images)
    found = replaced(entrance, layouts, "blur")
    sigma = 40 * 10 / 224
    for channel in range(3):
        expected = ndimage.gaussian_filter(
            images["pixel_values"][1, channel].numpy(), sigma, mode="nearest", radius=int(3 * sigma)
        )
        np.testing.assert_allclose(found[1, channel], expected, atol=1e-6)


def test_pixels_beyond_the_last_patch_are_kept(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny(image_size=59, patch=8)
    inputs, _, layouts = model.processing.pictures([open_picture(picture())])
    side = masking(model.image, inputs, layouts, replacement="zero")
    share = side._share(torch.zeros(1, side.positions), torch.zeros(1, dtype=torch.long))
    assert share.shape == (1, 1, 59, 59)
    assert share[..., :56, :56].sum() == 0
    assert bool((share[..., 56:, :] == 1).all() and (share[..., 56:] == 1).all())


def test_results_do_not_depend_on_memory_and_nothing_is_left_behind(model: Any) -> None:
    (images, layouts), (texts, text_layouts) = sides(model)
    with untouched(model.model):
        found = []
        for memory in (None, 1):
            image = masking(model.image, images, layouts, replacement="blur", memory=memory)
            text = masking(model.text, texts, text_layouts, memory=memory)
            found.append(masked_scores(image, text, masks(layouts, 3, 0), masks(text_layouts, 5, 1)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("side", "replacement", "message"),
    [
        ("image", "remove", "no replacement 'remove' for the image: choose mean, blur, zero"),
        ("text", "blur", "no replacement 'blur' for the text: choose mean or zero"),
        ("image", torch.zeros(3, 8, 8), r"shape \(3, 8, 8\), which does not fit"),
    ],
)
def test_bad_replacements_are_refused(model: Any, side: str, replacement: Any, message: str) -> None:
    inputs, layouts = sides(model)[0 if side == "image" else 1]
    with pytest.raises(OptionError, match=message):
        masking(model.tower(side), inputs, layouts, replacement=replacement)


def test_a_tower_without_an_attention_mask_cannot_remove(model: Any) -> None:
    _, (texts, layouts) = sides(model)
    side = masking(model.text, {"input_ids": texts["input_ids"]}, layouts, replacement="remove")
    with pytest.raises(OptionError, match="takes no attention mask: choose another replacement"):
        side.embeddings(torch.ones(2, side.positions), torch.arange(2))
