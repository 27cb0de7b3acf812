"""Narrowing Information Bottleneck attribution (NIB), ICLR 2025, equations 3 to 11.

A scalar gate closes the features h of a layer on the straight path z(g) = c + g (h - c) from open (g = 1) to the
closed state c (g = 0). A position's importance is its share of the score lost on the way,

    A_i = sum over channels of (h - c) * integral over g in [0, 1] of df/dz at z(g),

which is Integrated Gradients on the hidden state with baseline c. The paper closes to zero; c may also be another
state, see `closed`. The scores of all positions sum to f(h) - f(c) up to the quadrature's error, which is reported.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from isthmus.encoders.tower import Inputs, Tower
from isthmus.errors import OptionError
from isthmus.methods.closed import closed_state
from isthmus.methods.joint import joint_nib
from isthmus.methods.path import StraightPath
from isthmus.methods.registry import Attribution, Method, register

_DEFAULT = {"layer": 0, "steps": 10, "rule": "gauss-legendre-cubic", "closed": "mean"}
_PAPER = {"layer": 9, "steps": 10, "rule": "right", "closed": "zero"}


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
    preset: str | None = None,
    memory: int | None = None,
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
        preset: "paper" gives what the published code gives, with its quirks:
            layer 9 means the state that enters block 9; the closed state is zero; the sum is a right Riemann
            sum from 1/n to 1, which misses the steep start; the *text's* target is the mean over the batch's
            pictures, so a text map depends on the batch; image scores carry a factor 1/B; the map is
            resized bilinearly and min-max normalised, the text's over all tokens with BOS and EOS, which loses
            the sign (`published` of the result). Options given beside it still apply.
        memory: budget in bytes, see `isthmus.encoders.memory.rows_at_once`.

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
    path = StraightPath(split, closing, target, memory)
    result = path.integrate(
        {"layer": split.layer, **used}, steps=chosen["steps"], rule=chosen["rule"], tolerance=tolerance, limit=limit
    )
    if preset == "paper":
        scores = result.scores / len(target) if tower.side == "image" else result.scores
        return replace(result, scores=scores, published=True)
    return result


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
            "memory": "memory budget in bytes",
        },
        presets={"paper": "the published code, its quirks included"},
        complete=True,
        needs_fit=("image", "text"),
        passes=("3 + n", "n"),
        joint=joint_nib,
        joint_options=("layer", "steps", "rule", "closed", "floor", "tolerance", "memory"),
    )
)
