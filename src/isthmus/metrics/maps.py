"""Maps: what a metric needs of explanations, plain arrays that a run can store and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.assembly import minmax
from isthmus.encoders.tower import Side
from isthmus.errors import InputError
from isthmus.explanation import Explanation, ImageAttribution, TextAttribution
from isthmus.frozen import Array, Comparable, seal


@dataclass(frozen=True, eq=False)
class Map(Comparable):
    """One side of one explanation.

    Attributes:
        scores: `(rows, columns)` of a picture, `(tokens,)` of a text; signed and raw.
        special: scores of the positions that are neither patch nor token, by their position.
        open, closed, total: see `isthmus.explanation.Completeness`.
        fixed: the scores are shares in [0, 1] already, such as those of a map that is the same everywhere: the
            paper's metric takes them as they are, where it would take others through min-max.
        flat: what the published code's min-max makes of scores that are all the same; NaN where it breaks.
    """

    scores: Array
    special: Mapping[int, float] = field(default_factory=dict)
    open: float = math.nan
    closed: float | None = None
    total: float = math.nan
    fixed: bool = False
    flat: float = math.nan

    def __post_init__(self) -> None:
        """Make the array read-only."""
        seal(self, "scores")

    @property
    def delta(self) -> float | None:
        """Convergence delta, see `Completeness.delta`."""
        return None if self.closed is None else self.total - (self.open - self.closed)


def map_of(explanation: Explanation, side: Side) -> Map:
    """One side of an explanation.

    Raises:
        InputError: this side was not explained.
    """
    found = explanation.image if side == "image" else explanation.text
    if found is None:
        raise InputError(f"The {side} was not explained, but a metric of it was asked for: explain both sides.")
    return map_of_side(found)


def map_of_side(found: ImageAttribution | TextAttribution) -> Map:
    """The map of one side's attribution."""
    if isinstance(found, ImageAttribution):
        scores = found.scores
    else:
        scores = np.array([token.score for token in found.tokens], dtype=np.float32)
    flat = math.nan
    if found.published is not None and float(np.ptp(found.published)) == 0:
        flat = float(found.published.flat[0])
    whole = found.completeness
    special = {one.position: one.score for one in found.special}
    return Map(scores, special, whole.open, whole.closed, whole.total, flat=flat)


def on_patches(one: Map, grid: tuple[int, int]) -> Tensor:
    """Scores `(P,)` of patches; a map on another grid is resized bilinearly to this one."""
    scores = torch.tensor(one.scores, dtype=torch.float64)
    if tuple(scores.shape) != grid:
        scores = nn.functional.interpolate(scores[None, None], size=grid, mode="bilinear", antialias=True)[0, 0]
    return scores.flatten()


def shares(maps: Sequence[Map], size: tuple[int, int]) -> Tensor:
    """What the paper's metric multiplies pixels by: `(B, H, W)` in [0, 1], min-max after the resizing."""
    return torch.stack([_large(m, size) if m.fixed else minmax(_large(m, size), m.flat) for m in maps]).float()


def token_shares(one: Map, kept: Sequence[int], places: Sequence[int]) -> Tensor:
    """What the paper's metric multiplies tokens by: `(len(kept),)` in [0, 1], min-max over the positions `kept`.

    Args:
        one: the map of a text.
        kept: all positions of the text, special ones among them.
        places: the position of each score of the map.
    """
    by_position = {**one.special, **dict(zip(places, one.scores.tolist(), strict=True))}
    values = torch.tensor([by_position.get(position, 0.0) for position in kept])
    return values if one.fixed else minmax(values, one.flat)


def _large(one: Map, size: tuple[int, int]) -> Tensor:
    scores = torch.tensor(one.scores, dtype=torch.float32)[None, None]
    return nn.functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)[0, 0]
