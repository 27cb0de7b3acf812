"""Attention of one matrix, run as separate maps, is itself; and blocks may pass states with the sequence first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cheap import CHEAP
from isthmus.encoders.finding import parts_of
from isthmus.encoders.layout import image_layout
from isthmus.encoders.parts import Attention
from isthmus.encoders.positions import patches_of
from isthmus.encoders.tower import Tower
from isthmus.encoders.unfused import unfused
from isthmus.errors import IsthmusError
from isthmus.methods import METHODS
from state import untouched
from zoo import random_model


class Block(nn.Module):
    def __init__(self, sequence_first: bool) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attn = nn.MultiheadAttention(12, 3, batch_first=not sequence_first)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))

    def forward(self, state: Tensor) -> Tensor:
        own = self.norm(state)
        state = state + self.attn(own, own, own, need_weights=False)[0]
        return state + self.mlp(self.norm2(state))


class Eyes(nn.Module):
    """A small vision transformer on torch's own attention."""

    def __init__(self, sequence_first: bool) -> None:
        super().__init__()
        self.sequence_first = sequence_first
        self.conv = nn.Conv2d(3, 12, 4, stride=4)
        self.first = nn.Parameter(torch.zeros(1, 1, 12))
        self.positions = nn.Parameter(torch.zeros(1, 13, 12))
        self.blocks = nn.ModuleList(Block(sequence_first) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        state = self.conv(pixels).flatten(2).transpose(1, 2)
        state = torch.cat([self.first.expand(len(state), -1, -1), state], 1)
        state = state + self.positions[:, : state.shape[1]]
        state = state.transpose(0, 1) if self.sequence_first else state
        for block in self.blocks:
            state = block(state)
        return self.head(self.norm(state[0] if self.sequence_first else state[:, 0]))


def tower_of(sequence_first: bool, *, found: bool = True) -> Tower:
    model = random_model(lambda: Eyes(sequence_first))

    def encode(inputs: Any) -> Tensor:
        return model(inputs["pixel_values"])

    if not found:
        stem, attention = (model, "conv"), Attention.in_one("attn")
        more = {"stem_input": "pixel_values", "stem": stem, "attention": attention, "sequence_first": sequence_first}
        return Tower("image", model, encode, model, "blocks", **more)
    with torch.no_grad():
        parts = parts_of(model, encode, inputs_of(1), side="image", entering="pixel_values")
        assert patches_of(encode, inputs_of(1), parts, entering="pixel_values").before == 1
    return parts.tower("image", model, encode, stem_input="pixel_values")


def inputs_of(batch: int = 2) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(batch, 3, 12, 16, generator=torch.Generator().manual_seed(1))}


TARGET = nn.functional.normalize(torch.randn(2, 5, generator=torch.Generator().manual_seed(2)), dim=-1)


def scores(tower: Tower, method: str) -> Tensor:
    one = METHODS[method]
    options: dict[str, Any] = {k: v for k, v in CHEAP.get(method, {}).items() if not isinstance(v, dict)}
    options |= {"layouts": [image_layout((3, 4), patch=4)] * 2} if one.needs_layouts else {}
    bank = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    options |= {"bank": nn.functional.normalize(bank, dim=-1)} if one.needs_bank else {}
    options |= {"samples": 12} if method == "banzhaf" else {}
    found: Tensor = one.function(tower, inputs_of(), TARGET, **options).scores
    return found


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", ["none", "causal", "bool", "of each head"])
def test_separate_maps_give_what_the_module_gives(batch_first: bool, mask: str) -> None:
    module = random_model(lambda: nn.MultiheadAttention(12, 3, batch_first=batch_first))
    own = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(0))
    own = own if batch_first else own.transpose(0, 1)
    causal = torch.full((7, 7), -torch.inf).triu_(1)
    masks = {"none": None, "causal": causal, "bool": causal < 0, "of each head": causal.expand(6, 7, 7)}
    expected, weights = module(own, own, own, attn_mask=masks[mask], average_attn_weights=False)
    other = unfused(module)
    assert other is not None
    found, of_maps = other(own, own, own, attn_mask=masks[mask], need_weights=False)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(of_maps, weights, rtol=1e-5, atol=1e-6)
    assert [id(p) for p in other.parameters()] == [id(p) for p in module.parameters()]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("positional", [True, False])
def test_padding_is_left_out(batch_first: bool, positional: bool) -> None:
    module = random_model(lambda: nn.MultiheadAttention(12, 3, batch_first=batch_first))
    own = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(0))
    own = own if batch_first else own.transpose(0, 1)
    padding = torch.arange(7) >= torch.tensor([[7], [4]])
    causal = torch.ones(7, 7, dtype=torch.bool).triu_(1)
    given = (own, own, padding, True, causal) if positional else (own, own)
    more = {} if positional else {"key_padding_mask": padding, "attn_mask": causal}
    expected, weights = module(own, *given, average_attn_weights=False, **more)
    other = unfused(module)
    assert other is not None
    found, of_maps = other(own, *given, average_attn_weights=False, **more)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(of_maps, weights, rtol=1e-5, atol=1e-6)


def test_what_separate_maps_do_not_follow_is_an_error() -> None:
    module = unfused(nn.MultiheadAttention(12, 3, batch_first=True))
    assert module is not None
    with pytest.raises(TypeError, match="do not follow rope"):
        module(torch.zeros(1, 3, 12), rope=torch.zeros(3, 4))


def test_other_modules_have_no_such_matrix() -> None:
    assert unfused(nn.Linear(3, 9)) is None
    assert unfused(nn.MultiheadAttention(12, 3, kdim=5, vdim=5)) is None


@pytest.mark.parametrize("sequence_first", [True, False])
@pytest.mark.parametrize("layer", range(4))
def test_a_tower_is_cut_in_either_order(sequence_first: bool, layer: int) -> None:
    tower = tower_of(sequence_first)
    assert tower.sequence_first == sequence_first
    assert tower.attention == Attention.in_one("attn")
    split = tower.split(inputs_of(), layer)
    assert split.hidden.shape == (2, 13, 12)
    torch.testing.assert_close(split.hidden, tower_of(not sequence_first).split(inputs_of(), layer).hidden)
    torch.testing.assert_close(split.resume(split.hidden), split.embedding, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", sorted(name for name, one in METHODS.items() if "image" in one.sides))
def test_every_method_gives_one_map_in_either_order(method: str) -> None:
    first, other, by_hand = tower_of(True), tower_of(False), tower_of(True, found=False)
    try:
        expected = scores(other, method)
    except IsthmusError as error:  # no reference set, no pixels' limits
        with pytest.raises(type(error)):
            scores(first, method)
        return
    with untouched(first.model):
        found = scores(first, method)
    size = expected.abs().max()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5 * float(size))
    torch.testing.assert_close(scores(by_hand, method), found, rtol=0, atol=0)
