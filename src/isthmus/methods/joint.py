"""Joint maps: what each pair of a word and a region brings to the cosine of a picture and a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.tower import Inputs, Tower
from isthmus.methods.vectors import position_vectors


@dataclass(frozen=True, eq=False)
class Half:
    """One side of B pairs: its tower, its inputs, and what each position is."""

    tower: Tower
    inputs: Inputs
    layouts: Sequence[TokenLayout]

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
    """The joint map of `nib`: both embeddings taken apart by `position_vectors`, and multiplied out.

    With `w = w0 + sum of P_i` of the text and `u = u0 + sum of Q_j` of the picture,

        <w, u> = <w0, u0> + sum of <P_i, u0> + sum of <w0, Q_j> + sum over i, j of <P_i, Q_j>,

    all divided by `|w| |u|`: it explains the cosine with both lengths held fixed. The sum misses the cosine by the
    quadrature's error alone.

    Args:
        image, text: the two sides.
        options: of `position_vectors`; a mapping {"image": ..., "text": ...} gives each side its own.
    """
    words, regions = (position_vectors(half.tower, half.inputs, **half.own(options)) for half in (text, image))
    scale = 1 / (words.open.norm(dim=-1) * regions.open.norm(dim=-1))
    return Interaction(
        matrix=torch.einsum("btd,bvd,b->btv", words.vectors, regions.vectors, scale),
        text_alone=torch.einsum("btd,bd,b->bt", words.vectors, regions.closed, scale),
        image_alone=torch.einsum("bd,bvd,b->bv", words.closed, regions.vectors, scale),
        constant=(words.closed * regions.closed).sum(-1) * scale,
        similarity=(words.open * regions.open).sum(-1) * scale,
        options=({"text": words.options, "image": regions.options},) * len(scale),
    )
