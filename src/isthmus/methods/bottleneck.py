"""Information bottlenecks whose gates are learned for each input: M2IB and IBA.

Each position i and channel c of the features h that enter a layer has a gate g = sigmoid(a) between 0 and 1. Noise
takes the place of what the gate holds back,

    z = g h + (1 - g) (mu + sigma eps),   eps ~ N(0, 1),

and what passes is measured against the noise alone, by the divergence of two Gaussians, in nats:

    C = KL(N(g k, (1 - g)^2) || N(0, 1)) = ((g k)^2 + (1 - g)^2 - 1) / 2 - log(1 - g),   k = (h - mu) / sigma.

Adam moves a to minimise `beta * mean of C - mean of the score over copies of the noise`; a position's importance is
the sum over channels of C. M2IB has mu = 0 and sigma = 1 whatever the features are; IBA fits both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.tower import Inputs, Split, Tower, accumulator, unit
from isthmus.encoders.weights import version_of
from isthmus.errors import OptionError
from isthmus.methods.checks import whole
from isthmus.methods.registry import Attribution, Method, register
from isthmus.methods.slope import positions_of, slope

_START = 5.0  # of a: gates begin open at 0.993
_NARROWEST = 1e-4  # of 1 - g: where a gate is wide open its logarithm, and the map with it, would grow without bound
_DEFAULT_LAYER = 5 / 6  # M2IB's own cut, the output of block 9 of 12, at any depth
_PAPER_LAYER = 10
_IDLE = 1e-6  # of the widest channel's standard deviation: a channel under it is constant but for rounding

_FITTED: WeakKeyDictionary[Tower, dict[int, tuple[Any, Tensor, Tensor]]] = WeakKeyDictionary()


def m2ib(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    layer: float | None = None,
    beta: float | None = None,
    steps: int = 10,
    copies: int = 10,
    lr: float = 1.0,
    seed: int = 0,
    preset: str | None = None,
    memory: int | None = None,
) -> Attribution:
    """M2IB (Wang et al., NeurIPS 2023): gates against unit noise, `mu = 0` and `sigma = 1`, see the module.

    The features have no unit variance, so channels count by their raw size, and a score is a divergence in nats but
    no measure of the features' information: it has no unit here. Scores are not negative.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`. The target is fixed, so the other tower never runs.
        layouts: what the positions are: C is the mean over an input's own positions, padding apart.
        layer: the cut, as `Tower.resolve` reads it; by default 5/6 of the depth, as published (10 of 12).
        beta: price of a nat of the mean of C, in units of the score; default 0.1.
        steps: how often gates are measured, as published, so Adam moves them `steps - 1` times; at least 1.
        copies: draws of the noise in each step.
        lr: Adam's step size.
        seed: of the noise. Each input draws from a generator of its own, so neither batch nor padding matters.
        preset: "paper" is the published algorithm: layer 10 on any depth ("layer 9", as the output of block 9),
            beta 0.1, gates that open without bound (by default `g <= 1 - 1e-4`), and its min-max map, the text's
            over all tokens with BOS and EOS. The published noise is not seeded, so maps agree in distribution.
            Gates that round to one, which gives infinities there, stay finite here. Options given beside it apply.
        memory: budget in bytes, see `isthmus.encoders.memory.rows_at_once`.

    Returns:
        Scores of all positions, special ones included, and the score open; there is no closed state.

    Raises:
        OptionError: an option out of its range.
    """
    if preset not in (None, "paper"):
        raise OptionError(f'There is no preset {preset!r} of m2ib: choose "paper", or leave it out.')
    if layer is None:
        layer = _PAPER_LAYER if preset == "paper" else _DEFAULT_LAYER
    training = _Training(0.1 if beta is None else beta, steps, copies, lr, seed)
    split = tower.split(inputs, layer)
    hidden = split.hidden.to(accumulator(split.hidden.dtype))
    bottleneck = _Bottleneck(
        hidden,
        mean=hidden.new_zeros(hidden.shape[-1]),
        std=hidden.new_ones(hidden.shape[-1]),
        own=_own(layouts, split),
        blur=None,
        narrowest=torch.finfo(hidden.dtype).tiny if preset == "paper" else _NARROWEST,
    )
    nats, opened = training.run(split, bottleneck, target, memory)
    options = tuple({"layer": split.layer, **training.stated} for _ in layouts)
    return Attribution(nats, opened, None, options, published=preset == "paper")


def iba(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    layer: float = 0,
    beta: float = 0.1,
    sigma: float = 1.0,
    steps: int = 10,
    copies: int = 10,
    lr: float = 1.0,
    seed: int = 0,
    memory: int | None = None,
) -> Attribution:
    """IBA per sample (Schulz et al., Restricting the Flow, ICLR 2020): bits that pass gates against fitted noise.

    mu and sigma are each channel's mean and deviation over all patches, or words, of the reference set. CLS, BOS and
    EOS have gates too, unsmoothed, but the same noise: their bits tell how unlike a patch or word they are, and
    are many where those of words may be few. A channel that is constant in the reference set counts no bits.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what the positions are, see `m2ib`; gates are smoothed over the grid of patches.
        layer: the cut; default 0, where words and patches have not mixed yet. Later ones are cheaper.
        beta: price of a nat of the mean of C, in units of the score; default 0.1. The paper's 10 is paid against a
            cross-entropy; a cosine changes by a few tenths, so that 10 shuts every gate: on the bundled model
            the map is then flat, about half a bit a patch, where 0.1 leaves tens to hundreds.
        sigma: of the Gaussian that smooths a picture's gates, in patches; it is cut at two sigma and mirrored at
            the outermost patches. 0 does not smooth; a text is never smoothed.
        steps, copies, lr, seed, memory: see `m2ib`.

    Returns:
        Scores in bits, not negative, of all positions, and the score open; there is no closed state.

    Raises:
        OptionError: an option out of its range, or a tower without a reference set.
    """
    training = _Training(beta, steps, copies, lr, seed)
    if isinstance(sigma, bool) or not isinstance(sigma, Real) or not 0 <= sigma <= 100:
        raise OptionError(f"sigma must be a number of patches from 0 to 100, not {sigma!r}.")
    split = tower.split(inputs, layer)
    hidden = split.hidden.to(accumulator(split.hidden.dtype))
    mean, std = _fitted(tower, split.layer)
    smoothed = tower.side == "image" and sigma > 0
    bottleneck = _Bottleneck(
        hidden,
        mean=mean.to(hidden),
        std=std.to(hidden),
        own=_own(layouts, split),
        blur=_blur(layouts, positions_of(split), float(sigma)).to(hidden) if smoothed else None,
        narrowest=_NARROWEST,
    )
    nats, opened = training.run(split, bottleneck, target, memory)
    stated = {"layer": split.layer, **training.stated, **({"sigma": sigma} if tower.side == "image" else {})}
    return Attribution(nats / math.log(2), opened, None, tuple(stated for _ in layouts))


@dataclass(frozen=True, eq=False)
class _Bottleneck:
    """What passes gates, of which `shut = 1 - g` is kept: it stays exact where gates are all but open.

    Attributes:
        hidden: `(B, T, d)` features, in float32 or better.
        mean, std: `(d,)` of the noise.
        own: `(B, T)` positions that are no padding.
        blur: `(1 or B, T, T)` weights that smooth gates over positions, each row of sum 1, or None.
        narrowest: lower bound of `shut`.
    """

    hidden: Tensor
    mean: Tensor
    std: Tensor
    own: Tensor
    blur: Tensor | None
    narrowest: float

    def shut(self, logits: Tensor) -> Tensor:
        """`1 - g` of logits a, `(B, T, d)`."""
        shut = torch.sigmoid(-logits)
        return (shut if self.blur is None else self.blur @ shut).clamp(min=self.narrowest)

    def nats(self, shut: Tensor) -> Tensor:
        """C, `(B, T, d)`: zero for padding, and for channels that are constant in the reference set."""
        active = self.std > _IDLE * self.std.max()
        passed = (1 - shut) * torch.where(active, (self.hidden - self.mean) / self.std, 0.0)
        return torch.where(active & self.own[..., None], (passed**2 + shut**2 - 1) / 2 - shut.log(), 0.0)

    def change(self, noise: Tensor, rows: Tensor) -> Tensor:
        """What a gate that shuts takes away, `(N, T, d)`: `z = h - shut * change`."""
        return self.hidden[rows] - self.mean - self.std * noise


@dataclass(frozen=True)
class _Training:
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

    def run(self, split: Split, bottleneck: _Bottleneck, target: Tensor, memory: int | None) -> tuple[Tensor, Tensor]:
        """Nats `(B, T)` measured in the last step, which needs no pass of its own, and the scores open `(B,)`."""
        target = target.to(bottleneck.hidden.device)
        noise = _Noise(bottleneck.own, self.copies, bottleneck.hidden.shape[-1], int(self.seed))
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
        bottleneck: _Bottleneck,
        target: Tensor,
        shut: Tensor,
        noise: _Noise,
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
            (gradient,), _ = slope(split, state.to(split.hidden.dtype), rows, target)
            products = -gradient * change / self.copies
            for first in range(part.start - part.start % batch, part.stop, batch):  # in one order on every device
                low, high = max(part.start, first), min(part.stop, first + batch)
                found[low - first : high - first] += products[low - part.start : high - part.start]

        in_chunks(run, batch * self.copies, rows_at_once(split, memory))
        return found


class _Noise:
    """Standard normal noise for each input, from a generator of its own.

    Inputs whose own positions are the same draw the same, so one generator serves them. Numbers come from the CPU,
    so that every device sees the same.

    Attributes:
        kind: `(B,)` which draw is an input's.
    """

    def __init__(self, own: Tensor, copies: int, channels: int, seed: int) -> None:
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


def _own(layouts: Sequence[TokenLayout], split: Split) -> Tensor:
    """Mask `(B, T)` of the positions that are no padding."""
    own = torch.zeros(len(layouts), positions_of(split), dtype=torch.bool)
    for row, one in zip(own, layouts, strict=True):
        row[[*one.content, *(position for _, position in one.special)]] = True
    return own.to(split.hidden.device)


def _fitted(tower: Tower, layer: int) -> tuple[Tensor, Tensor]:
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


def _blur(layouts: Sequence[TokenLayout], positions: int, sigma: float) -> Tensor:
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


_OPTIONS = {
    "beta": "price of a nat of mean information, in units of the score",
    "steps": "how often gates are measured; they move once less",
    "copies": "draws of the noise in each step",
    "lr": "Adam's step size",
    "seed": "of the noise",
    "memory": "memory budget in bytes",
}
_PASSES = ("10n - 9", "10n - 10")

register(
    Method(
        name="m2ib",
        title="Multi-modal information bottleneck (M2IB)",
        paper="Wang et al., Visual Explanations of Image-Text Representations via Multi-Modal Information Bottleneck "
        "Attribution, NeurIPS 2023 (arXiv:2312.17174)",
        function=m2ib,
        options={"layer": "the block whose input is gated, by default 5/6 of the depth", **_OPTIONS},
        presets={"paper": "the published algorithm at the output of block 9, with its min-max map"},
        units="",
        signed=False,
        needs_layouts=True,
        passes=_PASSES,
    )
)
register(
    Method(
        name="iba",
        title="Information bottleneck attribution (IBA), per sample",
        paper="Schulz et al., Restricting the Flow, ICLR 2020 (arXiv:2001.00396)",
        function=iba,
        options={
            "layer": "the block whose input is gated, by default the first",
            **_OPTIONS,
            "sigma": "of the Gaussian that smooths a picture's gates, in patches",
        },
        units="bits",
        signed=False,
        needs_fit=("image", "text"),
        needs_layouts=True,
        passes=_PASSES,
    )
)
