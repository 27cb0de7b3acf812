"""nib for several numbers of steps at once, and with special positions left open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import isthmus
from conftest import EXAMPLES
from isthmus.encoders.counting import counted
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.tower import unit
from isthmus.errors import OptionError
from isthmus.methods.nib import nib, nib_sweep
from state import untouched

SIDES = ("image", "text")
TEXTS = ["a dog tied to a fire hydrant", "a bear"]
STEPS = (1, 2, 4)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def batch(mini: Any) -> Any:
    """Tower, inputs, target and layouts of each side."""
    opened = [open_picture(EXAMPLES / name) for name in ("dog.jpg", "bear.jpg")]
    images, _, image_layouts = mini.processing.pictures(opened)
    texts, text_layouts, _ = mini.processing.texts(TEXTS, truncate=False)
    image, text = unit(mini.image.embed(images)), unit(mini.text.embed(texts))
    return {"image": (mini.image, images, text, image_layouts), "text": (mini.text, texts, image, text_layouts)}


# Sweeps


@pytest.mark.parametrize("preset", [None, "paper"])
@pytest.mark.parametrize("side", SIDES)
def test_a_sweep_gives_what_each_number_of_steps_gives(mini: Any, batch: Any, side: str, preset: str | None) -> None:
    tower, inputs, target, _ = batch[side]
    with untouched(mini.model), counted() as together:
        found = nib_sweep(tower, inputs, target, steps=STEPS, preset=preset)
    assert tuple(found) == STEPS
    apart = 0
    for steps, one in found.items():
        with counted() as passes:
            alone = nib(tower, inputs, target, steps=steps, preset=preset)
        apart += passes["forward"] + passes["backward"]
        scale = float(alone.scores.abs().max())
        torch.testing.assert_close(one.scores, alone.scores, rtol=0, atol=1e-6 * scale)
        assert alone.closed is not None
        torch.testing.assert_close(one.open, alone.open, rtol=0, atol=1e-6)
        torch.testing.assert_close(one.closed, alone.closed, rtol=0, atol=1e-6)
        assert one.options == alone.options
        assert one.options[0]["steps"] == steps
        assert one.published == alone.published == (preset == "paper")
    assert together["forward"] + together["backward"] < apart
    assert not torch.allclose(found[1].scores, found[4].scores, rtol=1e-3)


def test_nodes_that_rules_share_run_once(batch: Any) -> None:
    tower, inputs, target, _ = batch["text"]
    with counted() as passes:
        nib_sweep(tower, inputs, target, steps=(5, 10, 15, 20), layer=11, preset="paper")
    assert passes["backward"] == 2 * 30  # of 5, 10, 15 and 20 nodes, 30 are not the same
    assert passes["forward"] == 2 * (30 + 1 + 1)  # the inputs, and the closed end
    with counted() as passes:
        nib_sweep(tower, inputs, target, steps=(4, 4), layer=11, preset="paper")
    assert passes["backward"] == 2 * 4


def test_a_sweep_takes_a_layer_and_refuses_what_nib_refuses(batch: Any) -> None:
    tower, inputs, target, _ = batch["text"]
    found = nib_sweep(tower, inputs, target, steps=[3], layer=-2, preset="paper")[3]
    alone = nib(tower, inputs, target, steps=3, layer=-2, preset="paper")
    torch.testing.assert_close(found.scores, alone.scores, rtol=0, atol=1e-6 * float(alone.scores.abs().max()))
    assert found.options[0]["layer"] == tower.depth - 1
    for more in ({"steps": [0]}, {"steps": [3, 2.5]}, {"steps": [3], "layer": 99}, {"steps": [3], "preset": "best"}):
        with pytest.raises(OptionError) as caught:
            nib_sweep(tower, inputs, target, **more)
        assert str(caught.value).endswith(".")


# Special positions left open


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("closed", ["mean", "floor"])
def test_open_special_positions_get_nothing_and_the_rest_gets_all(batch: Any, side: str, closed: str) -> None:
    tower, inputs, target, layouts = batch[side]
    options: dict[str, Any] = {"layer": 6, "steps": 20, "closed": closed, "layouts": layouts}
    found = nib(tower, inputs, target, special="open", **options)
    shut = nib(tower, inputs, target, special="closed", **options)
    for row, layout in enumerate(layouts):
        places = [position for _, position in layout.special]
        assert places
        assert found.scores[row, places].tolist() == [0] * len(places)
        assert float(shut.scores[row, places].abs().max()) > 1e-4
        assert float(found.scores[row, list(layout.content)].abs().min()) > 0
    assert found.closed is not None
    change = found.open - found.closed
    torch.testing.assert_close(found.scores.sum(-1), change, rtol=0.03, atol=2e-4)
    assert float(change.abs().max()) > 0.02
    torch.testing.assert_close(found.open, shut.open, rtol=0, atol=1e-6)
    assert not torch.allclose(found.closed, shut.closed, atol=1e-3)
    assert found.options[0]["special"] == "open"
    assert "special" not in shut.options[0]


def test_the_closed_end_is_the_score_with_content_alone_replaced(batch: Any) -> None:
    tower, inputs, target, layouts = batch["image"]
    found = nib(tower, inputs, target, special="open", layer=3, steps=1, closed="zero", layouts=layouts)
    split = tower.split(inputs, 3)
    state = split.hidden.clone()
    for row, layout in enumerate(layouts):
        state[row, list(layout.content)] = 0
    with torch.no_grad():
        expected = (unit(split.resume(state)) * target).sum(-1)
    torch.testing.assert_close(found.closed, expected, rtol=0, atol=1e-6)


def test_open_special_positions_from_explain_whatever_else_is_explained(mini: Any) -> None:
    pictures = [EXAMPLES / "dog.jpg", EXAMPLES / "bear.jpg"]
    both = isthmus.explain(mini, pictures, TEXTS, special="open", steps=4)
    for row in (0, 1):
        alone = isthmus.explain(mini, pictures[row], TEXTS[row], special="open", steps=4)
        for side in SIDES:
            one, other = getattr(both[row], side), getattr(alone, side)
            assert {special.score for special in one.special} == {0}
            assert one.options["special"] == "open"
            mine, its = (
                one.scores if side == "image" else np.array([t.score for t in one.tokens]),
                other.scores if side == "image" else np.array([t.score for t in other.tokens]),
            )
            np.testing.assert_allclose(mine, its, atol=1e-5 * np.abs(its).max() + 1e-6)


def test_other_values_of_special_are_refused_in_one_sentence(mini: Any, batch: Any) -> None:
    tower, inputs, target, layouts = batch["text"]
    with pytest.raises(OptionError, match=r'^special must be "closed" or "open", not \'shut\'\.$'):
        nib(tower, inputs, target, steps=1, special="shut", layouts=layouts)
    with pytest.raises(OptionError, match=r'^special="open" needs a tower of tokens and .*: leave it out\.$'):
        nib(tower, inputs, target, steps=1, special="open")
    with pytest.raises(OptionError, match='special must be "closed" or "open", not False'):
        isthmus.explain(mini, EXAMPLES / "dog.jpg", TEXTS[0], steps=1, special=False)
