"""The greedy oracle of insertion and deletion: an order that knows the score of every next step.

It takes, at each step, the position whose coming raises the score most, or whose going lowers it most. Greedy is no
proof of the best order, and with `groups` it takes several positions at a step; it is a ceiling to measure against.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.encoders.tower import Side
from isthmus.errors import OptionError
from isthmus.metrics.maps import Map
from isthmus.metrics.pairs import Judged, Pairs

GROUPS = 16


def oracle(
    pairs: Pairs,
    side: Side,
    *,
    insert: bool,
    score: str = "cosine",
    replacement: str = "mean",
    groups: int | None = GROUPS,
) -> Judged:
    """A map whose order is the greedy one: insertion's or deletion's.

    Args:
        pairs, side: what is masked.
        insert: the order that raises the score soonest; else the order whose taking away lowers it soonest.
        score, replacement: as in `isthmus.metrics.ranking.insertion`.
        groups: steps; each takes P / groups positions at once, those best alone. None for one position a step, which
            costs P (P + 1) / 2 passes a pair.

    Raises:
        OptionError: no such number of groups, replacement or score.
    """
    if groups is not None and groups < 1:
        raise OptionError(f"groups must be at least 1, or None for one a position, not {groups!r}.")
    key = ("oracle", side, insert, score, replacement, groups)
    return pairs.once(key, lambda: _oracle(pairs, side, insert, score, replacement, groups))


def _oracle(pairs: Pairs, side: Side, insert: bool, score: str, replacement: str, groups: int | None) -> Judged:
    players = pairs.players(side)
    own = (players >= 0).sum(1)
    take = torch.ones_like(own) if groups is None else (own / groups).ceil().long()
    when = torch.where(players >= 0, -1, own.max())  # the step at which a position was taken
    for step in range(int(own.max())):
        if not bool((when < 0).any()):
            break
        gains = _gains(pairs, side, when, insert, score, replacement)
        order = gains.argsort(dim=1, descending=True, stable=True)
        place = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order).contiguous())
        when = torch.where((when < 0) & (place < take[:, None]), step, when)
    return Judged(
        pairs, {side: tuple(_map(pairs, side, row, -when[row].double()) for row in range(len(pairs)))}, "oracle"
    )


def _gains(pairs: Pairs, side: Side, when: Tensor, insert: bool, score: str, replacement: str) -> Tensor:
    """`(B, P)` what each position that is left would do to the score at the next step; -inf for those taken."""
    players = pairs.players(side)
    rows, columns = torch.nonzero(when < 0, as_tuple=True)
    masking = pairs.masking(side, replacement)
    gone = torch.zeros(len(pairs), masking.positions)
    taken = (when >= 0) & (players >= 0)
    gone.scatter_add_(1, players.clamp(min=0), taken.float())
    copies = gone[rows]
    copies[torch.arange(len(rows)), players[rows, columns]] = 1.0
    values = masking.scores(copies if insert else 1 - copies, rows, pairs.target(side, score)).double().cpu()
    gains = torch.full(players.shape, -torch.inf, dtype=torch.float64)
    gains[rows, columns] = values if insert else -values
    return gains


def _map(pairs: Pairs, side: Side, row: int, scores: Tensor) -> Map:
    layout = pairs.layouts[side][row]
    own = scores[: len(layout.content)].float()
    return Map(own.reshape(layout.grid).numpy() if layout.grid is not None else own.numpy())
