"""How many replacements of a hidden state a memory budget holds."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from conftest import ROOT
from isthmus.encoders.memory import rows_at_once
from isthmus.encoders.split import Split
from isthmus.methods.path import StraightPath

sys.path.append(str(ROOT / "benchmarks"))
models: Any = importlib.import_module("speed_models")

SHAPE = models.SHAPES["tiny"]


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def encoder(request: pytest.FixtureRequest) -> Any:
    return models.encoder_of(models.clip(SHAPE, attention=request.param), SHAPE)


def split_of(encoder: Any, layer: int, count: int = 1) -> Split:
    inputs, _, _ = encoder.processing.pictures(models.pairs_of(SHAPE, count).pictures)
    split: Split = encoder.image.split(inputs, layer)
    return split


def allocated_at_most(path: StraightPath, rows: int) -> int:
    """The most bytes of tensors that were alive at once while slopes of so many rows were taken."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        path.slopes(torch.linspace(0.1, 1, rows), torch.zeros(rows, dtype=torch.long))
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@pytest.mark.parametrize("layer", [0, 2, 3, 4])
def test_rows_that_fit_the_budget_do_fit(encoder: Any, layer: int) -> None:
    """Tensors alone must leave room for what an allocator loses, and must use the budget's better part."""
    budget = 24 << 20
    split = split_of(encoder, layer)
    target = torch.nn.functional.normalize(split.embedding, dim=-1)
    path = StraightPath(split, torch.zeros_like(split.hidden), target, memory=budget)
    used = allocated_at_most(path, rows_at_once(split, budget, narrow=True))
    assert used < 0.9 * budget
    assert used > (0.4 if layer < 4 else 0.1) * budget


def test_attention_weights_count_where_they_are_kept() -> None:
    fused, kept = (
        rows_at_once(split_of(models.encoder_of(models.clip(SHAPE, attention=name), SHAPE), 0), 64 << 20)
        for name in ("sdpa", "eager")
    )
    assert kept < fused


def test_the_inputs_of_a_large_batch_take_their_share(encoder: Any) -> None:
    budget = 1 << 20
    assert rows_at_once(split_of(encoder, 3, 16), budget) < rows_at_once(split_of(encoder, 3), budget)
    assert rows_at_once(split_of(encoder, 3, 16), 1) == 1
