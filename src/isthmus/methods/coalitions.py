"""Coalitions of players, which are patches or tokens: all of them, or some drawn at random."""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout


def every_coalition(players: int) -> Tensor:
    """`(2 ** n, n)`: row k holds the binary digits of k, the first player's the lowest."""
    return (torch.arange(2**players)[:, None] >> torch.arange(players) & 1).float()


def bernoulli(layout: TokenLayout, positions: int, samples: int, keep: float, seed: int) -> Tensor:
    """`(samples, positions)` masks of one input, drawn by its own length, so that padding changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.ones(samples, positions)
    masks[:, list(layout.content)] = (torch.rand(samples, len(layout.content), generator=generator) < keep).float()
    return masks
