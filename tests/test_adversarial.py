"""MFABA and AGI against loops in float64, one input at a time on the whole model, and the published arrays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import isthmus
from conftest import picture
from isthmus.encoders.counting import counted
from isthmus.encoders.tower import Tower
from isthmus.errors import ModelError, OptionError
from isthmus.methods import METHODS
from isthmus.methods.walk import _unit_and_length
from test_gradients import layouts_of, over_patches
from test_tower import inputs_of

ITEMS = 6


@pytest.fixture(scope="module")
def tiny(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64, depth=2)


def classes_of(model: Any, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets near the inputs' own embeddings and a bank around them, so that decisions change on the way."""
    generator = torch.Generator().manual_seed(4)
    own = normalize(model.tower(side).embed(inputs_of(model, side)), dim=-1)
    noise = torch.randn(len(own) + ITEMS, own.shape[1], generator=generator, dtype=torch.float64)
    target = normalize(own + 0.05 * noise[: len(own)], dim=-1)
    return target, normalize(own.mean(0) + 0.1 * noise[len(own) :], dim=-1)


def run(model: Any, side: str, method: str, **options: Any) -> Any:
    target, bank = classes_of(model, side)
    options = {"bank": bank, "layouts": layouts_of(side), **options}
    target = options.pop("target", target)
    return METHODS[method].function(model.tower(side), inputs_of(model, side), target, **options)


class Oracle:
    """One input of a side: its values, how they may change, and the probabilities of all classes there."""

    def __init__(self, model: Any, side: str, row: int, scale: float) -> None:
        self.model, self.side, self.scale = model, side, scale
        self.inputs = {name: value[row : row + 1] for name, value in inputs_of(model, side).items()}
        target, bank = classes_of(model, side)
        self.classes = torch.cat([target[row : row + 1], bank])
        if side == "image":
            self.start = self.inputs["pixel_values"][0]
            processor = model.processing.of_pictures._image_processor
            mean, std = (torch.tensor(v).double()[:, None, None] for v in (processor.image_mean, processor.image_std))
            self.low, self.high = (-mean / std).float().double(), ((1 - mean) / std).float().double()
            self.range, self.free = self.high - self.low, torch.ones_like(self.start)
            self.low, self.high = torch.minimum(self.low, self.start), torch.maximum(self.high, self.start)
        else:
            self.table = model.model.text_model.embeddings.token_embedding
            self.start = self.table.weight.detach()[self.inputs["input_ids"][0]]
            words = len(layouts_of(side)[row].pieces)
            self.range = self.start[:words].max() - self.start[:words].min()
            self.free = torch.zeros_like(self.start)
            self.free[:words] = 1
            self.low = self.high = None

    def embedding(self, values: torch.Tensor) -> torch.Tensor:
        if self.side == "image":
            return normalize(self.model.image.encode({"pixel_values": values[None]}), dim=-1)[0]
        handle = self.table.register_forward_hook(lambda *_: values[None])
        try:
            return normalize(self.model.text.encode(self.inputs), dim=-1)[0]
        finally:
            handle.remove()

    def probabilities(self, values: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.scale * self.classes @ self.embedding(values), 0)

    def slope(self, values: torch.Tensor, one: int) -> tuple[torch.Tensor, torch.Tensor]:
        values = values.clone().requires_grad_(True)
        found = self.probabilities(values)
        return torch.autograd.grad(found[one], values)[0], found.detach()

    def within(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.low is None else torch.minimum(torch.maximum(values, self.low), self.high)

    def gathered(self, values: torch.Tensor) -> np.ndarray:
        array = values.detach().numpy()
        return over_patches(array[None], np.sum)[0] if self.side == "image" else array.sum(-1)


def faded(gradient: torch.Tensor) -> torch.Tensor:
    """The sign, which fades to 0 under a thousandth of the largest gradient."""
    return (1000 * gradient / gradient.abs().max()).clamp(-1, 1)


def mfaba_loop(oracle: Oracle, *, step: str, steps: int, eta: float, epsilon: float) -> tuple[np.ndarray, int]:
    x, total, taken = oracle.start.clone(), torch.zeros_like(oracle.start), 0
    for _ in range(steps):
        gradient, _ = oracle.slope(x, 0)
        if step == "sign":
            move = eta * oracle.range * faded(gradient * oracle.free)
        else:
            unit = oracle.range * gradient * oracle.free
            move = 100 * eta * oracle.range * unit / unit.pow(2).sum().sqrt()
        new = x - move * oracle.free
        box = epsilon * oracle.range
        new = oracle.within(torch.minimum(torch.maximum(new, oracle.start - box), oracle.start + box))
        total -= (new - x) * gradient
        x, taken = new, taken + 1
        if int(oracle.probabilities(x).argmax()) != 0:
            break
    return oracle.gathered(total), taken


# Boxes so small that some paths meet their walls.
SIGN = {"image": {"eta": 0.004, "epsilon": 0.01}, "text": {"eta": 0.008, "epsilon": 0.03}}
NORMALISED = {"image": {"eta": 0.002, "epsilon": 0.01}, "text": {"eta": 0.001, "epsilon": 0.04}}


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize(("step", "sizes"), [("sign", SIGN), ("normalised", NORMALISED)])
def test_mfaba_equals_a_loop(tiny: Any, side: str, step: str, sizes: dict[str, dict[str, float]]) -> None:
    found = run(tiny, side, "mfaba", step=step, steps=6, scale=40, **sizes[side])
    wanted = [mfaba_loop(Oracle(tiny, side, row, 40), step=step, steps=6, **sizes[side]) for row in range(3)]
    taken = [one for _, one in wanted]
    assert any(1 < one < 6 for one in taken), taken
    assert len(set(taken)) > 1, taken
    for row in range(3):
        np.testing.assert_allclose(found.scores[row], wanted[row][0], rtol=1e-6, atol=1e-9)
    assert [one["steps_taken"] for one in found.options] == taken
    assert [one["flipped"] for one in found.options] == [one < 6 for one in taken]
    assert float(found.scores.min()) >= 0


def agi_loop(oracle: Oracle, *, classes: int, steps: int, epsilon: float) -> tuple[np.ndarray, tuple[int, ...]]:
    similar = (oracle.classes[1:] @ oracle.embedding(oracle.start)).detach().numpy()
    total, taken = torch.zeros_like(oracle.start), []
    for false in 1 + np.argsort(-similar)[:classes]:
        x, count = oracle.start.clone(), 0
        while count < steps:
            upward, found = oracle.slope(x, int(false))
            if int(found.argmax()) == false:
                break
            label, _ = oracle.slope(x, 0)
            new = oracle.within(x + epsilon * oracle.range * faded(upward * oracle.free))
            total -= (new - x) * label
            x, count = new, count + 1
        taken.append(count)
    return oracle.gathered(total), tuple(taken)


@pytest.mark.parametrize("side", ["image", "text"])
def test_agi_equals_a_loop(tiny: Any, side: str) -> None:
    options = {"classes": 4, "steps": 5, "epsilon": {"image": 0.005, "text": 0.01}[side]}
    found = run(tiny, side, "agi", scale=40.0, **options)
    wanted = [agi_loop(Oracle(tiny, side, row, 40.0), **options) for row in range(3)]
    taken = [count for _, counts in wanted for count in counts]
    assert any(0 < one < 5 for one in taken), taken
    assert any(one == 5 for one in taken), taken
    for row in range(3):
        np.testing.assert_allclose(found.scores[row], wanted[row][0], rtol=1e-6, atol=1e-9)
    assert [one["steps_taken"] for one in found.options] == [counts for _, counts in wanted]


def test_a_class_that_wins_from_the_start_has_no_path_and_is_told(tiny: Any) -> None:
    _, bank = classes_of(tiny, "image")
    own = normalize(tiny.image.embed(inputs_of(tiny, "image")), dim=-1)
    options = {"bank": torch.cat([bank, own[1:2]]), "target": torch.stack([own[0], bank[0], own[2]])}
    agi = run(tiny, "image", "agi", classes=1, steps=2, **options)
    assert agi.options[1]["steps_taken"] == (0,)
    assert not bool(agi.scores[1].any())
    assert agi.options[0]["steps_taken"] != (0,)
    mfaba = run(tiny, "image", "mfaba", steps=3, **options)
    assert mfaba.options[1]["steps_taken"] == 1
    for found in (agi, mfaba):
        assert "more probable than the target from the start" in found.notes[1][0]
        assert found.notes[0] == ()


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("method", ["mfaba", "agi"])
def test_the_target_itself_in_the_bank_does_not_count(tiny: Any, side: str, method: str) -> None:
    target, bank = classes_of(tiny, side)
    plain = run(tiny, side, method, steps=2)
    more = run(tiny, side, method, steps=2, bank=torch.cat([bank[:2], target[:1], bank[2:]]))
    np.testing.assert_allclose(more.scores[0], plain.scores[0], rtol=1e-9, atol=1e-12)
    assert not np.allclose(more.scores[1], plain.scores[1], rtol=1e-3)
    with pytest.raises(OptionError, match="an item other than the target"):
        run(tiny, side, method, bank=target[:1])


def test_an_almost_certain_probability_keeps_its_slope(tiny: Any, make_tiny: Callable[..., Any]) -> None:
    """In float32 the probability is 1, of which a plain softmax gives no gradient at all."""
    model = make_tiny(depth=2)
    _, bank = classes_of(tiny, "image")
    own = normalize(tiny.image.embed(inputs_of(tiny, "image")), dim=-1)
    options = {"layouts": layouts_of("image"), "bank": -bank, "steps": 1, "scale": 20.0}
    exact = METHODS["mfaba"].function(tiny.image, inputs_of(tiny, "image"), own, **options)
    single = METHODS["mfaba"].function(model.image, inputs_of(model, "image"), own.float(), **options)
    probability = torch.sigmoid(20 * (1 + own @ bank.T)).amin().float()
    assert float(probability) == 1
    assert float(exact.scores.max()) > 0
    np.testing.assert_allclose(single.scores / single.scores.max(), exact.scores / exact.scores.max(), atol=1e-3)
    np.testing.assert_allclose(float(single.scores.max() / exact.scores.max()), 1, rtol=1e-3)


@pytest.mark.parametrize("size", [1e-36, 1e-30, 1.0, 1e30])
def test_directions_have_length_one_however_small_their_squares(size: float) -> None:
    direction, length = _unit_and_length(size * torch.tensor([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(direction, torch.tensor([[0.6, 0.0, -0.8], [0.0, 0.0, 0.0]]), rtol=1e-2, atol=0)
    np.testing.assert_allclose(length[0, 0], 5 * size, rtol=1e-2)


def test_half_precision_is_told_to_be_coarse(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny(depth=2, dtype=torch.bfloat16)
    for method in ("mfaba", "agi"):
        found = isthmus.explain(model, picture(), "a dog", method=method, steps=1)
        assert any("use float32" in note for note in (*found.image.notes, *found.text.notes))


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("method", ["mfaba", "agi"])
def test_chunks_do_not_change_a_map(tiny: Any, side: str, method: str) -> None:
    whole, parts = (run(tiny, side, method, steps=3, memory=memory) for memory in (None, 1))
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize(("method", "size"), [("mfaba", "eta"), ("agi", "epsilon")])
def test_passes_are_at_most_those_declared(tiny: Any, side: str, method: str, size: str) -> None:
    """Steps too small to arrive take all; AGI by default has 15 paths, so 15n is `classes * n`."""
    target, bank = classes_of(tiny, side)
    inputs, layouts = inputs_of(tiny, side), layouts_of(side)
    options: dict[str, Any] = {"steps": 4, size: 1e-9} | ({"classes": 5} if method == "agi" else {})
    with counted() as passes:
        METHODS[method].function(tiny.tower(side), inputs, target, layouts=layouts, bank=bank, **options)
    forward, backward = (
        eval(formula.replace("15n", "5 * n").replace("30n", "10 * n"), {"n": 4}) for formula in METHODS[method].passes
    )
    assert passes == {"forward": 3 * forward, "backward": 3 * backward}


@pytest.mark.parametrize("batch", [8, 1])
def test_the_paper_preset_equals_the_published_maps(mini: Any, reference: Any, batch: int) -> None:
    arrays, pairs = reference
    images = [isthmus.PreparedImage(torch.from_numpy(p.astype(np.float32))) for p in arrays["pixel_values"][:8]]
    texts = [pair["caption"] for pair in pairs[:8]]
    found = isthmus.explain(mini, images, texts, method="mfaba", preset="paper", batch_size=batch)
    for i, one in enumerate(found):
        np.testing.assert_allclose(one.image.published[::2, ::2], arrays["mfaba_image"][i], atol=1e-4)
        expected = arrays["mfaba_text"][i][: len(pairs[i]["ids"])]
        np.testing.assert_allclose(one.text.published, expected, atol=1e-4)
        assert dict(one.image.options) == {"steps": 10, "eta": 0.01}


def test_the_paper_preset_equals_a_loop_on_the_token_table(tiny: Any) -> None:
    """Rows of a copied model's table take the steps, so that a token that comes twice moves in both places."""
    target, _ = classes_of(tiny, "text")
    inputs = {name: value.clone() for name, value in inputs_of(tiny, "text").items()}
    inputs["input_ids"][1, 5] = inputs["input_ids"][1, 2]
    arguments = {"layouts": layouts_of("text"), "bank": target, "preset": "paper", "steps": 3, "eta": 0.02}
    found = METHODS["mfaba"].function(tiny.text, inputs, target, **arguments)
    for row in range(3):
        model = copy.deepcopy(tiny.model)
        table = model.text_model.embeddings.token_embedding.weight
        total = torch.zeros_like(table)
        for _ in range(3):
            one = {name: value[row : row + 1] for name, value in inputs.items()}
            embedding = normalize(model.get_text_features(**one).pooler_output, dim=-1)
            (gradient,) = torch.autograd.grad((embedding * target[row]).sum(), table)
            total += 0.02 * gradient.abs()
            with torch.no_grad():
                table -= 0.02 * gradient.sign()
        length = layouts_of("text")[row].length
        wanted = total.sum(-1)[inputs["input_ids"][row]].detach()
        wanted[length:] = 0  # padding
        np.testing.assert_allclose(found.scores[row], wanted, rtol=1e-6, atol=1e-12)
    assert float(found.scores[1, 2]) == float(found.scores[1, 5])
    assert float(found.scores[0, 6]) > 0  # the end token's row moves too


def test_the_paper_preset_equals_a_loop_before_the_first_layer_norm(tiny: Any) -> None:
    target, bank = classes_of(tiny, "image")
    inputs, vision = inputs_of(tiny, "image"), tiny.model.vision_model
    arguments = {"layouts": layouts_of("image"), "bank": bank, "preset": "paper", "steps": 3, "eta": 0.02}
    found = METHODS["mfaba"].function(tiny.image, inputs, target, **arguments)
    for row in range(3):
        x = vision.embeddings(inputs["pixel_values"][row : row + 1]).detach()
        total = torch.zeros_like(x)
        for _ in range(3):
            x.requires_grad_(True)
            handle = vision.embeddings.register_forward_hook(lambda *_, x=x: x)
            embedding = normalize(tiny.image.encode(inputs_of(tiny, "image", batch=1)), dim=-1)
            handle.remove()
            (gradient,) = torch.autograd.grad((embedding * target[row]).sum(), x)
            total += 0.02 * gradient.abs()
            x = (x - 0.02 * gradient.sign()).detach()
        np.testing.assert_allclose(found.scores[row], total[0].sum(-1), rtol=1e-6, atol=1e-12)
    assert found.published


def test_a_users_bank_is_used(mini: Any) -> None:
    texts = ["a dog on grass", "a red bus on a road"]
    for method, options in (("mfaba", {"steps": 2, "scale": 1.0}), ("agi", {"steps": 1, "classes": 3, "scale": 1.0})):
        plain, other = (
            isthmus.explain(mini, picture(), texts[0], method=method, sides="image", bank=bank, **options)
            for bank in (None, [texts[1]])
        )
        assert not np.allclose(plain.image.scores, other.image.scores, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("mfaba", {"step": "big"}, 'choose "sign" or "normalised"'),
        ("mfaba", {"steps": 0}, "steps must be a whole number of at least 1"),
        ("mfaba", {"eta": -1.0}, "eta must be a number over 0"),
        ("mfaba", {"epsilon": 0}, "epsilon must be a number over 0"),
        ("mfaba", {"preset": "paper", "scale": 3.0}, "no use for step, epsilon and scale"),
        ("mfaba", {"preset": "paper", "steps": 0}, "steps must be a whole number of at least 1"),
        ("mfaba", {"bank": torch.zeros(3, 4)}, r"The bank has shape \(3, 4\)"),
        ("agi", {"classes": 0}, "classes must be a whole number of at least 1"),
        ("agi", {"scale": "high"}, "scale must be a number over 0"),
        ("agi", {"bank": torch.zeros(0, 16)}, "The bank must hold"),
    ],
)
def test_wrong_options_are_refused(tiny: Any, method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run(tiny, "image", method, **options)


def test_the_preset_needs_a_stem(tiny: Any) -> None:
    tower = tiny.image
    bare = Tower(tower.side, tower.model, tower.encode, tower.owner, tower.stack, stem_input="pixel_values")
    target, bank = classes_of(tiny, "image")
    with pytest.raises(ModelError, match="has no stem"):
        METHODS["mfaba"].function(
            bare, inputs_of(tiny, "image"), target, layouts=layouts_of("image"), bank=bank, preset="paper"
        )


@pytest.mark.parametrize("method", ["mfaba", "agi", "textspan", "clip-surgery"])
def test_a_bank_of_any_form_is_used_or_refused(mini: Any, tmp_path: Any, method: str) -> None:
    picture(3).save(tmp_path / "a.png")
    picture(4).save(tmp_path / "b.png")
    options = {"method": method, "sides": "image"} | ({"steps": 1} if method in ("mfaba", "agi") else {})

    def run(bank: Any, **more: Any) -> Any:
        return isthmus.explain(mini, picture(), "a dog", bank=bank, **{**options, **more})

    texts = ["a cat", "a red car"]
    vectors = torch.stack([mini.text.embed(mini.processing.texts([t], truncate=False)[0])[0] for t in texts])
    np.testing.assert_allclose(run(vectors).image.scores, run(texts).image.scores, atol=1e-5)
    if method != "clip-surgery":
        one, two = (run(bank, sides="text").text for bank in (tmp_path, sorted(tmp_path.iterdir())))
        assert one == two
    for bank in ([], [3], ["a cat", tmp_path / "a.png"]):
        with pytest.raises(OptionError, match="bank takes texts, or pictures and folders"):
            run(bank)
    with pytest.raises(OptionError, match="serves a side that is not explained"):
        run([tmp_path])
    with pytest.raises(OptionError, match="A bank of vectors is finite"):
        run(torch.ones(3))
