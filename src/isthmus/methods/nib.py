"""Narrowing Information Bottleneck attribution (NIB), ICLR 2025, equations 3 to 11.

A scalar gate closes the features h of a layer on the straight path z(g) = c + g (h - c) from open (g = 1) to the
closed state c (g = 0). A position's importance is its share of the score lost on the way,

    A_i = sum over channels of (h - c) * integral over g in [0, 1] of df/dz at z(g),

which is Integrated Gradients on the hidden state with baseline c. The paper closes to zero; c may also be another
state, see `closed`. The scores of all positions sum to f(h) - f(c) up to the quadrature's error, which is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.layout import TokenLayout, content_of
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Inputs, Tower
from isthmus.errors import OptionError
from isthmus.methods.closed import closed_state
from isthmus.methods.joint import joint_nib
from isthmus.methods.path import RememberedPath, StraightPath
from isthmus.methods.registry import Attribution, Method, register

_DEFAULT: dict[str, Any] = {"layer": 0, "steps": 10, "rule": "gauss-legendre-cubic", "closed": "mean"}
_PAPER: dict[str, Any] = {"layer": 9, "steps": 10, "rule": "right", "closed": "zero"}


def nib(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layer: float | None = None,
    steps: int | str | None = None,
    rule: str | None = None,
    closed: str | Tensor | None = None,
    floor: float | None = None,
    tolerance: float | None = None,
    limit: int | None = None,
    special: str | None = None,
    preset: str | None = None,
    memory: int | None = None,
    layouts: Sequence[TokenLayout] | None = None,
) -> Attribution:
    """Attribute the score `<unit(g(h)), target>` to the positions of the hidden state h that enters `layer`.

    Args:
        tower, inputs: the explained side, B inputs of T positions.
        target: `(B, D)` fixed vectors, see `isthmus.targets`.
        layer: the cut, as `Tower.resolve` reads it; default 0, where words and patches have not mixed yet.
        steps: number of nodes, default 10; "auto" adds nodes until the relative convergence delta is under
            `tolerance` or there are `limit` of them.
        rule: one of `isthmus.quadrature.RULES`; default "gauss-legendre-cubic". With `steps="auto"` the default
            is "adaptive" (a spline through nodes that are added where the sum is wrong, all kept); another doubles
            its number of nodes instead, keeping those that it has where the rule nests.
        closed: the state c. "zero" (the paper's; a LayerNorm is singular there, so the integral is hard),
            "floor" (`floor` times h), "mean" (default: the mean patch or word of the reference set, for every
            position), or a tensor that broadcasts to `(B, T, d)`.
        floor: what is left of h in the closed state "floor", default 0.1.
        tolerance, limit: see `steps`; default 0.01 and 64.
        special: whether special positions (CLS, BOS, EOS) are "closed" with the rest, as published, or stay "open", so
            that patches or words alone account for the score. For a picture the default is "open", which is the more
            faithful (docs/defaults.md), where `layouts` say which they are; "closed" for a text, in a convolutional
            tower, and for `preset="paper"`.
        preset: "paper" gives what the published code gives, with its quirks:
            layer 9 means the state that enters block 9; the closed state is zero; the sum is a right Riemann
            sum from 1/n to 1, which misses the steep start; the *text's* target is the mean over the batch's
            pictures, so a text map depends on the batch; image scores carry a factor 1/B; the map is
            resized bilinearly and min-max normalised, the text's over all tokens with BOS and EOS, which loses
            the sign (`published` of the result). Options given beside it still apply.
        memory: budget in bytes, see `isthmus.encoders.memory.rows_at_once`.
        layouts: what each position of each input is.

    Returns:
        Signed scores of all positions, the score open and closed. With `steps="auto"` the number of nodes and
        whether the tolerance was reached are among the options.

    Raises:
        OptionError: an option out of its range, or one that does not apply.
    """
    chosen = _chosen(preset, layer=layer, steps=steps, rule=rule, closed=closed)
    if chosen["steps"] == "auto" and rule is None:
        chosen["rule"] = "adaptive"
    if preset == "paper" and tower.side == "text":
        target = target.mean(0, keepdim=True).expand_as(target)
    split = tower.split(inputs, chosen["layer"])
    closing, used = closed_state(split, chosen["closed"], floor)
    closing, used = _with_special(split, closing, used, special, layouts, preset)
    path = StraightPath(split, closing, target, memory)
    result = path.integrate(
        {"layer": split.layer, **used}, steps=chosen["steps"], rule=chosen["rule"], tolerance=tolerance, limit=limit
    )
    return _as_published(result, tower) if preset == "paper" else result


def nib_sweep(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    steps: Sequence[int],
    layer: float | None = None,
    preset: str | None = None,
    memory: int | None = None,
    layouts: Sequence[TokenLayout] | None = None,
) -> dict[int, Attribution]:
    """`nib` for several numbers of steps at once: the tower runs once up to the layer, and once for each node.

    The right Riemann sums of 5, 10, 15 and 20 steps have 30 nodes between them, not 50.

    Args:
        tower, inputs, target, layer, preset, memory, layouts: see `nib`.
        steps: numbers of nodes.

    Returns:
        For each number what `nib` gives, up to rounding.
    """
    chosen = _chosen(preset, layer=layer, steps=None, rule=None, closed=None)
    if preset == "paper" and tower.side == "text":
        target = target.mean(0, keepdim=True).expand_as(target)
    split = tower.split(inputs, chosen["layer"])
    closing, used = closed_state(split, chosen["closed"], None)
    closing, used = _with_special(split, closing, used, None, layouts, preset)
    path = RememberedPath(split, closing, target, memory)
    told = {"layer": split.layer, **used}
    found = {n: path.integrate(told, steps=n, rule=chosen["rule"], tolerance=None, limit=None) for n in steps}
    return {n: _as_published(one, tower) for n, one in found.items()} if preset == "paper" else found


def _as_published(result: Attribution, tower: Tower) -> Attribution:
    scores = result.scores / len(result.scores) if tower.side == "image" else result.scores
    return replace(result, scores=scores, published=True)


def _with_special(
    split: Split,
    closing: Tensor,
    used: dict[str, Any],
    special: str | None,
    layouts: Sequence[TokenLayout] | None,
    preset: str | None,
) -> tuple[Tensor, dict[str, Any]]:
    """The closed state, with special positions as they are where they stay open, and what a result says of it."""
    able = layouts is not None and split.hidden.ndim == 3
    if special is None:
        special = "open" if able and preset is None and split.tower.side == "image" else "closed"
    if special not in ("closed", "open"):
        raise OptionError(f'special must be "closed" or "open", not {special!r}.')
    if special == "closed":
        return closing, used
    if layouts is None or not able:
        raise OptionError('special="open" needs a tower of tokens and the layouts of its positions: leave it out.')
    content = content_of(layouts).to(closing.device)
    content = nn.functional.pad(content, (0, closing.shape[1] - content.shape[1]))
    return torch.where(content[..., None], closing, split.hidden.to(closing)), {**used, "special": special}


def _chosen(preset: str | None, **given: Any) -> dict[str, Any]:
    if preset not in (None, "paper"):
        raise OptionError(f'There is no preset {preset!r} of nib: choose "paper", or leave it out.')
    base = _PAPER if preset == "paper" else _DEFAULT
    return {name: base[name] if value is None else value for name, value in given.items()}


register(
    Method(
        name="nib",
        title="Narrowing Information Bottleneck",
        paper="Zhu et al., Narrowing Information Bottleneck Theory, ICLR 2025 (arXiv:2502.14889)",
        function=nib,
        options={
            "layer": "the block whose input is gated: 0..depth, negative from the end, or a fraction of the depth",
            "steps": 'nodes of the integral, or "auto" to add them until the delta is under the tolerance',
            "rule": "gauss-legendre, gauss-legendre-cubic, gauss-legendre-sinh or right",
            "closed": "the closed state: zero, floor, mean, or a tensor",
            "floor": 'what the closed state "floor" leaves of the features',
            "tolerance": 'largest relative delta with steps="auto"',
            "limit": 'most nodes with steps="auto"',
            "special": 'whether CLS, BOS and EOS stay "open" (pictures by default) or are "closed" too (texts)',
            "memory": "memory budget in bytes",
        },
        presets={"paper": "the published code, its quirks included"},
        complete=True,
        needs_fit=("image", "text"),
        needs_layouts=True,
        passes=("2 + n", "n"),
        cut={"": _DEFAULT["layer"], "paper": _PAPER["layer"]},
        joint=joint_nib,
        joint_options=("layer", "steps", "rule", "closed", "floor", "tolerance", "memory"),
    )
)
