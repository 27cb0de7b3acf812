"""Blocks whose weights are drawn anew for the time being, as randomisation tests need."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from isthmus.encoders.tower import Tower
from isthmus.encoders.weights import lock_of

_Swap = tuple[nn.Module, str, nn.Parameter]


@contextmanager
def drawn_anew(tower: Tower, blocks: Sequence[int], seed: int) -> Iterator[None]:
    """Within it, the modules of these blocks hold other parameters.

    Every parameter is drawn from a normal distribution with its own mean and standard deviation. The model's own are
    not written to: they keep their place in memory and their version, so that what is kept for a model's weights, such
    as its mean states and its short hash, fits again afterwards, and not meanwhile. Other threads wait.

    Args:
        tower: whose blocks.
        blocks: their numbers.
        seed: a block's draws depend on the seed, the side and its number alone.
    """
    swaps: list[_Swap] = []
    with lock_of(tower.model):
        try:
            for number in blocks:
                _swap(tower, number, seed, swaps)
            yield
        finally:
            for module, name, own in reversed(swaps):
                module._parameters[name] = own


def _swap(tower: Tower, number: int, seed: int, swaps: list[_Swap]) -> None:
    digest = hashlib.sha256(f"{seed}/{tower.side}/{number}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    new: dict[int, nn.Parameter] = {}  # a parameter that several modules share stays shared
    for module in tower.blocks[number].modules():
        for name, own in list(module._parameters.items()):
            if own is None:
                continue
            if id(own) not in new:
                new[id(own)] = nn.Parameter(_like(own.detach(), generator), requires_grad=own.requires_grad)
            swaps.append((module, name, own))
            module._parameters[name] = new[id(own)]


def _like(own: Tensor, generator: torch.Generator) -> Tensor:
    """Draws with the mean and the standard deviation of a tensor."""
    wide = own.to(torch.float64)
    drawn = torch.randn(own.shape, generator=generator, dtype=torch.float64).to(own.device)
    return (wide.mean() + wide.std(correction=0) * drawn).to(own.dtype)
