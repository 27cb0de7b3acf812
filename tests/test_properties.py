"""What the registry states of each method, derived from what the method does on tiny models."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

import isthmus
from cheap import CHEAP
from conftest import picture
from isthmus.cli.methods import facts
from isthmus.encoders.counting import counted
from isthmus.encoders.pictures import open_picture
from isthmus.errors import ModelError, OptionError
from isthmus.methods import METHODS
from isthmus.methods.published import TABLE_8

NAMES = sorted(METHODS)
SIDES = [(name, side) for name in NAMES for side in METHODS[name].sides]
TEXTS = ["a small dog runs over the wet grass", "a bird", "two red cars"]
# A few steps of learning turn the gates by their sign alone; at CLIP's scale a random target's probability is 0.
LONGER = {"m2ib": {"steps": 6, "copies": 2}, "iba": {"steps": 6, "copies": 2}, "mfaba": {"steps": 4, "scale": 5.0}}


@pytest.fixture(scope="module")
def tiny(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64)


def run(
    model: Any, name: str, side: str, *, tower: Any = None, size: float = 1.0, seed: int = 1, **options: Any
) -> Any:
    """A method's own function on three inputs, with random targets of length `size` and a random bank."""
    method = METHODS[name]
    if side == "image":
        inputs, _, layouts = model.processing.pictures([open_picture(picture(i)) for i in range(3)])
    else:
        inputs, layouts, _ = model.processing.texts(TEXTS, truncate=False)
    generator = torch.Generator().manual_seed(seed)
    target, bank = (normalize(torch.randn(n, 16, generator=generator, dtype=model.dtype), dim=-1) for n in (3, 5))
    given = {**CHEAP.get(name, {}), **LONGER.get(name, {}), **options}
    given = {key: value.get(side) if isinstance(value, dict) else value for key, value in given.items()}
    if method.needs_layouts:
        given.setdefault("layouts", layouts)
    if method.needs_bank:
        given.setdefault("bank", bank)
    return method.function(tower or model.tower(side), inputs, size * target, **given)


def content(model: Any, side: str, scores: torch.Tensor) -> torch.Tensor:
    """Scores of the patches, or of the first two words, which all texts have, made of length one."""
    part = scores[:, 1:50] if side == "image" else scores[:, 1:3]
    return normalize(part, dim=1)


def raises(error: type[Exception], call: Callable[[], Any]) -> bool:
    try:
        call()
    except error:
        return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_the_sides_are_those_that_explain_takes(tiny: Any, name: str) -> None:
    for side in ("image", "text"):
        refused = raises(
            OptionError,
            lambda side=side: isthmus.explain(tiny, picture(), "a dog", method=name, sides=side, **CHEAP.get(name, {})),
        )
        assert refused == (side not in METHODS[name].sides)


@pytest.mark.parametrize("name", NAMES)
def test_the_global_generator_has_no_say(tiny: Any, name: str) -> None:
    side = METHODS[name].sides[-1]
    torch.manual_seed(1)
    first = run(tiny, name, side).scores
    torch.manual_seed(2)
    assert torch.equal(first, run(tiny, name, side).scores)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_another_map_of_random_methods_alone(make_tiny: Callable[..., Any], name: str) -> None:
    model, side = make_tiny(), METHODS[name].sides[0]
    options = {**CHEAP.get(name, {}), "sides": side, "method": name}
    if not METHODS[name].random:
        assert raises(OptionError, lambda: isthmus.explain(model, picture(), "a dog", seed=1, **options))
        return
    a, b = (isthmus.explain(model, picture(), "a dog", seed=seed, **options) for seed in (1, 2))
    assert a.image != b.image


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_scores_in_units_of_the_score_grow_with_the_target(tiny: Any, name: str, side: str) -> None:
    once, twice = (run(tiny, name, side, size=size).scores for size in (1.0, 2.0))
    proportional = bool(torch.allclose(twice, 2 * once, rtol=1e-6, atol=1e-12))
    if METHODS[name].units == "score":
        assert proportional
    else:
        assert not proportional


@pytest.mark.parametrize("name", NAMES)
def test_signed_methods_alone_speak_against(tiny: Any, name: str) -> None:
    """Over both sides and several targets; methods that cut the negative part off do so by default."""
    options = {"relu": True} if name == "grad-eclip" else {}
    lowest = min(
        float(run(tiny, name, side, seed=seed, **options).scores.min())
        for side in METHODS[name].sides
        for seed in (1, 2)
    )
    assert (lowest < -1e-9) == METHODS[name].signed


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_complete_methods_alone_sum_to_the_score_lost(tiny: Any, name: str, side: str) -> None:
    exact = {"steps": "auto", "tolerance": 1e-4, "limit": 512} if "tolerance" in METHODS[name].options else {}
    found = run(tiny, name, side, **exact)
    if found.closed is None:
        assert not METHODS[name].complete
        return
    change = found.open - found.closed
    missed = ((found.scores.sum(-1) - change).abs() / change.abs()).max()
    assert bool(missed < 2e-4) == METHODS[name].complete


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_methods_that_differentiate_run_back_and_others_do_not(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, name: str, side: str
) -> None:
    with counted() as passes:
        run(tiny, name, side)
    assert (passes["backward"] > 0) == METHODS[name].needs_gradients

    def refuse(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    assert raises(ZeroDivisionError, lambda: run(tiny, name, side)) == METHODS[name].needs_gradients


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_methods_that_read_attention_need_its_module(tiny: Any, name: str, side: str) -> None:
    unknown = replace(tiny.tower(side), attention="not_there")
    assert raises(ModelError, lambda: run(tiny, name, side, tower=unknown)) == METHODS[name].needs_attention


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_fitted_methods_need_a_reference_set(tiny: Any, name: str, side: str) -> None:
    without = replace(tiny.tower(side), reference=None, _means={})
    fitted = raises(OptionError, lambda: run(tiny, name, side, tower=without))
    assert fitted == (side in METHODS[name].needs_fit)


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_methods_with_a_bank_follow_it(tiny: Any, name: str, side: str) -> None:
    bank = normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(9), dtype=torch.float64), dim=-1)
    if not METHODS[name].needs_bank:
        assert raises(TypeError, lambda: run(tiny, name, side, bank=bank))
        return
    assert not torch.allclose(run(tiny, name, side).scores, run(tiny, name, side, bank=bank).scores)


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_methods_that_need_layouts_take_them(tiny: Any, name: str, side: str) -> None:
    needed = inspect.signature(METHODS[name].function).parameters.get("layouts")
    assert (needed is not None) == METHODS[name].needs_layouts


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_maps_that_explain_the_score_follow_what_it_follows(
    make_tiny: Callable[..., Any], name: str, side: str
) -> None:
    """The last MLP is turned around, which changes the score, but neither attention nor a path without MLPs."""
    model = make_tiny(dtype=torch.float64)
    # Feature surgery weighs labels by the picture's own embedding; its features are those of the second path.
    options = {"surgery": "none"} if name == "clip-surgery" else {}
    before = run(model, name, side, **options)
    with torch.no_grad():
        model.tower(side).blocks[-1].mlp.fc2.weight.mul_(-1.5)
    after = run(model, name, side, **options)
    assert not torch.allclose(before.open, after.open)
    same = torch.allclose(*(content(model, side, one.scores) for one in (before, after)), atol=1e-9)
    assert same != METHODS[name].explains_score


def evaluated(formula: str, sizes: dict[str, int]) -> int:
    """The value of a formula of the registry, such as "10n - 9" or "2 + log2 T"."""
    formula = re.sub(r"log2 (\w)", r"ceil(log2(\1))", formula)
    formula = re.sub(r"(\d)([nTP])", r"\1 * \2", formula)
    return int(eval(formula, {"__builtins__": {}, "ceil": math.ceil, "log2": math.log2}, sizes))


@pytest.mark.parametrize(("name", "side"), SIDES)
def test_passes_are_those_that_are_stated(tiny: Any, name: str, side: str) -> None:
    """With default options; where a walk may end before its last step, or draws come in pairs, they are a bound."""
    if side == "image":
        inputs, _, layouts = tiny.processing.pictures([open_picture(picture())])
    else:
        inputs, layouts, _ = tiny.processing.texts(TEXTS[:1], truncate=False)
    defaults = {key: p.default for key, p in inspect.signature(METHODS[name].function).parameters.items()}
    known = {"nib": 10, "mfaba": 50, "rise": 2000}  # where presets have defaults of their own
    n = known.get(name, defaults.get("samples") or defaults.get("steps") or 0)
    positions = max(*layouts[0].content, *(place for _, place in layouts[0].special)) + 1
    sizes = {"n": n, "T": positions, "P": len(layouts[0].content)}
    given: dict[str, Any] = {"layouts": layouts} if METHODS[name].needs_layouts else {}
    if METHODS[name].needs_bank:
        given["bank"] = torch.eye(16, dtype=torch.float64)
    with counted() as passes:
        METHODS[name].function(tiny.tower(side), inputs, torch.full((1, 16), 0.25, dtype=torch.float64), **given)
    stated = tuple(evaluated(formula, sizes) for formula in METHODS[name].passes)
    found = (passes["forward"], passes["backward"])
    if name in ("agi", "banzhaf", "mfaba", "shapley"):
        assert 0 < found[0] <= stated[0]
        assert found[1] <= stated[1]
    else:
        assert found == stated


@pytest.mark.parametrize("name", sorted(TABLE_8))
def test_counts_beside_the_papers_are_those_of_a_pair(make_tiny: Callable[..., Any], name: str) -> None:
    model = make_tiny(depth=1 if name == "rise" else 12)
    passes = isthmus.explain(model, picture(), TEXTS[0], method=name, preset="paper").provenance.passes
    assert (passes["forward"], passes["backward"]) == TABLE_8[name].ours


def test_what_the_paper_counts_is_its_table_8(shared: Any) -> None:
    import json

    rows = json.loads((shared / "paper_tables.json").read_text(encoding="utf-8"))["table8"]
    wanted = {row["method"]: (row["forward"], row["backward"]) for row in rows}
    assert {cost.name: cost.theirs for cost in TABLE_8.values()} == wanted


def test_a_row_says_what_the_registry_says() -> None:
    assert facts(METHODS["nib"]) == [
        "both", "yes", "yes", "yes", "-", "yes", "-", "both", "-", "score", "2 + n", "n",
    ]  # fmt: skip
    assert facts(METHODS["clip-surgery"]) == [
        "image", "yes", "-", "-", "-", "-", "yes", "-", "yes", "-", "1 + T", "0",
    ]  # fmt: skip
