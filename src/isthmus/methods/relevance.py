"""Attention-aware layer-wise relevance propagation: AttnLRP.

Relevance is handed back from the score to the inputs, layer by layer, each by a rule of its own. With the epsilon rule
at epsilon -> 0, a linear map hands relevance R_o of its outputs to its inputs x as `x * W'(R_o / o)`. Kept as the
ratio `g = R / x`, relevance is then a gradient, and the rules are changes to the backward pass:

    linear maps, residual sums     the gradient itself
    activation f                   g_x = g f(x) / x: what comes out goes in (identity rule)
    LayerNorm                      the standard deviation is a constant (identity rule); the mean is not
    product of weights and values  half to each: g / 2 at the values
    softmax                        the gradient itself (its first-order expansion)
    product of queries and keys    half to each: with the half above g / 4 at the queries and at the keys
    the cosine                     the embedding's length is a constant

The model's forward pass is untouched: hooks give the same values with another gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.anatomy import attention_of
from isthmus.encoders.attention import attention_in, maps_apart
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Inputs, Tower, accumulator, unit
from isthmus.errors import ModelError
from isthmus.methods.registry import Attribution, Method, register

_SHARES = {"query": 0.25, "key": 0.25, "value": 0.5}
_HALF_SCALES = (1024.0, 1.0)  # in half precision small gradients would be rounded off, and large ones overflow


def attnlrp(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layer: float = 0,
    memory: int | None = None,
) -> Attribution:
    """AttnLRP (Achtibat et al., ICML 2024, section 3), with the epsilon rule on linear maps, at epsilon -> 0.

    The score of a position is the sum over channels of `h * g`, with h the hidden state at a layer and g the gradient
    under the rules that head this module. Scores are signed, and in units of the score.

    Attention behind the blocks, such as a head that pools by it, has no rule: it keeps its gradient; a note says so.

    They do not sum to the score. Each bias (of linear maps and LayerNorms) keeps its share of the relevance, and so
    does softmax, whose expansion has a constant term. Without biases and without attention the sum is exact.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layer: the state that relevance is handed to, by default 0, where words and patches have not mixed yet.
        memory: budget in bytes.

    Raises:
        OptionError: there is no such layer.
        ModelError: a block lacks a projection, or an activation module.
    """
    split = tower.split(inputs, layer)
    device, dtype = split.hidden.device, accumulator(split.hidden.dtype)
    scores, opened = torch.empty(split.hidden.shape[:2], device=device, dtype=dtype), unit(split.embedding)
    target = target.to(opened)
    with _rules(tower, range(split.layer, tower.depth)) as behind:

        def run(part: slice) -> None:
            gradient = _gradient(split, torch.arange(part.start, part.stop, device=device), target)
            scores[part] = (split.hidden[part].to(dtype) * gradient).sum(-1)

        in_chunks(run, len(scores), rows_at_once(split, memory))
    notes = tuple(f"{name}, behind the blocks, hands its plain gradient back" for name in sorted(behind))
    options = tuple({"layer": split.layer} for _ in scores)
    return Attribution(scores, (opened * target).sum(-1), None, options, notes=(notes,) * len(scores))


def _gradient(split: Split, rows: Tensor, target: Tensor) -> Tensor:
    """`(N, T, d)` gradient of the score by the hidden state, the embedding's length held; float32 or better."""
    kept: Tensor | None = None
    for scale in _HALF_SCALES if split.embedding.dtype == torch.float16 else (1.0,):
        state = split.hidden[rows].detach().requires_grad_(True)
        with torch.enable_grad():
            embedding = split.resume(state, rows).to(target.dtype)
            length = embedding.norm(dim=-1, keepdim=True).detach()
            (found,) = torch.autograd.grad((embedding / length * target[rows]).sum() * scale, state)
        found = found.to(target.dtype) / scale
        fine = None if kept is None else torch.isfinite(kept).flatten(1).all(1)[:, None, None]
        kept = found if kept is None or fine is None else torch.where(fine, kept, found)
        if bool(torch.isfinite(kept).all()):
            break
    assert kept is not None
    return kept


@contextmanager
def _rules(tower: Tower, layers: Sequence[int]) -> Iterator[set[str]]:
    """Within it, the tower gives its own values with the gradients of the rules.

    Yields:
        Kinds of attention that ran behind the blocks, such as a head that pools by it; they have no rule.
    """
    behind: set[str] = set()
    with maps_apart(tower, layers), ExitStack() as stack:
        inside = {id(module) for module in tower.blocks.modules()}
        for module in tower.model.modules():
            if isinstance(module, nn.LayerNorm):
                stack.callback(module.register_forward_hook(_normalised).remove)
            elif "attention" in type(module).__name__.lower() and id(module) not in inside:
                stack.callback(module.register_forward_hook(_seen_in(behind)).remove)
            elif _holds_nothing(module) and not isinstance(module, nn.Softmax) and id(module) not in inside:
                stack.callback(module.register_forward_hook(_activated_behind).remove)
        _check_norms(tower)
        for layer in layers:
            attention = attention_of(tower, layer)
            for module in _activations(tower, layer):
                stack.callback(module.register_forward_hook(_activated).remove)
            for linear, names in attention.projections:
                stack.callback(linear.register_forward_hook(_shared([_SHARES[name] for name in names])).remove)
        yield behind


def _seen_in(behind: set[str]) -> Any:
    def hook(module: nn.Module, _: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor) and first.requires_grad:  # else it ran before the state that relevance goes to
            behind.add(type(module).__name__)

    return hook


def _check_norms(tower: Tower) -> None:
    """Refuse blocks whose states are scaled by something that the rules do not know."""
    for module in tower.blocks.modules():
        if "norm" in type(module).__name__.lower() and not isinstance(module, nn.LayerNorm):
            raise ModelError(
                f"The blocks of the {tower.side} tower hold {type(module).__name__}, for which AttnLRP has no rule "
                "here: choose another method."
            )


def _activations(tower: Tower, layer: int) -> list[nn.Module]:
    """The modules of a block that hold nothing: its activation, and such as change nothing; but those of attention."""
    block, (_, attention) = tower.blocks[layer], attention_in(tower, layer)
    apart = {id(module) for module in attention.modules()}
    found = [module for module in block.modules() if _holds_nothing(module) and id(module) not in apart]
    if all(isinstance(module, (nn.Dropout, nn.Identity)) for module in found):
        raise ModelError(
            f"Block {layer} of the {tower.side} tower has no activation module, which AttnLRP needs: choose another "
            "method."
        )
    return found


def _holds_nothing(module: nn.Module) -> bool:
    return not list(module.children()) and not list(module.parameters())


def _as(output: Tensor, proxy: Tensor) -> Tensor:
    """The value of the output, to the last bit, with the gradient of the proxy."""
    return output.detach() + (proxy - proxy.detach()).to(output.dtype)


def _normalised(module: nn.LayerNorm, args: tuple[Any, ...], output: Tensor) -> Tensor:
    state = args[0].to(accumulator(args[0].dtype))
    axes = tuple(range(-len(module.normalized_shape), 0))
    centred = state - state.mean(axes, keepdim=True)
    scale = (centred.square().mean(axes, keepdim=True) + module.eps).rsqrt().detach()
    return _as(output, centred * scale if module.weight is None else centred * scale * module.weight)


def _activated(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    state, given = (one.to(accumulator(one.dtype)) for one in (args[0], output))
    ratio = torch.where(state == 0, 0.0, given / state).detach()
    return _as(output, state * ratio)


def _activated_behind(module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor | None:
    """The rule for what works value by value behind the blocks, such as the tanh of BERT's pooler."""
    alike = isinstance(output, Tensor) and len(args) == 1 and args[0].shape == output.shape
    return _activated(module, args, output) if alike and args[0].requires_grad else None


def _shared(shares: Sequence[float]) -> Any:
    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        parts = zip(shares, output.chunk(len(shares), dim=-1), strict=True)
        return _as(output, torch.cat([share * part for share, part in parts], dim=-1))

    return hook


register(
    Method(
        name="attnlrp",
        title="AttnLRP",
        paper="Achtibat et al., AttnLRP, ICML 2024 (arXiv:2402.05602)",
        function=attnlrp,
        options={
            "layer": "the state that relevance is handed to: 0..depth, by default 0",
            "memory": "memory budget in bytes",
        },
        needs_attention=True,
    )
)
