"""Gradients by what enters a tower, against captum and loops in float64 on whole models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

import isthmus
from conftest import picture
from isthmus.encoders.counting import counted
from isthmus.encoders.layout import Piece, TokenLayout, image_layout
from isthmus.encoders.pictures import open_picture
from isthmus.errors import OptionError
from isthmus.methods import METHODS
from test_tower import inputs_of

captum = pytest.importorskip("captum.attr")

PATCH = 8


@pytest.fixture(scope="module")
def tiny(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64, depth=2)


@pytest.fixture(scope="module")
def bordered(make_tiny: Callable[..., Any]) -> Any:
    """Seven patches of 8 pixels leave 4 of 60 over."""
    return make_tiny(dtype=torch.float64, depth=2, image_size=60)


def target_of(batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return normalize(torch.randn(batch, 16, generator=generator, dtype=torch.float64), dim=-1)


def layouts_of(side: str) -> list[TokenLayout]:
    """Of `inputs_of`: the first text ends two tokens before the others."""
    if side == "image":
        return [image_layout((7, 7), patch=PATCH)] * 3
    return [
        TokenLayout(n + 1, pieces=tuple(Piece(i, i, i + 1) for i in range(n)), special=(("EOS", n),)) for n in (6, 8, 8)
    ]


def score(model: Any, side: str) -> Callable[..., torch.Tensor]:
    """The score as a function of pixels, or of token ids and their mask."""

    def of_pixels(pixels: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return cosine_similarity(model.image.encode({"pixel_values": pixels}), target, dim=-1)

    def of_ids(ids: torch.Tensor, mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return cosine_similarity(model.text.encode({"input_ids": ids, "attention_mask": mask}), target, dim=-1)

    return of_pixels if side == "image" else of_ids


def over_patches(values: np.ndarray, combine: Callable[[np.ndarray], float]) -> np.ndarray:
    """`(B, C, H, W)` to `(B, 50)`, patch by patch, CLS first."""
    found = np.zeros((len(values), 50))
    for row, one in enumerate(values):
        for i in range(7):
            for j in range(7):
                part = one[:, PATCH * i : PATCH * (i + 1), PATCH * j : PATCH * (j + 1)]
                found[row, 1 + 7 * i + j] = combine(part)
    return found


def run(model: Any, side: str, method: str, **options: Any) -> Any:
    return METHODS[method].function(
        model.tower(side), inputs_of(model, side), target_of(), layouts=layouts_of(side), **options
    )


def token_gradients(model: Any, *, product: bool) -> np.ndarray:
    layer = captum.LayerGradientXActivation(
        score(model, "text"), model.model.text_model.embeddings.token_embedding, multiply_by_inputs=product
    )
    inputs = inputs_of(model, "text")
    found = layer.attribute(inputs["input_ids"], additional_forward_args=(inputs["attention_mask"], target_of()))
    return np.asarray(found.detach())


@pytest.mark.parametrize("name", ["tiny", "bordered"])
def test_saliency_of_pixels_equals_captums(request: pytest.FixtureRequest, name: str) -> None:
    model = request.getfixturevalue(name)
    pixels = inputs_of(model, "image")["pixel_values"]
    expected = captum.Saliency(score(model, "image")).attribute(
        pixels.clone().requires_grad_(True), additional_forward_args=target_of()
    )
    found = run(model, "image", "saliency")
    wanted = over_patches(expected.numpy(), lambda part: part.max(0).mean())
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.open, score(model, "image")(pixels, target_of()).detach(), rtol=1e-10)


def test_saliency_of_tokens_equals_captums_gradients(tiny: Any) -> None:
    found = run(tiny, "text", "saliency")
    wanted = np.abs(token_gradients(tiny, product=False)).max(-1)
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-6, atol=1e-12)
    assert found.scores[0, 7:].tolist() == [0, 0]  # padding


@pytest.mark.parametrize("method", ["input-x-gradient", "fast-ig"])
@pytest.mark.parametrize("name", ["tiny", "bordered"])
def test_products_with_pixels_equal_captums(request: pytest.FixtureRequest, name: str, method: str) -> None:
    model = request.getfixturevalue(name)
    expected = captum.InputXGradient(score(model, "image")).attribute(
        inputs_of(model, "image")["pixel_values"].clone().requires_grad_(True), additional_forward_args=target_of()
    )
    found = run(model, "image", method)
    np.testing.assert_allclose(found.scores, over_patches(expected.detach().numpy(), np.sum), rtol=1e-6, atol=1e-11)


@pytest.mark.parametrize("method", ["input-x-gradient", "fast-ig"])
def test_products_with_token_vectors_equal_captums(tiny: Any, method: str) -> None:
    wanted = token_gradients(tiny, product=True).sum(-1)
    np.testing.assert_allclose(run(tiny, "text", method).scores, wanted, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("side", ["image", "text"])
def test_products_with_a_hidden_state_equal_captums(tiny: Any, side: str) -> None:
    """The state that enters block 1 is the output of block 0."""
    inputs, tower = inputs_of(tiny, side), tiny.tower(side)
    values = tuple(inputs.values())
    expected = captum.LayerGradientXActivation(score(tiny, side), tower.blocks[0]).attribute(
        values[0], additional_forward_args=(*values[1:], target_of())
    )
    expected = expected[0] if isinstance(expected, tuple) else expected
    found = run(tiny, side, "input-x-gradient", layer=1)
    np.testing.assert_allclose(found.scores, expected.detach().sum(-1), rtol=1e-6, atol=1e-11)
    assert dict(found.options[0]) == {"layer": 1}


def pixel_baseline(model: Any, pixels: np.ndarray, name: str) -> np.ndarray:
    if name == "mean":
        return np.array([[np.full(plane.shape, plane.mean()) for plane in one] for one in pixels])
    if name == "zero":
        return np.zeros_like(pixels)
    if name == "blank":
        processor = model.processing.of_pictures._image_processor
        black = [-m / s for m, s in zip(processor.image_mean, processor.image_std, strict=True)]
        return np.array([[np.full(p.shape, value) for p, value in zip(one, black, strict=True)] for one in pixels])
    from isthmus.encoders.reference import _FOLDER

    pictures = [model.processing.pictures([open_picture(path)])[0] for path in sorted(_FOLDER.glob("*.jpg"))]
    mean = sum(one["pixel_values"][0].double().numpy() for one in pictures) / len(pictures)
    return np.array([mean] * len(pixels))


@pytest.mark.parametrize("baseline", ["mean", "zero", "blank", "reference"])
def test_integrated_gradients_of_pixels_equal_captums(bordered: Any, baseline: str) -> None:
    pixels = inputs_of(bordered, "image")["pixel_values"]
    start = torch.from_numpy(pixel_baseline(bordered, pixels.numpy(), baseline))
    expected = captum.IntegratedGradients(score(bordered, "image")).attribute(
        pixels, start, additional_forward_args=target_of(), method="gausslegendre", n_steps=50
    )
    found = run(bordered, "image", "integrated-gradients", baseline=baseline)
    np.testing.assert_allclose(found.scores, over_patches(expected.numpy(), np.sum), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.closed, score(bordered, "image")(start, target_of()).detach(), rtol=1e-6)
    assert found.options[0]["baseline"] == ("black" if baseline == "blank" else baseline)


def test_integrated_gradients_from_the_end_token_equal_captums(tiny: Any) -> None:
    """captum's baseline is of ids: every word becomes the end token, which the text keeps where it is."""
    inputs = inputs_of(tiny, "text")
    ids = inputs["input_ids"].clone()
    for row, length in enumerate((6, 8, 8)):
        ids[row, :length] = 8191
    embedding = tiny.model.text_model.embeddings.token_embedding
    # argmax pools at the first of equal ids, so the oracle pools where the text itself does.
    integral = captum.LayerIntegratedGradients(_pooled_at(tiny, [6, 8, 8]), embedding)
    expected = integral.attribute(
        inputs["input_ids"],
        ids,
        additional_forward_args=(inputs["attention_mask"], target_of(), torch.arange(3)),
        method="gausslegendre",
        n_steps=50,
    )
    found = run(tiny, "text", "integrated-gradients", baseline="reference")
    np.testing.assert_allclose(found.scores, expected.detach().sum(-1), rtol=1e-6, atol=1e-8)


def _pooled_at(model: Any, ends: list[int]) -> Callable[..., torch.Tensor]:
    def of_ids(ids: Any, mask: Any, target: Any, rows: Any) -> torch.Tensor:
        clip = model.model
        states = clip.text_model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = states[torch.arange(len(ids)), torch.tensor(ends)[rows]]
        return cosine_similarity(clip.text_projection(pooled), target, dim=-1)

    return of_ids


def score_of_vectors(model: Any, vectors: torch.Tensor, row: int) -> torch.Tensor:
    """The score of one text whose token vectors are replaced by a hook."""
    inputs = {name: value[row : row + 1] for name, value in inputs_of(model, "text").items()}
    handle = model.model.text_model.embeddings.token_embedding.register_forward_hook(lambda *_: vectors[None])
    try:
        return cosine_similarity(model.text.encode(inputs), target_of()[row : row + 1], dim=-1)[0]
    finally:
        handle.remove()


@pytest.mark.parametrize("baseline", ["mean", "blank", "tensor"])
def test_integrated_gradients_of_tokens_equal_a_loop(tiny: Any, baseline: str) -> None:
    table = tiny.model.text_model.embeddings.token_embedding.weight.detach()
    given = torch.randn(32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    texts = _captions()
    _, layouts, _ = tiny.processing.texts(texts, truncate=True)
    ids = [tiny.processing.of_texts._tokenizer(text)["input_ids"] for text in texts]
    words = [ids[i][p] for i, one in enumerate(layouts) for p in one.content]
    start = {"mean": table[words].mean(0), "blank": torch.zeros(32).double(), "tensor": given}[baseline]
    found = run(tiny, "text", "integrated-gradients", baseline=given if baseline == "tensor" else baseline, steps=6)
    nodes, weights = np.polynomial.legendre.leggauss(6)
    for row, length in enumerate((6, 8, 8)):
        whole = table[inputs_of(tiny, "text")["input_ids"][row]].detach()
        change = torch.zeros_like(whole)
        change[:length] = whole[:length] - start
        total = torch.zeros_like(whole)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            vectors = (whole - (1 - node) * change).requires_grad_(True)
            (gradient,) = torch.autograd.grad(score_of_vectors(tiny, vectors, row), vectors)
            total += weight * gradient
        np.testing.assert_allclose(found.scores[row], (change * total).sum(-1), rtol=1e-6, atol=1e-9)
        closed = score_of_vectors(tiny, whole - change, row).detach()
        np.testing.assert_allclose(found.closed[row], closed, rtol=1e-6, atol=1e-9)


def _captions() -> list[str]:
    from isthmus.encoders.reference import _FOLDER

    return (_FOLDER / "captions.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("baseline", ["zero", "tensor"])
def test_integrated_gradients_of_a_hidden_state_equal_captums(tiny: Any, baseline: str) -> None:
    """A network that begins at block 1, whose input the hook replaces."""
    inputs = inputs_of(tiny, "image")
    seen: list[torch.Tensor] = []
    handle = tiny.image.blocks[1].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        tiny.image.encode(inputs)
    handle.remove()

    def suffix(state: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        hook = tiny.image.blocks[1].register_forward_pre_hook(lambda _, args: (state, *args[1:]))
        try:
            pixels = torch.zeros(len(state), *inputs["pixel_values"].shape[1:], dtype=torch.float64)
            return cosine_similarity(tiny.image.encode({"pixel_values": pixels}), target, dim=-1)
        finally:
            hook.remove()

    given = torch.randn(32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = torch.zeros_like(seen[0]) if baseline == "zero" else given.expand_as(seen[0])
    expected = captum.IntegratedGradients(suffix).attribute(
        seen[0], start.contiguous(), additional_forward_args=target_of(), method="gausslegendre", n_steps=50
    )
    value = "blank" if baseline == "zero" else given
    found = run(tiny, "image", "integrated-gradients", baseline=value, layer=1)
    np.testing.assert_allclose(found.scores, expected.sum(-1), rtol=1e-6, atol=1e-7)
    assert dict(found.options[0]) == {"layer": 1, "baseline": baseline, "steps": 50, "rule": "gauss-legendre"}


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("baseline", ["mean", "blank", "reference"])
def test_integrated_gradients_are_complete(bordered: Any, side: str, baseline: str) -> None:
    found = run(bordered, side, "integrated-gradients", baseline=baseline)
    np.testing.assert_allclose(found.scores.sum(-1), found.open - found.closed, atol=2e-5)
    assert float((found.open - found.closed).abs().min()) > 1e-3
    special = found.scores[:, 0] if side == "image" else torch.cat([found.scores[0, 6:], found.scores[1:, 8]])
    assert not bool(special.any())


@pytest.mark.parametrize("side", ["image", "text"])
def test_automatic_steps_reach_their_tolerance(tiny: Any, side: str) -> None:
    found = run(tiny, side, "integrated-gradients", steps="auto", tolerance=1e-3, limit=200)
    assert all(one["converged"] and one["rule"] == "adaptive" for one in found.options)
    change = found.open - found.closed
    assert bool(((found.scores.sum(-1) - change).abs() <= 1e-3 * change.abs() + 1e-9).all())


def test_another_picture_and_sides_of_their_own_as_baseline(mini: Any, dog: Any) -> None:
    images, texts = [picture(0), picture(1)], ["a dog", "a red bus on a road"]
    options = {"method": "integrated-gradients", "steps": 2}
    found = isthmus.explain(mini, images, texts, baseline=dog, **options)
    pixels = mini.processing.pictures([open_picture(dog)])[0]["pixel_values"][0]
    given = isthmus.explain(mini, images, texts, baseline={"image": pixels, "text": "mean"}, **options)
    plain = isthmus.explain(mini, images, texts, **options)
    for a, b, c in zip(found, given, plain, strict=True):
        np.testing.assert_array_equal(a.image.scores, b.image.scores)
        assert not np.allclose(a.image.scores, c.image.scores, atol=1e-3)
        assert a.text == b.text == c.text
        assert a.image.options["baseline"] == "tensor"
        assert c.image.options["baseline"] == "mean"


def test_a_blurred_baseline_leaves_a_flat_picture_nothing_to_explain(tiny: Any) -> None:
    inputs = inputs_of(tiny, "image")
    inputs["pixel_values"][0] = 0.3
    found = METHODS["integrated-gradients"].function(
        tiny.image, inputs, target_of(), layouts=layouts_of("image"), baseline="blur", steps=3
    )
    assert float(found.scores[0].abs().max()) < 1e-9
    assert float(found.scores[1].abs().max()) > 1e-3


@pytest.mark.parametrize("method", ["saliency", "input-x-gradient", "fast-ig", "integrated-gradients"])
@pytest.mark.parametrize("side", ["image", "text"])
def test_passes_are_those_declared(tiny: Any, side: str, method: str) -> None:
    options = {"steps": 7} if method == "integrated-gradients" else {}
    tiny.tower(side).mean_state(None) if side == "text" else None
    with counted() as passes:
        run(tiny, side, method, **options)
    declared = [eval(formula, {"n": 7}) for formula in METHODS[method].passes]
    assert [passes["forward"] / 3, passes["backward"] / 3] == declared


@pytest.mark.parametrize(
    ("side", "options", "message"),
    [
        ("image", {"baseline": "grey"}, "no baseline 'grey' for the image: choose mean, blur, zero, black, blank"),
        ("text", {"baseline": "blur"}, "no baseline 'blur' for the text: choose mean, zero, blank, reference"),
        ("image", {"baseline": "blur", "layer": 1}, "no baseline 'blur' of a hidden state: choose mean, zero, blank"),
        ("image", {"baseline": torch.full((3, 1, 1), torch.nan)}, "NaN or infinite"),
        ("image", {"baseline": torch.zeros(3, 5, 5)}, "does not fit"),
        ("text", {"baseline": 3}, "no baseline 3"),
        ("text", {"rule": "simpson"}, "no rule 'simpson'"),
        ("text", {"steps": 0}, "steps must be"),
        ("text", {"limit": 20}, 'applies to steps="auto" alone'),
    ],
)
def test_wrong_options_are_refused(tiny: Any, side: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run(tiny, side, "integrated-gradients", **options)
