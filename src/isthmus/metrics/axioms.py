"""Axioms as numbers: how far each method is from what an attribution is asked for, on toys where the truth is known.

Every number is an error, 0 where the axiom holds. Maps are those of the content (patches, or tokens of the text), for
three inputs of a side and a fixed vector as target, `isthmus.targets.Direction`; the largest error counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.tower import Side
from isthmus.errors import IsthmusError, OptionError
from isthmus.explainer import explain
from isthmus.explanation import Completeness, Explanation
from isthmus.frozen import Array
from isthmus.masking import masking
from isthmus.methods import registry
from isthmus.metrics import toys
from isthmus.metrics.toys import Case
from isthmus.targets import Direction

# The error up to which an axiom counts as held. All hold up to rounding, which is
# float32's where attention weights are read: transformers' eager attention takes its softmax in float32.
LIMITS: Mapping[str, float] = {
    "completeness": 1e-5,
    "sensitivity": 0.0,
    "dummy": 1e-5,
    "implementation-invariance": 1e-5,
    "linearity": 1e-5,
    "symmetry": 1e-5,
}
AXIOMS = tuple(LIMITS)
NO_CLOSED_STATE = "it has no closed state"
_NOTHING = 1e-6  # a score that is smaller beside the map's largest counts as none
_CHANGE = 1e-3  # a change of the score that is smaller beside the largest counts as none
_SUMS = (0.7, -1.3)  # of the two targets; their sum is not 1, so that a map that ignores its target is not linear
# Completeness is asked of the integral, not of a number of nodes: every result reports what its own nodes miss.
_REFINED = {"steps": 100}
# Fewer draws and steps than the defaults of dear methods.
_CHEAP: Mapping[str, Mapping[str, Any]] = {
    "rise": {"samples": 200},
    "lime": {"samples": 200},
    "m2ib": {"copies": 4},
    "iba": {"copies": 4},
    "mfaba": {"steps": 20},
    "agi": {"classes": 4, "steps": 5},
}


@dataclass(frozen=True)
class AxiomRow:
    """One method, one side, one axiom.

    Attributes:
        method, side, axiom: what was measured.
        value: the error, at least 0, as a share of the map's largest score (completeness: of `open - closed`;
            sensitivity: of the places that change the score); None where it is not defined.
        holds: whether the error is at most `LIMITS`; None where there is no value.
        note: why there is no value, or what breaks the axiom.
    """

    method: str
    side: Side
    axiom: str
    value: float | None
    holds: bool | None
    note: str = ""


@dataclass(frozen=True)
class _Found:
    value: float | None
    note: str = ""


@dataclass(frozen=True, eq=False)
class _Bench:
    """The toys of one side, made once for all methods."""

    base: Case
    dummy: Case
    saturated: Case
    symmetric: Case
    rewritten: Mapping[str, DualEncoder]
    changing: tuple[tuple[int, ...], ...]  # places of each saturated input that change the score when replaced
    targets: tuple[Tensor, Tensor]


def axioms(
    methods: Sequence[str] | str | None = None,
    *,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[AxiomRow]:
    """Measure all axioms for methods, on every side that they are defined for.

    completeness: `|sum - (open - closed)| / |open - closed|`, by the method's own closed state and over all
        positions; methods without such a state have no value, and those that integrate take 100 nodes.
    sensitivity: of the places whose replacement (by the mean) changes the score, the share that gets no score: part
        (a) of Sundararajan et al. (ICML 2017, section 2.1). One of the places is such that the score is flat there.
    dummy: the largest score of a place that no embedding depends on (their part (b); Friedman, 2004).
    implementation-invariance: the largest difference of a score between the toy and those that compute the same
        (their section 2.2), see `isthmus.metrics.rewrites`.
    linearity: the largest `|A(a t + b t') - a A(t) - b A(t')|` for targets t, t': the score is linear in its target,
        so its map should be (their section 3, for a sum of two networks that share all but their last layer).
    symmetry: the difference of the scores of two places that hold the same and that the model treats alike.

    Args:
        methods: names of `isthmus.methods`, in the order of the rows; all, by name, where None or "all".
        seed: of the toys' weights and inputs.
        options: for a method's name, options of it. Dear methods take fewer draws than by default.
        progress: called with the number of methods done and their total.

    Returns:
        A row for each method, side and axiom, in the order of `AXIOMS`.

    Raises:
        OptionError: no such method, or options of a method that is not measured.
    """
    names, given = _names(methods), options or {}
    unmeasured = [name for name in given if name not in names]
    if unmeasured:
        raise OptionError(f"There are options for {unmeasured[0]!r}, which is not measured: add it to methods.")
    rows = []
    with _one_thread():
        benches: dict[Side, _Bench] = {side: _bench(side, seed) for side in ("image", "text")}
        for done, name in enumerate(names, 1):
            chosen = {**_CHEAP.get(name, {}), **given.get(name, {})}
            for side in registry.get(name).sides:
                rows += [_row(name, side, axiom, benches[side], chosen) for axiom in AXIOMS]
            if progress is not None:
                progress(done, len(names))
    return rows


@contextmanager
def _one_thread() -> Iterator[None]:
    """Toys are so small that threads would only wait for each other, for long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _names(methods: Sequence[str] | str | None) -> tuple[str, ...]:
    if methods is None or methods == "all":
        return tuple(sorted(registry.METHODS))
    listed = (methods,) if isinstance(methods, str) else methods
    names = tuple(dict.fromkeys(registry.get(name).name for name in listed))
    if not names:
        raise OptionError("There is no method to measure: name at least one, see isthmus methods.")
    return names


def _bench(side: Side, seed: int) -> _Bench:
    base, saturated = toys.base(side, seed=seed), toys.saturated(side, seed=seed)
    drawn = torch.randn(2, toys.JOINT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    one, other = torch.nn.functional.normalize(drawn, dim=-1)
    return _Bench(
        base=base,
        dummy=toys.dummy(side, seed=seed),
        saturated=saturated,
        symmetric=toys.symmetric(side, seed=seed),
        rewritten=toys.rewritten(base.model, seed=seed),
        changing=_changing(saturated, one),
        targets=(one, other),
    )


def _changing(case: Case, target: Tensor) -> tuple[tuple[int, ...], ...]:
    """For each input the places whose replacement by the mean changes the score."""
    inputs, layouts = case.read()
    side = masking(case.model.tower(case.side), inputs, layouts)
    opened, found = side.open(target.expand(len(layouts), -1)), []
    for row, layout in enumerate(layouts):
        keep = torch.ones(len(layout.content), side.positions)
        keep[torch.arange(len(keep)), list(layout.content)] = 0.0
        rows = torch.full((len(keep),), row)
        change = (side.scores(keep, rows, target.expand(len(layouts), -1)) - opened[row]).abs()
        found.append(tuple(torch.nonzero(change > _CHANGE * change.max())[:, 0].tolist()))
    return tuple(found)


def _row(method: str, side: Side, axiom: str, bench: _Bench, options: Mapping[str, Any]) -> AxiomRow:
    try:
        found = _MEASURES[axiom](method, bench, options)
    except IsthmusError as error:
        found = _Found(None, str(error))
    holds = None if found.value is None else found.value <= LIMITS[axiom]
    return AxiomRow(method, side, axiom, found.value, holds, found.note)


def _explained(case: Case, method: str, options: Mapping[str, Any], target: Tensor) -> list[Explanation]:
    images, texts = (list(case.inputs), None) if case.side == "image" else (None, list(case.inputs))
    found = explain(case.model, images, texts, method=method, target=Direction(target), sides=case.side, **options)
    assert isinstance(found, list)
    return found


def _maps(case: Case, method: str, options: Mapping[str, Any], target: Tensor) -> list[Array]:
    return [_map(one) for one in _explained(case, method, options, target)]


def _map(one: Explanation) -> Array:
    """Scores of the content, float64."""
    if one.image is not None:
        return np.asarray(one.image.scores, dtype=np.float64).ravel()
    assert one.text is not None
    return np.array([token.score for token in one.text.tokens])


def _worst(errors: Sequence[Array], maps: Sequence[Array], note: str = "") -> _Found:
    """The largest error as a share of its map's largest score; a map that is 0 everywhere shows nothing."""
    shares = [float(np.abs(e).max() / size) for e, m in zip(errors, maps, strict=True) if (size := np.abs(m).max())]
    return _Found(max(shares), note) if shares else _Found(None, "its maps are 0 everywhere")


def _completeness(method: str, bench: _Bench, options: Mapping[str, Any]) -> _Found:
    refined = _REFINED if "tolerance" in registry.get(method).options else {}
    found = _explained(bench.base, method, {**refined, **options}, bench.targets[0])
    sides: list[Completeness] = [side.completeness for one in found for side in (one.image, one.text) if side]
    deltas = [side.relative_delta for side in sides]
    if any(delta is None for delta in deltas):
        return _Found(None, NO_CLOSED_STATE)
    return _Found(max(delta for delta in deltas if delta is not None))


def _sensitivity(method: str, bench: _Bench, options: Mapping[str, Any]) -> _Found:
    case = bench.saturated
    missed: list[int] = []
    flat = 0
    for places, scores in zip(bench.changing, _maps(case, method, options, bench.targets[0]), strict=True):
        none = [place for place in places if abs(scores[place]) <= _NOTHING * np.abs(scores).max()]
        missed, flat = missed + none, flat + len(set(none) & set(case.places))
    note = "misses places where the score is flat" if flat else "misses places where the score is not flat"
    return _Found(len(missed) / sum(map(len, bench.changing)), note if missed else "")


def _dummy(method: str, bench: _Bench, options: Mapping[str, Any]) -> _Found:
    maps = _maps(bench.dummy, method, options, bench.targets[0])
    return _worst([scores[list(bench.dummy.places)] for scores in maps], maps)


def _invariance(method: str, bench: _Bench, options: Mapping[str, Any]) -> _Found:
    """The rewrites that break it are named, the worst first."""
    own = _maps(bench.base, method, options, bench.targets[0])
    errors: dict[str, float] = {}
    for name, model in bench.rewritten.items():
        others = _maps(replace(bench.base, model=model), method, options, bench.targets[0])
        found = _worst([a - b for a, b in zip(own, others, strict=True)], own)
        if found.value is None:
            return found
        errors[name] = found.value
    limit = LIMITS["implementation-invariance"]
    broken = sorted((name for name in errors if errors[name] > limit), key=lambda name: -errors[name])
    return _Found(max(errors.values()), f"broken by {', '.join(broken)}" if broken else "")


def _linearity(method: str, bench: _Bench, options: Mapping[str, Any]) -> _Found:
    (t, u), (a, b) = bench.targets, _SUMS
    one, other, both = (_maps(bench.base, method, options, target) for target in (t, u, a * t + b * u))
    sums = [a * x + b * y for x, y in zip(one, other, strict=True)]
    sizes = [np.maximum(np.abs(x), np.abs(y)) for x, y in zip(both, sums, strict=True)]
    return _worst([x - y for x, y in zip(both, sums, strict=True)], sizes)


def _symmetry(method: str, bench: _Bench, options: Mapping[str, Any]) -> _Found:
    first, second = bench.symmetric.places
    maps = _maps(bench.symmetric, method, options, bench.targets[0])
    return _worst([scores[first : first + 1] - scores[second] for scores in maps], maps)


_MEASURES: Mapping[str, Callable[[str, _Bench, Mapping[str, Any]], _Found]] = {
    "completeness": _completeness,
    "sensitivity": _sensitivity,
    "dummy": _dummy,
    "implementation-invariance": _invariance,
    "linearity": _linearity,
    "symmetry": _symmetry,
}
