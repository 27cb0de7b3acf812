"""Class activation maps on hidden states: Grad-CAM and HiResCAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout, content_of
from isthmus.encoders.tower import Inputs, Tower
from isthmus.methods.registry import Attribution, Method, register
from isthmus.methods.slope import by_position, grid_of, in_one_pass


def gradcam(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    layer: float | None = None,
    relu: bool = True,
    memory: int | None = None,
) -> Attribution:
    """Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1 and 2): channels weighted by their mean gradient.

    With features A and gradients dA of positions i and channels c, `score_i = relu(sum over c of A_ic a_c)`, where a_c
    is the mean of dA over the patches, the words, or all places of a convolutional tower. Scores grow in proportion to
    the score, but have no sum of a meaning.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what the positions are: gradients are pooled over patches, or words.
        layer: the cut, by default the input of the last block but one; at the depth itself only the pooled
            position of a transformer has a gradient.
        relu: False keeps the sign, which the published method cuts off.
        memory: budget in bytes.
    """
    content = content_of(layouts)

    def weighted(features: Tensor, gradient: Tensor, rows: Tensor | None) -> Tensor:
        inside = torch.ones_like(features[..., :1])
        if rows is not None:
            inside = content[rows.to(content.device)].to(features)[..., None]
        pooled = (gradient * inside).sum(1, keepdim=True) / inside.sum(1, keepdim=True)
        return (features * pooled).sum(-1)

    return _activation(tower, inputs, target, weighted, layer=layer, relu=relu, memory=memory)


def hirescam(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layer: float | None = None,
    relu: bool | None = None,
    preset: str | None = None,
    memory: int | None = None,
) -> Attribution:
    """HiResCAM (Draelos & Carin, 2020): `score_i = sum over c of A_ic dA_ic`, without pooling; signed.

    Args:
        tower, inputs, target, layer, memory: see `gradcam`.
        relu: cut off what speaks against the match.
        preset: "paper" is what the NIB paper's comparison calls Grad-CAM: the output of block 9 (layer 10), with the
            negative part cut off, and its min-max map.
    """

    def product(features: Tensor, gradient: Tensor, _: Tensor | None) -> Tensor:
        return (features * gradient).sum(-1)

    paper = preset == "paper"
    layer = _PAPER_LAYER if paper and layer is None else layer
    relu = paper if relu is None else relu
    return _activation(tower, inputs, target, product, layer=layer, relu=relu, memory=memory, published=paper)


def _activation(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    combine: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    *,
    layer: float | None,
    relu: bool,
    memory: int | None,
    published: bool = False,
) -> Attribution:
    """`combine` features and gradients `(N, T, d)` of inputs `(N,)`, which are None in a convolutional tower."""
    split = tower.split(inputs, max(0, tower.depth - 2) if layer is None else layer)
    grid = grid_of(split)

    def mapped(gradients: Sequence[Tensor], rows: Tensor) -> Tensor:
        features, gradient = (by_position(x) for x in (split.hidden[rows].to(gradients[0].dtype), gradients[0]))
        return combine(features, gradient, None if grid else rows)

    scores, opened = in_one_pass(split, target, mapped, memory=memory)
    options = tuple({"layer": split.layer, "relu": relu} for _ in range(len(scores)))
    scores = scores.relu() if relu else scores
    return Attribution(scores, opened, None, options, published=published, flat=0.0, grid=grid)


_LAST_BUT_ONE = -3
_PAPER_LAYER = 10
_OPTIONS = {
    "layer": "the block whose input is read, by default the last but one",
    "relu": "cut off what speaks against the match",
    "memory": "memory budget in bytes",
}

register(
    Method(
        name="gradcam",
        title="Grad-CAM",
        paper="Selvaraju et al., Grad-CAM, ICCV 2017 (arXiv:1610.02391)",
        function=gradcam,
        options=_OPTIONS,
        signed=False,
        needs_layouts=True,
        cut={"": _LAST_BUT_ONE},
    )
)
register(
    Method(
        name="hirescam",
        title="HiResCAM",
        paper="Draelos & Carin, 2020 (arXiv:2011.08891)",
        function=hirescam,
        options=_OPTIONS,
        presets={"paper": 'what the NIB paper\'s comparison calls "Grad-CAM", with its min-max map'},
        cut={"": _LAST_BUT_ONE, "paper": _PAPER_LAYER},
    )
)
