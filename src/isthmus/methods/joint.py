"""Joint maps: what each pair of a word and a region brings to the cosine of a picture and a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout, content_of
from isthmus.encoders.sharing import distinct
from isthmus.encoders.tower import Inputs, Tower
from isthmus.methods.products import PositionProducts, position_products
from isthmus.methods.vectors import position_vectors, shareable

# What a forward-mode product takes, in backward ones: its attention is not fused, and it runs the state's value too.
_FORWARD = 3


@dataclass(frozen=True, eq=False)
class Half:
    """One side of B pairs: its tower, its inputs, and what each position is."""

    tower: Tower
    inputs: Inputs
    layouts: Sequence[TokenLayout]

    @property
    def positions(self) -> int:
        """How many positions the tower's states have, those of padding included."""
        return content_of(self.layouts).shape[1]

    def own(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of this side, of which some may be mappings with one value for each side."""
        chosen = {k: v.get(self.tower.side) if isinstance(v, Mapping) else v for k, v in options.items()}
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Interaction:
    """The parts of B cosines, by pairs of positions of the text (T) and the picture (V).

    `constant + text_alone.sum() + image_alone.sum() + matrix.sum()` is `similarity`, up to what the method misses.

    Attributes:
        matrix: `(B, T, V)`.
        text_alone, image_alone: `(B, T)`, `(B, V)`.
        constant, similarity: `(B,)`.
        options: options as resolved, for each pair.
        notes: what a reader should know of all of them.
    """

    matrix: Tensor
    text_alone: Tensor
    image_alone: Tensor
    constant: Tensor
    similarity: Tensor
    options: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()


def joint_nib(image: Half, text: Half, **options: Any) -> Interaction:
    """The joint map of `nib`: both embeddings taken apart as by `position_vectors`, and multiplied out.

    With `w = w0 + sum of P_i` of the text and `u = u0 + sum of Q_j` of the picture,

        <w, u> = <w0, u0> + sum of <P_i, u0> + sum of <w0, Q_j> + sum over i, j of <P_i, Q_j>,

    all divided by `|w| |u|`: it explains the cosine with both lengths held fixed. The sum misses the cosine by the
    quadrature's error alone. The vectors of one side are enough: what the other brings along each of them are
    `position_products`. The cheapest way is taken, and all ways give the same up to rounding.

    Args:
        image, text: the two sides.
        options: of `position_vectors`; a mapping {"image": ..., "text": ...} gives each side its own.
    """
    first, other, both = _plan(image, text, options)
    own = position_vectors(first.tower, first.inputs, **first.own(options))
    found = _along(other, torch.cat([own.vectors, own.closed[:, None]], 1), options, both=both)
    scale = 1 / (own.open.norm(dim=-1) * found.open.norm(dim=-1))
    products = found.products * scale[:, None, None]
    cross, other_alone = products[:, :-1], products[:, -1]
    first_alone = torch.einsum("btd,bd,b->bt", own.vectors, found.closed, scale)
    of_text = first is text
    told = {"text": own.options, "image": found.options} if of_text else {"text": found.options, "image": own.options}
    return Interaction(
        matrix=cross if of_text else cross.transpose(1, 2),
        text_alone=first_alone if of_text else other_alone,
        image_alone=other_alone if of_text else first_alone,
        constant=(own.closed * found.closed).sum(-1) * scale,
        similarity=(own.open * found.open).sum(-1) * scale,
        options=(told,) * len(scale),
    )


def _along(half: Half, directions: Tensor, options: Mapping[str, Any], *, both: bool) -> PositionProducts:
    """What the positions of a side bring along directions `(B, K, D)`; with `both`, from their whole vectors."""
    if not both:
        return position_products(half.tower, half.inputs, directions, **half.own(options))
    own = position_vectors(half.tower, half.inputs, **half.own(options))
    products = torch.einsum("bkd,btd->bkt", directions, own.vectors)
    return PositionProducts(products, own.closed, own.open, own.options)


def _plan(image: Half, text: Half, options: Mapping[str, Any]) -> tuple[Half, Half, bool]:
    """The side that is taken apart, the other, and whether that is too: the cheapest way.

    It depends on the batch alone, not on what the call knows already: the same call gives the same bits.
    """
    apart, back = {}, {}
    for half, other in ((image, text), (text, image)):
        own = half.own(options)
        steps = own.get("steps", 10)
        nodes = steps if isinstance(steps, int) else 10
        shared = shareable(steps, own.get("closed", "mean"))
        inputs = distinct(half.inputs, watched=half.tower.model) if shared else len(half.layouts)
        apart[half.tower.side] = _FORWARD * nodes * inputs * half.positions
        back[half.tower.side] = nodes * len(half.layouts) * (other.positions + 2)
    ways = {
        (text, image, False): apart["text"] + back["image"],
        (image, text, False): apart["image"] + back["text"],
        (text, image, True): apart["text"] + apart["image"],
    }
    return min(ways, key=lambda way: ways[way])
