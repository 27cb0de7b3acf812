"""Rewrites: other weights of a transformers CLIP with which it computes the same function.

They are what implementation invariance is measured with (Sundararajan et al., ICML 2017, section 2.2): two networks
whose outputs are equal for all inputs must get equal maps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_FACTOR, _SHIFT = 3.0, 0.5


def rewrite(model: Any, name: str, *, seed: int = 0) -> None:
    """Rewrite both towers of a transformers CLIP in place; see `REWRITES` for the names.

    Raises:
        KeyError: no such rewrite.
    """
    generator = torch.Generator().manual_seed(seed)
    change = REWRITES[name]
    with torch.no_grad():
        for tower in (model.vision_model, model.text_model):
            for block in tower.encoder.layers:
                change(block, generator)
        if change is _residual:
            _grow_entrance(model)


def _mixing(attention: Any, generator: torch.Generator) -> Tensor:
    """`(H, c, c)` well-conditioned matrices for the heads of a block."""
    heads, width, kind = attention.num_heads, attention.head_dim, attention.q_proj.weight
    drawn = torch.randn(heads, width, width, generator=generator, dtype=torch.float64)
    sizes = 0.5 + 2.5 * torch.rand(heads, width, 1, generator=generator, dtype=torch.float64)
    mixing: Tensor = sizes * torch.linalg.qr(drawn).Q
    return mixing.to(kind)


def _mix_outputs(linear: Any, matrices: Tensor) -> None:
    """Multiply what a projection gives each head."""
    heads, width, _ = matrices.shape
    linear.weight.copy_((matrices @ linear.weight.view(heads, width, -1)).flatten(0, 1))
    linear.bias.copy_((matrices @ linear.bias.view(heads, width, 1)).flatten())


def _queries_and_keys(block: Any, generator: torch.Generator) -> None:
    matrices = _mixing(block.self_attn, generator)
    _mix_outputs(block.self_attn.q_proj, matrices)
    _mix_outputs(block.self_attn.k_proj, torch.linalg.inv(matrices).transpose(1, 2))


def _values(block: Any, generator: torch.Generator) -> None:
    matrices = _mixing(block.self_attn, generator)
    _mix_outputs(block.self_attn.v_proj, matrices)
    out = block.self_attn.out_proj.weight
    apart = out.view(len(out), *matrices.shape[:2]).transpose(0, 1)
    out.copy_((apart @ torch.linalg.inv(matrices)).transpose(0, 1).flatten(1))


def _heads(block: Any, _: torch.Generator) -> None:
    attention = block.self_attn
    order = torch.arange(attention.embed_dim).view(attention.num_heads, -1).roll(1, 0).flatten()
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
        linear.weight.copy_(linear.weight[order].clone())
        linear.bias.copy_(linear.bias[order].clone())
    attention.out_proj.weight.copy_(attention.out_proj.weight[:, order].clone())


def _hidden_units(block: Any, generator: torch.Generator) -> None:
    order = torch.randperm(block.mlp.fc1.out_features, generator=generator)
    block.mlp.fc1.weight.copy_(block.mlp.fc1.weight[order].clone())
    block.mlp.fc1.bias.copy_(block.mlp.fc1.bias[order].clone())
    block.mlp.fc2.weight.copy_(block.mlp.fc2.weight[:, order].clone())


def _norms(block: Any, _: torch.Generator) -> None:
    attention = block.self_attn
    for norm, behind in (
        (block.layer_norm1, (attention.q_proj, attention.k_proj, attention.v_proj)),
        (block.layer_norm2, (block.mlp.fc1,)),
    ):
        for linear in behind:
            linear.bias.add_(linear.weight @ norm.bias)
            linear.weight.mul_(norm.weight)
        norm.weight.fill_(1.0)
        norm.bias.zero_()


def _residual(block: Any, _: torch.Generator) -> None:
    for linear in (block.self_attn.out_proj, block.mlp.fc2):
        linear.weight.mul_(_FACTOR)
        linear.bias.mul_(_FACTOR).add_(_SHIFT)
    for norm in (block.layer_norm1, block.layer_norm2):
        norm.eps *= _FACTOR**2


def _grow_entrance(model: Any) -> None:
    norm, embeddings = model.vision_model.pre_layrnorm, model.text_model.embeddings
    for weight in (norm.weight, norm.bias, embeddings.token_embedding.weight, embeddings.position_embedding.weight):
        weight.mul_(_FACTOR)
    for last in (model.vision_model.post_layernorm, model.text_model.final_layer_norm):
        last.eps *= _FACTOR**2


# Each head's queries are multiplied by an invertible matrix and its keys by the inverse, transposed; its values and the
# output projection likewise. Heads and hidden units change their order. Each LayerNorm's weight and bias move into the
# linear maps behind it. The residual stream is three times as large, which the next LayerNorm takes back (its epsilon
# grows with it), and is shifted by a constant, which that does not see.
REWRITES: dict[str, Callable[[Any, torch.Generator], None]] = {
    "queries and keys": _queries_and_keys,
    "values": _values,
    "heads": _heads,
    "hidden units": _hidden_units,
    "norms": _norms,
    "residual": _residual,
}
