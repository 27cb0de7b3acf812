"""Joint maps and prompt-free maps against the full Jacobian, sum identities, and enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import isthmus
from conftest import picture
from isthmus.encoders.counting import counted
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.tower import unit
from isthmus.errors import InputError, ModelError, OptionError, SaveError
from isthmus.masking import masked_scores, masking
from isthmus.methods.interactions import joint_banzhaf, joint_shapley
from isthmus.methods.joint import Half
from isthmus.methods.vectors import position_vectors
from isthmus.prompts import PromptFreeMaps
from isthmus.quadrature import nodes_and_weights
from state import untouched
from test_tower import inputs_of

TEXTS = ["a dog", "two brown dogs run on the beach"]


@pytest.fixture(scope="module")
def tiny64(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64)


@pytest.fixture(scope="module")
def few(make_tiny: Callable[..., Any]) -> Any:
    """Six patches, and texts of two and four tokens."""
    return make_tiny(dtype=torch.float64, load_size=(24, 16))


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("closed", ["floor", "mean"])
def test_vectors_are_the_integral_of_the_full_jacobian(tiny64: Any, side: str, closed: str) -> None:
    tower, inputs = tiny64.tower(side), {k: v[:1] for k, v in inputs_of(tiny64, side, length=5).items()}
    found = position_vectors(tower, inputs, layer=1, steps=3, closed=closed, rule="gauss-legendre-cubic")
    split = tower.split(inputs, 1)
    closing = 0.1 * split.hidden if closed == "floor" else tower.mean_state(1).expand_as(split.hidden)
    expected = torch.zeros(split.hidden.shape[1], 16, dtype=torch.float64)
    for node, weight in zip(*nodes_and_weights("gauss-legendre-cubic", 3), strict=True):
        state = closing + node * (split.hidden - closing)
        with torch.enable_grad():
            jacobian = torch.autograd.functional.jacobian(lambda z: split.resume(z)[0], state)[:, 0]
        expected += weight * torch.einsum("dtc,tc->td", jacobian, (split.hidden - closing)[0])
    torch.testing.assert_close(found.vectors[0], expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.open, tower.embed(inputs), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("side", ["image", "text"])
def test_vectors_sum_to_the_change_of_the_embedding(few: Any, side: str) -> None:
    tower, inputs = few.tower(side), inputs_of(few, side, batch=1, length=6)
    if side == "image":
        inputs = {"pixel_values": inputs["pixel_values"][..., :24, :16], "interpolate_pos_encoding": True}
    found = position_vectors(tower, inputs, steps=24)
    assert float(found.delta.max()) < 1e-5
    with counted() as passes:
        rough = position_vectors(tower, inputs, steps=2)
    assert float(rough.delta.min()) > 1e-5
    assert passes == {"forward": 1 + 2 + 2 * found.vectors.shape[1], "backward": 0}
    auto = position_vectors(tower, inputs, steps="auto", tolerance=1e-3)
    assert float(auto.delta.max()) < 1e-3


def test_results_do_not_depend_on_batch_padding_or_memory(tiny64: Any) -> None:
    texts = [*TEXTS, "one " * 12]
    inputs, _, _ = tiny64.processing.texts(texts, truncate=False)
    whole = position_vectors(tiny64.text, inputs, steps=2)
    torch.testing.assert_close(
        position_vectors(tiny64.text, inputs, steps=2, memory=1).vectors, whole.vectors, rtol=1e-5, atol=1e-7
    )
    for i, text in enumerate(texts):
        alone = position_vectors(tiny64.text, tiny64.processing.texts([text], truncate=False)[0], steps=2).vectors[0]
        torch.testing.assert_close(whole.vectors[i, : len(alone)], alone, rtol=1e-5, atol=1e-7)
        assert float(whole.vectors[i, len(alone) :].abs().max()) < 1e-9 if len(alone) < whole.vectors.shape[1] else True


@pytest.mark.parametrize("shape", [{"attention": "eager", "load_size": (24, 24)}, {"load_size": (16, 40)}])
def test_the_joint_map_sums_to_the_cosine(make_tiny: Callable[..., Any], shape: dict[str, Any]) -> None:
    model = make_tiny(**shape)
    with untouched(model.model):
        found = isthmus.explain(model, [picture(0), picture(1)], TEXTS, joint=True, steps=10)
    for one in found:
        joint = one.joint
        assert joint.similarity == pytest.approx(one.similarity, abs=1e-5)
        assert abs(joint.delta) < 2e-3
        assert joint.scores.shape == (len(one.text.words), *one.image.scores.shape)
        by_hand = sum(joint.matrix[one.text.tokens[i].position] for i in one.text.words[-1].tokens)
        expected = by_hand[list(joint.patches)].reshape(joint.grid)
        np.testing.assert_allclose(joint.regions(len(one.text.words) - 1), expected, atol=1e-6)
        np.testing.assert_allclose(joint.of_region(1, 2), joint.scores[:, 1, 2])


def test_the_joint_map_is_the_bilinear_form_of_both_sides_vectors(tiny64: Any) -> None:
    one = isthmus.explain(tiny64, picture(), TEXTS[1], joint=True, steps=4, layer={"image": 1, "text": 2})
    images, _, _ = tiny64.processing.pictures([open_picture(picture())])
    texts, _, _ = tiny64.processing.texts([TEXTS[1]], truncate=False)
    regions = position_vectors(tiny64.image, images, steps=4, layer=1)
    words = position_vectors(tiny64.text, texts, steps=4, layer=2)
    expected = words.vectors[0] @ regions.vectors[0].T / words.open.norm() / regions.open.norm()
    np.testing.assert_allclose(one.joint.matrix, expected, atol=1e-6)
    alone = words.vectors[0] @ regions.closed[0] / words.open.norm() / regions.open.norm()
    np.testing.assert_allclose(one.joint.text_alone, alone, atol=1e-6)


def game(few: Any, text: str) -> tuple[Half, Half, np.ndarray, int, int]:
    """The two sides, and the worth of every coalition by the bits of tokens and of patches."""
    images, _, image_layouts = few.processing.pictures([open_picture(picture(0, (32, 48)))])
    images["pixel_values"] = images["pixel_values"].double()
    texts, text_layouts, _ = few.processing.texts([text], truncate=False)
    image, words = masking(few.image, images, image_layouts), masking(few.text, texts, text_layouts)
    counts = [len(text_layouts[0].content), len(image_layouts[0].content)]
    masks = []
    for side, layout, count in ((words, text_layouts[0], counts[0]), (image, image_layouts[0], counts[1])):
        one = torch.ones(2**count, side.positions)
        for code, row in enumerate(one):
            row[list(layout.content)] = torch.tensor([float(code >> i & 1) for i in range(count)])
        masks.append(one)
    worth = masked_scores(image, words, masks[1][None], masks[0][None])[0].T.numpy()
    return Half(few.image, images, image_layouts), Half(few.text, texts, text_layouts), worth, *counts


def enumerated(worth: np.ndarray, tokens: int, patches: int, weight: Callable[[int], float]) -> np.ndarray:
    """Sum over coalitions S of the other players of weight(|S|) times the second difference of a token and a patch."""
    found = np.zeros((tokens, patches))
    for i, j in itertools.product(range(tokens), range(patches)):
        for s, r in itertools.product(range(2**tokens), range(2**patches)):
            if not s >> i & 1 and not r >> j & 1:
                a, b = s | 1 << i, r | 1 << j
                second = worth[a, b] - worth[a, r] - worth[s, b] + worth[s, r]
                found[i, j] += weight(s.bit_count() + r.bit_count()) * second
    return found


def test_exact_interactions_are_those_of_the_textbook(few: Any) -> None:
    image, text, worth, tokens, patches = game(few, "a dog runs home")
    assert (tokens, patches) == (4, 6)
    n = tokens + patches
    content = np.ix_(list(text.layouts[0].content), list(image.layouts[0].content))
    for keep in (0.5, 0.3):
        found = joint_banzhaf(image, text, keep=keep)
        expected = enumerated(worth, tokens, patches, lambda s, p=keep: p**s * (1 - p) ** (n - 2 - s))
        np.testing.assert_allclose(found.matrix[0].numpy()[content], expected, atol=1e-9)
        assert found.options[0]["standard_error"] == 0
    found = joint_shapley(image, text)
    expected = enumerated(
        worth, tokens, patches, lambda s: math.factorial(s) * math.factorial(n - 2 - s) / math.factorial(n - 1)
    )
    np.testing.assert_allclose(found.matrix[0].numpy()[content], expected, atol=1e-9)
    total = found.matrix.sum() + found.text_alone.sum() + found.image_alone.sum() + found.constant[0]
    assert float(total) == pytest.approx(worth[-1, -1], abs=1e-9)
    assert float(found.constant[0]) == pytest.approx(worth[0, 0], abs=1e-9)


def test_the_terms_of_banzhaf_are_the_best_fit_of_the_worth(few: Any) -> None:
    """Least squares over all coalitions, by numpy, on the plain (not centred) players."""
    image, text, worth, tokens, patches = game(few, "a dog")
    found = joint_banzhaf(image, text, keep=0.4)
    bits = [
        np.array([[1, *(c >> i & 1 for i in range(k))] for c in range(2**k)], dtype=float) for k in (tokens, patches)
    ]
    chance = [np.prod(np.where(b[:, 1:] == 1, 0.4, 0.6), axis=1) for b in bits]
    design = np.kron(*bits) * np.sqrt(np.kron(*chance))[:, None]
    terms = np.linalg.lstsq(design, worth.ravel() * np.sqrt(np.kron(*chance)), rcond=None)[0]
    terms = terms.reshape(1 + tokens, 1 + patches)
    t, v = list(text.layouts[0].content), list(image.layouts[0].content)
    assert float(found.constant[0]) == pytest.approx(terms[0, 0], abs=1e-9)
    np.testing.assert_allclose(found.text_alone[0, t], terms[1:, 0], atol=1e-9)
    np.testing.assert_allclose(found.image_alone[0, v], terms[0, 1:], atol=1e-9)


@pytest.mark.parametrize("game_of", [joint_banzhaf, joint_shapley])
def test_drawn_interactions_converge_and_state_their_error(few: Any, game_of: Any) -> None:
    image, text, *_ = game(few, "a dog runs home")
    exact = game_of(image, text).matrix[0]
    off, stated = [], []
    samples = 120 if game_of is joint_banzhaf else 236  # 2 ** 6 patches are more than a quarter of it
    for seed in range(10):
        found = game_of(image, text, samples=samples, seed=seed)
        off.append(found.matrix[0] - exact)
        stated.append(found.options[0]["standard_error"])
    if game_of is joint_banzhaf:
        assert min(stated) > 0
        spread = float(torch.stack(off).std(0)[exact != 0].median())
        assert 0.4 < spread / np.mean(stated) < 2.5
    assert float(torch.stack(off).mean(0).abs().median()) < float(exact.abs().median())


def test_joint_maps_through_explain_on_the_bundled_model(mini: Any, dog: Path) -> None:
    one = isthmus.explain(mini, dog, "a dog", steps=5, joint=True)
    assert one.joint.similarity == pytest.approx(one.similarity, abs=1e-5)
    assert abs(one.joint.delta) < 0.05
    one = isthmus.explain(mini, dog, "a dog", method="banzhaf", samples=410, joint=True)
    assert one.joint.matrix.shape == (4, 50)
    assert one.joint.options["standard_error"] > 0
    assert np.abs(one.joint.matrix[[0, 3]]).max() == 0, "special tokens are no players"


def test_a_joint_map_is_saved_and_read_back_equal(mini: Any, tmp_path: Path) -> None:
    one = isthmus.explain(mini, picture(), "a dog", joint=True, steps=2)
    one.save(tmp_path, formats=("json", "npz"))
    assert isthmus.Explanation.load(tmp_path) == one


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "chefer"}, "chefer has no joint map: choose one of banzhaf, nib, shapley"),
        ({"against": "a cat"}, "leave target and against out"),
        ({"preset": "paper"}, "A joint map has no preset"),
        ({"method": "banzhaf", "samples": 200}, "49 players need samples of at least 400, not 200"),
        ({"steps": 0}, "steps"),
    ],
)
def test_what_a_joint_map_cannot_do_is_refused(mini: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        isthmus.explain(mini, picture(), "a dog", joint=True, **options)


def test_a_joint_map_needs_both_sides(mini: Any) -> None:
    with pytest.raises(InputError, match="a joint map needs a picture and a text"):
        isthmus.explain(mini, picture(), joint=True, target=isthmus.Direction(torch.ones(192)))


def test_prompt_free_maps_sum_to_the_cosine_and_cost_one_product(make_tiny: Callable[..., Any], dog: Path) -> None:
    mini = make_tiny(load_size=(24, 32))
    free = isthmus.prompt_free(mini, [dog, picture()], steps=8, batch_size=1)
    assert free.delta.max() < 0.02
    prompts = ["a dog", "a cat", "the sky over a town"]
    with counted() as passes:
        maps = free.maps(prompts)
    assert passes == {"forward": 3, "backward": 0}, "the pictures are not run again"
    assert maps.shape == (2, 3, 3, 4)
    found = isthmus.explain(mini, [dog, picture()], prompts, pairing="all")
    cosines = np.array([one.similarity for one in found]).reshape(2, 3)
    np.testing.assert_allclose(free.similarities(prompts), cosines, atol=1e-5)
    t = _embedded(mini, prompts)
    outside = ((free.rest + free.closed) / free.open.norm(dim=-1, keepdim=True)) @ t.T
    np.testing.assert_allclose(maps.sum((2, 3)) + outside.numpy(), cosines, atol=0.01)
    np.testing.assert_allclose(free.maps(t), maps, atol=1e-6)


def _embedded(model: Any, prompts: list[str]) -> torch.Tensor:
    return unit(model.text.embed(model.processing.texts(prompts, truncate=False)[0]))


def test_prompt_free_maps_are_saved_and_read_back(mini: Any, make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    free = isthmus.prompt_free(mini, picture(), steps=1)
    path = free.save(tmp_path / "maps.safetensors")
    again = PromptFreeMaps.load(path, mini)
    np.testing.assert_array_equal(again.vectors, free.vectors)
    np.testing.assert_allclose(again.maps(["a dog"]), free.maps(["a dog"]), atol=1e-7)
    assert again.options == free.options
    with pytest.raises(ModelError, match="of the model 'mini', not of this one"):
        PromptFreeMaps.load(path, make_tiny())
    (tmp_path / "no").write_text("nothing")
    for bad in ("no", "missing"):
        with pytest.raises(SaveError, match="give a file that save"):
            PromptFreeMaps.load(tmp_path / bad, mini)
    with pytest.raises(SaveError, match="choose another place"):
        free.save(tmp_path / "missing" / "maps")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: isthmus.prompt_free(m, []), InputError, "There is no picture"),
        (lambda m: isthmus.prompt_free(m, picture(), depth=1), OptionError, "no option 'depth'"),
        (lambda m: isthmus.prompt_free(m, picture(), batch_size=0), OptionError, "batch_size"),
        (lambda m: isthmus.prompt_free(m, picture(), steps=1).maps([]), InputError, "at least one text"),
        (lambda m: isthmus.prompt_free(m, picture(), steps=1).maps(torch.ones(3)), OptionError, r"shape \(N, 192\)"),
    ],
)
def test_bad_calls_of_prompt_free_are_refused(mini: Any, call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call(mini)
