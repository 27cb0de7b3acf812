"""A snapshot of everything that an explanation must leave as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def snapshot(model: Any) -> dict[str, Any]:
    """Hooks, modules, forwards, flags, gradients and the RNG of a model."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "modules": {name: id(module) for name, module in model.named_modules()},
        "hooks": {name: [len(getattr(m, h)) for h in hooks] for name, m in model.named_modules()},
        "forwards": {name: "forward" in vars(m) for name, m in model.named_modules()},
        "training": {name: m.training for name, m in model.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "grad": {name: p.grad is None for name, p in model.named_parameters()},
        "values": {name: p.detach().float().sum().item() for name, p in model.named_parameters()},
        "attention": [getattr(getattr(m, "config", None), "_attn_implementation", None) for m in model.modules()],
        "rng": torch.get_rng_state().tolist(),
        "grad_mode": torch.is_grad_enabled(),
    }


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Assert that a block leaves a model as it was."""
    before = snapshot(model)
    try:
        yield
    finally:
        after = snapshot(model)
        for key, value in before.items():
            assert after[key] == value, f"{key} changed"
