"""Naming heads: the greedy choice against a loop in numpy, planted directions, and a model's own heads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import isthmus
from conftest import picture
from isthmus.encoders.pictures import open_picture
from isthmus.errors import InputError, OptionError
from isthmus.exemplars import bank_of
from isthmus.heads import HeadName, decompose, name_heads, text_span
from state import untouched

PHRASES = ["a dog", "a red colour", "the number two", "a house by the sea", "grass", "a person who runs"]


def loop(data: np.ndarray, texts: np.ndarray, count: int, rank: int) -> list[tuple[int, float]]:
    """The paper's algorithm 1, a projection at a time; shares by what is left of the variance."""
    data = data - data.mean(0)
    _, _, directions = np.linalg.svd(data, full_matrices=False)
    subspace = directions[:rank]
    texts = np.array([sum(direction * (direction @ text) for direction in subspace) for text in texts])
    total, found = (data**2).sum(), []
    for _ in range(count):
        before = (data**2).sum()
        best = int(np.argmax([np.std([row @ text for row in data]) for text in texts]))
        chosen = texts[best] / np.linalg.norm(texts[best])
        data = np.array([row - (row @ chosen) * chosen for row in data])
        texts = np.array([text - (text @ chosen) * chosen for text in texts])
        found.append((best, (before - (data**2).sum()) / total))
    return found


@pytest.mark.parametrize(("count", "rank"), [(1, 3), (4, 5), (6, 80)])
def test_the_greedy_choice_is_the_loops(count: int, rank: int) -> None:
    rng = np.random.default_rng(count)
    data, texts = rng.normal(size=(30, 12)) * np.linspace(3, 0.3, 12), rng.normal(size=(9, 12))
    found = text_span(torch.from_numpy(data), torch.from_numpy(texts), count=count, rank=rank)
    expected = loop(data, texts, min(count, rank), rank)
    assert [index for index, _ in found] == [index for index, _ in expected]
    np.testing.assert_allclose([share for _, share in found], [share for _, share in expected], atol=1e-12)


def test_a_planted_direction_is_found_with_its_share() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    data = rng.normal(size=(400, 1)) * 3 * basis[0] + rng.normal(size=(400, 1)) * basis[1] + 5 * basis[2]
    data += 0.01 * rng.normal(size=data.shape)
    texts = basis[[5, 2, 1, 7, 0]]  # the mean's direction, the second, does not vary
    found = text_span(torch.from_numpy(data), torch.from_numpy(texts), count=2, rank=2)
    assert [index for index, _ in found] == [4, 2]
    variances = data.var(0) @ np.ones(16)
    assert found[0][1] == pytest.approx((data @ basis[0]).var() / variances, abs=1e-3)
    assert found[1][1] == pytest.approx((data @ basis[1]).var() / variances, abs=1e-2)


def test_it_ends_where_nothing_is_left_to_explain() -> None:
    data = torch.randn(20, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    text = torch.eye(8, dtype=torch.float64)[:1]
    assert [index for index, _ in text_span(data, text.repeat(3, 1), count=3, rank=8)] == [0]
    assert text_span(torch.ones(5, 8, dtype=torch.float64), text, count=1, rank=8) == []
    whole = text_span(data, torch.eye(8, dtype=torch.float64), count=20, rank=80)
    assert len(whole) == 8
    assert sum(share for _, share in whole) == pytest.approx(1)


@pytest.fixture(scope="module")
def tiny(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64)


def test_heads_of_a_model_are_named_by_their_own_effects(tiny: Any) -> None:
    pictures = [picture(i, [(90, 70), (64, 128)][i % 2]) for i in range(7)]
    with untouched(tiny.model):
        found = name_heads(tiny, pictures, PHRASES, per_head=3, rank=5, last_layers=2, batch_size=3)
    assert [(one.layer, one.head) for one in found] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    inputs = tiny.processing.pictures([open_picture(one) for one in pictures])[0]
    effects = decompose(tiny.image, inputs, start_layer=1).heads.numpy()
    texts = isthmus.targets.embeddings_of(tiny, PHRASES)[0].numpy()
    for one in found:
        data = effects[:, one.layer - 1, one.head]
        expected = loop(data, texts, 3, 5)
        assert [phrase for phrase, _ in one.phrases] == [PHRASES[index] for index, _ in expected]
        np.testing.assert_allclose([s for _, s in one.phrases], [s for _, s in expected], atol=1e-6)
        assert one.variance == pytest.approx(data.var(0).sum(), rel=1e-5)
        assert one.explained == pytest.approx(sum(s for _, s in expected), abs=1e-6)
        assert isinstance(one, HeadName)


def test_a_head_that_writes_along_one_text_is_named_by_it(make_tiny: Callable[..., Any]) -> None:
    """The head's output projection is given rank one, along what the head of the tower turns into the text."""
    model = make_tiny(dtype=torch.float64)
    text = isthmus.targets.embeddings_of(model, ["the number two"])[0][0]
    clip = model.model
    head = clip.visual_projection.weight * clip.vision_model.post_layernorm.weight
    centred = head - head.mean(1, keepdim=True)
    along = torch.linalg.pinv(centred) @ text
    out = clip.vision_model.encoder.layers[2].self_attn.out_proj.weight
    with torch.no_grad():
        out[:, :16] = along[:, None] * out[:1, :16]
    found = name_heads(model, [picture(i) for i in range(6)], PHRASES, per_head=2, last_layers=1)
    assert found[0].phrases[0][0] == "the number two"
    assert found[0].phrases[0][1] == pytest.approx(1, abs=1e-9)
    assert len(found[0].phrases) == 1
    assert found[1].phrases[0][1] < 0.9


def test_a_folder_or_a_bank_is_its_pictures(tiny: Any, tmp_path: Path) -> None:
    for i in range(4):
        picture(i).save(tmp_path / f"{i}.png")
    opened = [open_picture(path) for path in sorted(tmp_path.iterdir())]
    expected = name_heads(tiny, opened, PHRASES)
    assert name_heads(tiny, tmp_path, PHRASES) == expected
    assert name_heads(tiny, bank_of(tiny, str(tmp_path)), PHRASES) == expected
    assert expected[0].layer == 0  # four blocks are asked for, and there are three


def test_pictures_whose_inputs_have_several_sizes_run_apart(tiny: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    prepared = [
        isthmus.PreparedImage(torch.randn(3, *size, generator=generator)) for size in [(56, 56), (32, 72), (56, 56)]
    ]
    found = name_heads(tiny, prepared, PHRASES, per_head=2)
    effects = torch.cat([decompose(tiny.image, tiny.processing.pictures([one])[0]).heads for one in prepared])
    variances = effects.var(0, unbiased=False).sum(-1).flatten()
    assert [one.variance for one in found] == pytest.approx(variances.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pictures": ["one"]}, InputError, "give at least two"),
        ({"pictures": []}, InputError, "There are no pictures"),
        ({"phrases": []}, InputError, "Phrases are a list of at least one text"),
        ({"phrases": [3]}, InputError, "Phrases are a list of at least one text"),
        ({"per_head": 0}, OptionError, "per_head must be a whole number of at least 1, not 0"),
        ({"rank": True}, OptionError, "rank must be a whole number of at least 1, not True"),
        ({"last_layers": 0.5}, OptionError, "last_layers must be a whole number of at least 1, not 0.5"),
    ],
)
def test_refusals_name_the_fix(tiny: Any, arguments: dict[str, Any], error: type, message: str) -> None:
    given = {"pictures": [picture(0), picture(1)], "phrases": PHRASES, "last_layers": 1, **arguments}
    pictures = [picture(0)] if given["pictures"] == ["one"] else given["pictures"]
    with pytest.raises(error, match=message):
        name_heads(tiny, pictures, given.pop("phrases"), **{k: v for k, v in given.items() if k != "pictures"})
