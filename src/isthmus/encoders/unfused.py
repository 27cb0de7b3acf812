"""Attention whose queries, keys and values come of one matrix, run as separate maps while methods read them.

`torch.nn.MultiheadAttention`, and modules of timm and open_clip, multiply by one matrix and give no weights that a
gradient passes. While a method reads them, a module stands in that computes the same by separate maps over the same
numbers. It is used only where it was seen to give what the model's own gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.running import Call

# What the modules are called with, behind the states.
_OF_TORCH = ("key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal")
_OF_OTHERS = ("attn_mask",)
_OUTPUTS = ("out_proj", "proj")
_HALF = (torch.float16, torch.bfloat16)


class Maps(nn.Module):
    """Self-attention by separate maps."""

    def __init__(self, query: nn.Linear, key: nn.Linear, value: nn.Linear, output: nn.Linear, heads: int) -> None:
        """Keep the maps and the number of heads."""
        super().__init__()
        self.query, self.key, self.value, self.output, self.num_heads = query, key, value, output, heads

    def forward(self, states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """States `(N, T, d)` and weights `(N, heads, T, T)`, of states and what is added to the logits by a mask."""
        queries, keys, values = (
            found(states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for found in (self.query, self.key, self.value)
        )
        logits = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
        weights = (logits if mask is None else logits + mask).softmax(-1)
        return self.output((weights @ values).transpose(1, 2).flatten(2)), weights


class Unfused(nn.Module):
    """Stands in for a module whose maps are one matrix; its parameters stay where they are."""

    def __init__(self, fused: nn.Module, maps: Maps) -> None:
        """Keep the module, whose parameters go on to be the model's, and its maps."""
        super().__init__()
        self.fused, self.maps = fused, maps
        self._of_torch = isinstance(fused, nn.MultiheadAttention)
        self._turned = self._of_torch and not fused.batch_first

    def forward(self, states: Tensor, *others: Any, **keywords: Any) -> Any:
        """What the module itself gives, with weights where it has a place for them.

        Raises:
            TypeError: it is given something that separate maps do not follow.
        """
        known = _OF_TORCH if self._of_torch else _OF_OTHERS
        given = dict(zip(known, others, strict=False)) | keywords
        own = states.transpose(0, 1) if self._turned else states
        mask = _added(given.pop("attn_mask", None), given.pop("key_padding_mask", None), own)
        if any(value is not None and value is not False and name not in known for name, value in given.items()):
            raise TypeError(f"Separate maps do not follow {', '.join(given)}.")
        found, weights = self.maps(own, mask)
        found = found.transpose(0, 1) if self._turned else found
        return (found, weights) if self._of_torch else found


def _added(mask: Tensor | None, padding: Tensor | None, states: Tensor) -> Tensor | None:
    """What masks add to the logits, `(1 or N, 1, T, T)`.

    Args:
        mask: `(T, T)`, or `(N x heads, T, T)`, the same for all heads; numbers, or True where nothing passes.
        padding: `(N, T)`, likewise.
        states: `(N, T, d)`.
    """
    found = None
    if mask is not None:
        mask = _numbers(mask, states)
        found = mask[None, None] if mask.ndim == 2 else mask.view(len(states), -1, *mask.shape[-2:])[:, :1]
    if padding is not None:
        closed = _numbers(padding, states)[:, None, None]
        found = closed.expand(-1, -1, states.shape[1], -1) if found is None else found + closed
    return found


def _numbers(mask: Tensor, states: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=states.dtype).masked_fill_(mask, -torch.inf)
    return mask.to(states.dtype)


def unfused(module: nn.Module) -> Unfused | None:
    """What may stand in for a module, None where it has not one matrix for queries, keys and values."""
    matrix, bias = getattr(module, "in_proj_weight", None), getattr(module, "in_proj_bias", None)
    if isinstance(together := getattr(module, "qkv", None), nn.Linear):
        matrix, bias = together.weight, together.bias
    output = next((one for name in _OUTPUTS if isinstance(one := getattr(module, name, None), nn.Linear)), None)
    heads = getattr(module, "num_heads", None)
    if not isinstance(matrix, Tensor) or output is None or not isinstance(heads, int) or matrix.shape[0] % 3:
        return None
    biases = (None,) * 3 if bias is None else bias.detach().chunk(3)
    query, key, value = (_linear(weight, one) for weight, one in zip(matrix.detach().chunk(3), biases, strict=True))
    return Unfused(module, Maps(query, key, value, output, heads))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear map over numbers of another module, none of which become its parameters."""
    found = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    del found.weight, found.bias
    found.weight, found.bias = weight, bias  # type: ignore[assignment]
    return found


def agrees(other: Unfused, call: Call) -> bool:
    """Whether what stands in for a module gives what the module itself gave, on what it read."""
    count = len(call.arguments) - len(call.keywords)
    keywords = dict(zip(call.keywords, call.arguments[count:], strict=True))
    with torch.no_grad():
        try:
            output = other(*call.arguments[:count], **keywords)
        except (RuntimeError, TypeError):  # it takes something else
            return False
    found = output[0] if isinstance(output, tuple) else output
    if found.shape != call.gave.shape:
        return False
    error = (found.float() - call.gave.float()).norm() / call.gave.float().norm()
    return bool(error < (0.02 if found.dtype in _HALF else 1e-4))
