"""How well the scores themselves, not only their order, foretell what taking positions away does to the score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isthmus.encoders.tower import Side
from isthmus.errors import OptionError
from isthmus.metrics.pairs import Judged, Pairs
from isthmus.metrics.ranking import embedded
from isthmus.metrics.registry import Metric, register

SHARES = (0.1, 0.25, 0.5, 0.75)
SUBSETS = 16  # of each share


@dataclass(frozen=True, eq=False)
class Removals:
    """Random subsets of the positions, and the score without them; the same for every method.

    Attributes:
        taken: `(B, S, P)` bool: the positions that each copy lacks.
        drops: `(B, S)` score of the whole less score of the copy.
    """

    taken: Tensor
    drops: Tensor


def removals(
    pairs: Pairs, side: Side, *, replacement: str = "mean", score: str = "cosine", subsets: int = SUBSETS
) -> Removals:
    """Take random subsets of 10, 25, 50 and 75 % of the positions away, `subsets` of each share.

    Raises:
        OptionError: fewer than 2 subsets; no such replacement or score.
    """
    if subsets < 2:
        raise OptionError(f"subsets must be at least 2, not {subsets!r}.")
    key = ("removals", side, replacement, score, subsets)
    return pairs.once(key, lambda: _removals(pairs, side, replacement, score, subsets))


def _removals(pairs: Pairs, side: Side, replacement: str, score: str, subsets: int) -> Removals:
    taken = pairs.once(("taken", side, subsets), lambda: _taken(pairs, side, subsets))
    players = pairs.players(side)
    keep = torch.ones(*taken.shape[:2], int(players.max()) + 1)
    places = players.clamp(min=0)[:, None].expand_as(taken)
    keep.scatter_add_(2, places.contiguous(), -(taken & (players >= 0)[:, None]).float())
    found = pairs.once(
        ("removed", side, replacement, subsets), lambda: embedded(pairs, side, keep, replacement).double().cpu()
    )
    target = pairs.target(side, score).double().cpu()
    whole = (pairs.embeddings[side].double().cpu() * target).sum(-1, keepdim=True)
    return Removals(taken, whole - torch.einsum("bsd,bd->bs", found, target))


def _taken(pairs: Pairs, side: Side, subsets: int) -> Tensor:
    players = pairs.players(side)
    found = torch.zeros(len(pairs), len(SHARES) * subsets, players.shape[1], dtype=torch.bool)
    for row, own in enumerate((players >= 0).sum(1).tolist()):
        drawn = torch.rand(found.shape[1], own, generator=pairs.generator(row, f"subsets {side}"))
        sizes = torch.tensor([max(1, round(share * own)) for share in SHARES]).repeat_interleave(subsets)
        found[row, :, :own] = drawn.argsort(1).argsort(1) < sizes[:, None]
    return found


def _sums(judged: Judged, side: Side, found: Removals) -> Tensor:
    """`(B, S)` what the map says that each subset contributes; NaN where a score of the map is not finite."""
    scores = judged.scores(side).where(judged.pairs.players(side) >= 0, 0.0)
    return torch.einsum("bsp,bp->bs", found.taken.double(), torch.where(judged.known(side)[:, None], scores, torch.nan))


def sensitivity_n(
    judged: Judged, side: Side, *, replacement: str = "mean", score: str = "cosine", subsets: int = SUBSETS
) -> Tensor:
    """Correlation of a subset's summed scores with what its removal costs (Ancona et al., ICLR 2018).

    Pearson's over random subsets of one size n, averaged over n = 10, 25, 50 and 75 % of the positions.

    Returns:
        `(B,)` in [-1, 1], higher is better; NaN where scores or costs do not vary.
    """
    found = removals(judged.pairs, side, replacement=replacement, score=score, subsets=subsets)
    both = [part.view(-1, len(SHARES), subsets) for part in (_sums(judged, side, found), found.drops)]
    a, b = (part - part.mean(-1, keepdim=True) for part in both)
    tiny = [1e-9 * part.abs().amax(-1) for part in both]
    spread = a.norm(dim=-1) * b.norm(dim=-1)
    varies = (a.norm(dim=-1) > tiny[0]) & (b.norm(dim=-1) > tiny[1])
    return torch.where(varies, (a * b).sum(-1) / spread, torch.nan).nanmean(-1)


def infidelity(
    judged: Judged,
    side: Side,
    *,
    replacement: str = "mean",
    score: str = "cosine",
    scaled: bool = True,
    subsets: int = SUBSETS,
) -> Tensor:
    """Mean square of what removals cost less what the map says of them (Yeh et al., NeurIPS 2019).

    Args:
        judged, side, replacement, score, subsets: as in `sensitivity_n`; the same subsets.
        scaled: multiply each map by the factor of at least 0 that suits it best, and divide by the mean square of the
            costs, so that maps without units compare: 0 is perfect, 1 no better than a map of zeros, as is one that
            has the wrong sign. Unscaled, in squared points.

    Returns:
        `(B,)` lower is better.
    """
    found = removals(judged.pairs, side, replacement=replacement, score=score, subsets=subsets)
    sums, drops = _sums(judged, side, found), found.drops
    if not scaled:
        return 1e4 * (sums - drops).square().mean(1)
    square = sums.square().sum(1)
    factor = torch.where(square != 0, (sums * drops).sum(1) / square, 0.0).clamp(min=0)
    return (factor[:, None] * sums - drops).square().sum(1) / drops.square().sum(1)


def completeness(judged: Judged, side: Side, *, relative: bool = True) -> Tensor:
    """How far the scores of all positions are from summing to the score lost on the way to the closed state.

    Args:
        judged, side: the maps.
        relative: as a share of `|open - closed|`; else in points (100 x score).

    Returns:
        `(B,)` lower is better; NaN for a method that has no closed state.
    """
    nothing = float("nan")
    found = []
    for one in judged.of(side):
        if one.closed is None or one.delta is None or (relative and one.open == one.closed):
            found.append(nothing)
        else:
            found.append(abs(one.delta) / abs(one.open - one.closed) if relative else 100 * abs(one.delta))
    return torch.tensor(found, dtype=torch.float64)


_SCORES = {"cosine": {}, "margin": {"score": "margin"}}
register(Metric("sensitivity-n", "Sensitivity-n", "Ancona et al., ICLR 2018", sensitivity_n, _SCORES))
register(
    Metric(
        "infidelity",
        "Infidelity",
        "Yeh et al., NeurIPS 2019",
        infidelity,
        {"scaled": {}, "raw": {"scaled": False}},
        better="lower",
    )
)
register(
    Metric(
        "completeness",
        "Completeness delta",
        "Sundararajan et al., ICML 2017",
        completeness,
        {"relative": {}, "points": {"relative": False}},
        better="lower",
    )
)
