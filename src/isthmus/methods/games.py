"""Attribution as the values of a cooperative game: Shapley and Banzhaf.

The players are the patches, or the tokens of the text; the worth v(S) of a coalition is the score when all others are
replaced. With n players,

    Shapley_i = mean over all orders of v(those before i, and i) - v(those before i),
    Banzhaf_i = mean over coalitions S without i of v(S and i) - v(S),

the latter with each other player in S with probability p (weighted Banzhaf; p = 1/2 is the classic value).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.tower import Inputs, Tower
from isthmus.errors import OptionError
from isthmus.masking import Masking, masking
from isthmus.methods.checks import probability, stated, whole
from isthmus.methods.coalitions import bernoulli, every_coalition
from isthmus.methods.interactions import joint_banzhaf, joint_shapley
from isthmus.methods.registry import Attribution, Method, register


def shapley(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    samples: int = 2048,
    replacement: str | Tensor = "mean",
    seed: int = 0,
    memory: int | None = None,
) -> Attribution:
    """Shapley values (Shapley, 1953): exact where there are few players, else over random orders.

    An input of n players with `2 ** n <= samples` is solved by all its coalitions. Otherwise orders are drawn, each
    with its reverse (antithetic; Mitchell et al., JMLR 2022), as many as `samples` passes allow, at least one pair.
    The scores sum to open - closed exactly for any number of orders; `standard_error`, the median over players, tells
    how far another seed may lead (0 where exact).

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what each position is; special positions are no players and get 0.
        samples: most passes for one input.
        replacement: see `isthmus.masking.masking`.
        seed: of the orders.
        memory: budget in bytes.
    """
    whole("samples", samples, 2)
    side = masking(tower, inputs, layouts, replacement=replacement, memory=memory)
    plans = [_all_of(one, samples) or _orders(one, samples, seed) for one in layouts]
    return _played(side, target, plans, _shapley_exact, _shapley_sampled, {**stated(replacement), "seed": seed})


def banzhaf(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    samples: int = 2048,
    keep: float = 0.5,
    replacement: str | Tensor = "mean",
    seed: int = 0,
    memory: int | None = None,
) -> Attribution:
    """(Weighted) Banzhaf values (Banzhaf, 1965; weighted: Li & Yu, ICML 2023), as in FIxLIP (NeurIPS 2025) of order 1.

    An input of n players with `2 ** n <= samples` is solved by all its coalitions. Otherwise coalitions are drawn and
    the values are the slopes of the best linear model of the worth by least squares, which tend to the Banzhaf values
    (Hammer & Holzman, 1992) with far less noise than differences of means; `standard_error`, the median over players,
    tells how far another seed may lead (0 where exact). They do not sum to open - closed.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what each position is; special positions are no players and get 0.
        samples: most passes for one input; at least twice as many as players where it is not exact.
        keep: probability p with which a player is in a coalition.
        replacement: see `isthmus.masking.masking`.
        seed: of the coalitions.
        memory: budget in bytes.

    Raises:
        OptionError: too few samples for the players.
    """
    whole("samples", samples, 2)
    probability("keep", keep)
    for one in layouts:
        players = len(one.content)
        if 2**players > samples and samples < 2 * players:
            raise OptionError(f"{players} players need samples of at least {2 * players}, not {samples}.")
    side = masking(tower, inputs, layouts, replacement=replacement, memory=memory)
    plans = [_all_of(one, samples) or _coalitions(one, samples, keep, seed) for one in layouts]

    def exact(inside: Tensor, worth: Tensor) -> Tensor:
        return _banzhaf_exact(inside, worth, keep)

    used = {"keep": keep, **stated(replacement), "seed": seed}
    return _played(side, target, plans, exact, _banzhaf_sampled, used)


class _Plan:
    """Coalitions `(K, n)` of one input's players, and whether they are all there are."""

    def __init__(self, inside: Tensor, *, exact: bool) -> None:
        self.inside, self.exact = inside, exact


def _all_of(layout: TokenLayout, samples: int) -> _Plan | None:
    players = len(layout.content)
    if 2**players > samples:
        return None
    return _Plan(every_coalition(players), exact=True)


def _orders(layout: TokenLayout, samples: int, seed: int) -> _Plan:
    """Coalitions `(pairs * 2 * (n - 1) + 2, n)`: the empty and the full one, then the stages of each order."""
    players, generator = len(layout.content), torch.Generator().manual_seed(seed)
    pairs = max(1, (samples - 2) // (2 * (players - 1)))
    ranks = torch.stack([torch.randperm(players, generator=generator) for _ in range(pairs)])
    ranks = torch.stack([ranks, players - 1 - ranks], 1).flatten(0, 1)
    stages = (ranks[:, None] < torch.arange(1, players)[:, None]).float().flatten(0, 1)
    return _Plan(torch.cat([torch.zeros(1, players), torch.ones(1, players), stages]), exact=False)


def _coalitions(layout: TokenLayout, samples: int, keep: float, seed: int) -> _Plan:
    kept = bernoulli(layout, max(layout.content) + 1, samples, keep, seed)
    return _Plan(kept[:, list(layout.content)], exact=False)


def _played(
    side: Masking, target: Tensor, plans: Sequence[_Plan], exact: Any, sampled: Any, used: dict[str, Any]
) -> Attribution:
    """Score the coalitions of all inputs in one go, and solve each input's game."""
    masks = torch.ones(sum(len(plan.inside) for plan in plans) + len(plans), side.positions)
    start, parts = 0, []
    for plan, layout in zip(plans, side.layouts, strict=True):
        stop = start + len(plan.inside)
        masks[start:stop, list(layout.content)] = plan.inside
        masks[stop, list(layout.content)] = 0
        parts.append(slice(start, stop + 1))
        start = stop + 1
    rows = torch.arange(len(plans)).repeat_interleave(torch.tensor([part.stop - part.start for part in parts]))
    worth = side.scores(masks, rows, target)
    scores = worth.new_zeros(len(plans), side.positions)
    closed, options = [], []
    for row, (plan, part) in enumerate(zip(plans, parts, strict=True)):
        *_, empty = values = worth[part].double().cpu()
        solve = exact if plan.exact else sampled
        found = solve(plan.inside.double(), values[:-1])
        found, error = found if isinstance(found, tuple) else (found, 0.0)
        scores[row, list(side.layouts[row].content)] = found.to(scores)
        closed.append(float(empty))
        options.append({"samples": len(plan.inside), **used, "exact": plan.exact, "standard_error": error})
    return Attribution(scores, side.open(target), worth.new_tensor(closed), tuple(options))


def _shapley_exact(inside: Tensor, worth: Tensor) -> Tensor:
    """Sum over coalitions S without i of |S|! (n - |S| - 1)! / n! times what i adds."""
    players = inside.shape[1]
    size = inside.sum(1)
    factorial = torch.lgamma(torch.arange(players + 2, dtype=torch.float64) + 1)
    log_weight = factorial[size.long()] + factorial[(players - 1 - size).clamp(min=0).long()] - factorial[players]
    return _exact(inside, worth, log_weight.exp())


def _banzhaf_exact(inside: Tensor, worth: Tensor, keep: float) -> Tensor:
    size = inside.sum(1)
    return _exact(inside, worth, keep**size * (1 - keep) ** (inside.shape[1] - 1 - size))


def _exact(inside: Tensor, worth: Tensor, weight: Tensor) -> Tensor:
    """`(n,)` weighted sums of what each player adds to the coalitions without it, in the order of `every_coalition`."""
    found = []
    for player in range(inside.shape[1]):
        without = torch.nonzero(inside[:, player] == 0)[:, 0]
        found.append((weight[without] * (worth[without + 2**player] - worth[without])).sum())
    return torch.stack(found) if found else worth.new_zeros(0)


def _shapley_sampled(inside: Tensor, worth: Tensor) -> tuple[Tensor, float | None]:
    """Mean over orders of what each player adds as it joins, and the standard error over pairs of orders."""
    players = inside.shape[1]
    orders = (len(inside) - 2) // (players - 1)
    ends = worth[:2].expand(orders, 2)
    steps = torch.cat([ends[:, :1], worth[2:].view(orders, -1), ends[:, 1:]], 1).diff(dim=1)
    stages = inside[2:].view(orders, players - 1, players)
    joined = players - 1 - stages.sum(1).long()  # the stage at which a player joins: it is inside all later ones
    added = steps.gather(1, joined)
    pairs = added.view(-1, 2, players).mean(1)
    error = float((pairs.std(0) / len(pairs) ** 0.5).median()) if len(pairs) > 1 else None  # one pair tells nothing
    return added.mean(0), error


def _banzhaf_sampled(inside: Tensor, worth: Tensor) -> tuple[Tensor, float]:
    """Slopes of the least squares fit of the worth by the players, and the median of their standard errors."""
    design = torch.cat([torch.ones(len(inside), 1, dtype=inside.dtype), inside], 1)
    inverse = torch.linalg.pinv(design)
    found = inverse @ worth
    left = worth - design @ found
    variance = (left**2).sum() / max(1, len(worth) - design.shape[1])
    errors = (variance * (inverse**2).sum(1)).sqrt()
    return found[1:], float(errors[1:].median())


_OPTIONS = {
    "samples": "most passes for one input; few players are solved exactly",
    "replacement": "what stands where a player is missing: mean, blur, zero or a picture; for words mean, zero, remove",
    "seed": "of the draws",
    "memory": "memory budget in bytes",
}

register(
    Method(
        name="shapley",
        title="Shapley values",
        paper="Shapley, 1953; orders with their reverses: Mitchell et al., JMLR 2022 (arXiv:2104.12199)",
        function=shapley,
        options=_OPTIONS,
        complete=True,
        needs_gradients=False,
        needs_fit=("text",),
        needs_layouts=True,
        passes=("2 + n", "0"),
        joint=joint_shapley,
        joint_options=("samples", "replacement", "seed", "memory"),
    )
)
register(
    Method(
        name="banzhaf",
        title="Banzhaf values",
        paper="Banzhaf, 1965; in CLIP: FIxLIP, Baniecki et al., NeurIPS 2025 (arXiv:2508.05430)",
        function=banzhaf,
        options={**_OPTIONS, "keep": "probability with which a player is in a coalition, default 0.5"},
        needs_gradients=False,
        needs_fit=("text",),
        needs_layouts=True,
        passes=("2 + n", "0"),
        joint=joint_banzhaf,
        joint_options=("samples", "keep", "replacement", "seed", "memory"),
    )
)
