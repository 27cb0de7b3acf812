"""The joint map's ways: a side asked along the other's vectors, or both taken apart, in float64 and to rounding."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import isthmus
from conftest import picture
from isthmus.encoders.counting import counted, watched
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.sharing import sharing
from isthmus.errors import ModelError
from isthmus.methods import joint, products
from isthmus.methods.joint import Half, Interaction, joint_nib
from isthmus.methods.products import PositionProducts, position_products
from isthmus.methods.vectors import PositionVectors, position_vectors
from matrix import TEXTS, pictures
from state import untouched
from zoo import ZOO

SIDES = ("image", "text")
# CLS and EOS; a head of attention; flat patches behind a mask; padding behind a mask; learned groups.
KINDS = ("clip", "siglip", "siglip2", "altclip", "blip", "groupvit", "dinov2-bert")


@functools.cache
def double(name: str) -> Any:
    if name not in ZOO:
        pytest.skip(f"this transformers has no {name}")
    zoo = ZOO[name]()
    parts = {"image_processor": zoo.image_processor, "tokenizer": zoo.tokenizer}
    return isthmus.load(zoo.model.double(), processor=parts)


def halves(model: Any, rows: slice = slice(None), text: slice = slice(None)) -> tuple[Half, Half]:
    """Pictures of three shapes, where the model keeps them, and texts of three lengths."""
    images, _, layouts = model.processing.pictures([open_picture(one) for one in pictures()[rows]])
    images = {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in images.items()}
    texts, text_layouts, _ = model.processing.texts(TEXTS[text], truncate=False)
    return Half(model.image, images, layouts), Half(model.text, texts, text_layouts)


def directions_of(tower: Any, inputs: Any, batch: int = 3) -> Tensor:
    """Of all lengths; the second is zero for all inputs, as a position of padding is, and the third for one."""
    width = tower.embed(inputs).shape[1]
    found = torch.randn(batch, 4, width, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found[:, 1], found[0, 2] = 0, 0
    return found * torch.tensor([1.0, 1.0, 1e-6, 1e6])[:, None]


def same(found: PositionProducts, whole: PositionVectors, directions: Tensor) -> None:
    """Equal up to rounding, which is that of each direction's largest part."""
    expected = torch.einsum("bkd,btd->bkt", directions, whole.vectors)
    off = (found.products - expected).abs().amax(-1)
    assert bool((off <= 1e-9 * expected.abs().amax(-1)).all()), off
    assert torch.equal(found.closed, whole.closed)
    assert torch.equal(found.open, whole.open)
    assert found.options == whole.options


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", KINDS)
def test_products_are_the_vectors_along_the_directions(name: str, side: Any) -> None:
    model = double(name)
    half = halves(model)[SIDES.index(side)]
    asked = directions_of(half.tower, half.inputs)
    for options in ({"steps": 2}, {"steps": 1, "layer": 1, "closed": "floor"}):
        with untouched(model.model):
            found = position_products(half.tower, half.inputs, asked, **options)
        same(found, position_vectors(half.tower, half.inputs, **options), asked)
    assert float(found.products[:, 1].abs().max()) == 0


def test_nodes_are_doubled_alike_and_the_delta_is_the_whole_sums(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny(dtype=torch.float64, load_size=(24, 16))
    half = halves(model)[0]
    asked = directions_of(half.tower, half.inputs)
    for tolerance, limit in ((1e-2, 40), (1e-7, 20), (1e-7, 9)):
        auto: dict[str, Any] = {"steps": "auto", "tolerance": tolerance, "limit": limit, "closed": "floor"}
        found = position_products(half.tower, half.inputs, asked, **auto)
        whole = position_vectors(half.tower, half.inputs, **auto)
        same(found, whole, asked)
        nodes = whole.options["steps"]
        assert bool((whole.delta <= tolerance).all()) or 2 * nodes > limit
        if nodes > 5:
            fewer = position_vectors(half.tower, half.inputs, steps=nodes // 2, closed="floor")
            assert float(fewer.delta.max()) > tolerance


def by_way(way: str, image: Half, text: Half, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Interaction:
    ways = {"picture asked": (text, image, False), "text asked": (image, text, False), "both": (text, image, True)}
    monkeypatch.setattr(joint, "_plan", lambda *_: ways[way])
    try:
        return joint_nib(image, text, **options)
    finally:
        monkeypatch.undo()


def alike(a: Interaction, b: Interaction, tolerance: float = 1e-9) -> None:
    for name in ("matrix", "text_alone", "image_alone", "constant", "similarity"):
        one, other = getattr(a, name), getattr(b, name)
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= tolerance * float(other.abs().max()), name
    assert a.options == b.options


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clip", {"steps": {"image": 2, "text": 3}, "layer": {"image": 1}}),
        ("clip", {"steps": "auto", "limit": {"image": 12, "text": 6}, "tolerance": 1e-3}),
        ("siglip", {"steps": 1}),
    ],
)
def test_all_ways_give_the_same_joint_map(name: str, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image, text = halves(double(name))
    both = by_way("both", image, text, monkeypatch, **options)
    for way in ("picture asked", "text asked"):
        alike(by_way(way, image, text, monkeypatch, **options), both)


def test_a_batch_equals_its_pairs_and_chunks_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts alone have no padding, and their pictures no neighbours."""
    model = double("clip")
    whole = by_way("picture asked", *halves(model), monkeypatch, steps=2)
    again = by_way("picture asked", *halves(model), monkeypatch, steps=2)
    assert torch.equal(whole.matrix, again.matrix), "bit for bit"
    alike(by_way("picture asked", *halves(model), monkeypatch, steps=2, memory=1), whole)
    for i in range(3):
        one = by_way("picture asked", *halves(model, slice(i, i + 1), slice(i, i + 1)), monkeypatch, steps=2)
        length = one.matrix.shape[1]
        torch.testing.assert_close(one.matrix[0], whole.matrix[i, :length], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(one.image_alone[0], whole.image_alone[i], rtol=1e-9, atol=1e-12)
        assert float(whole.matrix[i, length:].abs().sum()) == 0, "padding has no part"


def test_the_cheapest_way_is_taken(make_tiny: Callable[..., Any]) -> None:
    """Three tokens beside 49 patches; beside 4, of which as many as words are; and one picture for many texts."""
    model, text, n = make_tiny(), "dog", 2
    found = isthmus.explain(model, picture(), text, joint=True, steps=n).provenance.passes
    alone = isthmus.explain(model, picture(), text, steps=n).provenance.passes
    assert found["forward"] - alone["forward"] == (1 + 3 * n + 2) + (1 + n + 2), "a cut, the products, the ends"
    assert found["backward"] - alone["backward"] == n * (3 + 1)
    few = make_tiny(load_size=(16, 16))
    more = isthmus.explain(few, picture(), "a small brown dog runs far", joint=True, steps=n).provenance.passes
    less = isthmus.explain(few, picture(), "a small brown dog runs far", steps=n).provenance.passes
    assert more["backward"] - less["backward"] == n * (5 + 1), "the text is asked along CLS, four patches, and c"
    images, _, layouts = model.processing.pictures([open_picture(picture())] * 40)
    texts, text_layouts, _ = model.processing.texts([text] * 39 + ["a cat"], truncate=False)
    with counted() as passes, sharing():
        joint_nib(Half(model.image, images, layouts), Half(model.text, texts, text_layouts), steps=1)
    assert passes["backward"] == 0


def test_long_work_rests_and_can_end_between_two_runs_back(make_tiny: Callable[..., Any]) -> None:
    model, told, rests = make_tiny(), [], []
    inputs, _, _ = model.processing.pictures([open_picture(picture())])
    with watched(told.append, lambda: rests.append(1)):
        position_products(model.image, inputs, torch.ones(1, 6, 16), steps=2)
    assert len(rests) == 6
    assert told.count(0) == 6

    def stop(number: int) -> None:
        if number == 0 and len(told) > 0:
            raise KeyboardInterrupt

    with untouched(model.model), watched(stop), pytest.raises(KeyboardInterrupt):
        position_products(model.image, inputs, torch.ones(1, 6, 16), steps=2)


def test_a_chunk_that_did_not_fit_is_not_counted_twice(
    make_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_tiny()
    inputs, _, _ = model.processing.pictures([open_picture(picture())])
    asked = torch.ones(1, 2, 16)
    expected = position_products(model.image, inputs, asked, steps=5).products
    original, failed = products._pulled, []

    def small(split: Any, embedding: Tensor, *args: Any) -> Tensor:
        parts = original(split, embedding, *args)
        if len(embedding) > 2:
            failed.append(len(embedding))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return parts

    monkeypatch.setattr(products, "_pulled", small)
    torch.testing.assert_close(position_products(model.image, inputs, asked, steps=5).products, expected)
    assert failed == [5]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_near(make_tiny: Callable[..., Any], kind: torch.dtype) -> None:
    """Small directions too, whose slopes would be nothing in half precision."""
    model, half = make_tiny(), make_tiny(dtype=kind)
    inputs, _, _ = model.processing.pictures([open_picture(picture())])
    halved = {**inputs, "pixel_values": inputs["pixel_values"].to(kind)}
    asked = torch.randn(1, 2, 16, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 1e-6])[:, None]
    expected = position_products(model.image, inputs, asked, steps=2).products
    found = position_products(half.image, halved, asked, steps=2).products
    assert found.dtype == torch.float32
    off = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(off.max()) < 0.1, off


def test_a_layer_without_a_part_is_refused(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny()
    inputs, _, _ = model.processing.pictures([open_picture(picture())])
    split = model.image.split(inputs, 2)
    leaf, other = (torch.ones(1, 50, 32, requires_grad=True) for _ in range(2))
    with pytest.raises(ModelError, match="embedding does not depend on this layer"):
        products._pulled(split, other[:, 0, :16] * 2, leaf, leaf.detach(), torch.ones(1, 1, 16), 1.0)


def test_the_joint_map_of_explain_is_that_of_both_sides_vectors(mini: Any) -> None:
    one = isthmus.explain(mini, picture(), "a dog", joint=True, steps=1)
    images, _, _ = mini.processing.pictures([open_picture(picture())])
    texts, _, _ = mini.processing.texts(["a dog"], truncate=False)
    regions, words = position_vectors(mini.image, images, steps=1), position_vectors(mini.text, texts, steps=1)
    expected = words.vectors[0] @ regions.vectors[0].T / words.open.norm() / regions.open.norm()
    np.testing.assert_allclose(one.joint.matrix, expected, atol=1e-5 * float(expected.abs().max()))
