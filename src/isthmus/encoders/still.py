"""Holds a model still while it runs: its mode, its parameters and the other threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from isthmus.encoders.weights import lock_of


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Within it, the model is in eval mode with parameters that take no gradient, one thread at a time."""
    device = next(model.parameters()).device.type
    with lock_of(model), torch.inference_mode(False), torch.autocast(device, enabled=False):
        training = [module for module in model.modules() if module.training]
        learning = [p for p in model.parameters() if p.requires_grad]
        try:
            model.eval()
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
        finally:
            for module in training:
                module.training = True
            for parameter in learning:
                parameter.requires_grad_(True)
