"""What image processors do is asked of them: which part of a picture they show, and what colours become."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

import isthmus
import zoo
from conftest import picture
from isthmus.encoders.features import takes
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.processing import covering_part, limits_of
from isthmus.errors import InputError, ModelError, OptionError

# AIMv2's code names interpolate_pos_encoding, and fails when it is asked for
ONE_SIZE = pytest.mark.parametrize("name", [name for name in ("aimv2", "vit-bert", "groupvit") if name in zoo.ZOO])


def loaded(name: str, *, image_processor: Any = None, **options: Any) -> Any:
    built = zoo.ZOO[name]()
    processor = {"image_processor": image_processor or built.image_processor, "tokenizer": built.tokenizer}
    return isthmus.load(built.model, processor=processor, **options)


@pytest.mark.parametrize("name", list(zoo.ZOO))
def test_limits_are_what_black_and_white_become(name: str) -> None:
    """Halves of black and of white, so that the ends of the values are known whatever is cut off."""
    processor = zoo.ZOO[name]().image_processor
    halves = np.zeros((96, 96, 3), np.uint8)
    halves[:, 48:] = 255
    values = processor(images=[open_picture(halves).image], return_tensors="pt")["pixel_values"][0]
    pixels = values[:24].reshape(-1, 3) if values.ndim == 2 else values.flatten(1).T
    black, white = limits_of(processor)
    assert black.shape == white.shape == (3, 1, 1)
    torch.testing.assert_close(black.flatten(), pixels.amin(0), atol=0.02, rtol=0.02)
    torch.testing.assert_close(white.flatten(), pixels.amax(0), atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("EfficientNet", {"rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False}, (-1, 1)),
        ("CLIP", {}, (0, 1)),
        ("CLIP", {"rescale_factor": 1 / 51}, (0, 5)),
        ("CLIP", {"do_rescale": False}, (0, 255)),
    ],
)
def test_limits_heed_every_option(kind: str, options: dict[str, Any], expected: tuple[int, int]) -> None:
    found = limits_of(zoo.pictures_of(kind, do_normalize=False, **options))
    for limit, value in zip(found, expected, strict=True):
        torch.testing.assert_close(limit, torch.full((3, 1, 1), float(value)))


@pytest.mark.skipif(
    not takes(transformers.Owlv2Model, "image", "interpolate_pos_encoding"),
    reason="this transformers cannot interpolate OWLv2's position embedding",
)
@pytest.mark.parametrize("size", [(32, 64), (64, 32)])
def test_owlv2_takes_another_size_as_it_is(size: tuple[int, int]) -> None:
    """Its processor pads to a square, and is not to where the picture has been cut to a size."""
    model = loaded("owlv2", image_size=size)
    inputs, (frame,), (layout,) = model.processing.pictures([open_picture(picture(0, (120, 90)))])
    assert inputs["pixel_values"].shape[-2:] == size
    assert frame.input_size == size
    assert frame.crop == covering_part((120, 90), size)
    assert layout.grid == (size[0] // 8, size[1] // 8)


@ONE_SIZE
def test_towers_of_one_size_say_so(name: str) -> None:
    with pytest.raises(OptionError, match="takes pictures of one size: leave image_size out"):
        loaded(name, image_size=48)
    with pytest.raises(InputError, match="32 x 32 pixels alone, not 48 x 40"):
        isthmus.explain(loaded(name), isthmus.PreparedImage(torch.zeros(3, 40, 48)), "a dog")
    larger = {"height": 48, "width": 48}
    processor = zoo.pictures_of("ViT", size=larger)
    with pytest.raises(ModelError, match=r"gives pictures of 48 x 48 pixels.*set the processor's size to 32 x 32"):
        loaded(name, image_processor=processor)
