"""Exemplars and directions against loops in numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import isthmus
from conftest import EXAMPLES, picture
from isthmus.directions import _look_alikes, boxed, describe_direction
from isthmus.encoders.pictures import open_picture
from isthmus.errors import InputError, OptionError
from isthmus.exemplars import Bank, bank_of, neighbors
from isthmus.targets import embeddings_of
from state import untouched

PHRASES = ["a dog", "a red bus", "a man rides a horse", "a plate of food", "the sky", "a bear in the woods", "a bird"]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.fixture(scope="module")
def bank(mini: Any) -> Bank:
    return bank_of(mini, EXAMPLES)


def made(embeddings: Any) -> Bank:
    """A bank of given unit embeddings, whose pictures nobody opens."""
    vectors = nn.functional.normalize(torch.as_tensor(embeddings, dtype=torch.float32), dim=-1)
    return Bank(tuple(range(len(vectors))), tuple(f"{i}.jpg" for i in range(len(vectors))), vectors)


def test_neighbours_are_those_of_a_loop(mini: Any, bank: Bank, dog: Path) -> None:
    paths = sorted(EXAMPLES.glob("*.jpg"))
    with untouched(mini.model):
        found = neighbors(mini, EXAMPLES, image=picture(3), text="a dog", k=4, batch_size=3)
    asked = embeddings_of(mini, [picture(3)])[0][0].numpy()
    words = embeddings_of(mini, ["a dog"])[0][0].numpy()
    each = [embeddings_of(mini, [path])[0][0].numpy() for path in paths]
    near = [cosine(one, asked) for one in each]
    order = sorted(range(len(paths)), key=lambda i: -near[i])[:4]
    assert [row.index for row in found.rows] == order
    assert [row.source for row in found.rows] == [str(paths[i]) for i in order]
    np.testing.assert_allclose([row.to_picture for row in found.rows], [near[i] for i in order], atol=1e-5)
    np.testing.assert_allclose([row.to_text for row in found.rows], [cosine(each[i], words) for i in order], atol=1e-5)
    assert found.similarity == pytest.approx(cosine(asked, words), abs=1e-5)
    assert found.support == pytest.approx(np.mean([near[i] for i in order]), abs=1e-5)
    own = [np.mean(sorted((cosine(a, b) for b in each if b is not a), reverse=True)[:4]) for a in each]
    assert found.typicality == pytest.approx(np.mean([one < found.support for one in own]))


def test_a_picture_of_the_bank_finds_itself_first(mini: Any, bank: Bank, dog: Path) -> None:
    found = neighbors(mini, bank, image=str(dog))
    assert found.rows[0].source == str(dog)
    assert found.rows[0].to_picture == pytest.approx(1, abs=1e-5)
    assert found.rows[0].to_text is None
    assert found.similarity is None
    assert len(found.rows) == 5


def test_a_text_alone_ranks_by_itself(mini: Any, bank: Bank) -> None:
    found = neighbors(mini, bank, text="a pizza on a plate", k=20)
    assert len(found.rows) == len(bank)
    ranked = [row.to_text for row in found.rows]
    assert ranked == sorted(ranked, reverse=True)
    assert found.rows[0].source == str(EXAMPLES / "pizza.jpg")
    assert found.rows[0].to_picture is None
    assert found.typicality is None


def test_equal_pictures_keep_the_banks_order_however_they_are_batched(mini: Any) -> None:
    pictures = [picture(i % 2) for i in range(9)]
    for size in (1, 4, 64):
        found = neighbors(mini, pictures, image=picture(1), k=9, batch_size=size)
        assert [row.index for row in found.rows] == [1, 3, 5, 7, 0, 2, 4, 6, 8]


def test_typicality_tells_what_is_unlike_the_bank(mini: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    width = mini.model.config.projection_dim
    asked = embeddings_of(mini, [picture(0)])[0][0]
    noise = torch.randn(40, width, generator=generator)
    close, far = (made(centre + 0.3 * nn.functional.normalize(noise, dim=-1)) for centre in (asked, -asked))
    assert neighbors(mini, close, image=picture(0)).typicality == 1
    assert neighbors(mini, far, image=picture(0)).typicality == 0
    assert neighbors(mini, made(noise[:5]), image=picture(0), k=5).typicality is None


def test_a_bank_is_embedded_in_batches_and_once(mini: Any) -> None:
    sizes: list[int] = []
    hook = mini.model.vision_model.register_forward_hook(lambda _, __, out: sizes.append(len(out.pooler_output)))
    try:
        bank = bank_of(mini, [picture(i) for i in range(7)], batch_size=3)
        assert sizes == [3, 3, 1]
        assert bank_of(mini, bank) is bank
        neighbors(mini, bank, text="a dog")
        assert sizes == [3, 3, 1]
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, InputError, "give a picture, a text, or both"),
        ({"text": "a dog", "k": 0}, OptionError, "k must be a whole number of at least 1, not 0"),
        ({"text": 3}, InputError, "Phrases are a list"),
        ({"image": EXAMPLES}, InputError, "One picture is asked about, not 7: give folders as the bank"),
        (
            {"image": {}},
            InputError,
            "A picture is a path, a folder, a PIL image, an array .* not dict",
        ),
        ({"text": "a dog", "bank": []}, InputError, "There are no pictures: give some"),
        ({"text": "a dog", "bank": made(np.eye(3))}, OptionError, "make the bank with the same model"),
    ],
)
def test_refusals_name_the_fix(mini: Any, bank: Bank, arguments: dict[str, Any], error: type, message: str) -> None:
    given = dict(arguments)
    with pytest.raises(error, match=message):
        neighbors(mini, given.pop("bank", bank), **given)


def described_in_a_loop(
    embeddings: np.ndarray, vector: np.ndarray, texts: np.ndarray, scale: float, *, top: int, alike: float, score: float
) -> tuple[list[int], list[int], list[tuple[int, float, float]], list[int]]:
    """Top pictures, look-alikes, phrases with score and similarity, and phrases struck out."""
    activations = [float(one @ vector) for one in embeddings]
    mean = np.mean(activations)
    above = [i for i, a in enumerate(activations) if a > mean + 5 * np.std(activations)]
    ranked = sorted(range(len(activations)), key=lambda i: -activations[i])
    high = ranked[: len(above)] if len(above) > top else ranked[: min(top, len(ranked) // 2)]
    along = vector / np.linalg.norm(vector)
    rest = [one - (one @ along) * along for one in embeddings]
    middle = np.mean([rest[i] for i in high], axis=0)
    low = [i for i, a in enumerate(activations) if a < mean and i not in high and cosine(rest[i], middle) >= alike]
    low = sorted(low, key=lambda i: -cosine(rest[i], middle))[:10]

    def captioned(places: list[int]) -> np.ndarray:
        total = np.zeros(len(texts))
        for i in places:
            logits = scale * np.array([embeddings[i] @ text for text in texts], dtype=np.float64)
            p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            for j in sorted(range(len(texts)), key=lambda j: -p[j])[:5]:
                total[j] += p[j] / len(places)
        return total

    scores, common = captioned(high), captioned(low) if low else np.zeros(len(texts))
    order = [j for j in sorted(range(len(texts)), key=lambda j: -scores[j]) if scores[j] > 0]
    near = [np.mean([embeddings[i] @ text for i in high]) for text in texts]
    kept = [(j, scores[j], near[j]) for j in order if common[j] < score]
    return high, low, kept, [j for j in order if common[j] >= score]


@pytest.mark.parametrize("planted", [3, 14])
def test_a_direction_is_described_as_in_a_loop(mini: Any, planted: int) -> None:
    """With 14 of 600 pictures far along it the threshold holds (there are more than ten), with 3 it does not."""
    rng = np.random.default_rng(planted)
    texts = embeddings_of(mini, PHRASES)[0].numpy()
    vector = texts[0] - texts.mean(0)
    embeddings = rng.normal(size=(600, texts.shape[1])) * 0.02 + texts[rng.integers(0, 7, 600)]
    embeddings -= np.outer(embeddings @ vector, vector) / (vector @ vector)
    embeddings += np.outer(rng.normal(size=600) * 0.02, vector)
    embeddings[:planted] += 2 * vector
    bank = made(embeddings)
    unit = bank.embeddings.numpy()
    high, low, kept, struck = described_in_a_loop(unit, vector, texts, mini.logit_scale, top=10, alike=0.3, score=0.1)
    found = describe_direction(mini, torch.from_numpy(vector), bank, PHRASES, crop=False)
    assert [i for i, _ in found.top] == high
    assert len(high) == (14 if planted == 14 else 10)
    assert (found.threshold is None) == (planted == 3)
    assert [i for i, _ in found.alike] == low
    assert len(low) == 10
    assert [one.text for one in found.phrases] == [PHRASES[j] for j, _, _ in kept]
    np.testing.assert_allclose([one.score for one in found.phrases], [s for _, s, _ in kept], atol=1e-4)
    np.testing.assert_allclose([one.similarity for one in found.phrases], [s for _, _, s in kept], atol=1e-6)
    assert list(found.removed) == [PHRASES[j] for j in struck]
    assert struck
    if planted == 14:
        assert found.phrases[0].text == "a dog"
    cosines = [unit[i] @ unit[j] for i in high for j in high if i != j]
    assert found.coherence == pytest.approx(np.mean(cosines), abs=1e-5)
    assert found.sources == tuple(f"{i}.jpg" for i in high)


def test_look_alikes_are_alike_in_all_but_the_direction() -> None:
    vector = torch.tensor([1.0, 0.0, 0.0])
    embeddings = nn.functional.normalize(torch.tensor([[2.0, 1, 0], [0, 1, 0], [0, 0, 1], [-1, 1, 0.1]]), dim=-1)
    found = _look_alikes(embeddings, embeddings @ vector, vector, torch.tensor([0]), 0.3)
    assert found.tolist() == [1, 3]


def test_real_pictures_are_described_and_cropped(mini: Any) -> None:
    phrases = ["a pizza on a plate", *PHRASES]
    texts = embeddings_of(mini, phrases)[0]
    direction = texts[0] - texts.mean(0)
    with untouched(mini.model), torch.inference_mode():
        whole, cut = (
            describe_direction(mini, direction, EXAMPLES, phrases, top=1, similarity=0.9, crop=crop)
            for crop in (False, True)
        )
    for found in (whole, cut):
        assert found.sources == (str(EXAMPLES / "pizza.jpg"),)
        assert found.phrases[0].text == "a pizza on a plate"
        assert found.coherence is None
        assert found.phrases[0].alike is None
    # An independent crop: gradcam's own map through explain, its hot box resized by hand.
    one = isthmus.explain(mini, EXAMPLES / "pizza.jpg", method="gradcam", target=isthmus.Direction(direction))
    inputs, _, layouts = mini.processing.pictures([open_picture(EXAMPLES / "pizza.jpg")])
    heat = (one.image.scores - one.image.scores.min()) / np.ptp(one.image.scores)
    rows, columns = (np.flatnonzero((heat >= 0.6).any(axis)) * layouts[0].patch for axis in (1, 0))
    pixels = inputs["pixel_values"]
    part = pixels[:, :, rows[0] : rows[-1] + layouts[0].patch, columns[0] : columns[-1] + layouts[0].patch]
    assert part.shape != pixels.shape
    enlarged = nn.functional.interpolate(part, pixels.shape[-2:], mode="bicubic")
    expected = mini.image.embed({**inputs, "pixel_values": enlarged})[0]
    assert cut.phrases[0].similarity == pytest.approx(cosine(expected.numpy(), texts[0].numpy()), abs=1e-5)


def test_the_crop_is_the_box_of_the_hot_patches(mini: Any) -> None:
    values = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    heat = torch.tensor([[0.0, 0.1, 0, 0], [0, 1, 0.2, 0.7], [-1, 0, 0, 0]])  # 0.6 of the range is 0.2
    found = boxed(values, heat, 4)
    expected = nn.functional.interpolate(values[..., 4:8, 4:16], (12, 16), mode="bicubic", align_corners=False)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(boxed(values, torch.zeros(3, 4), 4), values)


def test_a_unit_is_its_basis_vector(mini: Any, bank: Bank) -> None:
    width = bank.embeddings.shape[1]
    by_index, by_vector = (
        describe_direction(mini, one, bank, PHRASES, crop=False, top=2) for one in (5, torch.eye(width)[5])
    )
    assert by_index == by_vector
    assert by_index.top[0][1] == pytest.approx(float(bank.embeddings[:, 5].max()), abs=1e-6)


def test_phrases_are_limited_and_the_best_come_first(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny()
    pictures = [picture(i) for i in range(6)]
    found = describe_direction(model, 0, pictures, PHRASES, count=2, score=2.0)
    assert len(found.phrases) == 2
    assert found.phrases[0].score >= found.phrases[1].score > 0
    assert len(found.top) == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"direction": 10_000}, OptionError, "There is no unit 10000: the joint space has units 0 to"),
        ({"direction": "dog"}, OptionError, "A direction is a vector"),
        ({"direction": torch.zeros(4)}, OptionError, "finite numbers that are not all 0"),
        ({"pictures": [EXAMPLES / "dog.jpg"]}, InputError, "give at least two"),
        ({"phrases": []}, InputError, "Phrases are a list of at least one text"),
        ({"top": 0}, OptionError, "top must be a whole number of at least 1, not 0"),
        ({"score": "high"}, OptionError, "score must be a number, not 'high'"),
    ],
)
def test_directions_that_make_no_sense_are_refused(
    mini: Any, bank: Bank, arguments: dict[str, Any], error: type, message: str
) -> None:
    given = {"direction": 0, "pictures": bank, "phrases": PHRASES, **arguments}
    with pytest.raises(error, match=message):
        describe_direction(mini, given.pop("direction"), given.pop("pictures"), given.pop("phrases"), **given)


def test_results_are_frozen(mini: Any, bank: Bank) -> None:
    found = neighbors(mini, bank, text="a dog")
    with pytest.raises(AttributeError):
        found.rows[0].index = 3  # type: ignore[misc]
    assert isinstance(found.rows, tuple)
    assert isthmus.__version__
