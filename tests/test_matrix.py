"""The matrix: every method on every dual encoder of the installed transformers, and the support table of the docs.

`python tests/test_matrix.py --write` writes the table anew.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import isthmus
import support_page
from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.layout import named_of
from isthmus.encoders.pictures import open_picture
from matrix import METHOD_NAMES, MODELS, TEXTS, Cell, built, cell, explained, loaded, pictures
from test_invariants import close

# A walk in many small steps magnifies the rounding of each pass; so does a softmax of factor 100.
MAGNIFIED = {"agi": 2e-4, "mfaba": 1e-5}
SAME_VERSION = support_page.version() == transformers.__version__


def model_of(name: str) -> DualEncoder:
    model = loaded(name)
    if isinstance(model, str):
        pytest.skip(f"{name} is not read: {model}")
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_method_runs_as_it_should_or_says_why_not(name: str, method: str) -> None:
    model_of(name)
    found = cell(name, method)
    for reason in found.refused.values():
        check_reason(reason)
    if SAME_VERSION:
        said = support_page.table()[name][method]
        assert {side: support_page.neutral(reason) for side, reason in found.refused.items()} == said
    if found.sides:
        check_results(name, method, found)


def check_reason(reason: str) -> None:
    """One sentence for a reader."""
    if reason:
        assert re.fullmatch(r"[A-Z][^\n]{20,260}\.", reason), reason
        assert "Traceback" not in reason


def check_results(name: str, method: str, found: Cell) -> None:
    tolerance = MAGNIFIED.get(method, 2e-6)
    for number in (0, 1):  # of other sizes than the rest of the batch, so that padding shows
        row = slice(number, number + 1)
        alone = explained(name, method, found.sides, row)[0]
        close(found.found[number], alone, tolerance)
        if number == 0:
            again = explained(name, method, found.sides, row)[0]
            assert (again.image, again.text) == (alone.image, alone.text), "the same call gives other bits"
    for one in found.found:
        check_layout(name, one)


def check_layout(name: str, one: isthmus.Explanation) -> None:
    zoo = built(name)
    if one.image is not None:
        assert np.isfinite(one.image.scores).all()
        if name == "siglip2":
            height, width = one.image.input_size
            assert one.image.scores.shape == (height // 8, width // 8)
        elif name != "align":
            assert one.image.scores.shape == zoo.grid
            names = [special.name for special in one.image.special]
            assert names[: zoo.prefix] == ["CLS", "REG1", "REG2", "REG3", "REG4"][: zoo.prefix]
            assert len(names) == zoo.prefix + zoo.suffix
    if one.text is not None:
        assert [word.text for word in one.text.words] == one.caption.split()
        assert "".join(token.text for token in one.text.tokens) == one.caption.replace(" ", "")
        assert all(np.isfinite(token.score) for token in one.text.tokens)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", ["image", "text"])
def test_a_tower_resumed_from_any_layer_is_the_whole(name: str, side: Any) -> None:
    model = model_of(name)
    tower, inputs = model.tower(side), inputs_of(model, side)[0]
    whole = tower.embed(inputs)
    for layer in (0, tower.depth // 2, tower.depth):
        split = tower.split(inputs, layer)
        rows = torch.tensor([2, 0, 1, 0] if split.hidden.ndim == 3 else [0, 1, 2])
        with torch.no_grad():
            found = split.resume(split.hidden[rows], rows)
        torch.testing.assert_close(found, whole[rows], atol=1e-5, rtol=1e-4)
    entrance = tower.enter(inputs)
    for _ in range(2):  # some models write into what they are given
        with torch.no_grad():
            torch.testing.assert_close(entrance.resume(entrance.hidden), whole, atol=1e-5, rtol=1e-4)


def inputs_of(model: DualEncoder, side: str) -> tuple[Any, Any]:
    if side == "image":
        inputs, _, layouts = model.processing.pictures([open_picture(one) for one in pictures()])
    else:
        inputs, layouts, _ = model.processing.texts(TEXTS, truncate=False)
    return inputs, layouts


@pytest.mark.parametrize("name", MODELS)
def test_special_positions_have_the_tokenizers_names(name: str) -> None:
    """A position is the text's own, or BOS, EOS, padding that is read, or has the name of its token."""
    model, tokenizer = model_of(name), built(name).tokenizer
    inputs, layouts = inputs_of(model, "text")
    ends = {tokenizer.bos_token_id: "BOS", tokenizer.eos_token_id: "EOS"}
    for ids, layout, text in zip(inputs["input_ids"].tolist(), layouts, TEXTS, strict=True):
        plain = tokenizer(text)["input_ids"]
        start = len(ids) - len(plain) if tokenizer.padding_side == "left" else 0
        for name_, position in layout.special:
            if start <= position < start + len(plain):
                token = ids[position]
                assert name_ == ends.get(token, tokenizer.convert_ids_to_tokens(token))
            else:
                assert name_ == "PAD"
        own = {piece.position for piece in layout.pieces} | {position for _, position in layout.special}
        assert len(own) == layout.length
        assert set(range(start, start + len(plain))) <= own


@pytest.mark.parametrize("name", MODELS)
def test_padding_is_no_content(name: str) -> None:
    """What a layout does not name changes nothing: neither patches behind a picture's own nor masked tokens."""
    model = model_of(name)
    for side in ("image", "text"):
        tower = model.tower(side)
        inputs, layouts = inputs_of(model, side)
        split = tower.split(inputs, 0)
        if split.hidden.ndim == 4:
            continue
        named = named_of(layouts)
        assert named.shape == split.hidden.shape[:2]
        noise = torch.randn(split.hidden.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = split.resume(torch.where(named[..., None], split.hidden, noise))
        torch.testing.assert_close(found, split.embedding, atol=1e-5, rtol=1e-4)


def everything() -> str:
    """The page as the models say it."""
    read = [name for name in MODELS if not isinstance(loaded(name), str)]
    refusals = {name: {method: cell(name, method).refused for method in METHOD_NAMES} for name in read}
    return support_page.rendered(refusals, {name: str(loaded(name)) for name in MODELS if name not in read})


@pytest.mark.skipif(not SAME_VERSION, reason="docs/support.md is of another version of transformers")
def test_the_support_table_has_every_model_and_method_and_no_more() -> None:
    """Each cell is compared where it is run; here, that the page is as it would be written."""
    said = support_page.table()
    assert sorted(said) == MODELS
    unread = {name: str(loaded(name)) for name in MODELS if isinstance(loaded(name), str)}
    for name, reason in unread.items():
        assert {support_page.neutral(reason)} == {r for row in said[name].values() for r in row.values() if r}
        del said[name]
    assert support_page.rendered(said, unread) == support_page.PAGE.read_text(encoding="utf-8")
    assert set(support_page.FAMILIES) >= set(MODELS)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_matrix.py --write")
    torch.set_num_threads(1)
    print(support_page.write(everything()))
