"""What holds for every method on every model: batching, repeating, padding, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import isthmus
from cheap import CHEAP
from conftest import INTERPOLATES, picture
from isthmus.encoders.layout import Piece, TokenLayout
from isthmus.methods import METHODS
from state import untouched
from test_tower import inputs_of

SHAPES: dict[str, dict[str, Any]] = {
    "mini": {},
    "grid 7x7": {"image_size": 56, "patch": 8},
    "grid 7x7 eager": {"image_size": 56, "patch": 8, "attention": "eager"},
    "grid 14x14": {"image_size": 112, "patch": 8},
    "grid 16x16": {"image_size": 128, "patch": 8, "eos": 8191},
    "grid 4x9": {"image_size": 56, "patch": 8, "load_size": (32, 72)},
    "one block": {"depth": 1},
}
TEXTS = ["dog", "a small dog runs over the wet grass towards its owner", "one " * 75]
METHOD_NAMES = sorted(METHODS)
# Steps as wide as AGI's, at probabilities as sharp as CLIP's, magnify the rounding of each pass.
MAGNIFIED = {"agi": 15.0}
# These take differences of scores: of the tiny models' they are smaller than half precision can tell.
DIFFERENCES = ("agi", "banzhaf", "lime", "occlusion", "rise", "shapley")


@pytest.fixture(scope="module")
def models(mini: Any, make_tiny: Callable[..., Any]) -> Callable[[str], Any]:
    made: dict[str, Any] = {"mini": mini}

    def get(name: str) -> Any:
        if "load_size" in SHAPES[name] and not INTERPOLATES:
            pytest.skip("this transformers cannot interpolate CLIP's position embedding")
        if name not in made:
            made[name] = make_tiny(**SHAPES[name])
        return made[name]

    return get


def pairs(count: int) -> tuple[list[Any], list[str]]:
    sizes = [(90, 70), (64, 128), (200, 60)]
    images = [picture(i, sizes[i % 3]) for i in range(count)]
    return images, [TEXTS[i % 3] for i in range(count)]


def run(model: Any, images: Any, texts: Any, method: str, **options: Any) -> Any:
    return isthmus.explain(model, images, texts, method=method, truncate=True, **{**CHEAP.get(method, {}), **options})


def close(a: isthmus.Explanation, b: isthmus.Explanation, tolerance: float = 2e-6) -> None:
    """Scores agree to a part in a million of the largest, or of 1 where all are small."""
    tolerance *= MAGNIFIED.get(a.provenance.method, 1.0)
    for x, y in zip(sides(a), sides(b), strict=True):
        tolerance_here = tolerance * max(1.0, np.abs(x.raw).max())
        np.testing.assert_allclose(x.raw, y.raw, atol=tolerance_here)
        assert x.names == y.names
    assert a.similarity == pytest.approx(b.similarity, abs=tolerance)


@dataclass
class Flat:
    """All scores of one side, with what they belong to."""

    raw: np.ndarray
    names: list[Any]


def sides(one: isthmus.Explanation) -> list[Flat]:
    found = []
    if one.image is not None:
        scores = np.r_[one.image.scores.ravel(), [s.score for s in one.image.special]]
        found.append(Flat(scores, [s.name for s in one.image.special]))
    if one.text is not None:
        scores = np.array([t.score for t in one.text.tokens] + [s.score for s in one.text.special])
        names = [(t.text, t.position) for t in one.text.tokens] + [s.name for s in one.text.special]
        found.append(Flat(scores, names))
    return found


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_equals_its_singles(models: Callable[[str], Any], shape: str, method: str) -> None:
    """Batches of 3 pad texts of 1, 12 and 75 words to one length, so this shows padding too."""
    model = models(shape)
    images, texts = pairs(3)
    for together, image, text in zip(run(model, images, texts, method), images, texts, strict=True):
        close(together, run(model, image, text, method))


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_seventeen_in_any_batches_are_the_same(models: Callable[[str], Any], method: str) -> None:
    model = models("grid 7x7")
    images, texts = pairs(17)
    whole = run(model, images, texts, method, batch_size=17)
    for size in (1, 3, 5):
        for a, b in zip(whole, run(model, images, texts, method, batch_size=size), strict=True):
            close(a, b)


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_call_twice_is_bit_identical(models: Callable[[str], Any], shape: str, method: str) -> None:
    images, texts = pairs(3)
    for a, b in zip(*(run(models(shape), images, texts, method) for _ in range(2)), strict=True):
        assert a.image == b.image
        assert a.text == b.text


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("shape", ["mini", "grid 7x7", "grid 7x7 eager", "grid 4x9"])
def test_nothing_is_left_behind(models: Callable[[str], Any], shape: str, method: str) -> None:
    model = models(shape)
    inputs = {side: inputs_of(model, side) for side in ("image", "text")} if shape == "grid 7x7" else {}
    before = {side: model.tower(side).embed(x) for side, x in inputs.items()}
    model.model.train()
    for parameter in list(model.model.parameters())[::2]:
        parameter.requires_grad_(False)
    try:
        with untouched(model.model):
            run(model, picture(), "a dog", method)
    finally:
        model.model.eval().requires_grad_(True)
    for side, x in inputs.items():
        torch.testing.assert_close(model.tower(side).embed(x), before[side], rtol=0, atol=0)


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("failure", [RuntimeError("lost"), KeyboardInterrupt()])
def test_nothing_is_left_behind_after_an_exception(
    models: Callable[[str], Any], method: str, failure: BaseException
) -> None:
    """The last block fails on a later run, in the midst of the method's own passes."""
    model, runs = models("grid 7x7"), []
    at = 2 if method in ("clip-surgery", "gem", "rollout") else 3  # these run the blocks once

    def fail(*_: Any) -> None:
        runs.append(1)
        if len(runs) == at:
            raise failure

    handle = model.image.blocks[-1].register_forward_hook(fail)
    try:
        with untouched(model.model), pytest.raises(type(failure)):
            run(model, picture(), "a dog", method)
    finally:
        handle.remove()
    assert len(runs) == at


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_attention_implementations_give_one_map(models: Callable[[str], Any], method: str) -> None:
    images, texts = pairs(3)
    sdpa, eager = (run(models(name), images, texts, method) for name in ("grid 7x7", "grid 7x7 eager"))
    for a, b in zip(sdpa, eager, strict=True):
        close(a, b, tolerance=5e-6)


@pytest.fixture(scope="module")
def by_dtype(mini: Any, make_tiny: Callable[..., Any]) -> Callable[[bool, torch.dtype], Any]:
    made: dict[tuple[bool, torch.dtype], Any] = {(True, torch.float32): mini}

    def get(bundled: bool, dtype: torch.dtype) -> Any:
        if (bundled, dtype) not in made:
            model = isthmus.load("mini", dtype=dtype, device="cpu") if bundled else make_tiny(dtype=dtype)
            made[bundled, dtype] = model
        return made[bundled, dtype]

    return get


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_agrees_with_float32(
    by_dtype: Callable[[bool, torch.dtype], Any], dog: Any, method: str, dtype: torch.dtype
) -> None:
    bundled = method in DIFFERENCES
    images, texts = ([dog], ["a dog on the grass"]) if bundled else pairs(3)
    full, half = (run(by_dtype(bundled, d), images, texts, method) for d in (torch.float32, dtype))
    for a, b in zip(full, half, strict=True):
        assert b.provenance.dtype == str(dtype).removeprefix("torch.")
        for x, y in zip(sides(a), sides(b), strict=True):
            assert np.isfinite(y.raw).all()
            if len(x.raw) > 20:
                assert np.corrcoef(x.raw, y.raw)[0, 1] > 0.98
        assert b.similarity == pytest.approx(a.similarity, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_at_the_layer_norms_singularity(mini: Any, dtype: torch.dtype) -> None:
    """Slopes there are hundreds of times steeper, and float16 ends at 65,504."""
    half = isthmus.load("mini", dtype=dtype, device="cpu")
    texts = ["a dog", "a bird sits on a branch"]
    full, found = (run(m, picture(), texts, "nib", closed="zero", steps="auto") for m in (mini, half))
    for a, b in zip(full, found, strict=True):
        assert np.isfinite(b.image.scores).all()
        assert np.corrcoef(a.image.scores.ravel(), b.image.scores.ravel())[0, 1] > 0.8
        assert all(np.isfinite(word.score) for word in b.text.words)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("method", "options"), [*((name, {}) for name in METHOD_NAMES), ("nib", {"steps": "auto", "tolerance": 1e-4})]
)
def test_cuda_agrees_with_the_cpu(mini: Any, method: str, options: dict[str, Any]) -> None:
    images, texts = pairs(3)
    for a, b in zip(
        run(mini, images, texts, method, **options),
        run(isthmus.load("mini", device="cuda"), images, texts, method, **options),
        strict=True,
    ):
        close(a, b, tolerance=1e-4)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_one_token_texts_run(models: Callable[[str], Any], method: str) -> None:
    """Sequences of a single position, where a squeeze would lose the axis."""
    if "text" not in METHODS[method].sides:
        pytest.skip(f"{method} explains pictures alone")
    model = models("grid 7x7")
    inputs = {
        "input_ids": torch.tensor([[8191], [8191]]),
        "attention_mask": torch.ones(2, 1, dtype=torch.long),
    }
    target = torch.eye(16)[:2]
    options = {}
    if METHODS[method].needs_layouts:
        options["layouts"] = [TokenLayout(1, pieces=(Piece(0, 0, 1),))] * 2
    if METHODS[method].needs_bank:
        options["bank"] = torch.eye(16)[2:5]
    found = METHODS[method].function(model.text, inputs, target, **options)
    assert found.scores.shape == (2, 1)
    assert bool(torch.isfinite(found.scores).all())


@pytest.mark.parametrize("shape", ["grid 14x14", "grid 16x16", "grid 4x9"])
def test_the_grid_has_the_models_shape(models: Callable[[str], Any], shape: str) -> None:
    rows, columns = map(int, shape.removeprefix("grid ").split("x"))
    one = run(models(shape), picture(0, (100, 100)), "a dog", "nib")
    assert one.image.scores.shape == (rows, columns)
    assert one.image.heatmap().shape == (100, 100)


HOOKING = ["multilayer-nib", "textspan", "legrad", "attnlrp", "grad-eclip", "gem", "chefer", "rollout", "nib"]


@pytest.mark.parametrize("method", HOOKING)
def test_two_threads_on_one_model_do_not_see_each_other(models: Callable[[str], Any], method: str) -> None:
    """A method's hooks live on the model while it runs, so a second method must wait."""
    model = models("grid 7x7")
    names = [method, "gradcam", method, "saliency"]
    alone = {name: run(model, picture(), "a dog", name, sides="image") for name in set(names)}
    with ThreadPoolExecutor(4) as pool:
        jobs = [(name, pool.submit(run, model, picture(), "a dog", name, sides="image")) for name in names * 5]
        for name, job in jobs:
            assert job.result().image == alone[name].image
