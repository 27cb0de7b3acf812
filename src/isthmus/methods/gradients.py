"""Gradients by what enters a tower, pixels or token vectors: saliency, products with the input, and their integral.

Pixels are summed to patches; token vectors are those of the lookup, before positions are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.split import Entrance, Split
from isthmus.encoders.tower import Inputs, Tower, accumulator
from isthmus.entering import gathered, placed, replaced
from isthmus.errors import OptionError
from isthmus.methods.closed import closed_state
from isthmus.methods.path import Gather, StraightPath, over_channels
from isthmus.methods.registry import Attribution, Method, register
from isthmus.methods.slope import grid_of, in_one_pass, positions_of

_PIXEL_BASELINES = ("mean", "blur", "zero", "black", "blank", "reference")
_TOKEN_BASELINES = ("mean", "zero", "blank", "reference")
_STATE_BASELINES = ("mean", "zero", "blank")

# The reference set's pictures do not depend on weights, so their mean is made once for a tower and a size.
_MEAN_PICTURES: WeakKeyDictionary[Tower, dict[tuple[int, ...], Tensor]] = WeakKeyDictionary()


def saliency(
    tower: Tower, inputs: Inputs, target: Tensor, *, layouts: Sequence[TokenLayout], memory: int | None = None
) -> Attribution:
    """Size of the score's gradient f' by what enters (Simonyan et al., ICLR workshop 2014, section 3).

    A pixel's value is the largest `|f'|` of its channels, a patch's the mean over its pixels; a token's is the largest
    `|f'|` of the channels of its vector. Not negative, in units of the score by units of what enters: pixels as the
    model normalises them, entries of token vectors. A pixel's slope says nothing of its presence, so neither a sum
    nor a comparison of the two sides has a meaning.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what each position is.
        memory: budget in bytes.
    """
    entrance = tower.enter(inputs)

    def sizes(gradients: Sequence[Tensor], rows: Tensor) -> Tensor:
        (gradient,) = gradients
        if tower.lookup is not None:
            return gradient.abs().amax(-1)
        if gradient.ndim == 3:
            colours = gradient.reshape(*gradient.shape[:2], -1, 3)
            return placed(colours.abs().amax(-1).mean(-1), layouts, positions_of(entrance))
        side = layouts[int(rows[0])].patch
        assert side is not None, "the layout of a picture knows the side of its patches"
        largest = gradient.abs().amax(1, keepdim=True)
        return gathered(largest, layouts, rows, positions_of(entrance)) / side**2

    scores, opened = in_one_pass(entrance, target, sizes, memory=memory)
    return Attribution(scores, opened, None, ({},) * len(scores))


def input_x_gradient(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    layer: float | None = None,
    memory: int | None = None,
) -> Attribution:
    """What enters times the score's gradient by it, `sum of x f'(x)` over each position (Shrikumar et al., 2016).

    Signed, in units of the score: the first-order change of the score if the position's values went to zero. For
    pixels zero is the mean colour of the model's training set.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what each position is.
        layer: a hidden state in place of what enters, as `Tower.resolve` reads it.
        memory: budget in bytes.
    """
    split = tower.enter(inputs) if layer is None else tower.split(inputs, layer)
    gather = _gathering(split, layouts)

    def product(gradients: Sequence[Tensor], rows: Tensor) -> Tensor:
        return gather(split.hidden[rows].to(gradients[0].dtype) * gradients[0], rows)

    scores, opened = in_one_pass(split, target, product, memory=memory)
    used, grid = ({}, None) if layer is None else ({"layer": split.layer}, grid_of(split))
    return Attribution(scores, opened, None, (used,) * len(scores), grid=grid)


def fast_ig(
    tower: Tower, inputs: Inputs, target: Tensor, *, layouts: Sequence[TokenLayout], memory: int | None = None
) -> Attribution:
    """The X-gradient `x f'(x)` of Hesse et al. (Fast Axiomatic Attribution, NeurIPS 2021), summed by position.

    Here it is the same computation as `input-x-gradient` at the entrance. What the paper adds is a theorem: in a
    network without biases, homogeneous for scales >= 0, it equals Integrated Gradients from zero with a single
    gradient. No transformer is such a network (biases, LayerNorm, softmax, GELU), nor is a cosine, so that here
    neither the equality nor completeness holds. The NIB paper's comparison uses the name "FastIG" for something
    else, our `attention-x-gradient`.

    Args:
        tower, inputs, target, layouts, memory: see `input_x_gradient`.
    """
    return input_x_gradient(tower, inputs, target, layouts=layouts, memory=memory)


def integrated_gradients(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    baseline: str | Tensor = "mean",
    layer: float | None = None,
    steps: int | str = 50,
    rule: str | None = None,
    tolerance: float | None = None,
    limit: int | None = None,
    memory: int | None = None,
) -> Attribution:
    """Integrated Gradients (Sundararajan et al., ICML 2017, eq. 1) from a baseline to what enters, summed by position.

    Complete: the scores of all positions sum to the score minus the baseline's, up to the delta that is reported.
    Special positions of a text keep their vectors and get 0, as do positions of a picture that have no pixels.
    No constant baseline sees pixels of its own colour (Sturmfels et al., Distill 2020). The default "mean" is the
    picture's own mean colour, because it takes away what the picture shows without adding what it does not (black
    is a colour that pictures have), and because it is what all other methods here put in place of what they take.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what each position is.
        baseline: for pixels "mean" (default: the picture's mean colour), "blur", "zero" (0 as the model normalises,
            its training set's mean colour), "black" or "blank", "reference" (the mean of the reference set's
            pictures), or a picture `(3, H, W)` or `(B, 3, H, W)`. For words "mean" (default: the reference set's mean
            token vector), "zero" or "blank", "reference" (each word becomes the text's own end token, as in a caption
            that is empty; "mean" where there is none), or vectors that broadcast to `(B, T, d)`. With a `layer`
            "mean", "zero" or "blank", or a tensor, see `isthmus.methods.closed`.
        layer: a hidden state in place of what enters, as `Tower.resolve` reads it.
        steps: number of nodes, default 50; "auto" adds nodes until the relative delta is under `tolerance`.
        rule: one of `isthmus.quadrature.RULES`; default "gauss-legendre", with `steps="auto"` "adaptive".
        tolerance, limit: with `steps="auto"`, default 0.01 and 64.
        memory: budget in bytes.

    Raises:
        OptionError: an option out of its range, or one that does not apply.
    """
    split = tower.enter(inputs) if layer is None else tower.split(inputs, layer)
    if isinstance(baseline, np.ndarray):
        baseline = torch.from_numpy(baseline)
    closing, used = _baseline(split, layouts, baseline)
    path = StraightPath(split, closing, target, memory, _gathering(split, layouts))
    rule = ("adaptive" if steps == "auto" else "gauss-legendre") if rule is None else rule
    found = path.integrate(used, steps=steps, rule=rule, tolerance=tolerance, limit=limit)
    named = tuple({"baseline" if name == "closed" else name: one[name] for name in one} for one in found.options)
    return replace(found, options=named)


def _gathering(split: Split, layouts: Sequence[TokenLayout]) -> Gather:
    if not isinstance(split, Entrance):
        return over_channels
    return lambda products, rows: gathered(products, layouts, rows, positions_of(split))


def _baseline(split: Split, layouts: Sequence[TokenLayout], baseline: str | Tensor) -> tuple[Tensor, dict[str, Any]]:
    """The baseline, of the shape of `split.hidden`, in float32 or better, and what a result says of it."""
    pixels = split.tower.lookup is None
    if isinstance(baseline, Tensor):
        name, value = "tensor", baseline.detach()
        if not bool(torch.isfinite(value).all()):
            raise OptionError("The baseline holds values that are NaN or infinite.")
    else:
        name = _baseline_name(split, baseline)
    if not isinstance(split, Entrance):
        closing, used = closed_state(split, value if name == "tensor" else name, None)
        return closing, {"layer": split.layer, **used}
    if name == "reference":
        value = _mean_picture(split) if pixels else _end_vectors(split, layouts)
    closing = replaced(split, layouts, value if name in ("tensor", "reference") else name)
    return closing.to(accumulator(closing.dtype)), {"baseline": name}


def _baseline_name(split: Split, baseline: Any) -> str:
    """The name of a baseline, "blank" by its name for this side. Raises OptionError where there is no such one."""
    entering, pixels = isinstance(split, Entrance), split.tower.lookup is None
    names = _STATE_BASELINES if not entering else _PIXEL_BASELINES if pixels else _TOKEN_BASELINES
    if not isinstance(baseline, str) or baseline not in names:
        where = f"for the {split.tower.side}" if entering else "of a hidden state"
        raise OptionError(f"There is no baseline {baseline!r} {where}: choose {', '.join(names)}, or give a tensor.")
    return ("black" if entering and pixels else "zero") if baseline == "blank" else baseline


def _mean_picture(entrance: Entrance) -> Tensor:
    """`(3, H, W)` mean of the reference set's pictures, as the model takes them, at the size of the entrance's."""
    tower, size = entrance.tower, tuple(entrance.hidden.shape[-2:])
    if tower.reference is None:
        raise OptionError('baseline="reference" needs a reference set, which this model has not: give a tensor.')
    if entrance.hidden.ndim == 3:
        raise OptionError(
            'baseline="reference" needs pictures of one size, and this model keeps theirs: choose "mean".'
        )
    kept = _MEAN_PICTURES.setdefault(tower, {})
    if size not in kept:
        resized = []
        for inputs, _ in tower.reference():
            values = inputs[tower.stem_input].float()
            if tuple(values.shape[-2:]) != size:
                values = nn.functional.interpolate(values, size, mode="bilinear", antialias=True, align_corners=False)
            resized.append(values)
        kept[size] = torch.cat(resized).mean(0)
    return kept[size]


def _end_vectors(entrance: Entrance, layouts: Sequence[TokenLayout]) -> Tensor:
    """`(B, T, d)` the vector of each text's end token at every position; the mean token vector where it has none."""
    vectors = []
    for row, layout in zip(entrance.hidden, layouts, strict=True):
        ends = [position for name, position in layout.special if name == "EOS"]
        vectors.append(row[ends[0]] if ends else entrance.tower.mean_state(None).to(row))
    return torch.stack(vectors)[:, None].expand_as(entrance.hidden)


_MEMORY = {"memory": "memory budget in bytes"}
_LAYER = "a hidden state in place of what enters: 0..depth, negative from the end, or a fraction of the depth"

register(
    Method(
        name="saliency",
        title="Saliency",
        paper="Simonyan et al., Deep Inside Convolutional Networks, 2014 (arXiv:1312.6034)",
        function=saliency,
        options=_MEMORY,
        signed=False,
        needs_layouts=True,
    )
)
register(
    Method(
        name="input-x-gradient",
        title="Input times gradient",
        paper="Shrikumar et al., Not Just a Black Box, 2016 (arXiv:1605.01713)",
        function=input_x_gradient,
        options={"layer": _LAYER, **_MEMORY},
        needs_layouts=True,
    )
)
register(
    Method(
        name="fast-ig",
        title="X-gradient of Fast Axiomatic Attribution",
        paper="Hesse et al., Fast Axiomatic Attribution for Neural Networks, NeurIPS 2021 (arXiv:2111.07668)",
        function=fast_ig,
        options=_MEMORY,
        needs_layouts=True,
    )
)
register(
    Method(
        name="integrated-gradients",
        title="Integrated Gradients",
        paper="Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017 (arXiv:1703.01365)",
        function=integrated_gradients,
        options={
            "baseline": "what the path starts from: mean, zero, blank, reference, for pictures also blur, black or a "
            "picture, or a tensor",
            "layer": _LAYER,
            "steps": 'nodes of the integral, default 50, or "auto" to add them until the delta is under the tolerance',
            "rule": "gauss-legendre (default), gauss-legendre-cubic, gauss-legendre-sinh or right",
            "tolerance": 'largest relative delta with steps="auto"',
            "limit": 'most nodes with steps="auto"',
            **_MEMORY,
        },
        complete=True,
        needs_fit=("text",),
        needs_layouts=True,
        passes=("2 + n", "n"),
    )
)
