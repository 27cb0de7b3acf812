"""Attention with one map for queries, keys and values (BLIP's pictures) is read as attention with three."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from torch import Tensor, nn

import isthmus
import zoo
from conftest import picture
from isthmus.methods import METHODS
from test_invariants import close


class Apart(nn.Module):
    """BLIP's attention with three maps in place of one."""

    def __init__(self, fused: Any) -> None:
        super().__init__()
        width = fused.embed_dim
        self.num_heads = fused.num_heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        for i, linear in enumerate((self.q_proj, self.k_proj, self.v_proj)):
            linear.weight.data = fused.qkv.weight.data[i * width : (i + 1) * width].clone()
            linear.bias.data = fused.qkv.bias.data[i * width : (i + 1) * width].clone()
        self.projection = fused.projection

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        queries, keys, values = (
            linear(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        weights = (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(-1)
        return self.projection((weights @ values).transpose(1, 2).flatten(2)), weights


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    built = zoo.ZOO["blip"]()
    model = copy.deepcopy(built.model)
    for block in model.vision_model.encoder.layers:
        block.self_attn = Apart(block.self_attn)
    processor = {"image_processor": built.image_processor, "tokenizer": built.tokenizer}
    return isthmus.load(built.model, processor=processor), isthmus.load(model, processor=processor)


def test_both_are_found(both: tuple[Any, Any]) -> None:
    fused, apart = (one.image.attention for one in both)
    assert fused.fused
    assert not apart.fused
    assert (fused.module, fused.output) == (apart.module, apart.output)


@pytest.mark.parametrize("method", sorted(name for name, one in METHODS.items() if one.needs_attention))
def test_the_maps_are_the_same(both: tuple[Any, Any], method: str) -> None:
    shown = [picture(0), picture(1)]
    found, expected = (isthmus.explain(one, shown, "a dog", method=method, sides="image") for one in both)
    for one, other in zip(found, expected, strict=True):
        assert one.image.scores.any()
        close(one, other, 1e-5)
