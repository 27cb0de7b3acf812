"""The cooperative game of a whole pair: its players are the patches and the tokens together (FIxLIP, NeurIPS 2025).

The worth of a coalition is the cosine of the masked picture and the masked text, so that K masked pictures and L masked
texts give K x L worths with K + L passes. Each player is in a coalition with probability p. In terms of centred players
`m - p` the worth is, of order one on each side,

    a + sum of a_i (m_i - p) + sum of b_j (m_j - p) + sum of c_ij (m_i - p) (m_j - p),

where a_i is the Banzhaf value of i and c_ij the Banzhaf interaction of a token and a patch,
`mean over coalitions S of v(S, i, j) - v(S, i) - v(S, j) + v(S)`. Terms of two players of one side are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.tower import unit
from isthmus.errors import OptionError
from isthmus.masking import Masking, masking
from isthmus.methods.checks import probability, whole
from isthmus.methods.coalitions import bernoulli, every_coalition
from isthmus.methods.joint import Half, Interaction

_NODES = 4  # probabilities at which coalitions are drawn for Shapley interactions
_MEDIAN_OF_NORMAL = 0.6745  # median size of a normal variable over its standard deviation


def joint_banzhaf(image: Half, text: Half, *, keep: float = 0.5, **options: Any) -> Interaction:
    """Weighted Banzhaf interactions of tokens and patches (FIxLIP, NeurIPS 2025, of order two across the sides).

    `matrix` has them; the other terms are such that all of them sum to the *fitted* worth of the whole pair, which may
    miss its cosine by most of it: the fit is best where about `keep` of the players are there.

    Args:
        image, text: the two sides.
        keep: probability p with which a player is in a coalition.
        options: `samples`: passes, one half a side (default 2,048; a side whose coalitions all fit is solved exactly);
            `replacement` (may differ by side), `seed`, `memory`: as in `banzhaf`.
    """
    probability("keep", keep)

    def solved(terms: Sequence[Tensor], _: Tensor) -> dict[str, Tensor]:
        (found,) = terms
        matrix, tokens, patches = found[1:, 1:], found[1:, 0], found[0, 1:]
        constant = found[0, 0] - keep * (tokens.sum() + patches.sum()) + keep**2 * matrix.sum()
        alone = {"text_alone": tokens - keep * matrix.sum(1), "image_alone": patches - keep * matrix.sum(0)}
        return {"matrix": matrix, "constant": constant, **alone}

    def nodes(_players: int, **_: bool) -> list[tuple[float, float]]:
        return [(keep, 1.0)]

    fitted = "the terms sum to the game's best fit of order two, which misses the cosine by delta: not by chance"
    return replace(_played(image, text, nodes, solved, {"keep": keep}, options), notes=(fitted,))


def joint_shapley(image: Half, text: Half, **options: Any) -> Interaction:
    """Shapley interactions of tokens and patches, of order two across the sides (Grabisch & Roubens, 1999).

    They are the Banzhaf interactions averaged over all p (Owen, 1972), by Gauss-Legendre nodes. A player's own term is
    its Shapley value less half of its interactions (as in the n-Shapley values of Bordt & von Luxburg, AISTATS 2023),
    so that all terms sum to open - closed, exactly where both sides are solved exactly. Where coalitions are drawn, p
    has but four nodes, whose error `standard_error` does not cover.

    Args:
        image, text: the two sides.
        options: as in `joint_banzhaf`, but `keep`.
    """

    def solved(terms: Sequence[Tensor], empty: Tensor) -> dict[str, Tensor]:
        found = sum(terms[1:], terms[0])
        matrix = found[1:, 1:]
        alone = {"text_alone": found[1:, 0] - matrix.sum(1) / 2, "image_alone": found[0, 1:] - matrix.sum(0) / 2}
        return {"matrix": matrix, "constant": empty, **alone}

    return _played(image, text, _owen_nodes, solved, {}, options)


def _owen_nodes(players: int, *, exact: bool) -> list[tuple[float, float]]:
    """Nodes and weights on [0, 1]; what is averaged is a polynomial in p of degree below the number of players."""
    nodes, weights = np.polynomial.legendre.leggauss((players + 1) // 2 if exact else _NODES)
    return [((1 + float(x)) / 2, float(w) / 2) for x, w in zip(nodes, weights, strict=True)]


def _played(
    image: Half, text: Half, nodes: Any, solved: Any, used: dict[str, Any], options: Mapping[str, Any]
) -> Interaction:
    """Play the game of each pair of a batch."""
    sides = []
    for half in (text, image):
        own = {"samples": 2048, "replacement": "mean", "seed": 0, "memory": None, **half.own(options)}
        made = masking(half.tower, half.inputs, half.layouts, replacement=own["replacement"], memory=own["memory"])
        sides.append((made, whole("samples", own["samples"], 8) // 2, own["seed"]))
    found = [_pair(sides, row, nodes, solved) for row in range(len(image.layouts))]
    words, regions = (unit(side.entrance.embedding) for side, *_ in sides)
    names = ("matrix", "text_alone", "image_alone", "constant")
    matrix, text_alone, image_alone, constant = (torch.stack([one[name] for one in found]).to(words) for name in names)
    stated = {**used, "samples": 2 * sides[0][1], "seed": sides[0][2]}
    errors = tuple({**stated, "standard_error": float(one["error"])} for one in found)
    return Interaction(matrix, text_alone, image_alone, constant, (words * regions).sum(-1), errors)


def _pair(sides: Sequence[tuple[Masking, int, int]], row: int, nodes: Any, solved: Any) -> dict[str, Tensor]:
    """The terms of one pair, spread over all positions, and the standard error of an interaction."""
    players = [len(side.layouts[row].content) for side, *_ in sides]
    exact = [2**count <= budget for count, (_, budget, _) in zip(players, sides, strict=True)]
    chances = nodes(sum(players), exact=all(exact))
    drawn = [
        _Coalitions(side.layouts[row], side.positions, [p for p, _ in chances], budget, seed, exact=known)
        for (side, budget, seed), known in zip(sides, exact, strict=True)
    ]
    texts, pictures = (
        side.embeddings(c.masks, torch.full((len(c.masks),), row)) for (side, *_), c in zip(sides, drawn, strict=True)
    )
    worth = (texts @ pictures.T).double().cpu()

    def solution(part: int | None) -> dict[str, Tensor]:
        terms = []
        for node, (p, weight) in enumerate(chances):
            (rows, left), (columns, right) = (c.fit(node, p, part) for c in drawn)
            terms.append(weight * left @ worth[rows][:, columns] @ right.T)
        found: dict[str, Tensor] = solved(terms, worth[-1, -1])
        return found

    found, error = solution(None), torch.zeros(())
    if not all(exact):  # two halves of the coalitions differ by twice the error of the whole
        error = (solution(0)["matrix"] - solution(1)["matrix"]).abs().median() / 2 / _MEDIAN_OF_NORMAL
    t, v = (list(side.layouts[row].content) for side, *_ in sides)
    spread = {name: torch.zeros(side.positions).double() for name, (side, *_) in zip(("t", "v"), sides, strict=True)}
    matrix = torch.zeros(len(spread["t"]), len(spread["v"])).double()
    matrix[torch.tensor(t)[:, None], torch.tensor(v)] = found["matrix"]
    spread["t"][t], spread["v"][v] = found["text_alone"], found["image_alone"]
    alone = {"text_alone": spread["t"], "image_alone": spread["v"]}
    return {"matrix": matrix, **alone, "constant": found["constant"], "error": error}


class _Coalitions:
    """Masks of one side of one pair: all coalitions, or some drawn at each probability; the empty one comes last."""

    def __init__(
        self, layout: TokenLayout, positions: int, chances: Sequence[float], budget: int, seed: int, *, exact: bool
    ) -> None:
        players = len(layout.content)
        each = budget // len(chances)
        if not exact and each < 4 * (players + 1):
            least = 8 * (players + 1) * len(chances)
            raise OptionError(f"{players} players need samples of at least {least}, not {2 * budget}.")
        self.exact, self._each = exact, each
        if exact:
            self.masks = torch.ones(2**players + 1, positions)
            self.masks[:-1, list(layout.content)] = every_coalition(players)
        else:
            drawn = [bernoulli(layout, positions, each, p, seed + node) for node, p in enumerate(chances)]
            self.masks = torch.cat([*drawn, torch.ones(1, positions)])
        self.masks[-1, list(layout.content)] = 0
        self._inside = self.masks[:, list(layout.content)].double()

    def fit(self, node: int, p: float, part: int | None) -> tuple[Tensor, Tensor]:
        """Rows `(K,)` of the masks of a node, and `(1 + players, K)` what turns their worths into centred terms.

        `part` takes the first (0) or the second (1) half of what was drawn; all coalitions stay whole.
        """
        if self.exact:
            rows = torch.arange(len(self.masks) - 1)
            inside = self._inside[rows]
            size = inside.sum(1)
            chance = p**size * (1 - p) ** (inside.shape[1] - size)
            centred = (inside - p) / (p * (1 - p))
            return rows, torch.cat([chance[:, None], chance[:, None] * centred], 1).T
        rows = torch.arange(node * self._each, (node + 1) * self._each)
        rows = rows if part is None else rows.chunk(2)[part]
        inside = self._inside[rows]
        return rows, torch.linalg.pinv(torch.cat([torch.ones(len(rows), 1).double(), inside - p], 1))
