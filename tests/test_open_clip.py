"""Models of open_clip: every kind of tower is cut, and every method is sound on it or refuses."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import isthmus
from cheap import CHEAP
from conftest import picture
from isthmus.encoders.pictures import open_picture
from isthmus.errors import ModelError
from isthmus.methods import METHODS
from state import untouched
from test_invariants import close

open_clip = pytest.importorskip(
    "open_clip", reason="needs open_clip, which needs torchvision: pip install 'isthmus[open_clip]'"
)
from zoo_open_clip import CONTEXT, OPEN_CLIP  # noqa: E402

TEXTS = ["a dog", "A small DOG &amp; two bears, at the river's edge", "one " * 40]
NAMES = list(OPEN_CLIP)
EACH = pytest.mark.parametrize("name", NAMES)
SIDES = pytest.mark.parametrize("side", ["image", "text"])
# Methods that read attention, or the one position that is pooled, may refuse towers that have none.
ATTENTION = {"chefer", "attention-gradient", "attention-x-gradient", "textspan", "grad-eclip", "legrad", "attnlrp"}
ATTENTION |= {"rollout", "clip-surgery", "gem"}
POOLED = {"textspan", "grad-eclip", "rollout", "chefer"}
TOLERANCE = {"mobileclip": 1e-4}  # its random weights magnify rounding
UNSTABLE = {("resnet", "agi"), ("mobileclip", "agi")}  # steps turn where an activation does, and rounding decides
SILENT = ("mfaba", "gradcam")  # they may take no step, or have nothing over zero
REFUSED: dict[str, set[str]] = {
    "vit": set(),
    "vit_mean": POOLED | {"clip-surgery", "gem", "legrad"},
    "resnet": ATTENTION | {"multilayer-nib"},  # its grids are of several sizes
    "convnext": ATTENTION | {"multilayer-nib"},
    "mobileclip": ATTENTION | {"multilayer-nib"},
    "hybrid": set(),
    "siglip": POOLED | {"attnlrp"},
    "coca": POOLED | {"attnlrp"},
    "roberta": POOLED | {"attnlrp"},
}


@pytest.fixture(scope="module")
def loaded() -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            one = OPEN_CLIP[name]()
            made[name] = isthmus.load(one.model, processor=one.processor)
        return made[name]

    return get


def run(model: Any, images: Any, texts: Any, method: str, **options: Any) -> Any:
    return isthmus.explain(model, images, texts, method=method, truncate=True, **{**CHEAP.get(method, {}), **options})


def inputs_of(model: Any, side: str) -> Any:
    if side == "text":
        return model.processing.texts(TEXTS, truncate=True)[0]
    return model.processing.pictures([open_picture(picture(i)) for i in range(3)])[0]


@EACH
def test_the_parts_are_found(loaded: Callable[[str], Any], name: str) -> None:
    one, model = OPEN_CLIP[name](), loaded(name)
    assert (model.image.depth, model.text.depth) == one.depths
    inputs, frames, layouts = model.processing.pictures([open_picture(picture())])
    assert (layouts[0].grid, min(layouts[0].patches)) == (one.grid, one.prefix)
    assert [key for key, _ in layouts[0].special] == ["CLS"] * one.prefix
    assert frames[0].input_size == tuple(inputs["pixel_values"].shape[-2:])
    _, (layout,), _ = model.processing.texts(["a dog"], truncate=False)
    assert ("PAD" in dict(layout.special)) == one.padding_is_read
    split = model.text.split(model.processing.texts(["a dog"], truncate=False)[0], 0)
    assert split.shape[0] == layout.total
    assert (dict(layout.special).get("CLS") == CONTEXT) == (name == "coca")


@EACH
@SIDES
def test_a_tower_cut_anywhere_gives_the_whole(loaded: Callable[[str], Any], name: str, side: str) -> None:
    model = loaded(name)
    tower, inputs, order = model.tower(side), inputs_of(model, side), torch.tensor([2, 0, 1, 1])
    with torch.no_grad():
        expected = tower.encode(inputs)
    with untouched(model.model):
        for layer in range(tower.depth + 1):
            split = tower.split(inputs, layer)
            torch.testing.assert_close(split.embedding, expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(split.resume(split.hidden[order], order), expected[order], rtol=1e-4, atol=1e-5)
        entrance = tower.enter(inputs)
        torch.testing.assert_close(entrance.resume(entrance.hidden), expected, rtol=1e-4, atol=1e-5)


@EACH
def test_embeddings_are_open_clips_own(loaded: Callable[[str], Any], name: str) -> None:
    one, model = OPEN_CLIP[name](), loaded(name)
    with torch.no_grad():
        image = one.model.encode_image(one.preprocess(picture())[None], normalize=True)
        text = one.model.encode_text(one.tokenizer(TEXTS[:2], context_length=CONTEXT), normalize=True)
    found = isthmus.explain(model, picture(), TEXTS[:2], method="occlusion")
    assert [one.similarity for one in found] == pytest.approx((text @ image[0]).tolist(), abs=1e-6)


def attempted(model: Any, images: Any, method: str) -> list[isthmus.Explanation] | str:
    try:
        found: list[isthmus.Explanation] = run(model, images, TEXTS, method)
    except ModelError as error:
        return str(error)
    return found


@EACH
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_sound_or_refuses(loaded: Callable[[str], Any], name: str, method: str) -> None:
    """Three pairs at once are what they are alone, a repeat is bit-identical, and nothing is left behind."""
    model, images = loaded(name), [picture(i, size) for i, size in enumerate([(90, 70), (64, 128), (200, 60)])]
    with untouched(model.model):
        together = attempted(model, images, method)
    if isinstance(together, str):
        assert method in REFUSED[name], together
        assert re.fullmatch(r"[A-Z][^\n]*: [^\n]+\.", together)
        return
    for one, again, image, words in zip(together, run(model, images, TEXTS, method), images, TEXTS, strict=True):
        assert (one.image, one.text) == (again.image, again.text)
        alone = run(model, image, words, method)
        if (name, method) in UNSTABLE:
            assert np.corrcoef(one.image.scores.ravel(), alone.image.scores.ravel())[0, 1] > 0.9
        else:
            close(one, alone, tolerance=TOLERANCE.get(name, 1e-5))
        for found in (one.image and one.image.scores, one.text and [token.score for token in one.text.tokens]):
            assert found is None or method in SILENT or float(np.abs(found).max()) > 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mobileclip"])  # its path bends too much
def test_sums_are_complete(loaded: Callable[[str], Any], name: str) -> None:
    """NIB's scores of all positions sum to what the gate takes away, in every kind of tower."""
    one = run(loaded(name), picture(), "a small dog", "nib", steps="auto", tolerance=0.01, layer=-2)
    assert one.image.completeness.relative_delta < 0.05
    assert one.text.completeness.relative_delta < 0.05


@pytest.mark.parametrize("name", [name for name in NAMES if name in ("vit", "resnet", "siglip")])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, "fp16"])
def test_half_precision_agrees_with_float32(name: str, precision: Any) -> None:
    """open_clip's "fp16" halves matrices alone; its layer norms go on in float32."""
    one = OPEN_CLIP[name]()
    halved = copy.deepcopy(one.model)
    if precision == "fp16":
        if name == "siglip":
            pytest.skip("open_clip halves timm's towers as a whole")
        from open_clip.factory import convert_weights_to_lp

        convert_weights_to_lp(_fp32_norms(halved), dtype=torch.float16)
    else:
        halved.to(precision)
    for method in ("nib", "input-x-gradient", "occlusion", "chefer"):
        if method in REFUSED[name]:
            continue
        full, half = (
            run(isthmus.load(model, processor=one.processor), picture(), "a small dog", method)
            for model in (one.model, halved)
        )
        assert np.corrcoef(full.image.scores.ravel(), half.image.scores.ravel())[0, 1] > 0.98, method
        scores = [[token.score for token in found.text.tokens] for found in (full, half)]
        assert np.corrcoef(*scores)[0, 1] > 0.97, method


def _fp32_norms(model: Any) -> Any:
    """As open_clip makes a model for mixed precision: with layer norms that cast."""
    from open_clip.transformer import LayerNorm, LayerNormFp32

    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.__class__ = LayerNormFp32
    return model
