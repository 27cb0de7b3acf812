"""Sanity checks: does a map follow the model's weights and the caption, and nothing else?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.comparison import spearman
from isthmus.encoders.dual import DualEncoder
from isthmus.encoders.tower import Side, Tower
from isthmus.encoders.weights import lock_of
from isthmus.errors import InputError, OptionError
from isthmus.explainer import explain
from isthmus.explanation import Explanation
from isthmus.frozen import Array
from isthmus.methods import registry
from isthmus.metrics.randomised import drawn_anew

SIDES: tuple[Side, Side] = ("image", "text")


@dataclass(frozen=True)
class RandomisedRow:
    """How like the maps are before and after weights were drawn anew.

    Attributes:
        side: the explained side, whose tower was changed.
        layer: the block that was drawn anew; with `cascading`, all behind it were too.
        spearman: for each pair the rank correlation of the two maps, in [-1, 1]; None where one of them is the same
            everywhere. 1 says that the map does not see those weights.
    """

    side: Side
    layer: int
    spearman: tuple[float | None, ...]


@dataclass(frozen=True)
class SwapRow:
    """How like two maps of one input are, for its own partner and for another pair's.

    Attributes:
        side: the explained side.
        pair: number of the pair.
        other: number of the pair whose partner was taken in its place.
        spearman: rank correlation of the two maps; 1 says that the map does not see the partner.
    """

    side: Side
    pair: int
    other: int
    spearman: float | None


@dataclass(frozen=True, eq=False)
class Agreement:
    """Mean rank correlations `(M, M)` of the maps of M methods, NaN where no pair has one; None without a side."""

    methods: tuple[str, ...]
    image: Array | None
    text: Array | None


def weight_randomisation(
    model: DualEncoder,
    images: Sequence[Any],
    texts: Sequence[str],
    *,
    method: str = "nib",
    sides: Sequence[Side] | None = None,
    cascading: bool = True,
    seed: int = 0,
    steps: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[RandomisedRow]:
    """Draw a tower's blocks anew, from the output down, and compare the maps (Adebayo et al., NeurIPS 2018, section 3).

    Every parameter is drawn from a normal distribution with its own mean and standard deviation. The other tower stays,
    so that the target is the same throughout. No weight is written to: modules hold others for the time being, see
    `isthmus.metrics.randomised`, and get their own back also after an exception.

    Args:
        model, images, texts: B pairs.
        method: a name of `isthmus.methods`.
        sides: the sides to explain; by default those that the method is defined for.
        cascading: keep drawn anew what was (the paper's first test); else one block at a time (its second).
        seed: of the draws; a block's depend on the seed, the side and its number alone.
        steps: the blocks after which maps are compared, negative from the end; by default all.
        options: the method's.

    Returns:
        A row for each side and step, from the last block to the first.

    Raises:
        InputError: pictures and texts do not pair off.
        OptionError: no such block, or no such side of the method.
    """
    _paired(images, texts)
    rows, chosen = [], _sides(method, sides)
    wanted = {side: chosen_blocks(model.tower(side), steps) for side in chosen}
    with lock_of(model.model):
        for side in chosen:
            before = _maps(model, images, texts, method, side, options)
            tower = model.tower(side)
            for layer, drawn in _stages(wanted[side], tower.depth, cascading=cascading):
                with drawn_anew(tower, drawn, seed):
                    after = _maps(model, images, texts, method, side, options)
                rows.append(RandomisedRow(side, layer, tuple(map(spearman, before, after))))
    return rows


def chosen_blocks(tower: Tower, steps: Sequence[int] | None) -> list[int]:
    """Numbers of blocks, from the last to the first."""
    found = set()
    for step in range(tower.depth) if steps is None else steps:
        if not -tower.depth <= step < tower.depth:
            raise OptionError(f"The {tower.side} tower has no block {step}: give 0 to {tower.depth - 1}.")
        found.add(step % tower.depth)
    if not found:
        raise OptionError("There is no block to draw anew: give at least one in steps.")
    return sorted(found, reverse=True)


def _stages(blocks: Sequence[int], depth: int, *, cascading: bool) -> Iterator[tuple[int, range]]:
    for layer in blocks:
        yield layer, range(layer, depth if cascading else layer + 1)


def caption_swap(
    model: DualEncoder,
    images: Sequence[Any],
    texts: Sequence[str],
    *,
    method: str = "nib",
    sides: Sequence[Side] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[SwapRow]:
    """Compare each input's map for its own partner with that for the partner of the next pair that has another text.

    Args:
        model, images, texts: B pairs.
        method: a name of `isthmus.methods`.
        sides: the sides to explain; by default those that the method is defined for.
        options: the method's.

    Returns:
        A row for each side and pair.

    Raises:
        InputError: pictures and texts do not pair off, or all texts are one and the same.
        OptionError: no such side of the method.
    """
    _paired(images, texts)
    if len(set(texts)) < 2:
        raise InputError("Swapping captions needs at least two that differ: give more pairs.")
    count, chosen = len(texts), _sides(method, sides)
    others = [next(j % count for j in range(i + 1, i + count) if texts[j % count] != texts[i]) for i in range(count)]
    rows = []
    for side in chosen:
        own = _maps(model, images, texts, method, side, options)
        shown = images if side == "image" else [images[j] for j in others]
        read = [texts[j] for j in others] if side == "image" else texts
        swapped = _maps(model, shown, read, method, side, options)
        rows += [SwapRow(side, i, others[i], spearman(own[i], swapped[i])) for i in range(count)]
    return rows


def batch_invariance(
    model: DualEncoder,
    images: Sequence[Any],
    texts: Sequence[str],
    *,
    method: str = "nib",
    sides: Sequence[Side] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[Side, tuple[float, ...]]:
    """For each pair, how far its map in one batch of all pairs is from its map alone.

    Args:
        model, images, texts, method, sides, options: see `caption_swap`.

    Returns:
        For each side and pair the largest difference of a score, as a share of the largest score.

    Raises:
        InputError: pictures and texts do not pair off.
        OptionError: no such side of the method.
    """
    _paired(images, texts)
    found: dict[Side, tuple[float, ...]] = {}
    for side in _sides(method, sides):
        together = _maps(model, images, texts, method, side, options, batch_size=len(texts))
        alone = _maps(model, images, texts, method, side, options, batch_size=1)
        found[side] = tuple(map(_difference, together, alone))
    return found


def repeat_stability(
    model: DualEncoder,
    images: Sequence[Any],
    texts: Sequence[str],
    *,
    method: str = "nib",
    sides: Sequence[Side] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[Side, tuple[float, ...]]:
    """For each pair, how far the maps of two equal calls are from each other; 0 where they are the same bits.

    Args:
        model, images, texts, method, sides, options: see `caption_swap`.

    Returns:
        For each side and pair the largest difference of a score, as a share of the largest score.

    Raises: as `batch_invariance`.
    """
    _paired(images, texts)
    found: dict[Side, tuple[float, ...]] = {}
    for side in _sides(method, sides):
        first, second = (_maps(model, images, texts, method, side, options) for _ in range(2))
        found[side] = tuple(map(_difference, first, second))
    return found


def agreement(explanations: Mapping[str, Sequence[Explanation]]) -> Agreement:
    """Mean Spearman rank correlation of the maps of methods, over pairs.

    Args:
        explanations: for each method's name its explanations of the same B pairs, in the same order.

    Returns:
        A matrix for each side that any method explains.

    Raises:
        InputError: the methods explain different numbers of pairs, or none.
    """
    counts = {len(found) for found in explanations.values()}
    if len(counts) != 1 or counts == {0}:
        raise InputError("Agreement needs every method's explanations of the same pairs, and at least one.")
    return Agreement(tuple(explanations), *(_agreement(list(explanations.values()), side) for side in SIDES))


def _agreement(found: Sequence[Sequence[Explanation]], side: Side) -> Array | None:
    maps = [[_map(one, side) for one in of_method] for of_method in found]
    if all(one is None for of_method in maps for one in of_method):
        return None
    matrix = np.full((len(maps), len(maps)), np.nan)
    for i, a in enumerate(maps):
        for j, b in enumerate(maps):
            known = [value for value in map(spearman, a, b) if value is not None]
            if known:
                matrix[i, j] = np.mean(known)
    return matrix


def _map(one: Explanation, side: Side) -> Array | None:
    """Scores of the patches, or of the tokens of the text, in float64."""
    if side == "image":
        return None if one.image is None else np.asarray(one.image.scores, dtype=np.float64).ravel()
    return None if one.text is None else np.array([token.score for token in one.text.tokens])


def _maps(
    model: DualEncoder,
    images: Sequence[Any],
    texts: Sequence[str],
    method: str,
    side: Side,
    options: Mapping[str, Any] | None,
    *,
    batch_size: int = 32,
) -> list[Array]:
    found = explain(
        model, list(images), list(texts), method=method, sides=side, batch_size=batch_size, **(options or {})
    )
    assert isinstance(found, list)
    maps = [_map(one, side) for one in found]
    return [one for one in maps if one is not None]


def _difference(a: Array, b: Array) -> float:
    size = max(float(np.abs(a).max()), float(np.abs(b).max()))
    return float(np.abs(a - b).max()) / size if size else 0.0


def _sides(method: str, sides: Sequence[Side] | None) -> tuple[Side, ...]:
    there = registry.get(method).sides
    chosen = there if sides is None else (sides,) if isinstance(sides, str) else tuple(sides)
    for side in chosen:
        if side not in there:
            raise OptionError(f"{method} is not defined for the side {side!r}: choose {' or '.join(there)}.")
    return chosen  # type: ignore[return-value]


def _paired(images: Sequence[Any], texts: Sequence[str]) -> None:
    lists = all(isinstance(items, (list, tuple)) for items in (images, texts))
    if not lists or len(images) != len(texts) or not texts:
        raise InputError("Sanity checks take a list of pictures and as many texts, at least one.")
