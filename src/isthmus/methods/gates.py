"""Gates that are learned for each input, the noise behind them, and what passes: see `isthmus.methods.bottleneck`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Tower, accumulator, unit
from isthmus.encoders.weights import version_of
from isthmus.errors import OptionError
from isthmus.methods.checks import whole
from isthmus.methods.slope import as_state, by_position, grid_of, positions_of, slope

_START = 5.0  # of a: gates begin open at 0.993
NARROWEST = 1e-4  # of 1 - g: where a gate is wide open its logarithm, and the map with it, would grow without bound
_IDLE = 1e-6  # of the widest channel's standard deviation: a channel under it is constant but for rounding

_FITTED: WeakKeyDictionary[Tower, dict[int, tuple[Any, Tensor, Tensor]]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Bottleneck:
    """What passes gates, of which `shut = 1 - g` is kept: it stays exact where gates are all but open.

    Attributes:
        hidden: `(B, T, d)` features, in float32 or better.
        mean, std: `(d,)` of the noise.
        own: `(B, T)` positions that are no padding.
        blur: smooths gates over positions, or None.
        narrowest: lower bound of `shut`.
    """

    hidden: Tensor
    mean: Tensor
    std: Tensor
    own: Tensor
    blur: Callable[[Tensor], Tensor] | None
    narrowest: float

    def shut(self, logits: Tensor) -> Tensor:
        """`1 - g` of logits a, `(B, T, d)`."""
        shut = torch.sigmoid(-logits)
        return (shut if self.blur is None else self.blur(shut)).clamp(min=self.narrowest)

    def nats(self, shut: Tensor) -> Tensor:
        """C, `(B, T, d)`: zero for padding, and for channels that are constant in the reference set."""
        active = self.std > _IDLE * self.std.max()
        passed = (1 - shut) * torch.where(active, (self.hidden - self.mean) / self.std, 0.0)
        return torch.where(active & self.own[..., None], (passed**2 + shut**2 - 1) / 2 - shut.log(), 0.0)

    def change(self, noise: Tensor, rows: Tensor) -> Tensor:
        """What a gate that shuts takes away, `(N, T, d)`: `z = h - shut * change`."""
        return self.hidden[rows] - self.mean - self.std * noise


@dataclass(frozen=True)
class Training:
    """How gates are learned; see `m2ib`."""

    beta: float
    steps: int
    copies: int
    lr: float
    seed: int

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, least in (("steps", 1), ("copies", 1), ("seed", 0)):
            whole(name, getattr(self, name), least)
        for name, value, fits in (("beta", self.beta, "at least 0"), ("lr", self.lr, "over 0")):
            number = -1.0 if isinstance(value, bool) or not isinstance(value, Real) else float(value)
            if not 0 <= number < math.inf or (name == "lr" and number == 0):
                raise OptionError(f"{name} must be a number {fits}, not {value!r}.")

    @property
    def stated(self) -> dict[str, Any]:
        """The options that a result states."""
        return {"beta": self.beta, "steps": self.steps, "copies": self.copies, "lr": self.lr, "seed": self.seed}

    def run(self, split: Split, bottleneck: Bottleneck, target: Tensor, memory: int | None) -> tuple[Tensor, Tensor]:
        """Nats `(B, T)` measured in the last step, which needs no pass of its own, and the scores open `(B,)`."""
        target = target.to(bottleneck.hidden.device)
        noise = Noise(bottleneck.own, self.copies, bottleneck.hidden.shape[-1], int(self.seed))
        sizes = bottleneck.own.sum(-1) * bottleneck.hidden.shape[-1]
        logits = torch.full_like(bottleneck.hidden, _START)
        adam = torch.optim.Adam([logits], lr=float(self.lr))  # elementwise, so inputs stay apart
        for _ in range(self.steps - 1):
            leaf = logits.detach().requires_grad_(True)
            with torch.enable_grad():
                shut = bottleneck.shut(leaf)
                price = float(self.beta) * (bottleneck.nats(shut).sum((1, 2)) / sizes).sum()
                gain = self._slope(split, bottleneck, target, shut.detach(), noise, memory)
                (logits.grad,) = torch.autograd.grad(price - (gain * shut).sum(), leaf)
            adam.step()
        scores = bottleneck.nats(bottleneck.shut(logits)).sum(-1).detach()
        dtype = accumulator(split.embedding.dtype)
        return scores, (unit(split.embedding) * target.to(dtype)).sum(-1)

    def _slope(
        self,
        split: Split,
        bottleneck: Bottleneck,
        target: Tensor,
        shut: Tensor,
        noise: Noise,
        memory: int | None,
    ) -> Tensor:
        """Gradient `(B, T, d)` of each input's mean score over fresh copies of the noise, by `shut`."""
        batch = len(shut)
        drawn = noise.draw()
        found = torch.zeros_like(shut)

        def run(part: slice) -> None:
            index = torch.arange(part.start, part.stop, device=shut.device)
            rows, copy = index % batch, index // batch
            change = bottleneck.change(drawn[noise.kind[rows], copy], rows)
            state = bottleneck.hidden[rows] - shut[rows] * change
            (gradient,), _ = slope(split, as_state(state, split).to(split.hidden.dtype), rows, target, narrow=True)
            products = -by_position(gradient) * change / self.copies
            for first in range(part.start - part.start % batch, part.stop, batch):  # in one order on every device
                low, high = max(part.start, first), min(part.stop, first + batch)
                found[low - first : high - first] += products[low - part.start : high - part.start]

        in_chunks(run, batch * self.copies, rows_at_once(split, memory, narrow=True))
        return found


class Noise:
    """Standard normal noise for each input, from a generator of its own.

    Inputs whose own positions are the same draw the same, so one generator serves them. Numbers come from the CPU,
    so that every device sees the same.

    Attributes:
        kind: `(B,)` which draw is an input's.
    """

    def __init__(self, own: Tensor, copies: int, channels: int, seed: int) -> None:
        """Make a generator for each kind of input, of `(B, T)` own positions."""
        kinds, kind = torch.unique(own.cpu(), dim=0, return_inverse=True)
        self.kind = kind.to(own.device)
        self._kinds, self._shape, self._device = kinds, (copies, kinds.shape[1], channels), own.device
        self._generators = [torch.Generator().manual_seed(seed) for _ in kinds]

    def draw(self) -> Tensor:
        """The next draw, `(kinds, copies, T, d)`, zero at padding."""
        copies, _, channels = self._shape
        drawn = torch.zeros(len(self._kinds), *self._shape)
        for noise, own, generator in zip(drawn, self._kinds, self._generators, strict=True):
            noise[:, own] = torch.randn(copies, int(own.sum()), channels, generator=generator)
        return drawn.to(self._device)


def own_positions(layouts: Sequence[TokenLayout], split: Split) -> Tensor:
    """Mask `(B, T)` of the positions that are no padding: all places of a convolutional tower."""
    if grid_of(split) is not None:
        return torch.ones(len(layouts), positions_of(split), dtype=torch.bool, device=split.hidden.device)
    own = torch.zeros(len(layouts), positions_of(split), dtype=torch.bool)
    for row, one in zip(own, layouts, strict=True):
        row[[*one.content, *(position for _, position in one.special)]] = True
    return own.to(split.hidden.device)


def fitted(tower: Tower, layer: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(d,)` of each channel over the reference set, fitted once for a model."""
    if tower.reference is None:
        raise OptionError(
            f"iba is fitted to a reference set, which the {tower.side} side of this model has not: choose m2ib."
        )
    version = version_of(tower.model)
    known = _FITTED.setdefault(tower, {})
    if layer not in known or known[layer][0] != version:
        std, mean = torch.std_mean(tower.reference_states(layer), dim=0, correction=0)
        known[layer] = version, mean, std
    return known[layer][1:]


def blur_of(layouts: Sequence[TokenLayout], split: Split, sigma: float) -> Callable[[Tensor], Tensor]:
    """What smooths gates `(B, T, d)` over the grid of patches, or of the places of a convolutional tower."""
    dtype, device, grid = accumulator(split.hidden.dtype), split.hidden.device, grid_of(split)
    if grid is None:
        weights = blur_over(layouts, positions_of(split), sigma).to(device, dtype)
        return lambda shut: weights @ shut
    rows, columns = (_gaussian(size, sigma).to(device, dtype) for size in grid)

    def smoothed(shut: Tensor) -> Tensor:
        places = shut.view(len(shut), *grid, -1)
        return torch.einsum("ri,cj,bijd->brcd", rows, columns, places).flatten(1, 2)

    return smoothed


def blur_over(layouts: Sequence[TokenLayout], positions: int, sigma: float) -> Tensor:
    """Weights `(1 or B, T, T)` that smooth patches over their grid and leave special positions alone."""
    made: dict[Any, Tensor] = {}
    for one in layouts:
        assert one.grid is not None, "the layout of a picture has a grid"
        if (one.grid, one.patches) not in made:
            weights = torch.eye(positions, dtype=torch.float64)
            patches = torch.tensor(one.patches)
            rows, columns = (_gaussian(size, sigma) for size in one.grid)
            weights[patches[:, None], patches] = torch.kron(rows, columns)
            made[one.grid, one.patches] = weights
    if len(made) == 1:
        return next(iter(made.values()))[None]
    return torch.stack([made[one.grid, one.patches] for one in layouts])


def _gaussian(size: int, sigma: float) -> Tensor:
    """Weights `(size, size)` of a Gaussian cut at two sigma and mirrored at the outermost patches, as published."""
    reach = int(2 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    period = max(1, 2 * size - 2)
    there = (torch.arange(size)[:, None] + offsets) % period
    there = torch.minimum(there, period - there).clamp(max=size - 1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(
        1, there, (weights / weights.sum()).expand(size, -1)
    )
