"""Methods on attention weights and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.attention import attention_weights
from isthmus.encoders.tower import Inputs, Tower
from isthmus.errors import ModelError, OptionError
from isthmus.methods.registry import Attribution, Method, register
from isthmus.methods.slope import in_one_pass

# Turns weights and gradients of blocks, each `(N, heads, T, T)`, first block first, into scores `(N, T)`.
Rule = Callable[[list[Tensor], list[Tensor]], Tensor]


def chefer(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    start_layer: float | None = None,
    preset: str | None = None,
    memory: int | None = None,
) -> Attribution:
    """Relevance of the positions for the pooled one, through attention weights (Chefer et al., ICCV 2021, eq. 5, 6).

    With weights A and gradients dA of a block, `R <- R + mean over heads of (A * dA)^+ @ R`, from `R = I`. CLIP has
    no cross-attention, so this is the whole of the rule. Scores are not negative and have no unit.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        start_layer: first block that counts: 0 (default) takes all, as the paper does; -2 the last alone, as the
            authors' CLIP notebook does.
        preset: "paper" is the comparison of the NIB paper: the last block alone, R without its identity I, min-max
            normalised, which is NaN where the rule finds nothing.
        memory: budget in bytes.

    Raises:
        OptionError: there is no such block.
        ModelError: the attention gives no weights, or the tower pools more than one position.
    """
    start = (-2 if preset == "paper" else 0) if start_layer is None else start_layer
    plain = _without_identity if preset == "paper" else _chefer

    def rule(weights: list[Tensor], gradients: list[Tensor]) -> Tensor:
        _check_pooling(gradients[-1], tower)
        return plain(weights, gradients)

    return _attention(tower, inputs, target, rule, start=start, preset=preset, memory=memory, shown="start_layer")


def _chefer(weights: list[Tensor], gradients: list[Tensor]) -> Tensor:
    pooled = _pooled(gradients[-1])
    return _without_identity(weights, gradients) + nn.functional.one_hot(pooled, weights[0].shape[-1])


def _without_identity(weights: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """The pooled row of R - I; beside the 1 of I the pooled position's own share would be rounded off."""
    more = torch.zeros_like(weights[0][:, 0])
    for weight, gradient in zip(weights, gradients, strict=True):
        mean = (weight * gradient).clamp(min=0).mean(1)
        more = more + mean + mean @ more
    return more[torch.arange(len(more)), _pooled(gradients[-1])]


def _check_pooling(gradient: Tensor, tower: Tower) -> None:
    """Refuse a tower of which several queries of the last block count: the rule has one row to show."""
    if bool(((gradient.abs().sum((1, 3)) > 0).sum(-1) > 1).any()):
        raise ModelError(
            f"The {tower.side} tower pools more than one position, so chefer has no row to show: choose another method."
        )


def _pooled(gradient: Tensor) -> Tensor:
    """`(N,)` the pooled position: the only query of the last block on which the score depends."""
    return gradient.abs().sum((1, 3)).argmax(-1)


def attention_gradient(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layer: float | None = None,
    preset: str | None = None,
    memory: int | None = None,
) -> Attribution:
    """Mean over heads of `|dA|`, the size of the score's gradient by a block's attention weights, summed over queries.

    In the last block only the pooled query has a gradient. This is what the NIB paper's comparison calls SM
    (saliency map); it is not the saliency of Simonyan et al. Not negative, in units of the score.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layer: the block, by default the last.
        preset: "paper" adds the published min-max map.
        memory: budget in bytes.
    """

    def rule(_: list[Tensor], gradients: list[Tensor]) -> Tensor:
        return gradients[0].abs().mean(1).sum(1)

    return _attention(tower, inputs, target, rule, start=layer, preset=preset, memory=memory, shown="layer")


def attention_x_gradient(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layer: float | None = None,
    preset: str | None = None,
    memory: int | None = None,
) -> Attribution:
    """Mean over heads of `A * dA`, attention weights times the score's gradient by them, summed over queries; signed.

    This is what the NIB paper's comparison calls FastIG; it is not the X-gradient of that method.

    Args:
        tower, inputs, target, layer, preset, memory: see `attention_gradient`.
    """

    def rule(weights: list[Tensor], gradients: list[Tensor]) -> Tensor:
        return (weights[0] * gradients[0]).mean(1).sum(1)

    return _attention(tower, inputs, target, rule, start=layer, preset=preset, memory=memory, shown="layer")


def _attention(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    rule: Rule,
    *,
    start: float | None,
    preset: str | None,
    memory: int | None,
    shown: str,
) -> Attribution:
    """Apply a rule to the blocks from `start`: one block where the option is a `layer`, else all to the last."""
    first = tower.resolve(-2 if start is None else start)
    if first == tower.depth:
        raise OptionError(f"{shown}={start} is the last block's output: give a block, 0 to {tower.depth - 1}.")
    blocks = [first] if shown == "layer" else list(range(first, tower.depth))
    split = tower.split(inputs, first)
    with attention_weights(tower, blocks) as seen:

        def kept(_: Tensor) -> list[Tensor]:
            return [seen[block] for block in blocks]

        def mapped(gradients: Sequence[Tensor], rows: Tensor) -> Tensor:
            weights = [w.detach().to(g.dtype) for w, g in zip(kept(rows), gradients, strict=True)]
            return rule(weights, list(gradients))

        scores, opened = in_one_pass(split, target, mapped, memory=memory, wanted=kept)
    options = tuple({shown: first} for _ in range(len(scores)))
    return Attribution(scores, opened, None, options, published=preset == "paper")


_OPTIONS: dict[str, Any] = {"memory": "memory budget in bytes"}
_PRESET = "the NIB paper's comparison, with its min-max map"

register(
    Method(
        name="chefer",
        title="Transformer relevance of Chefer et al.",
        paper="Chefer et al., Generic Attention-model Explainability, ICCV 2021 (arXiv:2103.15679)",
        function=chefer,
        options={"start_layer": "first block that counts: 0 for all, -2 for the last alone", **_OPTIONS},
        presets={"paper": f"{_PRESET}: the last block alone"},
        units="",
        signed=False,
        needs_attention=True,
    )
)
register(
    Method(
        name="attention-gradient",
        title="Gradient of the attention weights",
        paper='What Zhu et al. (ICLR 2025) compare with as "SM"',
        function=attention_gradient,
        options={"layer": "the block, by default the last (-2)", **_OPTIONS},
        presets={"paper": _PRESET},
        signed=False,
        needs_attention=True,
    )
)
register(
    Method(
        name="attention-x-gradient",
        title="Attention weights times their gradient",
        paper='What Zhu et al. (ICLR 2025) compare with as "FastIG"',
        function=attention_x_gradient,
        options={"layer": "the block, by default the last (-2)", **_OPTIONS},
        presets={"paper": _PRESET},
        needs_attention=True,
    )
)
