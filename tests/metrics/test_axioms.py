"""Axioms as numbers: toys about which the truth is known, methods of which the theory is known, hand-made methods."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import isthmus
from isthmus.cli.axioms import to_markdown, written
from isthmus.errors import ModelError, OptionError
from isthmus.methods import METHODS
from isthmus.methods.registry import Attribution, Method
from isthmus.metrics import toys
from isthmus.metrics.axioms import AXIOMS, LIMITS, AxiomRow, axioms
from isthmus.metrics.rewrites import REWRITES, rewrite

SIDES = ("image", "text")
OPTIONS = {
    "rise": {"samples": 60},
    "lime": {"samples": 60},
    "m2ib": {"copies": 2, "steps": 5},
    "iba": {"copies": 2, "steps": 5},
    "mfaba": {"steps": 5},
    "agi": {"classes": 2, "steps": 3},
}
INTEGRALS = ("integrated-gradients", "nib", "multilayer-nib")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bundled() -> tuple[str, ...]:
    return tuple(name for name, method in METHODS.items() if method.function.__module__.startswith("isthmus."))


@pytest.fixture(scope="module")
def measured(bundled: tuple[str, ...]) -> dict[tuple[str, str, str], AxiomRow]:
    rows = axioms(bundled, options={name: OPTIONS[name] for name in OPTIONS if name in bundled})
    return {(row.method, row.side, row.axiom): row for row in rows}


def held(measured: Any, name: str, axiom: str) -> list[bool | None]:
    return [measured[name, side, axiom].holds for side in METHODS[name].sides]


# The toys


@pytest.mark.parametrize("side", SIDES)
def test_rewritten_toys_embed_the_same_by_other_weights(side: Any) -> None:
    case = toys.base(side, seed=3)
    inputs, _ = case.read()
    own = case.model.tower(side).embed(inputs)
    found = toys.rewritten(case.model, seed=3)
    assert set(found) == set(REWRITES)
    for name, model in found.items():
        torch.testing.assert_close(model.tower(side).embed(inputs), own, rtol=1e-10, atol=1e-10)
        before, after = case.model.model.state_dict(), model.model.state_dict()
        assert any(not torch.equal(before[key], after[key]) for key in before), name


@pytest.mark.parametrize("name", sorted(REWRITES))
def test_a_trained_model_can_be_rewritten_too(mini: Any, dog: Path, name: str) -> None:
    model = copy.deepcopy(mini.model).double()
    rewrite(model, name, seed=1)
    with torch.no_grad():
        for side, key in (("image", "get_image_features"), ("text", "get_text_features")):
            inputs = (
                mini.processing.pictures([isthmus.encoders.pictures.open_picture(dog)])[0]
                if side == "image"
                else mini.processing.texts(["a dog on the grass"], truncate=False)[0]
            )
            own, other = (getattr(one, key)(**inputs) for one in (copy.deepcopy(mini.model).double(), model))
            own, other = (getattr(one, "pooler_output", one) for one in (own, other))
            torch.testing.assert_close(other, own, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("side", SIDES)
def test_no_state_of_a_dummy_has_a_say(side: Any) -> None:
    """The embedding is the same bits, whatever stands there before any block."""
    case = toys.dummy(side)
    inputs, layouts = case.read()
    generator = torch.Generator().manual_seed(0)
    for layer in range(toys.DEPTH + 1):
        split = case.model.tower(side).split(inputs, layer)
        hidden, other = split.hidden.clone(), split.hidden.clone()
        for place in range(len(layouts[0].content)):
            drawn = torch.randn(hidden[:, 0].shape, generator=generator, dtype=hidden.dtype)
            (hidden if place in case.places else other)[:, layouts[0].content[place]] = 9 * drawn
        assert torch.equal(split.resume(hidden), split.embedding)
        assert layer == toys.DEPTH or not torch.equal(split.resume(other), split.embedding)


@pytest.mark.parametrize("side", SIDES)
def test_symmetric_places_can_be_swapped_and_others_cannot(side: Any) -> None:
    """Pixels or token vectors, also where they are not the same."""
    case = toys.symmetric(side)
    inputs, layouts = case.read()
    entrance = case.model.tower(side).enter(inputs)
    first, second = case.places
    own = parts(entrance.hidden, layouts)
    torch.testing.assert_close(own[first], own[second], rtol=0, atol=0)
    hidden = entrance.hidden.clone()
    put(hidden, layouts, first, torch.randn(own[first].shape, generator=torch.Generator().manual_seed(1)))
    before = entrance.resume(hidden)
    for other, same in ((second, True), (first + 1, False)):
        swapped, now = hidden.clone(), parts(hidden, layouts)
        put(swapped, layouts, first, now[other])
        put(swapped, layouts, other, now[first])
        assert torch.allclose(entrance.resume(swapped), before, rtol=1e-10, atol=1e-10) == same


def parts(hidden: torch.Tensor, layouts: Any) -> list[torch.Tensor]:
    """What enters at each place: pixels `(B, 3, 8, 8)` or vectors `(B, d)`."""
    if hidden.ndim == 3:
        return [hidden[:, position].clone() for position in layouts[0].content]
    size = toys.PATCH
    rows = [hidden[:, :, y : y + size, x : x + size].clone() for y in range(0, 24, size) for x in range(0, 24, size)]
    return rows


def put(hidden: torch.Tensor, layouts: Any, place: int, value: torch.Tensor) -> None:
    if hidden.ndim == 3:
        hidden[:, layouts[0].content[place]] = value.to(hidden)
        return
    y, x = (number * toys.PATCH for number in divmod(place, toys.ROWS))
    hidden[:, :, y : y + toys.PATCH, x : x + toys.PATCH] = value.to(hidden)


@pytest.mark.parametrize("side", SIDES)
def test_the_saturated_place_is_flat_and_matters(side: Any) -> None:
    case = toys.saturated(side)
    inputs, layouts = case.read()
    split = case.model.tower(side).split(inputs, 0)
    place = layouts[0].content[case.places[0]]
    state = split.hidden.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(split.resume(state)[:, 0].sum(), state)
    sizes = gradient.norm(dim=-1)
    assert bool((sizes[:, place] < 1e-20 * sizes.max(1).values).all())
    replaced = split.hidden.clone()
    replaced[:, place] = case.model.tower(side).mean_state(0)
    moved = normalize(split.resume(replaced), dim=-1) - normalize(split.embedding, dim=-1)
    assert bool((moved.norm(dim=-1) > 0.01).all())


def test_toys_follow_their_seed_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    weights = [toys.toy(seed=seed).model.state_dict()["visual_projection.weight"] for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# What is known of methods


def test_every_method_has_a_row_for_each_side_and_axiom(measured: Any, bundled: tuple[str, ...]) -> None:
    assert set(measured) == {(n, side, axiom) for n in bundled for side in METHODS[n].sides for axiom in AXIOMS}
    for row in measured.values():
        if row.value is None:
            assert row.holds is None
            assert row.note
        else:
            assert row.value >= 0
            assert row.holds == (row.value <= LIMITS[row.axiom])


def test_complete_are_those_that_the_registry_says(measured: Any, bundled: tuple[str, ...]) -> None:
    for name in bundled:
        assert (held(measured, name, "completeness") == [True] * len(METHODS[name].sides)) == METHODS[name].complete


@pytest.mark.parametrize("name", [*INTEGRALS, "shapley"])
def test_path_integrals_and_exact_shapley_values_hold_them_all(measured: Any, name: str) -> None:
    for axiom in AXIOMS:
        assert held(measured, name, axiom) == [True, True], axiom


@pytest.mark.parametrize("name", ["saliency", "input-x-gradient", "fast-ig", "hirescam", "attnlrp"])
def test_gradients_miss_what_the_score_is_flat_at(measured: Any, name: str) -> None:
    """And nothing else: of the places only the flat one is without a score."""
    rows = [measured[name, side, "sensitivity"] for side in SIDES]
    assert all(0 < row.value < 0.2 and "is flat" in row.note for row in rows)


def test_maps_that_ignore_the_target_are_not_linear_in_it(measured: Any) -> None:
    """A(0.7 t - 1.3 t') = A is off by (1 + 0.6) A."""
    for side in SIDES:
        assert measured["rollout", side, "linearity"].value == pytest.approx(1.6)
        assert measured["rollout", side, "implementation-invariance"].value < 1e-5


@pytest.mark.parametrize("name", ["saliency", "gradcam", "chefer", "attention-gradient", "m2ib", "iba", "mfaba"])
def test_sizes_and_cut_off_or_learned_maps_are_not_linear(measured: Any, name: str) -> None:
    assert held(measured, name, "linearity") == [False, False]


def test_what_cuts_nothing_off_is_linear(measured: Any) -> None:
    for name in ("hirescam", "input-x-gradient", "attention-x-gradient", "attnlrp", "occlusion", "rise", "lime"):
        assert held(measured, name, "linearity") == [True, True], name


def test_the_gradient_of_attention_weights_sees_a_masked_place(measured: Any) -> None:
    """Its slope is not 0 where the weight is; times the weight it is."""
    assert held(measured, "attention-gradient", "dummy") == [False, False]
    assert held(measured, "attention-x-gradient", "dummy") == [True, True]
    assert held(measured, "occlusion", "dummy") == [True, True]


def test_sampled_masks_give_a_dummy_a_score(measured: Any) -> None:
    for name in ("rise", "lime"):
        assert held(measured, name, "dummy") == [False, False]
        assert held(measured, name, "symmetry") == [False, False]


def test_second_paths_and_absolute_noise_are_not_implementation_invariant(measured: Any) -> None:
    """Value-value attention follows the values' basis; M2IB's noise of size 1 follows the residual's size."""
    rows = {name: measured[name, "image", "implementation-invariance"] for name in ("clip-surgery", "gem", "m2ib")}
    assert not any(row.holds for row in rows.values())
    assert rows["clip-surgery"].note == "broken by values"
    assert rows["m2ib"].note == "broken by residual"
    assert held(measured, "iba", "implementation-invariance") == [True, True]  # its noise is fitted


# Hand-made methods


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def make(function: Callable[..., Attribution], **fields: Any) -> str:
        name = "made-up"
        monkeypatch.setitem(METHODS, name, Method(name=name, title=name, paper="", function=function, **fields))
        return name

    return make


def _given(tower: Any, inputs: Any, target: Any, scores: Any, closed: float | None = None) -> Attribution:
    embedding = normalize(tower.embed(inputs), dim=-1)
    opened = (embedding * target).sum(-1)
    shut = None if closed is None else opened - closed
    return Attribution(scores, opened, shut, ({},) * len(opened))


def _length(tower: Any, inputs: Any) -> tuple[int, int]:
    return tuple(tower.split(inputs, 0).hidden.shape[:2])


def _row(rows: list[AxiomRow], side: str) -> dict[str, AxiomRow]:
    return {row.axiom: row for row in rows if row.side == side}


def test_a_flat_map_by_hand(method: Callable[..., str]) -> None:
    def flat(tower: Any, inputs: Any, target: Any) -> Attribution:
        scores = torch.full(_length(tower, inputs), 2.0, dtype=torch.float64)
        return _given(tower, inputs, target, scores)

    rows = axioms([method(flat)])
    for side in SIDES:
        found = {axiom: row.value for axiom, row in _row(rows, side).items()}
        assert found == {
            "completeness": None,
            "sensitivity": 0.0,
            "dummy": 1.0,
            "implementation-invariance": 0.0,
            "linearity": pytest.approx(1.6),
            "symmetry": 0.0,
        }


def test_sums_that_miss_a_tenth_by_hand(method: Callable[..., str]) -> None:
    """Every position gets 1/T of 0.9 of the score lost, in proportion to the target."""

    def short(tower: Any, inputs: Any, target: Any) -> Attribution:
        count, length = _length(tower, inputs)
        return _given(tower, inputs, target, torch.full((count, length), 0.9 * 0.5 / length).double(), closed=0.5)

    row = _row(axioms([method(short)]), "image")["completeness"]
    assert row.value == pytest.approx(0.1, rel=1e-6)
    assert row.holds is False


def test_places_without_a_score_are_counted_by_hand(method: Callable[..., str]) -> None:
    """Patches 0 and 4 get nothing, of 9 that all change the score; 4 is the flat one."""

    def holes(tower: Any, inputs: Any, target: Any) -> Attribution:
        scores = torch.ones(_length(tower, inputs), dtype=torch.float64)
        scores[:, [1, 5]] = 0.0
        return _given(tower, inputs, target, scores)

    row = _row(axioms([method(holes, sides=("image",))]), "image")["sensitivity"]
    assert row.value == pytest.approx(2 / 9)


def test_unseeded_draws_fail_everything(method: Callable[..., str]) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(tower: Any, inputs: Any, target: Any) -> Attribution:
        scores = torch.randn(_length(tower, inputs), generator=generator, dtype=torch.float64)
        return _given(tower, inputs, target, scores, closed=0.5)

    for side in SIDES:
        rows = _row(axioms([method(drawn)]), side)
        assert [axiom for axiom, row in rows.items() if row.holds] == ["sensitivity"]  # every place has some score


def test_a_map_of_zeros_shows_nothing_and_a_refusal_is_told(method: Callable[..., str]) -> None:
    def zeros(tower: Any, inputs: Any, target: Any) -> Attribution:
        if tower.side == "text":
            raise ModelError("It does not like texts.")
        return _given(tower, inputs, target, torch.zeros(_length(tower, inputs), dtype=torch.float64))

    rows = axioms([method(zeros)])
    image = _row(rows, "image")
    assert image["sensitivity"].value == 1.0
    for axiom in ("dummy", "implementation-invariance", "linearity", "symmetry"):
        assert (image[axiom].value, image[axiom].note) == (None, "its maps are 0 everywhere")
    assert {(row.value, row.note) for row in _row(rows, "text").values()} == {(None, "It does not like texts.")}


# The call


def test_the_same_call_gives_the_same_rows_and_another_seed_others() -> None:
    rows = [axioms("gradcam", seed=seed) for seed in (0, 0, 1)]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_progress_and_threads() -> None:
    seen: list[tuple[int, int]] = []
    torch.set_num_threads(2)
    rows = axioms(["rollout", "saliency", "rollout"], progress=lambda done, total: seen.append((done, total)))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert seen == [(1, 2), (2, 2)]
    assert [row.method for row in rows] == ["rollout"] * 12 + ["saliency"] * 12


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(OptionError, match="no method 'nope'"):
        axioms(["nope"])
    with pytest.raises(OptionError, match="name at least one"):
        axioms([])
    with pytest.raises(OptionError, match="not measured"):
        axioms(["rollout"], options={"nib": {"steps": 4}})


def test_options_reach_the_method() -> None:
    """Grad-CAM that keeps the sign is linear."""
    rows = axioms("gradcam", options={"gradcam": {"relu": False}})
    assert [row.holds for row in rows if row.axiom == "linearity"] == [True, True]


# The command


@pytest.fixture
def command(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command line with the command, registered or not."""
    from typer.models import CommandInfo

    from isthmus import cli
    from isthmus.cli.axioms import axioms as one

    there = [info for info in cli.app.registered_commands if info.callback.__name__ != "axioms"]
    monkeypatch.setattr(cli.app, "registered_commands", [*there, CommandInfo("axioms", callback=cli._guarded(one))])
    return run


def test_the_command_prints_and_writes_what_was_measured(command: Callable[..., Any], tmp_path: Path) -> None:
    code, out, err = command("axioms", "--methods", "gradcam,rollout", "--out", tmp_path / "made")
    assert code == 0, err
    rows = axioms(["gradcam", "rollout"])
    with (tmp_path / "made" / "axioms.csv").open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [(one["method"], one["side"], one["axiom"]) for one in read] == [(r.method, r.side, r.axiom) for r in rows]
    values = [None if one["value"] == "" else float(one["value"]) for one in read]
    np.testing.assert_allclose([v or 0 for v in values], [r.value or 0 for r in rows], atol=1e-9)
    assert (tmp_path / "made" / "axioms.md").read_text(encoding="utf-8") == to_markdown(rows)
    line = next(line for line in out.splitlines() if line.startswith("rollout") and "image" in line)
    assert "1.60" in line
    assert "-" in line.split()


def test_markdown_by_hand() -> None:
    rows = [
        AxiomRow("a", "image", axiom, value, None if value is None else value <= LIMITS[axiom], note)
        for axiom, value, note in (
            ("completeness", None, "it has no closed state"),
            ("sensitivity", 0.0, ""),
            ("dummy", 0.25, ""),
            ("implementation-invariance", 2e-3, "broken by norms"),
            ("linearity", 3e-16, ""),
            ("symmetry", None, "refused"),
        )
    ]
    assert to_markdown(rows).splitlines()[2:] == [
        "| `a` | image | - | 0 ✓ | 0.25 ✗ | 2e-03 ✗ | <1e-9 ✓ | - |",
        "",
        "- implementation-invariance, broken by norms: a",
        "- symmetry, refused: a",
    ]
    assert [written(value) for value in (0.0, 1e-12, 0.5, 1.6)] == ["0", "<1e-9", "0.50", "1.60"]


def test_the_command_refuses_in_one_line(command: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for arguments in (("--methods", "nope"), ("--methods", " , "), ("--methods", "rollout", "--out", file)):
        code, _, err = command("axioms", *arguments)
        assert code == 1
        assert len([line for line in err.splitlines() if line.startswith("isthmus: ")]) == 1
        assert "Traceback" not in err
