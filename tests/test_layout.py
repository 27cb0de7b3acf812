"""Positions have names: words, patches, special tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from isthmus.encoders.layout import content_of, image_layout, text_layout
from isthmus.encoders.texts import TextReader
from isthmus.errors import InputError
from zoo_tokenizers import bert_tokenizer


def words(model: Any, text: str) -> list[str]:
    _, (layout,), _ = model.processing.texts([text], truncate=True)
    return [text[w.start : w.end] for w in layout.words]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog is tied to a fire hydrant.", ["A", "dog", "is", "tied", "to", "a", "fire", "hydrant", "."]),
        ("Dog's don't 2026, 3.14", ["Dog's", "don't", "2026", ",", "3.14"]),
        ("  two   blanks\tand\nlines ", ["two", "blanks", "and", "lines"]),
        ("naïve café", ["naïve", "café"]),
        ("a 👨‍👩‍👧 on 🏖️", ["a", "👨‍👩‍👧", "on", "🏖️"]),
        ("كلب على الشاطئ", ["كلب", "على", "الشاطئ"]),
        ("一只狗", ["一", "只", "狗"]),
        ("well-known <|endoftext|> x", ["well", "-", "known", "<|endoftext|>", "x"]),
    ],
)
def test_words_are_spans_of_the_users_own_text(mini: Any, text: str, expected: list[str]) -> None:
    assert words(mini, text) == expected


@pytest.mark.parametrize("text", ["A dog's 2026 👨‍👩‍👧 café", "x" * 20, "كلب, 一只狗!"])
def test_every_position_is_named_once(mini: Any, text: str) -> None:
    inputs, (layout,), _ = mini.processing.texts([text], truncate=True)
    positions = [p for w in layout.words for p in w.positions]
    assert positions == [p.position for p in layout.pieces]
    everything = sorted(positions + [p for _, p in layout.special])
    assert everything == list(range(int(inputs["attention_mask"].sum())))
    assert dict(layout.special) == {"BOS": 0, "EOS": layout.length - 1}


def test_padding_is_no_position(mini: Any) -> None:
    _, layouts, _ = mini.processing.texts(["a dog", "a dog lies on the grass near a tree"], truncate=False)
    assert [layout.length for layout in layouts] == [4, 11]


def test_a_token_over_two_words_merges_them() -> None:
    layout = text_layout("ab cd ef", [(0, 0), (0, 1), (1, 4), (4, 5), (6, 8), (0, 0)], ["BOS", *[None] * 4, "EOS"])
    assert [(w.start, w.end, w.positions) for w in layout.words] == [(0, 5, (1, 2, 3)), (6, 8, (4,))]


def test_a_blank_piece_is_kept_as_special_and_padding_dropped() -> None:
    layout = text_layout("a b", [(0, 1), (1, 2), (1, 3), (0, 0)], [None, None, None, "PAD"])
    assert layout.special == (("BLANK", 1),)
    assert [(p.start, p.end) for p in layout.pieces] == [(0, 1), (2, 3)]
    assert layout.length == 3


def test_patches_are_a_grid_row_by_row() -> None:
    layout = image_layout((2, 3), patch=8)
    assert layout.patches == (1, 2, 3, 4, 5, 6)
    assert layout.special == (("CLS", 0),)
    assert layout.length == 7


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_texts_are_refused(mini: Any, text: str) -> None:
    with pytest.raises(InputError, match="empty"):
        mini.processing.texts([text], truncate=False)


def test_texts_that_are_none_are_refused(mini: Any) -> None:
    with pytest.raises(InputError, match="must be a string, not int"):
        mini.processing.texts([3], truncate=False)
    with pytest.raises(InputError, match="not valid Unicode"):
        mini.processing.texts(["a \ud800 dog"], truncate=False)


def test_long_texts_are_refused_with_their_length_or_cut(mini: Any) -> None:
    long = "a dog " * 40
    with pytest.raises(InputError, match=r"82 tokens .* at most 32.*truncate=True"):
        mini.processing.texts([long], truncate=False)
    inputs, (layout,), (note,) = mini.processing.texts([long], truncate=True)
    assert inputs["input_ids"].shape == (1, 32)
    assert note == "cut from 82 to 32 tokens"
    assert len(layout.words) == 30


def test_a_text_that_ends_early_for_the_model_says_so(mini: Any) -> None:
    _, _, (note,) = mini.processing.texts(["a dog <|endoftext|> on the grass"], truncate=False)
    assert note == "the model stops reading at character 6, which it takes for the end of the text"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("always", [False, True])
def test_positions_are_right_with_padding_on_either_side(side: str, always: bool) -> None:
    tokenizer = bert_tokenizer(max_tokens=16)
    tokenizer.padding_side = side
    reader = TextReader(tokenizer, max_tokens=16, device=torch.device("cpu"), always_padded=always)
    texts = ["dog", "a small dog runs"]
    inputs, layouts, _ = reader.texts(texts, truncate=False)
    content = content_of(layouts)
    assert content.shape == inputs["input_ids"].shape
    for row, (text, layout) in enumerate(zip(texts, layouts, strict=True)):
        ids = inputs["input_ids"][row]
        own = [tokenizer.convert_ids_to_tokens(int(ids[piece.position])) for piece in layout.pieces]
        assert own == text.split()
        assert [text[p.start : p.end] for p in layout.pieces] == text.split()
        assert [name for name, _ in layout.special] == ["[CLS]", "[SEP]"]
        assert content[row].sum() == len(own)
        assert bool(inputs["attention_mask"][row][content[row]].all())
