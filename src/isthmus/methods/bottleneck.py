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
from numbers import Real

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.tower import Inputs, Tower, accumulator
from isthmus.errors import OptionError
from isthmus.methods.gates import NARROWEST, Bottleneck, Training, blur_of, fitted, own_positions
from isthmus.methods.registry import Attribution, Method, register
from isthmus.methods.slope import by_position, grid_of

_DEFAULT_LAYER = 5 / 6  # M2IB's own cut, the output of block 9 of 12, at any depth
_PAPER_LAYER = 10


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
    training = Training(0.1 if beta is None else beta, steps, copies, lr, seed)
    split = tower.split(inputs, layer)
    hidden = by_position(split.hidden.to(accumulator(split.hidden.dtype)))
    bottleneck = Bottleneck(
        hidden,
        mean=hidden.new_zeros(hidden.shape[-1]),
        std=hidden.new_ones(hidden.shape[-1]),
        own=own_positions(layouts, split),
        blur=None,
        narrowest=torch.finfo(hidden.dtype).tiny if preset == "paper" else NARROWEST,
    )
    nats, opened = training.run(split, bottleneck, target, memory)
    options = tuple({"layer": split.layer, **training.stated} for _ in layouts)
    return Attribution(nats, opened, None, options, published=preset == "paper", grid=grid_of(split))


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
    training = Training(beta, steps, copies, lr, seed)
    if isinstance(sigma, bool) or not isinstance(sigma, Real) or not 0 <= sigma <= 100:
        raise OptionError(f"sigma must be a number of patches from 0 to 100, not {sigma!r}.")
    split = tower.split(inputs, layer)
    hidden = by_position(split.hidden.to(accumulator(split.hidden.dtype)))
    mean, std = fitted(tower, split.layer)
    smoothed = tower.side == "image" and sigma > 0
    bottleneck = Bottleneck(
        hidden,
        mean=mean.to(hidden),
        std=std.to(hidden),
        own=own_positions(layouts, split),
        blur=blur_of(layouts, split, float(sigma)) if smoothed else None,
        narrowest=NARROWEST,
    )
    nats, opened = training.run(split, bottleneck, target, memory)
    stated = {"layer": split.layer, **training.stated, **({"sigma": sigma} if tower.side == "image" else {})}
    return Attribution(nats / math.log(2), opened, None, tuple(stated for _ in layouts), grid=grid_of(split))


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
        cut={"": _DEFAULT_LAYER, "paper": _PAPER_LAYER},
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
