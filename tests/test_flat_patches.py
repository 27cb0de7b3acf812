"""Pictures that enter as flat patches (SigLIP 2 NaFlex): the maps are those of the same model on pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import isthmus
import zoo
from cheap import CHEAP
from conftest import picture
from isthmus.encoders.layout import content_of
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.reference import together
from isthmus.entering import cut, over_patches, replaced, whole
from isthmus.errors import InputError, OptionError
from isthmus.methods import METHODS
from isthmus.targets import embeddings_of
from test_invariants import close

pytestmark = pytest.mark.skipif("siglip2" not in zoo.ZOO, reason="the installed transformers has no SigLIP 2")
ENTERING = ["fast-ig", "input-x-gradient", "integrated-gradients", "saliency", "mfaba", "agi"]
MASKING = ["occlusion", "rise", "lime", "shapley", "banzhaf"]
WIDE, TALL = picture(0, (160, 40)), picture(1, (40, 160))


def read(built: Any) -> Any:
    return isthmus.load(built.model, processor={"image_processor": built.image_processor, "tokenizer": built.tokenizer})


@pytest.fixture(scope="module")
def flat() -> Any:
    return read(zoo.ZOO["siglip2"]())


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    """SigLIP 2 of one size, and NaFlex with its weights, on pictures whose grid is the one that was learnt."""
    fixed, naflex = zoo.ZOO["siglip2-fixed"](), zoo.ZOO["siglip2"]()
    weights = dict(fixed.model.state_dict())
    name = "vision_model.embeddings.patch_embedding.weight"
    weights[name] = weights[name].permute(0, 2, 3, 1).flatten(1)
    known = naflex.model.state_dict()
    naflex.model.load_state_dict({key: weights[key] for key in known})
    return read(fixed), read(naflex)


@pytest.mark.parametrize("method", [*ENTERING, *MASKING, "attention-gradient", "gem"])
def test_maps_are_those_of_the_same_weights_on_pixels(both: tuple[Any, Any], method: str) -> None:
    options = CHEAP.get(method, {})
    shown, text = picture(2, (32, 32)), "a small dog"
    of_pixels, of_patches = (isthmus.explain(m, shown, text, method=method, sides="image", **options) for m in both)
    close(of_pixels, of_patches, 1e-4 if method in ("agi", "mfaba") else 1e-5)


@pytest.mark.parametrize("replacement", ["mean", "blur", "zero", "black"])
def test_replacements_are_those_of_pixels(both: tuple[Any, Any], replacement: str) -> None:
    (fixed, naflex), shown = both, open_picture(picture(2, (32, 32)))
    pixels, _, layouts = fixed.processing.pictures([shown])
    expected = replaced(fixed.image.enter(pixels), layouts, replacement)
    patches, _, layouts = naflex.processing.pictures([shown])
    found = replaced(naflex.image.enter(patches), layouts, replacement)
    torch.testing.assert_close(whole(found, layouts[0]), expected.expand(1, 3, 32, 32), atol=1e-5, rtol=1e-4)


def test_cutting_is_the_processors_and_back_again(flat: Any) -> None:
    inputs, _, (layout,) = flat.processing.pictures([open_picture(WIDE)])
    values = inputs["pixel_values"]
    assert layout.grid[0] < layout.grid[1]
    large = whole(values, layout)
    assert large.shape == (1, 3, 8 * layout.grid[0], 8 * layout.grid[1])
    torch.testing.assert_close(cut(large, layout, values.shape[1]), values, rtol=0, atol=0)
    means = values.reshape(*values.shape[:2], -1, 3).mean(2)[..., 0]
    torch.testing.assert_close(over_patches(large[:, 0], layout), means)
    shown = np.asarray(WIDE.resize((large.shape[3], large.shape[2]), resample=2), dtype=np.float32) / 127.5 - 1
    assert np.abs(shown.transpose(2, 0, 1) - large[0].numpy()).mean() < 0.05


def test_padding_has_no_score_and_does_not_count(flat: Any) -> None:
    """Beside a larger grid a picture is padded: its map, its mean colour and its blur are those that it has alone."""
    small = picture(3, (64, 40))
    sizes = [one.image.scores.size for one in isthmus.explain(flat, [small, WIDE], "a dog", method="gradcam")]
    assert sizes[0] != sizes[1]
    for method, options in {
        "occlusion": {"replacement": "blur"},
        "rise": {"samples": 12},
        "lime": {"samples": 12, "replacement": "zero"},
        "integrated-gradients": {"baseline": "black", "steps": 3},
        "m2ib": {"steps": 2, "copies": 2},
    }.items():
        found = isthmus.explain(flat, [small, WIDE], "a dog", method=method, sides="image", **options)
        for together_, one in zip(found, (small, WIDE), strict=True):
            close(together_, isthmus.explain(flat, one, "a dog", method=method, sides="image", **options), 1e-5)
    inputs, _, layouts = flat.processing.pictures([open_picture(one) for one in (small, WIDE)])
    raw = METHODS["input-x-gradient"].function(flat.image, inputs, torch.eye(32)[:2], layouts=layouts).scores
    assert bool((raw[~content_of(layouts)] == 0).all())


def test_batches_of_other_padding_join(flat: Any) -> None:
    apart = [flat.processing.pictures([open_picture(one)])[0] for one in (WIDE, picture(3, (64, 40)), TALL)]
    assert len({one["pixel_values"].shape for one in apart}) > 1
    alone = torch.cat([flat.image.embed(one) for one in apart])
    torch.testing.assert_close(flat.image.embed(together(apart)), alone, atol=1e-5, rtol=1e-4)
    same = embeddings_of(flat, [WIDE, TALL])[0]  # of one number of patches, but of two shapes
    torch.testing.assert_close(same, torch.nn.functional.normalize(alone[[0, 2]], dim=-1), atol=1e-5, rtol=1e-4)


def test_what_needs_one_size_says_so(flat: Any) -> None:
    with pytest.raises(OptionError, match="pictures of one size"):
        isthmus.explain(flat, WIDE, "a dog", method="integrated-gradients", baseline={"image": "reference"})
    with pytest.raises(InputError, match="inputs of several sizes"):
        isthmus.prompt_free(flat, [WIDE, TALL])
    with pytest.raises(OptionError, match="crop=False"):
        isthmus.describe_direction(flat, 0, [WIDE, TALL, picture(3)], ["a dog", "a cat"])
