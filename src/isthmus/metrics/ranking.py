"""Insertion and deletion: what the score does while patches or tokens come and go in the order of their importance.

Exact: one masked copy for each number of positions. The copies that keep the k highest and those that keep the k lowest
serve insertion, deletion, either order and every score at once: 2 (P - 1) + 2 passes for P positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from numbers import Integral

import torch
from torch import Tensor

from isthmus.encoders.tower import Side
from isthmus.errors import OptionError
from isthmus.metrics.pairs import Judged, Pairs
from isthmus.metrics.registry import Metric, register

_LEAST_SPAN = 0.02  # where the whole scores hardly more than nothing, or less, a share of the difference means nothing


@dataclass(frozen=True, eq=False)
class Kept:
    """Unit embeddings of copies that keep ever more positions.

    Attributes:
        shares: `(B, K)` share of the positions that each copy keeps, from 0 to 1.
        highest, lowest: `(B, K, D)` embeddings of the copies that keep the highest and the lowest scores.
    """

    shares: Tensor
    highest: Tensor
    lowest: Tensor

    def curve(self, target: Tensor, *, highest: bool) -> Tensor:
        """`(B, K)` scores of the copies, with targets `(B, D)`."""
        found = self.highest if highest else self.lowest
        return torch.einsum("bkd,bd->bk", found.double(), target.to(found.device).double()).cpu()


def ranks(scores: Tensor, pairs: Pairs, side: Side) -> Tensor:
    """`(B, P)` place of each position, 0 for the highest score; P beyond a pair's own positions.

    Ties fall in an order drawn for the pair, so that a map that is the same everywhere favours no place.
    """
    draw = pairs.once(("ties", side), lambda: _ties(pairs, side))
    there = torch.isfinite(scores)
    values = torch.where(there, scores, -torch.inf).gather(1, draw)
    order = draw.gather(1, values.argsort(dim=1, descending=True, stable=True))
    places = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order).contiguous())
    return torch.where(there, places, order.shape[1])


def kept_masks(places: Tensor, pairs: Pairs, side: Side, counts: Tensor, *, highest: bool = True) -> Tensor:
    """Masks `(B, K, T)` that keep the `counts` `(B, K)` highest, or lowest, positions, and nothing else.

    Args:
        places: `(B, P)`, see `ranks`.
        pairs, side: what is masked.
        counts: how many positions each copy keeps.
        highest: whether those of the highest scores.
    """
    players = pairs.players(side)
    own = (players >= 0).sum(1, keepdim=True)
    line = places if highest else own - 1 - places
    keep = ((line[:, None] < counts[..., None]) & (players >= 0)[:, None]).float()
    found = torch.zeros(*counts.shape, int(players.max()) + 1)
    return found.scatter_add_(2, players.clamp(min=0)[:, None].expand_as(keep).contiguous(), keep)


def embedded(pairs: Pairs, side: Side, masks: Tensor, replacement: str) -> Tensor:
    """Unit embeddings `(B, K, D)` of copies under masks `(B, K, T)`."""
    masking = pairs.masking(side, replacement)
    width = masking.positions
    masks = torch.nn.functional.pad(masks, (0, max(0, width - masks.shape[2])))[..., :width]
    rows = torch.arange(len(pairs)).repeat_interleave(masks.shape[1])
    return masking.embeddings(masks.flatten(0, 1), rows).view(*masks.shape[:2], -1)


def kept(judged: Judged, side: Side, *, replacement: str = "mean", points: int | None = None) -> Kept:
    """Embeddings of the copies that keep the k highest and the k lowest of P positions.

    Args:
        judged: pairs and maps.
        side: the side to mask.
        replacement: what stands where a position is taken away, see `isthmus.metrics.pairs.REPLACEMENTS`.
        points: None for k = 0..P; else so many steps of about equal size.

    Raises:
        OptionError: no such replacement, or no such number of points.
    """
    if points is not None and (isinstance(points, bool) or not isinstance(points, Integral) or points < 1):
        raise OptionError(f"points must be a whole number of at least 1, or None for one a position, not {points!r}.")
    return judged.once(("kept", side, replacement, points), lambda: _kept(judged, side, replacement, points))


def _kept(judged: Judged, side: Side, replacement: str, points: int | None) -> Kept:
    pairs = judged.pairs
    own = (pairs.players(side) >= 0).sum(1, keepdim=True)
    steps = int(own.max()) if points is None else min(points, int(own.max()))
    counts = (own * torch.arange(steps + 1) / steps).round().long()
    places = ranks(judged.scores(side), pairs, side)
    empty_and_full = torch.cat([torch.zeros_like(own), own], 1)
    inner = counts[:, 1:-1]
    masks = [kept_masks(places, pairs, side, inner, highest=which) for which in (True, False)]
    masks.append(kept_masks(places, pairs, side, empty_and_full))
    found = embedded(pairs, side, torch.cat(masks, 1), replacement)
    width = inner.shape[1]
    high, low, ends = found[:, :width], found[:, width : 2 * width], found[:, 2 * width :]
    empty, full = ends[:, :1], ends[:, 1:]
    return Kept(counts / own, torch.cat([empty, high, full], 1), torch.cat([empty, low, full], 1))


def curve(
    judged: Judged,
    side: Side,
    *,
    insert: bool,
    first: str = "most",
    score: str = "cosine",
    replacement: str = "mean",
    normalised: bool = False,
    points: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Share of the positions that were inserted, or deleted, `(B, K)`, and the score there, `(B, K)`.

    See `insertion` and `deletion` for the options; normalised, the score runs from 0 (nothing there) to 1 (all there).
    A map with a score that is not finite has no order: its scores are NaN.
    """
    if first not in ("most", "least"):
        raise OptionError(f'first must be "most" or "least", not {first!r}.')
    found = kept(judged, side, replacement=replacement, points=points)
    target = judged.pairs.target(side, score)
    values = found.curve(target, highest=(first == "most") == insert)
    values = torch.where(judged.known(side)[:, None], values, torch.nan)
    if normalised:
        empty, full = values[:, :1], values[:, -1:]
        span = full - empty
        values = torch.where(span >= _LEAST_SPAN, (values - empty) / span, torch.nan)
    return (found.shares, values) if insert else (1 - found.shares.flip(1), values.flip(1))


def insertion(
    judged: Judged,
    side: Side,
    *,
    first: str = "most",
    score: str = "cosine",
    replacement: str = "mean",
    normalised: bool = False,
    points: int | None = None,
) -> Tensor:
    """Area under the score while positions are put into an emptied input (RISE, Petsiuk et al., BMVC 2018).

    Args:
        judged, side: the maps of one side.
        first: "most" or "least" important positions first.
        score: "cosine" or "margin", see `Pairs.target`.
        replacement: what an emptied position holds.
        normalised: `(s - s_empty) / (s_full - s_empty)` in place of `100 s`; NaN unless `s_full - s_empty`
            is at least 0.02.
        points: see `kept`.

    Returns:
        `(B,)` areas, in points (100 x cosine), or shares when normalised. The area with the least important first is
        that of `deletion` with the most important first, walked backwards.
    """
    x, y = curve(
        judged,
        side,
        insert=True,
        first=first,
        score=score,
        replacement=replacement,
        normalised=normalised,
        points=points,
    )
    return torch.trapezoid(y, x.double()) * (1 if normalised else 100)


def deletion(
    judged: Judged,
    side: Side,
    *,
    first: str = "most",
    score: str = "cosine",
    replacement: str = "mean",
    normalised: bool = False,
    points: int | None = None,
) -> Tensor:
    """Area under the score while positions are taken from the input; lower is better. See `insertion`."""
    x, y = curve(
        judged,
        side,
        insert=False,
        first=first,
        score=score,
        replacement=replacement,
        normalised=normalised,
        points=points,
    )
    return torch.trapezoid(y, x.double()) * (1 if normalised else 100)


def insertion_deletion(
    judged: Judged,
    side: Side,
    *,
    score: str = "cosine",
    replacement: str = "mean",
    normalised: bool = False,
    points: int | None = None,
) -> Tensor:
    """Insertion minus deletion, the area between most- and least-important-first (AID; FIxLIP, NeurIPS 2025).

    A random order gives 0 in the mean, whatever the input. See `insertion`.
    """
    return insertion(
        judged, side, score=score, replacement=replacement, normalised=normalised, points=points
    ) - deletion(judged, side, score=score, replacement=replacement, normalised=normalised, points=points)


def _ties(pairs: Pairs, side: Side) -> Tensor:
    """`(B, P)` an order of each pair's own positions drawn for it, whatever the others of its batch have."""
    players = pairs.players(side)
    found = torch.arange(players.shape[1]).repeat(len(pairs), 1)
    for i, own in enumerate((players >= 0).sum(1).tolist()):
        found[i, :own] = torch.randperm(own, generator=pairs.generator(i, f"ties {side}"))
    return found


_SCORES: dict[str, dict[str, object]] = {
    "cosine": {},
    "margin": {"score": "margin"},
    "cosine normalised": {"normalised": True},
    "margin normalised": {"score": "margin", "normalised": True},
}
_PAPER = "Petsiuk et al., RISE, BMVC 2018"
_AID = "Baniecki et al., FIxLIP, NeurIPS 2025"
for _insert, _function in ((True, insertion), (False, deletion)):
    _name = "insertion" if _insert else "deletion"
    register(
        Metric(
            _name,
            _name.capitalize(),
            _PAPER,
            _function,
            _SCORES,
            better="higher" if _insert else "lower",
            unit="points",
            oracle=True,
        )
    )
    register(
        Metric(
            f"{_name}-least-first",
            f"{_name.capitalize()}, least important first",
            _AID,
            partial(_function, first="least"),
            _SCORES,
            better="lower" if _insert else "higher",
            unit="points",
            oracle=True,
        )
    )
register(
    Metric(
        "insertion-deletion",
        "Insertion minus deletion",
        f"AID: {_AID}",
        insertion_deletion,
        _SCORES,
        unit="points",
        oracle=True,
    )
)
